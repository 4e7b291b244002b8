//! A store in memory, for simulations and trials: everything is lost with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tao_model::{AssocRef, Clock, Edge, EdgeKey, EdgeTime, LogId, ObjectId, Position, ShardId, ShardSet};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::backend::{
    AssocRow, Backend, Begun, CountRow, EXPIRE_ROWS, Fault, ListKey, LogCut, LogRow, LogRows, ObjectRow, OutcomeRow,
    Rows, ShardRow, Transaction, Wanted, WriteBack,
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
    log: VecDeque<LogRow>,
    /// How many were made, and those that are not deleted.
    intents: (u64, BTreeMap<Position, IntentRow>),
    done: HashMap<LogId, Position>,
}

pub(crate) struct MemoryBackend {
    state: Arc<Mutex<State>>,
    /// Held by the transaction.
    writer: Arc<AsyncMutex<()>>,
    /// All of them are served.
    shards: ShardSet,
    clock: Arc<dyn Clock>,
}

impl MemoryBackend {
    pub fn new(head: Position, shards: ShardSet, clock: Arc<dyn Clock>) -> Self {
        let state = State { head, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), writer: Arc::default(), shards, clock }
    }
}

#[cfg(test)]
impl MemoryBackend {
    /// A copy of everything.
    pub fn copy(&self) -> State {
        self.state.lock().clone()
    }

