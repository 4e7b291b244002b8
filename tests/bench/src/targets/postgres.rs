//! SQL straight from the client's threads: what a user does who needs nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use sqlx::{Connection as _, Error, PgConnection};

use super::answer::{counted, got, listed, number, other, sum, wrote};
use super::connections::Connections;
use super::log::Log;
use super::reads::{self, Bounds, Points};
use super::retry::{ATTEMPTS, is_retryable};
use super::{copy, key, server, writes};
use crate::graph::Graph;
use crate::op::{AType, Op, Outcome};
use crate::target::{Caller, Hits, Progress, Role, Setup, Target};

/// A PostgreSQL of its own.
#[derive(Debug)]
pub struct Direct {
    server: tao_harness::Postgres,
    connections_a_thread: AtomicUsize,
    log: Mutex<Log>,
    graph: OnceLock<Arc<Graph>>,
}

impl Direct {
    /// Starts a server. What writes do beside their edge and count is up to `log`.
    pub fn start(setup: &Setup, log: Log) -> Result<Self> {
        let connections_a_thread = AtomicUsize::new((setup.connections / setup.threads).max(1));
        Ok(Self { server: server::postgres()?, connections_a_thread, log: Mutex::new(log), graph: OnceLock::new() })
    }

    /// From the next caller on, a thread has so many connections, and writes do this beside their edge and count.
    pub fn set(&self, connections_a_thread: usize, log: Log) {
        self.connections_a_thread.store(connections_a_thread.max(1), Ordering::Relaxed);
        *self.log.lock() = log;
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

impl Target for Direct {
    type Caller = DirectCaller;

    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        copy::load(&self.server.url(), graph, progress).await?;
        self.graph.set(graph.clone()).ok().context("loaded twice")
    }

    async fn caller(&self, _: usize) -> Result<DirectCaller> {
        let connections =
            Connections::open(&self.server.url(), self.connections_a_thread.load(Ordering::Relaxed)).await?;
        let graph = self.graph.get().context("not loaded")?.clone();
        Ok(DirectCaller { connections, graph, log: *self.log.lock() })
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        self.server.pid().map(|pid| (Role::Postgres, pid)).into_iter().collect()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(None)
    }
}

/// A thread's connections.
pub struct DirectCaller {
    connections: Connections,
    graph: Arc<Graph>,
    log: Log,
}

impl Caller for DirectCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        let mut attempt = 1;
        loop {
            let mut lease = self.connections.take().await?;
            let result = match op {
                Op::WriteTransaction(ops) => self.transaction(lease.connection(), ops).await,
                Op::ReadTransaction(ops) => self.read_all(lease.connection(), ops).await,
                op => self.one(lease.connection(), op).await,
            };
            match lease.done(result) {
                Err(error) if is_retryable(&error) && attempt < ATTEMPTS => attempt += 1,
                result => return result.with_context(|| format!("{op:?}")),
            }
        }
    }
}

impl DirectCaller {
    async fn one(&self, connection: &mut PgConnection, op: &Op) -> Result<Outcome, Error> {
        Ok(match *op {
            Op::ObjectGet { id } => {
                let row = reads::object(connection, key(id)).await?;
                row.as_ref().map_or_else(Outcome::default, got)
            }
            Op::AssocGet { id1, id2 } => {
                let row = reads::assoc(connection, key(id1), number(AType::Link), key(id2)).await?;
                listed(row.as_slice())
            }
            Op::AssocCount { id1 } => counted(reads::count(connection, key(id1), number(AType::Link)).await?),
            Op::AssocRange { id1, limit } => {
                listed(&reads::range(connection, key(id1), number(AType::Link), limit.into()).await?)
            }
            Op::AssocTimeRange { id1, low, high, limit } => {
                let bounds = Bounds { low: low.into(), high: high.into(), limit: limit.into() };
                listed(&reads::time_range(connection, key(id1), number(AType::Link), bounds).await?)
            }
            Op::ObjectAdd { payload } => {
                wrote(writes::object_add(connection, self.graph.payload(payload)).await.map(|_| false)?)
            }
            Op::ObjectUpdate { id, payload } => {
                wrote(writes::object_update(connection, key(id), self.graph.payload(payload)).await?)
            }
            Op::ObjectDelete { id } => wrote(writes::object_delete(connection, key(id)).await?),
            Op::AssocAdd { id1, id2, time, payload, atype } => {
                let edge = writes::Edge {
                    id1: key(id1),
                    atype: number(atype),
                    id2: key(id2),
                    time: time.into(),
                    data: self.graph.payload(payload),
                    both: atype == AType::Friend,
                };
                wrote(writes::assoc_add(connection, edge, self.log).await?)
            }
            Op::AssocDelete { id1, id2, atype } => {
                let edge = (key(id1), number(atype), key(id2));
                wrote(writes::assoc_delete(connection, edge, atype == AType::Friend).await?)
            }
            Op::AssocChangeType { id1, id2, from } => {
                let edge = (key(id1), number(from), key(id2));
                wrote(writes::assoc_change_type(connection, edge, number(other(from))).await?)
            }
            Op::ReadTransaction(_) | Op::WriteTransaction(_) => {
                return Err(Error::Protocol("a transaction in a transaction".to_owned()));
            }
        })
    }

    /// All objects and edges in one statement; whatever else there is, one by one.
    async fn read_all(&self, connection: &mut PgConnection, ops: &[Op]) -> Result<Outcome, Error> {
        let mut points = Points::default();
        let mut outcomes = Vec::new();
        for op in ops {
            match *op {
                Op::ObjectGet { id } => points.ids.push(key(id)),
                Op::AssocGet { id1, id2 } => points.edge(key(id1), number(AType::Link), key(id2)),
                ref single => outcomes.push(self.one(connection, single).await?),
            }
        }
        if !points.is_empty() {
            let found = points.read(connection).await?;
            outcomes.extend(found.objects.iter().flatten().map(got));
            outcomes.extend(found.edges.into_iter().flatten().map(|row| listed(&[row])));
        }
        Ok(sum(outcomes))
    }

    async fn transaction(&self, connection: &mut PgConnection, ops: &[Op]) -> Result<Outcome, Error> {
        // Rows are locked in the same order by all, so that few transactions have to be begun again.
        let mut ordered: Vec<&Op> = ops.iter().collect();
        ordered.sort_by_key(|op| lock_order(op));
        let mut transaction = connection.begin().await?;
        let mut outcomes = Vec::with_capacity(ops.len());
        for op in ordered {
            outcomes.push(self.one(&mut transaction, op).await?);
        }
        transaction.commit().await?;
        Ok(sum(outcomes))
    }
}

/// Objects first, then edges.
fn lock_order(op: &Op) -> (bool, u32) {
    match *op {
        Op::ObjectUpdate { id, .. } | Op::ObjectDelete { id } => (false, id),
        Op::AssocAdd { id1, .. } | Op::AssocDelete { id1, .. } | Op::AssocChangeType { id1, .. } => (true, id1),
        _ => (false, u32::MAX),
    }
}
