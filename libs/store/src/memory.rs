//! A store in memory, for simulations and trials: everything is lost with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tao_model::{
    AssocRef, Change, Clock, Edge, EdgeKey, EdgeTime, LogId, ObjectId, Position, Result as Answer, ShardId, ShardSet,
    TypeId,
};
use tao_proto::convert;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::backend::{
    AssocRow, Backend, Base, Begun, CountRow, EXPIRE_ROWS, Fault, ListKey, LogCut, LogRow, LogRows, ObjectRow,
    OutcomeRow, Rows, Session, ShardRow, Transaction, Wanted, WriteBack,
};
use crate::epoch::{IDS_AHEAD_MS, NewEpoch};
use crate::intents::{Delivered, IntentRow};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan, StoredIntent};

#[derive(Default, Clone)]
pub(crate) struct State {
    head: Position,
    objects: HashMap<ObjectId, ObjectRow>,
    assocs: HashMap<AssocRef, AssocRow>,
    lists: HashMap<ListKey, BTreeMap<EdgeKey, AssocRow>>,
    counts: HashMap<ListKey, CountRow>,
    outcomes: HashMap<String, OutcomeRow>,
    leases: HashMap<ShardId, u64>,
    shards_version: i64,
    commits: i64,
    log: VecDeque<LogRow>,
    /// What was deleted of the log.
    archive: Option<Vec<LogRow>>,
    /// How many were made, and those that are not deleted.
    intents: (u64, BTreeMap<Position, IntentRow>),
    done: HashMap<LogId, Position>,
}

/// A database in memory. It outlives the stores that are opened on it, so that a simulation can crash and restart them, and several
/// can share it.
#[derive(Clone, Default)]
pub struct MemoryDatabase {
    state: Arc<Mutex<State>>,
    /// Held by the transaction.
    writer: Arc<AsyncMutex<()>>,
    between: Option<Arc<dyn Interference>>,
}

/// What lies between a store and a database in memory.
#[async_trait]
pub trait Interference: Send + Sync + 'static {
    /// Takes the time that a statement needs to get there, or its answer to get back; `false`: it does not, and the connection is
    /// broken.
    async fn pass(&self) -> bool;
}

/// What a database in memory holds, as a check reads it.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// The log's end.
    pub head: Position,
    /// Objects: type, version, milliseconds when created and when updated, and fields `data` of tao.v1.Object, encoded.
    pub objects: BTreeMap<ObjectId, (TypeId, i64, u64, u64, Bytes)>,
    /// Edges: time, and fields `data` of tao.v1.Assoc, encoded.
    pub assocs: BTreeMap<AssocRef, (EdgeTime, Bytes)>,
    /// Lists: edges, and the position of the last change.
    pub counts: BTreeMap<(ObjectId, TypeId), (u64, Position)>,
    /// Intents that wait to be delivered.
    pub intents: u64,
}

/// Everything in a database at one time.
#[derive(Clone)]
pub struct Snapshot(State);

impl MemoryDatabase {
    /// The same database, behind something that delays and breaks.
    #[must_use]
    pub fn behind(&self, between: Arc<dyn Interference>) -> Self {
        Self { between: Some(between), ..self.clone() }
    }

    /// All that is committed, for checks.
    pub fn dump(&self) -> Dump {
        let state = self.state.lock();
        let object = |(id, row): (&ObjectId, &ObjectRow)| {
            (*id, (row.otype, row.version, row.created_ms, row.updated_ms, row.data.clone()))
        };
        Dump {
            head: state.head,
            objects: state.objects.iter().map(object).collect(),
            assocs: state.assocs.iter().map(|(at, row)| (*at, (row.time, row.data.clone()))).collect(),
            counts: state.counts.iter().map(|(key, row)| (*key, (row.count, row.last))).collect(),
            intents: state.intents.1.len() as u64,
        }
    }

    /// Empty, and of its log nothing is ever lost to whoever checks it.
    pub fn archiving() -> Self {
        let state = State { archive: Some(Vec::new()), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ..Self::default() }
    }

