//! Durable storage: one log a database, group commit, reads that know their position. PostgreSQL and SQLite through sqlx, and memory
//! for simulations; all behind [`Store`], all passing [`conformance`].

mod backend;
mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod edges;
mod feed;
mod lane;
mod memory;
mod open;
mod postgres;
mod rows;
mod sqlite;
mod store;
mod working;

pub use feed::{Commit, Subscription};
pub use memory::{Dump, MemoryDatabase};
pub use open::{OpenError, OpenOptions, open};
pub use store::{AsOf, EdgePage, ListHead, Scan, Store, WriteContext};