    /// Puts a copy back, as a restore does.
    pub fn restore(&self, copy: &State) {
        *self.state.lock() = copy.clone();
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
    async fn begin(&self) -> Result<Begun, Fault> {
        let writer = self.writer.clone().lock_owned().await;
        let (state, shards) = (self.state.clone(), self.shards.clone());
        let (head, shards_version) = {
            let state = state.lock();
            (state.head, state.shards_version)
        };
        let transaction = Box::new(MemoryTransaction { state, shards, back: Vec::new(), _writer: writer });
        Ok(Begun { head, shards_version, transaction })
    }

    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault> {
        self.state.lock().outcomes.retain(|_, outcome| outcome.expires_ms >= before_ms);
        Ok(false)
    }

    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault> {
        let mut state = self.state.lock();
        let oldest: Vec<_> = state.log.iter().take(EXPIRE_ROWS).map(|row| (row.last, row.committed_ms)).collect();
        let count = cut.count(&oldest);
        state.log.drain(..count);
        Ok(count >= EXPIRE_ROWS)
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault> {
        let state = self.state.lock();
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
        Ok(LogRows { head: state.head, rows })
    }

    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault> {
        let state = self.state.lock();
        let head = state.head;
        let is_recent = |row: &&LogRow| {
            row.first.epoch == head.epoch
                && row.first.lsn > head.lsn.saturating_sub(max_changes)
                && row.committed_ms >= since_ms
        };
        Ok(state.log.iter().find(is_recent).map_or(head, |row| Position::new(head.epoch, row.first.lsn - 1)))
    }

    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault> {
        let _writer = self.writer.lock().await;
        let mut state = self.state.lock();
        if why.is_due(state.head) {
            let now_ms = self.clock.now_ms();
            state.head.epoch = why.next(state.head, now_ms);
            state.shards_version += 1;
            for shard in self.shards.iter() {
                let until = state.leases.entry(shard).or_default();
                *until = (*until).max(now_ms + IDS_AHEAD_MS);
            }
        }
        Ok(state.head)
    }

    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        let state = self.state.lock();
        let value = ids.iter().filter_map(|id| Some((*id, state.objects.get(id)?.clone()))).collect();
        Ok(AsOf { position: state.head, value })
    }

    async fn list(&self, key: ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        let state = self.state.lock();
        let count = state.counts.get(&key).map_or(0, |row| row.count);
        let edges = state.lists.get(&key).into_iter().flatten().take(newest).map(edge);
        Ok(AsOf { position: state.head, value: ListHead { count, edges: cut(edges, max_bytes).0 } })
    }

    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault> {
        let state = self.state.lock();
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
        Ok(AsOf { position: state.head, value: EdgePage { edges, more } })
    }

    async fn edges(
        &self,
        (id1, atype): ListKey,
        id2s: &[ObjectId],
        (low, high): (EdgeTime, EdgeTime),
        max_bytes: usize,
    ) -> Result<AsOf<EdgePage>, Fault> {
        let state = self.state.lock();
        let found = id2s.iter().filter_map(|id2| {
            let row = state.assocs.get(&AssocRef { id1, atype, id2: *id2 })?;
            Some((EdgeKey { time: row.time, id2: *id2 }, row))
        });
        let ordered: BTreeMap<_, _> = found.filter(|(key, _)| (low..=high).contains(&key.time)).collect();
        let (edges, more) = cut(ordered.iter().map(|(key, row)| edge((key, row))), max_bytes);
        Ok(AsOf { position: state.head, value: EdgePage { edges, more } })
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        let state = self.state.lock();
        let found = state.intents.1.values().filter(|row| row.position > after && shards.contains(&row.shard));
        let intents = found.take(limit).map(|row| StoredIntent {
            position: row.position,
            shard: row.shard,
            payload: row.payload.clone().into(),
        });
        Ok(IntentPage { head: Position::new(state.head.epoch, state.intents.0), intents: intents.collect() })
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        let rows = &self.state.lock().intents.1;
        let oldest_ms = rows.first_key_value().map(|(_, row)| row.created_ms);
        Ok(IntentsWaiting { count: rows.len() as u64, oldest_ms })
    }

    async fn head(&self) -> Result<Position, Fault> {
        Ok(self.state.lock().head)
    }

    async fn close(&self) {}
}

struct MemoryTransaction {
    state: Arc<Mutex<State>>,
    shards: ShardSet,
    back: Vec<Change>,
    _writer: OwnedMutexGuard<()>,
}

/// What a commit will do.
type Change = Box<dyn FnOnce(&mut State) + Send>;

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        let state = self.state.lock();
        let until = |shard| state.leases.get(&shard).copied().unwrap_or(0);
        Ok(self.shards.iter().map(|shard| ShardRow { shard, is_served: true, ids_until: until(shard) }).collect())
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        let state = self.state.lock();
        Ok(Rows {
            objects: wanted.objects.iter().filter_map(|k| Some((*k, state.objects.get(k)?.clone()))).collect(),
            types: wanted.types.iter().filter_map(|k| Some((*k, state.objects.get(k)?.otype))).collect(),
            assocs: wanted.assocs.iter().filter_map(|k| Some((*k, state.assocs.get(k)?.clone()))).collect(),
            counts: wanted.counts.iter().filter_map(|k| Some((*k, *state.counts.get(k)?))).collect(),
            outcomes: wanted
                .outcomes
                .iter()
                .filter_map(|k| Some((k.clone(), state.outcomes.get(k)?.clone())))
                .collect(),
            shards: wanted.shards.iter().map(|k| (*k, state.leases.get(k).copied().unwrap_or(0))).collect(),
            intents: state.intents.0,
            done: wanted.done.iter().filter_map(|k| Some((*k, *state.done.get(k)?))).collect(),
        })
    }

    async fn write(&mut self, write: &WriteBack) -> Result<(), Fault> {
        let objects = write.objects.clone();
        let assocs = write.assocs.clone();
        let counts = write.counts.clone();
        let outcomes = write.outcomes.clone();
        let leases = write.leases.clone();
        let log = write.log.clone();
        let (intents, done, delivered) = (write.intents.clone(), write.done.clone(), write.delivered.clone());
        self.back.push(Box::new(move |state| {
            for (id, row) in objects {
                match row {
                    Some(row) => drop(state.objects.insert(id, row)),
                    None => drop(state.objects.remove(&id)),
                }
            }
            for (at, row) in assocs {
                state.put(at, row);
            }
            state.counts.extend(counts);
            state.outcomes.extend(outcomes);
            state.leases.extend(leases);
            if let Some(log) = log {
                state.head = log.last;
                state.log.push_back(log);
            }
            state.done.extend(done);
            state.keep_intents(intents, &delivered);
        }));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        let mut state = self.state.lock();
        self.back.into_iter().for_each(|change| change(&mut state));
        Ok(())
    }

    async fn end(self: Box<Self>) {}
}

impl State {
    fn keep_intents(&mut self, made: Vec<IntentRow>, delivered: &[Delivered]) {
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