    /// The changes of each commit, oldest first: those that are kept, and the archive's.
    pub fn commits(&self) -> Answer<Vec<Vec<Change>>> {
        let state = self.state.lock();
        state.archive.iter().flatten().chain(&state.log).map(|row| convert::decode_log(&row.payload)).collect()
    }

    /// A copy of everything, as a backup is.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.lock().clone())
    }

    /// Puts a copy back: what was committed since is undone.
    pub fn restore(&self, copy: &Snapshot) {
        *self.state.lock() = copy.0.clone();
    }

    async fn pass(&self, fault: Fault) -> Result<(), Fault> {
        match &self.between {
            Some(between) if !between.pass().await => Err(fault),
            Some(_) | None => Ok(()),
        }
    }

    /// There and back, with `look` in between.
    async fn read<T>(&self, look: impl FnOnce(&mut State) -> T + Send) -> Result<T, Fault> {
        self.pass(Fault::Unreachable).await?;
        let found = look(&mut self.state.lock());
        self.pass(Fault::Unreachable).await?;
        Ok(found)
    }
}

impl std::fmt::Debug for MemoryDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryDatabase").finish_non_exhaustive()
    }
}

pub(crate) struct MemoryBackend {
    pub database: MemoryDatabase,
    /// All of them are served.
    shards: ShardSet,
    clock: Arc<dyn Clock>,
}

impl MemoryBackend {
    /// A log without an epoch begins with this one.
    pub fn new(database: MemoryDatabase, epoch: u64, shards: ShardSet, clock: Arc<dyn Clock>) -> Self {
        {
            let head = &mut database.state.lock().head;
            if *head == Position::ZERO {
                head.epoch = epoch;
            }
        }
        Self { database, shards, clock }
    }
}

fn cut(edges: impl Iterator<Item = Edge>, max_bytes: usize) -> (Vec<Edge>, bool) {
    let (mut out, mut bytes) = (Vec::new(), 0);
    for edge in edges {
        bytes += edge.data.len() + 32;
        if bytes > max_bytes {
            return (out, true);
        }
        out.push(edge);
    }
    (out, false)
}

