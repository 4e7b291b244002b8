//! The storage shard: owns logical shards of one database, orders their writes, and feeds the change stream. The only tier that
//! touches SQL.

pub mod config;
mod entrance;
mod feed;
mod intents;
mod server;
mod service;

pub use config::Config;
pub use server::{RunError, run};
