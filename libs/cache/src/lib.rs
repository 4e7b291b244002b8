//! The coherence rules (docs/consistency.md), once: for leaders, for followers' memory, and for Redis.

mod audit;
mod counts;
mod entry;
mod flight;
mod list;
mod memory;
mod reader;
mod redis;
mod sample;
pub mod stream;

pub use audit::{Audit, Inconsistency};
pub use entry::{Entry, Fresh, Mode};
pub use list::CachedList;
pub use memory::{CacheOptions, Gap, Lookup, MemoryCache};
pub use reader::{CachedReader, MIN_FETCHED, Read, Upstream};
pub use redis::{RedisCache, RedisError, SharedCache};
