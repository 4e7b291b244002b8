//! The leader: coalesces misses, caps the work that reaches a storage shard, caches, forwards writes, and fans the change stream
//! out to followers. Correctness never depends on there being exactly one: the storage shard's log decides order.

pub mod config;
mod gate;
mod log;
mod server;
mod service;
mod upstream;

pub use config::Config;
pub use server::run;
