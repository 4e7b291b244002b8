//! Durable storage: one log a database, group commit, reads that know their position. PostgreSQL and SQLite through sqlx, and memory
//! for simulations; all behind [`Store`], all passing [`conformance`].

mod atomic;
mod backend;
mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod direct;
mod draft;
mod edges;
mod epoch;
mod feed;
mod heartbeat;
mod housekeeping;
mod intents;
mod intents_sql;
mod jobs;
mod lane;
#[cfg(test)]
mod lane_tests;
#[cfg(any(test, feature = "conformance"))]
pub mod listener;
mod memory;
mod migrations;
mod open;
mod postgres;
mod rows;
mod servers;
mod shards;
mod sqlite;
mod stage;
mod store;
mod undo;
mod waiting;
mod working;

pub use memory::{Dump, Interference, MemoryDatabase, Snapshot};
pub use open::{OpenError, OpenOptions, open};
pub use store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan, Store, StoredIntent, WriteContext};
pub use waiting::open_when_reachable;
