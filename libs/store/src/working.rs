//! A store at work: a lane for writes, readers that gather objects, and the backend for everything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tao_model::limits::MAX_ANSWER;
use tao_model::{
    Clock, ClusterInfo, EdgeTime, Error, LogId, ObjectId, Position, Result, Schema, ShardId, ShardSet, TypeId, Write,
    WriteOutcome,
};
use tao_stream::{History, Piece, Ring};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::backend::{Backend, Fault, ObjectRow};
use crate::batch::{Lasting, encode_object};
use crate::epoch::NewEpoch;
use crate::feed::{self, Feed, Follow};
use crate::heartbeat::Heartbeat;
use crate::housekeeping::Housekeeping;
use crate::intents::Delivered;
use crate::jobs::{Job, Queued};
use crate::lane::{Lane, LaneMetrics, error};
use crate::open::{OpenError, OpenOptions};
use crate::servers::Server;
use crate::shards::Served;
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan, Store, WriteContext};

/// Writes that may wait for the lane, and reads of objects for a connection.
const MAX_QUEUED: usize = 16 * 1024;
/// About how many bytes of data may wait for the lane.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Objects that are read in one statement.
const MAX_GATHERED: usize = 1_000;

type Found = Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault>;
type ObjectsAsk = (Vec<ObjectId>, oneshot::Sender<Arc<Found>>);

/// See the module.
pub(crate) struct Working {
    backend: Arc<dyn Backend>,
    info: ClusterInfo,
    schema: Arc<Schema>,
    feed: Arc<Feed>,
    /// Taken at the end, so that the lane finishes what is queued and stops.
    jobs: Mutex<Option<mpsc::Sender<Queued>>>,
    queued_bytes: Arc<AtomicUsize>,
    lane: Mutex<Option<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
    served: Served,
    /// One at a time looks back at the log, so that however many catch up, following it goes on.
    history: Semaphore,
    /// Following the log, keeping house, and showing that this store lives.
    tasks: Vec<JoinHandle<()>>,
    server: Server,
    /// The oldest schema version that the database serves.
    minimum: watch::Receiver<i64>,
    asks: mpsc::Sender<ObjectsAsk>,
    intents_made: watch::Receiver<Position>,
    intents_done: watch::Receiver<HashMap<LogId, Position>>,
}

impl Working {
    pub fn start(
        backend: Arc<dyn Backend>,
        feed: Feed,
        options: &OpenOptions,
        lasting: Lasting,
        head: Position,
        server: Server,
    ) -> Self {
        let feed = Arc::new(feed);
        let clock = options.clock.clone();
        let (jobs, queue) = mpsc::channel(MAX_QUEUED);
        let queued_bytes = Arc::<AtomicUsize>::default();
        let served = lasting.shards.shown();
        let (made, intents_made) = watch::channel(Position::ZERO);
        let (done, intents_done) = watch::channel(HashMap::new());
        let lane = Lane {
            backend: backend.clone(),
            feed: feed.clone(),
            clock: clock.clone(),
            queued_bytes: queued_bytes.clone(),
            lasting,
            left: head,
            intents_made: made,
            intents_done: done,
            metrics: LaneMetrics::new(),
            wary: 0,
        };
        let lane = tokio::spawn(lane.run(queue));
        let (asks, queue) = mpsc::channel(MAX_QUEUED);
        let queue = Arc::new(AsyncMutex::new(queue));
        for _ in 0..(options.max_connections / 2).max(1) {
            tokio::spawn(gather(backend.clone(), queue.clone()));
        }
        let follow = Follow { feed: feed.clone(), backend: backend.clone(), clock: clock.clone() };
        let housekeeping = Housekeeping {
            backend: backend.clone(),
            clock: clock.clone(),
            ring: feed.ring.clone(),
            log_retention: options.log_retention,
        };
        let (seen, minimum) = watch::channel(0);
        let heartbeat = Heartbeat { backend: backend.clone(), server: server.clone(), minimum: seen };
        Self {
            backend,
            info: feed.info(),
            schema: options.schema.clone(),
            feed,
            jobs: Mutex::new(Some(jobs)),
            queued_bytes,
            lane: Mutex::new(Some(lane)),
            clock,
            served,
            history: Semaphore::new(1),
            tasks: vec![tokio::spawn(follow.run()), tokio::spawn(housekeeping.run()), tokio::spawn(heartbeat.run())],
            server,
            minimum,
            asks,
            intents_made,
            intents_done,
        }
    }

