//! A whole graph in a folder: written from the databases as they were at one moment, and put back from there. Parts of one table each,
//! in key order; a manifest, written last, says what belongs together (docs/operations.md, ADR 0016).

mod backup;
mod check;
mod compare;
mod durable;
mod export;
mod import;
mod journal;
mod manifest;
mod part;
mod plan;
mod record;
mod restore;
mod throttle;

pub use backup::{BackupArgs, backup};
pub use export::{ExportArgs, export};
pub use import::{ImportArgs, import};
pub use restore::{RestoreArgs, restore};
