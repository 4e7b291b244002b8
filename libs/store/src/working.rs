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
    ClusterInfo, EdgeTime, Error, LogId, ObjectId, Position, Result, Schema, ShardId, ShardSet, TypeId, Write,
    WriteOutcome,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::backend::{Backend, Fault, ObjectRow};
use crate::batch::{Lasting, encode_object};
use crate::feed::{Feed, Subscription};
use crate::intents::Delivered;
use crate::lane::{Job, Lane, Queued, error};
use crate::open::OpenOptions;
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
    asks: mpsc::Sender<ObjectsAsk>,
    intents_made: watch::Receiver<Position>,
    intents_done: watch::Receiver<HashMap<LogId, Position>>,
}

impl Working {
    pub fn start(
        backend: Arc<dyn Backend>,
        info: ClusterInfo,
        head: Position,
        options: OpenOptions,
        lasting: Lasting,
        readers: usize,
    ) -> Self {
        let feed = Arc::new(Feed::new(head));
        let (jobs, queue) = mpsc::channel(MAX_QUEUED);
        let OpenOptions { clock, schema, log_retention, .. } = options;
        let queued_bytes = Arc::<AtomicUsize>::default();
        let log_ttl_ms = log_retention.as_millis() as u64;
        let (made, intents_made) = watch::channel(Position::ZERO);
        let (done, intents_done) = watch::channel(HashMap::new());
        let lane = Lane {
            backend: backend.clone(),
            feed: feed.clone(),
            clock,
            log_ttl_ms,
            queued_bytes: queued_bytes.clone(),
            lasting,
            intents_made: made,
            intents_done: done,
        };
        let lane = tokio::spawn(lane.run(queue));
        let (asks, queue) = mpsc::channel(MAX_QUEUED);
        let queue = Arc::new(AsyncMutex::new(queue));
        for _ in 0..readers {
            tokio::spawn(gather(backend.clone(), queue.clone()));
        }
        Self {
            backend,
            info,
            schema,
            feed,
            jobs: Mutex::new(Some(jobs)),
            queued_bytes,
            lane: Mutex::new(Some(lane)),
            asks,
            intents_made,
            intents_done,
        }
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

    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<Vec<Option<Bytes>>>> {
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
        self.backend.list((id1, atype), newest, MAX_ANSWER).await.map_err(error)
    }

    async fn scan(&self, scan: Scan) -> Result<AsOf<EdgePage>> {
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
        self.backend.edges((id1, atype), id2s, (low, high), MAX_ANSWER).await.map_err(error)
    }

    async fn write(&self, write: Write, context: WriteContext) -> Result<WriteOutcome> {
        let (to, answer) = oneshot::channel();
        self.enqueue(Job::Write(write, context, to))?;
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

    fn subscribe(&self) -> Result<Subscription> {
        self.feed.subscribe()
    }

    fn is_owner(&self) -> bool {
        self.feed.is_confirmed()
    }

    async fn close(&self) {
        drop(self.jobs.lock().take());
        let lane = self.lane.lock().take();
        if let Some(lane) = lane
            && let Err(error) = lane.await
        {
            tracing::error!(%error, "the lane did not end by itself");
        }
        self.feed.lose();
        self.backend.close().await;
    }
}
