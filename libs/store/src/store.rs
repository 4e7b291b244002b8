//! The contract of every store.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tao_model::{
    ClusterInfo, Edge, EdgeKey, EdgeTime, LogId, ObjectId, Position, Result, ShardId, ShardSet, TypeId, Write,
    WriteOutcome,
};
use tao_stream::{History, Piece, Ring};
use tao_trace::TraceContext;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::open::OpenError;

/// A value and the log's position, from one snapshot: the value equals the state at that position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf<T> {
    /// Where.
    pub position: Position,
    /// What.
    pub value: T,
}

/// A list's count and its newest edges, newest first: as many as were asked for, or fewer when they are large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHead {
    /// All edges of the list.
    pub count: u64,
    /// The newest.
    pub edges: Vec<Edge>,
}

/// A stretch of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePage {
    /// As many as were asked for, or fewer when they are large.
    pub edges: Vec<Edge>,
    /// Whether more follow.
    pub more: bool,
}

/// Which stretch of a list.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// The list's object.
    pub id1: ObjectId,
    /// The list's type.
    pub atype: TypeId,
    /// Only edges after this one.
    pub after: Option<EdgeKey>,
    /// Edges to skip.
    pub offset: u64,
    /// Edges at the most.
    pub limit: usize,
    /// Only edges of this time or later.
    pub low: EdgeTime,
    /// Only edges of this time or earlier.
    pub high: EdgeTime,
}

impl Scan {
    /// What (time, id2) of its edges lie below. One bound for both `after` and `high`, so that an index is entered at the right place.
    pub(crate) fn below(&self) -> (i64, i64) {
        let newest = (i64::from(self.high) + 1, 0);
        self.after.map_or(newest, |key| newest.min((i64::from(key.time), key.id2.get())))
    }
}

/// What one write has left to do in another log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredIntent {
    /// Its place among the intents of this log.
    pub position: Position,
    /// The logical shard in which it is to be done.
    pub shard: ShardId,
    /// See [`tao_proto::intents`].
    pub payload: Bytes,
}

/// Intents, and from the same snapshot the place of the last that this log has made, wherever it goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntentPage {
    /// The last of all.
    pub head: Position,
    /// In order, without holes among those that were asked for.
    pub intents: Vec<StoredIntent>,
}

/// Intents that are not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IntentsWaiting {
    /// How many.
    pub count: u64,
    /// When the oldest was made, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

/// What comes with a write.
#[derive(Debug, Clone, Default)]
pub struct WriteContext {
    /// A write with the same key gets the first one's outcome.
    pub idempotency_key: Option<String>,
    /// A write that was not begun by then is not done.
    pub deadline: Option<Instant>,
    /// Which span it belongs to.
    pub trace: TraceContext,
}

/// A database with its log. Several processes may have one open. What lies on a shard that is not served from it is
/// [`tao_model::Error::WrongShard`]. Answers are cut at about [`tao_model::limits::MAX_ANSWER`] bytes.
#[async_trait]
pub trait Store: History {
    /// What the database belongs to.
    fn info(&self) -> ClusterInfo;
    /// What traces call the database, after OpenTelemetry's conventions.
    fn system(&self) -> &'static str;
    /// Encoded tao.v1.Objects, in the order of `ids`.
    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<Vec<Option<Bytes>>>>;
    /// A list's count and its newest edges.
    async fn list(&self, id1: ObjectId, atype: TypeId, newest: usize) -> Result<AsOf<ListHead>>;
    /// A stretch of a list.
    async fn scan(&self, scan: Scan) -> Result<AsOf<EdgePage>>;
    /// Those of the edges to `id2s` that exist, in list order, within time bounds.
    async fn edges(
        &self,
        id1: ObjectId,
        atype: TypeId,
        id2s: &[ObjectId],
        low: EdgeTime,
        high: EdgeTime,
    ) -> Result<AsOf<EdgePage>>;
    /// Does a write, durably, or fails with an error that says whether it surely did not happen.
    async fn write(&self, write: Write, context: WriteContext) -> Result<WriteOutcome>;
    /// Ids that are never given again: ascending, of one shard.
    async fn allocate(&self, shard: Option<ShardId>, count: usize) -> Result<Vec<ObjectId>>;
    /// The oldest intents after a place that go to these shards, at most so many.
    async fn intents(&self, shards: &ShardSet, after: Position, limit: usize) -> Result<IntentPage>;
    /// Deletes the intents that go to these shards, up to one that is done.
    async fn delivered(&self, shards: &ShardSet, up_to: Position) -> Result<()>;
    /// How much is left to do in other logs.
    async fn intents_waiting(&self) -> Result<IntentsWaiting>;
    /// The last intent that this process has made.
    fn intents_made(&self) -> watch::Receiver<Position>;
    /// By other log, the last of its intents that this process has done.
    fn intents_done(&self) -> watch::Receiver<HashMap<LogId, Position>>;
    /// The log's end.
    async fn head(&self) -> Result<Position>;
    /// The log's newest changes, whoever made them, to be served to subscribers. Heartbeats in it are made only after the database
    /// has said where the log ends; streams are begun anew when the log goes on in another epoch.
    fn ring(&self) -> &Ring;
    /// Consecutive changes of the log from right after a position, about so many bytes and at least one, if there is one. The first
    /// piece may begin before the position. [`tao_model::Error::ChangesExpired`] when what follows is not kept any more, or is of
    /// another epoch; [`tao_model::Error::TokenFromFuture`] when the log ends before it.
    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<Vec<Piece>>;
    /// The oldest position that is kept and about at most so long ago, and not more than so many changes back.
    async fn log_position_back(&self, back: Duration, max_changes: u64) -> Result<Position>;
    /// Somebody has seen this position. Where the log ends before it, history was undone, and a new epoch begins. Gives the log's
    /// end; nothing happens when the log holds the position after all, or has gone on in a later epoch.
    async fn begin_epoch(&self, seen: Position) -> Result<Position>;
    /// Ends when a later version of tao has taken away from the database what this one needs, within seconds, with
    /// [`OpenError::Newer`]: then it is to be closed at once. Never ends otherwise.
    async fn outdated(&self) -> OpenError;
    /// Finishes what is queued, then closes.
    async fn close(&self);
}