    /// An id of a shard that does not exist is left to whoever looks for it.
    fn check_served(&self, id: ObjectId) -> Result<()> {
        let shard = self.info.layout.shard(id);
        if shard.0 >= self.info.layout.shards() || self.served.lock().contains(shard) {
            return Ok(());
        }
        Err(Error::WrongShard { shard: shard.0 })
    }

    fn enqueue(&self, job: Job) -> Result<()> {
        let jobs = self.jobs.lock();
        let jobs = jobs.as_ref().ok_or_else(|| Error::unavailable("the storage shard is stopping"))?;
        let bytes = job.bytes();
        let overloaded = |what| Error::Overloaded { what, retry_after: Duration::from_millis(100) };
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_QUEUED_BYTES {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(overloaded(format!("{MAX_QUEUED_BYTES} bytes of writes are waiting for the database")));
        }
        jobs.try_send((job, bytes)).map_err(|error| {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => {
                    overloaded(format!("{MAX_QUEUED} writes are waiting for the database"))
                }
                mpsc::error::TrySendError::Closed(_) => Error::unavailable("the storage shard is stopping"),
            }
        })
    }

    /// A job whose lane died says nothing of what became of it.
    async fn outcome<T>(&self, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        answer.await.unwrap_or_else(|_| {
            Err(Error::Unavailable {
                what: "the storage shard stopped".to_owned(),
                not_applied: false,
                retry_after: Duration::from_millis(100),
            })
        })
    }
}

/// Reads objects: all that are asked for while the last statement ran go into one.
async fn gather(backend: Arc<dyn Backend>, queue: Arc<AsyncMutex<mpsc::Receiver<ObjectsAsk>>>) {
    loop {
        let mut asks = Vec::new();
        if queue.lock().await.recv_many(&mut asks, MAX_GATHERED).await == 0 {
            return;
        }
        asks.retain(|(_, to)| !to.is_closed());
        let mut ids: Vec<ObjectId> = asks.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            continue;
        }
        let found = Arc::new(backend.objects(&ids).await);
        for (_, to) in asks {
            // A caller that went away needs no answer.
            let _ = to.send(found.clone());
        }
    }
}

#[async_trait]
impl Store for Working {
    fn info(&self) -> ClusterInfo {
        self.info
    }

