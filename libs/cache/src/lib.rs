//! The coherence rules (docs/consistency.md), once: for leaders, for followers' memory, and for Redis.

mod audit;
mod counts;
mod entries;
mod entry;
mod flight;
mod footprint;
mod frequency;
mod list;
mod memory;
mod part;
mod reader;
mod reads;
mod redis;
pub mod stream;
mod stream_cell;
mod table;

pub use audit::{Audit, Inconsistency};
pub use counts::Holdings;
pub use entry::{Entry, Fresh, Mode};
pub use list::CachedList;
pub use memory::{CacheOptions, Gap, Lookup, MemoryCache};
pub use reader::{CachedReader, MIN_FETCHED, Read, Upstream};
pub use redis::{RedisCache, RedisError, SharedCache};
#[doc(hidden)] // for tests/fuzz
pub use redis::{decode as decode_shared, encode as encode_shared};
