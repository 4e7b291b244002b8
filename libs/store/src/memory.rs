//! A store in memory, for simulations and trials: everything is lost with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tao_model::{AssocRef, Change, ClusterInfo, Edge, EdgeKey, EdgeTime, ObjectId, Position, Result as Answer, TypeId};
use tao_proto::convert;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::backend::{
    AssocRow, Backend, CountRow, Fault, ListKey, ObjectRow, OutcomeRow, Rows, Transaction, Wanted, WriteBack,
};
use crate::store::{AsOf, EdgePage, ListHead, Scan};

#[derive(Default)]
struct State {
    head: Position,
    objects: HashMap<ObjectId, ObjectRow>,
    assocs: HashMap<AssocRef, AssocRow>,
    lists: HashMap<ListKey, BTreeMap<EdgeKey, AssocRow>>,
    counts: HashMap<ListKey, CountRow>,
    outcomes: HashMap<String, OutcomeRow>,
    leases: HashMap<i64, u64>,
    /// Payloads of commits, oldest first.
    log: Vec<Vec<u8>>,
}

/// A database in memory. It outlives the stores that are opened on it, so that a simulation can crash and restart them.
#[derive(Clone)]
pub struct MemoryDatabase {
    pub(crate) info: ClusterInfo,
    state: Arc<Mutex<State>>,
    /// Held by the transaction.
    writer: Arc<AsyncMutex<()>>,
}

impl std::fmt::Debug for MemoryDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryDatabase").field("info", &self.info).finish_non_exhaustive()
    }
}

/// All that a database in memory holds, for checks.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// The log's end.
    pub head: Position,
    /// The changes of each commit, oldest first.
    pub commits: Vec<Vec<Change>>,
    /// Objects: type, version, milliseconds when created and when updated, and fields `data` of tao.v1.Object, encoded.
    pub objects: BTreeMap<ObjectId, (TypeId, i64, u64, u64, Bytes)>,
    /// Edges: time, and fields `data` of tao.v1.Assoc, encoded.
    pub assocs: BTreeMap<AssocRef, (EdgeTime, Bytes)>,
    /// Lists: edges, and the position of the last change.
    pub counts: BTreeMap<(ObjectId, TypeId), (u64, Position)>,
}

impl MemoryDatabase {
    /// Empty; its log begins with `epoch`.
    pub fn new(info: ClusterInfo, epoch: u64) -> Self {
        let state = State { head: Position::new(epoch, 0), ..State::default() };
        Self { info, state: Arc::new(Mutex::new(state)), writer: Arc::default() }
    }

    /// When ids of each shard are leased until.
    pub(crate) fn leases(&self) -> HashMap<i64, u64> {
        self.state.lock().leases.clone()
    }

    /// All that is committed.
    pub fn dump(&self) -> Answer<Dump> {
        let state = self.state.lock();
        let object = |(id, row): (&ObjectId, &ObjectRow)| {
            (*id, (row.otype, row.version, row.created_ms, row.updated_ms, row.data.clone()))
        };
        Ok(Dump {
            head: state.head,
            commits: state.log.iter().map(|payload| convert::decode_log(payload)).collect::<Answer<_>>()?,
            objects: state.objects.iter().map(object).collect(),
            assocs: state.assocs.iter().map(|(at, row)| (*at, (row.time, row.data.clone()))).collect(),
            counts: state.counts.iter().map(|(key, row)| (*key, (row.count, row.last))).collect(),
        })
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
impl Backend for MemoryDatabase {
    async fn begin(&self) -> Result<(Position, Box<dyn Transaction>), Fault> {
        let writer = self.writer.clone().lock_owned().await;
        let head = self.state.lock().head;
        Ok((head, Box::new(MemoryTransaction { state: self.state.clone(), back: Vec::new(), _writer: writer })))
    }

    async fn is_owner(&self) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn expire(&self, outcomes_before_ms: u64, _: u64) -> Result<bool, Fault> {
        self.state.lock().outcomes.retain(|_, outcome| outcome.expires_ms >= outcomes_before_ms);
        Ok(false)
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
    ) -> Result<AsOf<Vec<Edge>>, Fault> {
        let state = self.state.lock();
        let found = id2s.iter().filter_map(|id2| {
            let row = state.assocs.get(&AssocRef { id1, atype, id2: *id2 })?;
            Some((EdgeKey { time: row.time, id2: *id2 }, row))
        });
        let ordered: BTreeMap<_, _> = found.filter(|(key, _)| (low..=high).contains(&key.time)).collect();
        Ok(AsOf { position: state.head, value: ordered.iter().map(|(key, row)| edge((key, row))).collect() })
    }

    async fn head(&self) -> Result<Position, Fault> {
        Ok(self.state.lock().head)
    }

    async fn close(&self) {}
}

struct MemoryTransaction {
    state: Arc<Mutex<State>>,
    back: Vec<Step>,
    _writer: OwnedMutexGuard<()>,
}

/// What a commit will do.
type Step = Box<dyn FnOnce(&mut State) + Send>;

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        let state = self.state.lock();
        Ok(Rows {
            objects: wanted.objects.iter().filter_map(|k| Some((*k, state.objects.get(k)?.clone()))).collect(),
            assocs: wanted.assocs.iter().filter_map(|k| Some((*k, state.assocs.get(k)?.clone()))).collect(),
            counts: wanted.counts.iter().filter_map(|k| Some((*k, *state.counts.get(k)?))).collect(),
            outcomes: wanted
                .outcomes
                .iter()
                .filter_map(|k| Some((k.clone(), state.outcomes.get(k)?.clone())))
                .collect(),
        })
    }

    async fn write(&mut self, write: &WriteBack) -> Result<(), Fault> {
        let objects = write.objects.clone();
        let assocs = write.assocs.clone();
        let counts = write.counts.clone();
        let outcomes = write.outcomes.clone();
        let leases = write.leases.clone();
        let log = write.log.as_ref().map(|log| (log.last, log.payload.clone()));
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
            state.leases.extend(leases.into_iter().map(|(shard, until)| (i64::from(shard.0), until)));
            if let Some((last, payload)) = log {
                state.head = last;
                state.log.push(payload);
            }
        }));
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        let mut state = self.state.lock();
        self.back.into_iter().for_each(|change| change(&mut state));
        Ok(())
    }
}

impl State {
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
