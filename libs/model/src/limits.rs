//! Every limit of the public API, in one place. The proto comments state the same numbers.

/// Fields of one object or edge.
pub const MAX_FIELDS: usize = 256;
/// Bytes of a field's name.
pub const MAX_FIELD_NAME: usize = 128;
/// Bytes of an object's or edge's data: names and values, as encoded.
pub const MAX_DATA: usize = 64 * 1024;
/// Ids in one request.
pub const MAX_IDS: usize = 1_000;
/// Calls in one batch.
pub const MAX_BATCH: usize = 1_000;
/// Bytes of objects and edges that an atomic batch may write: as much as one commit takes.
pub const MAX_BATCH_DATA: usize = 2 * 1024 * 1024;
/// Edges in one answer, and edges that a cache keeps of a list.
pub const MAX_LIMIT: usize = 6_000;
/// Edges in one answer when the request does not say.
pub const DEFAULT_LIMIT: usize = 50;
/// Edges that a request may skip.
pub const MAX_OFFSET: u64 = 1_000_000;
/// Seconds that an edge's time may lie ahead of the storage shard's clock.
pub const MAX_TIME_AHEAD: u64 = 24 * 60 * 60;
/// Bytes of an answer.
pub const MAX_ANSWER: usize = 3 * 1024 * 1024;
/// Bytes of a request.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Bytes of a session token, as text.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Bytes of a cursor, as text.
pub const MAX_CURSOR: usize = 256;
/// Bytes of an idempotency key.
pub const MAX_IDEMPOTENCY_KEY: usize = 64;
/// Bytes of a shard key.
pub const MAX_SHARD_KEY: usize = 256;
/// Milliseconds of BOUNDED_STALENESS.
pub const MAX_STALENESS_MS: u64 = 3_600_000;
/// Milliseconds that an outcome is kept for its idempotency key.
pub const OUTCOME_TTL_MS: u64 = 24 * 60 * 60 * 1_000;
/// Milliseconds that a Watch may ask to begin back.
pub const MAX_SINCE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
