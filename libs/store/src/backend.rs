//! What the lane and the reads ask of a database.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bytes::Bytes;
use tao_model::{AssocRef, EdgeTime, LogId, ObjectId, Position, ShardId, TypeId};

use crate::intents::{Delivered, IntentRow};
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
    /// Another process has taken the database over.
    Fenced,
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
    /// Intents that this log has made.
    pub intents: u64,
    /// The last intent of another log that is done here.
    pub done: HashMap<LogId, Position>,
}

/// What a batch writes, in key order. `None`: delete.
#[derive(Debug, Default)]
pub(crate) struct WriteBack {
    pub objects: BTreeMap<ObjectId, Option<ObjectRow>>,
    pub assocs: BTreeMap<AssocRef, Option<AssocRow>>,
    pub counts: BTreeMap<ListKey, CountRow>,
    pub outcomes: BTreeMap<String, OutcomeRow>,
    /// Milliseconds since 1970 up to which a shard's ids are leased.
    pub leases: BTreeMap<ShardId, u64>,
    /// In order.
    pub intents: Vec<IntentRow>,
    pub done: BTreeMap<LogId, Position>,
    /// Intents that are to be deleted.
    pub delivered: Vec<Delivered>,
    pub log: Option<LogRow>,
}

impl WriteBack {
    pub fn is_empty(&self) -> bool {
        let has_rows = self.log.is_some() || !self.outcomes.is_empty() || !self.leases.is_empty();
        let has_intents = !self.intents.is_empty() || !self.done.is_empty() || !self.delivered.is_empty();
        !has_rows && !has_intents
    }
}

/// One commit's row in the log.
#[derive(Debug)]
pub(crate) struct LogRow {
    pub first: Position,
    pub last: Position,
    pub committed_ms: u64,
    pub payload: Vec<u8>,
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

/// Where a transaction begins.
pub(crate) struct Begun {
    /// The log's end, held until the transaction ends.
    pub head: Position,
    /// Moves whenever a row of `shards` comes, goes or changes its state.
    pub shards_version: i64,
    pub transaction: Box<dyn Transaction>,
}

/// A database.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Begins a transaction that holds the log's end, unless another process owns the database.
    async fn begin(&self) -> Result<Begun, Fault>;
    /// Whether this process still owns the database.
    async fn is_owner(&self) -> Result<bool, Fault>;
    /// Deletes what has expired, in a bounded step; says whether there may be more.
    async fn expire(&self, outcomes_before_ms: u64, log_before_ms: u64) -> Result<bool, Fault>;
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
    /// Gives the database up, so that the next owner need not wait.
    async fn close(&self);
}

/// A transaction; dropped without a commit, it did nothing.
#[async_trait]
pub(crate) trait Transaction: Send {
    /// All logical shards that have a row here.
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault>;
    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault>;
    async fn write(&mut self, write: &WriteBack) -> Result<(), Fault>;
    async fn commit(self: Box<Self>) -> Result<(), Fault>;
}