fn edge((key, row): (&EdgeKey, &AssocRow)) -> Edge {
    Edge { id2: key.id2, time: key.time, data: row.data.clone() }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn system(&self) -> &'static str {
        "memory"
    }

    async fn session(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(MemorySession { database: self.database.clone() }))
    }

    async fn begin(&self) -> Result<Begun, Fault> {
        let (database, shards) = (self.database.clone(), self.shards.clone());
        database.pass(Fault::Unreachable).await?;
        let writer = database.writer.clone().lock_owned().await;
        let base = database.state.lock().base();
        database.pass(Fault::Unreachable).await?;
        let transaction = Box::new(MemoryTransaction { database, shards, back: Vec::new(), writer });
        Ok(Begun { base, transaction })
    }

    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault> {
        self.database.read(|state| state.outcomes.retain(|_, outcome| outcome.expires_ms >= before_ms)).await?;
        Ok(false)
    }

    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault> {
        let expire = |state: &mut State| {
            let oldest: Vec<_> = state.log.iter().take(EXPIRE_ROWS).map(|row| (row.last, row.committed_ms)).collect();
            let count = cut.count(&oldest);
            let State { log, archive, .. } = state;
            let expired = log.drain(..count);
            if let Some(archive) = archive {
                archive.extend(expired);
            }
            count >= EXPIRE_ROWS
        };
        self.database.read(expire).await
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault> {
        let look = |state: &mut State| {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            let first = state.log.partition_point(|row| row.last <= after);
            for row in
                state.log.range(first..).filter(|row| row.first.epoch == after.epoch && after.epoch == state.head.epoch)
            {
                if bytes >= max_bytes {
                    break;
                }
                bytes += row.payload.len();
                rows.push(row.clone());
            }
            LogRows { head: state.head, rows }
        };
        self.database.read(look).await
    }

    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault> {
        let look = |state: &mut State| {
            let head = state.head;
            let is_recent = |row: &&LogRow| {
                row.first.epoch == head.epoch
                    && row.first.lsn > head.lsn.saturating_sub(max_changes)
                    && row.committed_ms >= since_ms
            };
            state.log.iter().find(is_recent).map_or(head, |row| Position::new(head.epoch, row.first.lsn - 1))
        };
        self.database.read(look).await
    }

    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault> {
        let _writer = self.database.writer.lock().await;
        let begin = |state: &mut State| {
            if why.is_due(state.head) {
                let now_ms = self.clock.now_ms();
                state.head.epoch = why.next(state.head, now_ms);
                state.shards_version += 1;
                for shard in self.shards.iter() {
                    let until = state.leases.entry(shard).or_default();
                    *until = (*until).max(now_ms + IDS_AHEAD_MS);
                }
            }
            state.head
        };
        self.database.read(begin).await
    }

    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        let look = |state: &mut State| {
            let value = ids.iter().filter_map(|id| Some((*id, state.objects.get(id)?.clone()))).collect();
            AsOf { position: state.head, value }
        };
        self.database.read(look).await
    }

    async fn list(&self, key: ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        let look = |state: &mut State| {
            let count = state.counts.get(&key).map_or(0, |row| row.count);
            let edges = state.lists.get(&key).into_iter().flatten().take(newest).map(edge);
            AsOf { position: state.head, value: ListHead { count, edges: cut(edges, max_bytes).0 } }
        };
        self.database.read(look).await
    }

    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault> {
        let look = |state: &mut State| {
            let within = state
                .lists
                .get(&(scan.id1, scan.atype))
                .into_iter()
                .flatten()
                .filter(|(key, _)| {
                    (scan.low..=scan.high).contains(&key.time) && scan.after.is_none_or(|after| **key > after)
                })
                .skip(scan.offset as usize);
            let mut edges: Vec<Edge> = within.take(scan.limit + 1).map(edge).collect();
            let mut more = edges.len() > scan.limit;
            edges.truncate(scan.limit);
            let (edges, was_cut) = cut(edges.into_iter(), max_bytes);
            more |= was_cut;
            AsOf { position: state.head, value: EdgePage { edges, more } }
        };
        self.database.read(look).await
    }

    async fn edges(
        &self,
        (id1, atype): ListKey,
        id2s: &[ObjectId],
        (low, high): (EdgeTime, EdgeTime),
        max_bytes: usize,
    ) -> Result<AsOf<EdgePage>, Fault> {
        let look = |state: &mut State| {
            let found = id2s.iter().filter_map(|id2| {
                let row = state.assocs.get(&AssocRef { id1, atype, id2: *id2 })?;
                Some((EdgeKey { time: row.time, id2: *id2 }, row))
            });
            let ordered: BTreeMap<_, _> = found.filter(|(key, _)| (low..=high).contains(&key.time)).collect();
            let (edges, more) = cut(ordered.iter().map(|(key, row)| edge((key, row))), max_bytes);
            AsOf { position: state.head, value: EdgePage { edges, more } }
        };
        self.database.read(look).await
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        let look = |state: &mut State| {
            let found = state.intents.1.values().filter(|row| row.position > after && shards.contains(&row.shard));
            let intents = found.take(limit).map(|row| StoredIntent {
                position: row.position,
                shard: row.shard,
                payload: row.payload.clone().into(),
            });
            IntentPage { head: Position::new(state.head.epoch, state.intents.0), intents: intents.collect() }
        };
        self.database.read(look).await
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        let look = |state: &mut State| {
            let rows = &state.intents.1;
            let oldest_ms = rows.first_key_value().map(|(_, row)| row.created_ms);
            IntentsWaiting { count: rows.len() as u64, oldest_ms }
        };
        self.database.read(look).await
    }

    async fn head(&self) -> Result<Position, Fault> {
        self.database.read(|state| state.head).await
    }

    async fn close(&self) {}
}

struct MemoryTransaction {
    database: MemoryDatabase,
    shards: ShardSet,
    back: Vec<Step>,
    writer: OwnedMutexGuard<()>,
}

