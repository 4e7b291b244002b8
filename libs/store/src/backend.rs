//! What the lane and the reads ask of a database.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tao_model::{AssocRef, EdgeTime, LogId, ObjectId, Position, ShardId, TypeId};

use crate::epoch::NewEpoch;
use crate::intents::{Delivered, IntentRow};
use crate::servers::{Beat, Server};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan};

/// Why the database did not do it. The driver's text goes to the log, never to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It can't be reached; nothing was done.
    Unreachable,
    /// It refused a statement; nothing was done.
    Refused,
    /// The connection broke during a commit: it may have happened.
    InDoubt,
}

/// A list's name.
pub(crate) type ListKey = (ObjectId, TypeId);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ObjectRow {
    pub otype: TypeId,
    pub version: i64,
    pub created_ms: u64,
    pub updated_ms: u64,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AssocRow {
    pub time: EdgeTime,
    pub data: Bytes,
}

/// A list's count, and the position of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CountRow {
    pub count: u64,
    pub last: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutcomeRow {
    pub fingerprint: i64,
    pub answer: Vec<u8>,
    pub expires_ms: u64,
}

/// Rows that a batch touches.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub objects: Vec<ObjectId>,
    /// Objects of which only the type matters.
    pub types: Vec<ObjectId>,
    pub assocs: Vec<AssocRef>,
    pub counts: Vec<ListKey>,
    pub outcomes: Vec<String>,
    /// Shards whose `ids_until` matters.
    pub shards: Vec<ShardId>,
    /// How many intents this log has made.
    pub intents: bool,
    /// Logs of whose intents it matters which are done here.
    pub done: Vec<LogId>,
}

/// Those of them that exist.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub objects: HashMap<ObjectId, ObjectRow>,
    pub types: HashMap<ObjectId, TypeId>,
    pub assocs: HashMap<AssocRef, AssocRow>,
    pub counts: HashMap<ListKey, CountRow>,
    pub outcomes: HashMap<String, OutcomeRow>,
    /// By shard, `ids_until`.
    pub shards: HashMap<ShardId, u64>,
    /// Intents that this log has made.
    pub intents: u64,
    /// The last intent of another log that is done here.
    pub done: HashMap<LogId, Position>,
}

/// What a batch writes, in key order. `None`: delete.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteBack {
    pub objects: BTreeMap<ObjectId, Option<ObjectRow>>,
    pub assocs: BTreeMap<AssocRef, Option<AssocRow>>,
    pub counts: BTreeMap<ListKey, CountRow>,
    /// Which of them had no row before: inserting what is new and updating what is there costs a database less than finding out.
    pub new: NewRows,
    pub outcomes: BTreeMap<String, OutcomeRow>,
    /// Milliseconds since 1970 up to which a shard's ids are leased.
    pub leases: BTreeMap<ShardId, u64>,
    /// In order.
    pub intents: Vec<IntentRow>,
    pub done: BTreeMap<LogId, Position>,
    /// Intents that are to be deleted.
    pub delivered: Option<Delivered>,
    pub log: Option<LogRow>,
}

/// Keys without a row before the batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewRows {
    pub objects: HashSet<ObjectId>,
    pub assocs: HashSet<AssocRef>,
    pub counts: HashSet<ListKey>,
}

impl WriteBack {
    pub fn is_empty(&self) -> bool {
        let has_rows = self.log.is_some() || !self.outcomes.is_empty() || !self.leases.is_empty();
        let has_intents = !self.intents.is_empty() || !self.done.is_empty() || self.delivered.is_some();
        !has_rows && !has_intents
    }
}

/// One commit's row in the log.
#[derive(Debug, Clone)]
pub(crate) struct LogRow {
    pub first: Position,
    pub last: Position,
    pub committed_ms: u64,
    pub payload: Bytes,
}

/// A logical shard as its row has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardRow {
    pub shard: ShardId,
    /// Whether it is served from this database.
    pub is_served: bool,
    /// Milliseconds since 1970 below which its ids may have been made.
    pub ids_until: u64,
}

/// The row that every commit moves: while it is the same, nobody has written anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Base {
    /// The log's end.
    pub head: Position,
    /// Counts commits, those that change nothing in the graph too, as when ids are leased.
    pub commits: i64,
    /// Moves whenever a row of `shards` comes, goes or changes its state.
    pub shards_version: i64,
}

impl Base {
    /// After a commit.
    pub fn after(self, write: &WriteBack) -> Self {
        let head = write.log.as_ref().map_or(self.head, |log| log.last);
        Self { head, commits: self.commits + 1, ..self }
    }
}

/// Where a transaction begins.
pub(crate) struct Begun {
    /// Held until the transaction ends.
    pub base: Base,
    pub transaction: Box<dyn Transaction>,
}

/// A stretch of the log and its end, from one snapshot.
#[derive(Debug, Default)]
pub(crate) struct LogRows {
    pub head: Position,
    /// Of the epoch that was asked for, ascending; the first may begin before what was asked for.
    pub rows: Vec<LogRow>,
}