    fn system(&self) -> &'static str {
        self.backend.system()
    }

    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<Vec<Option<Bytes>>>> {
        ids.iter().try_for_each(|id| self.check_served(*id))?;
        let stopping = || Error::unavailable("the storage shard is stopping");
        let (to, answer) = oneshot::channel();
        self.asks.try_send((ids.to_vec(), to)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded {
                what: format!("{MAX_QUEUED} reads are waiting for the database"),
                retry_after: Duration::from_millis(100),
            },
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        let found = answer.await.map_err(|_| stopping())?;
        let AsOf { position, value } = found.as_ref().as_ref().map_err(|fault| error(*fault))?;
        let encoded = ids.iter().map(|id| value.get(id).map(|row| encode_object(&self.schema, *id, row)).transpose());
        Ok(AsOf { position: *position, value: encoded.collect::<Result<_>>()? })
    }

    async fn list(&self, id1: ObjectId, atype: TypeId, newest: usize) -> Result<AsOf<ListHead>> {
        self.check_served(id1)?;
        self.backend.list((id1, atype), newest, MAX_ANSWER).await.map_err(error)
    }

    async fn scan(&self, scan: Scan) -> Result<AsOf<EdgePage>> {
        self.check_served(scan.id1)?;
        self.backend.scan(&scan, MAX_ANSWER).await.map_err(error)
    }

    async fn edges(
        &self,
        id1: ObjectId,
        atype: TypeId,
        id2s: &[ObjectId],
        low: EdgeTime,
        high: EdgeTime,
    ) -> Result<AsOf<EdgePage>> {
        self.check_served(id1)?;
        self.backend.edges((id1, atype), id2s, (low, high), MAX_ANSWER).await.map_err(error)
    }

    async fn write(&self, write: Write, context: WriteContext) -> Result<WriteOutcome> {
        let (to, answer) = oneshot::channel();
        self.enqueue(Job::Write(write, context.into(), to))?;
        self.outcome(answer).await
    }

    async fn allocate(&self, shard: Option<ShardId>, count: usize) -> Result<Vec<ObjectId>> {
        let (to, answer) = oneshot::channel();
        self.enqueue(Job::Allocate(shard, count, to))?;
        self.outcome(answer).await
    }

    async fn intents(&self, shards: &ShardSet, after: Position, limit: usize) -> Result<IntentPage> {
        let shards: Vec<_> = shards.iter().collect();
        self.backend.intents(&shards, after, limit).await.map_err(error)
    }

    async fn delivered(&self, shards: &ShardSet, up_to: Position) -> Result<()> {
        let (to, answer) = oneshot::channel();
        self.enqueue(Job::Delivered(Delivered { shards: shards.clone(), up_to }, to))?;
        self.outcome(answer).await
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting> {
        self.backend.intents_waiting().await.map_err(error)
    }

    fn intents_made(&self) -> watch::Receiver<Position> {
        self.intents_made.clone()
    }

    fn intents_done(&self) -> watch::Receiver<HashMap<LogId, Position>> {
        self.intents_done.clone()
    }

    async fn head(&self) -> Result<Position> {
        self.backend.head().await.map_err(error)
    }

    fn ring(&self) -> &Ring {
        &self.feed.ring
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<Vec<Piece>> {
        let turn = self.history.acquire().await;
        let found = self.backend.log_after(after, max_bytes).await.map_err(error)?;
        drop(turn);
        if after > found.head {
            return Err(Error::TokenFromFuture { seen: after, head: found.head });
        }
        let is_kept = found.rows.first().is_some_and(|row| row.first.lsn <= after.lsn + 1);
        if after != found.head && !is_kept {
            return Err(Error::ChangesExpired { after });
        }
        found.rows.iter().map(feed::piece).collect()
    }

    async fn log_position_back(&self, back: Duration, max_changes: u64) -> Result<Position> {
        let _turn = self.history.acquire().await;
        let back = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
        self.backend.log_since(self.clock.now_ms().saturating_sub(back), max_changes).await.map_err(error)
    }

    async fn begin_epoch(&self, seen: Position) -> Result<Position> {
        let head = self.backend.begin_epoch(NewEpoch::Beyond(seen)).await.map_err(error)?;
        self.feed.enter(head);
        Ok(head)
    }

    async fn outdated(&self) -> OpenError {
        let (own, mut minimum) = (self.server.schema_version, self.minimum.clone());
        match minimum.wait_for(|minimum| *minimum > own).await.map(|minimum| *minimum) {
            Ok(minimum) => OpenError::Newer { minimum, own },
            // It is closed, and nobody looks any more.
            Err(_) => std::future::pending().await,
        }
    }

    async fn close(&self) {
        drop(self.jobs.lock().take());
        let lane = self.lane.lock().take();
        if let Some(lane) = lane
            && let Err(error) = lane.await
        {
            tracing::error!(%error, "the lane did not end by itself");
        }
        self.feed.close();
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(fault) = self.backend.leave(&self.server).await {
            tracing::debug!(?fault, "can't write down that this storage shard is gone");
        }
        self.backend.close().await;
    }
}

/// Changes that a stream goes back at the most.
const MAX_BACK: u64 = 1_000_000;
/// Bytes of history that are read at once.
const PAGE: usize = 1024 * 1024;

/// Without [`Store::close`], as when its owner is unwinding: what is queued is still done.
impl Drop for Working {
    fn drop(&mut self) {
        self.feed.close();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl History for Working {
    async fn after(&self, position: Position) -> Result<Vec<Piece>> {
        // Cut to what fits into messages: a commit may be larger than any.
        Ok(tao_stream::page(self.log_after(position, PAGE).await?, position, PAGE))
    }

    async fn back(&self, back: Duration) -> Result<Position> {
        self.log_position_back(back, MAX_BACK).await
    }
}