/// What a commit will do.
type Step = Box<dyn FnOnce(&mut State) + Send>;

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        let shards = &self.shards;
        let look = |state: &mut State| {
            let until = |shard| state.leases.get(&shard).copied().unwrap_or(0);
            shards.iter().map(|shard| ShardRow { shard, is_served: true, ids_until: until(shard) }).collect()
        };
        self.database.read(look).await
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        self.database.read(|state| state.rows(wanted)).await
    }

    async fn write(&mut self, _: Base, write: &WriteBack) -> Result<(), Fault> {
        self.database.pass(Fault::Unreachable).await?;
        let write = write.clone();
        self.back.push(Box::new(move |state| state.apply(&write)));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        let Self { database, back, writer, .. } = *self;
        database.pass(Fault::InDoubt).await?;
        {
            let mut state = database.state.lock();
            back.into_iter().for_each(|change| change(&mut state));
        }
        // Whoever waits for the log's end need not wait for this answer.
        drop(writer);
        database.pass(Fault::InDoubt).await
    }

    async fn end(self: Box<Self>) {}
}

struct MemorySession {
    database: MemoryDatabase,
}

#[async_trait]
impl Session for MemorySession {
    async fn look(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault> {
        self.database.read(|state| (state.base(), state.rows(wanted))).await
    }

    async fn swap(self: Box<Self>, from: Base, write: Arc<WriteBack>) -> Result<bool, Fault> {
        let database = self.database;
        database.pass(Fault::InDoubt).await?;
        let is_done = {
            let _writer = database.writer.lock().await;
            let mut state = database.state.lock();
            let is_there = state.base() == from;
            if is_there {
                state.apply(&write);
            }
            is_there
        };
        database.pass(Fault::InDoubt).await?;
        Ok(is_done)
    }
}

impl State {
    fn base(&self) -> Base {
        Base { head: self.head, commits: self.commits, shards_version: self.shards_version }
    }

    fn rows(&self, wanted: &Wanted) -> Rows {
        Rows {
            objects: wanted.objects.iter().filter_map(|k| Some((*k, self.objects.get(k)?.clone()))).collect(),
            types: wanted.types.iter().filter_map(|k| Some((*k, self.objects.get(k)?.otype))).collect(),
            assocs: wanted.assocs.iter().filter_map(|k| Some((*k, self.assocs.get(k)?.clone()))).collect(),
            counts: wanted.counts.iter().filter_map(|k| Some((*k, *self.counts.get(k)?))).collect(),
            outcomes: wanted.outcomes.iter().filter_map(|k| Some((k.clone(), self.outcomes.get(k)?.clone()))).collect(),
            shards: wanted.shards.iter().map(|k| (*k, self.leases.get(k).copied().unwrap_or(0))).collect(),
            intents: self.intents.0,
            done: wanted.done.iter().filter_map(|k| Some((*k, *self.done.get(k)?))).collect(),
        }
    }

    fn apply(&mut self, write: &WriteBack) {
        self.commits += 1;
        for (id, row) in &write.objects {
            match row {
                Some(row) => drop(self.objects.insert(*id, row.clone())),
                None => drop(self.objects.remove(id)),
            }
        }
        for (at, row) in &write.assocs {
            self.put(*at, row.clone());
        }
        self.counts.extend(&write.counts);
        self.outcomes.extend(write.outcomes.iter().map(|(key, row)| (key.clone(), row.clone())));
        self.leases.extend(&write.leases);
        if let Some(log) = &write.log {
            self.head = log.last;
            self.log.push_back(log.clone());
        }
        self.done.extend(&write.done);
        self.keep_intents(write.intents.clone(), write.delivered.as_ref());
    }

    fn keep_intents(&mut self, made: Vec<IntentRow>, delivered: Option<&Delivered>) {
        let (count, rows) = &mut self.intents;
        *count += made.len() as u64;
        rows.extend(made.into_iter().map(|row| (row.position, row)));
        rows.retain(|at, row| !delivered.iter().any(|d| *at <= d.up_to && d.shards.contains(row.shard)));
    }

    fn put(&mut self, at: AssocRef, row: Option<AssocRow>) {
        let list = self.lists.entry((at.id1, at.atype)).or_default();
        if let Some(old) = self.assocs.remove(&at) {
            list.remove(&EdgeKey { time: old.time, id2: at.id2 });
        }
        if let Some(row) = row {
            list.insert(EdgeKey { time: row.time, id2: at.id2 }, row.clone());
            self.assocs.insert(at, row);
        }
    }
}