/// What may be deleted of the log: always from its beginning on, so that what is kept has no holes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogCut {
    /// Commits before this time, in milliseconds since 1970 ...
    pub before_ms: u64,
    /// ... and up to this position;
    pub up_to: Position,
    /// and commits before this time in any case.
    pub surely_before_ms: u64,
    /// Commits after this time are of a clock that was wrong, and say nothing.
    pub now_ms: u64,
}

impl LogCut {
    /// How many of these rows, which are the oldest, may go.
    pub fn count(&self, rows: &[(Position, u64)]) -> usize {
        let ahead = self.now_ms.saturating_sub(self.before_ms);
        let may_go = |&&(last, committed_ms): &&(Position, u64)| {
            let is_wrong = committed_ms > self.now_ms + ahead;
            committed_ms < self.surely_before_ms || ((committed_ms < self.before_ms || is_wrong) && last <= self.up_to)
        };
        rows.iter().take_while(may_go).count()
    }
}

/// Rows that are deleted in one step.
pub(crate) const EXPIRE_ROWS: usize = 1_000;

/// A database.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// What traces call it.
    fn system(&self) -> &'static str;
    /// For one commit that holds nothing until it writes.
    async fn session(&self) -> Result<Box<dyn Session>, Fault>;
    /// Begins a transaction that holds the log's end: those of all processes come one after another.
    async fn begin(&self) -> Result<Begun, Fault>;
    /// This was committed.
    fn wrote(&self, _write: &WriteBack) {}
    /// Called every second: has the database know how large its tables are, where it does not find out by itself soon enough.
    async fn keep_statistics(&self) -> Result<(), Fault> {
        Ok(())
    }
    /// Writes down that this server lives, and then reads what others have written. Nobody else has a database in memory open for long
    /// enough to be told.
    async fn beat(&self, _server: &Server) -> Result<Beat, Fault> {
        Ok(Beat::default())
    }
    /// This server has closed the database.
    async fn leave(&self, _server: &Server) -> Result<(), Fault> {
        Ok(())
    }
    /// Deletes outcomes that have expired, in a bounded step; says whether there may be more.
    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault>;
    /// The same for the log.
    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault>;
    /// The log's rows that reach beyond a position, of its epoch: at least one, if there is one, and about so many bytes.
    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault>;
    /// The oldest position that is kept, not more than so many changes back, after which nothing was committed before a time.
    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault>;
    /// Begins an epoch, if it is still due; gives the log's end.
    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault>;
    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault>;
    async fn list(&self, key: ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault>;
    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault>;
    async fn edges(
        &self,
        key: ListKey,
        id2s: &[ObjectId],
        times: (EdgeTime, EdgeTime),
        max_bytes: usize,
    ) -> Result<AsOf<EdgePage>, Fault>;
    async fn head(&self) -> Result<Position, Fault>;
    /// See [`crate::Store::intents`].
    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault>;
    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault>;
    async fn close(&self);
}

/// A commit in two steps: look, and write if nobody has written since. Dropped without a swap, it did nothing.
#[async_trait]
pub(crate) trait Session: Send {
    /// Rows and where the log stands, from one snapshot.
    async fn look(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault>;
    /// Writes and commits all of it, if the log still stands there; says whether it does.
    async fn swap(self: Box<Self>, from: Base, write: Arc<WriteBack>) -> Result<bool, Fault>;
}

/// A transaction; dropped without a commit, it did nothing.
#[async_trait]
pub(crate) trait Transaction: Send {
    /// All logical shards that have a row here.
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault>;
    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault>;
    /// The log stands where the transaction has begun.
    async fn write(&mut self, from: Base, write: &WriteBack) -> Result<(), Fault>;
    async fn commit(self: Box<Self>) -> Result<(), Fault>;
    /// Ends it as if it had not been.
    async fn end(self: Box<Self>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_from_its_beginning_only() {
        let cut = LogCut { before_ms: 1_000, up_to: Position::new(1, 5), surely_before_ms: 100, now_ms: 2_000 };
        let rows =
            |rows: &[(u64, u64)]| -> Vec<_> { rows.iter().map(|(lsn, ms)| (Position::new(1, *lsn), *ms)).collect() };
        assert_eq!(
            cut.count(&rows(&[(1, 500), (2, 999), (3, 1_000), (4, 500)])),
            2,
            "a young row keeps those after it"
        );
        assert_eq!(cut.count(&rows(&[(4, 500), (5, 500), (6, 500)])), 2, "somebody still needs the last");
        assert_eq!(cut.count(&rows(&[(4, 50), (6, 99), (7, 100)])), 2, "nobody is waited for so long");
        assert_eq!(cut.count(&rows(&[(1, 9_999), (2, 500)])), 2, "a clock that was ahead keeps nothing for ever");
    }
}
