//! The lane over a database that fails on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tao_model::{
    ClusterId, ClusterInfo, Data, EdgeTime, Error, IdLayout, LogId, ObjectId, Placement, Position, Schema, ShardId,
    TypeId, Value, Write,
};
use tokio::sync::Semaphore;

use crate::backend::{Backend, Begun, Fault, ListKey, ObjectRow, Rows, ShardRow, Transaction, Wanted, WriteBack};
use crate::batch::Lasting;
use crate::memory::MemoryBackend;
use crate::open::OpenOptions;
use crate::shards::Shards;
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan, Store, WriteContext};
use crate::working::Working;

const START: Position = Position::new(1_900_000_000, 0);

/// What a database in memory is to do wrong.
struct Faults {
    memory: MemoryBackend,
    /// Transactions that may begin.
    begins: Semaphore,
    begin: Mutex<Option<Fault>>,
    commit: Mutex<Option<Fault>>,
    /// Whether a commit that is in doubt has happened.
    happens: AtomicBool,
    lost: AtomicBool,
}

impl Faults {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(START, IdLayout::STANDARD.shards()),
            begins: Semaphore::new(Semaphore::MAX_PERMITS),
            begin: Mutex::default(),
            commit: Mutex::default(),
            happens: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        })
    }

    fn store(self: &Arc<Self>) -> Working {
        let options = OpenOptions::new("memory:", Arc::new(Schema::social()), IdLayout::STANDARD);
        let lasting = Lasting {
            schema: options.schema.clone(),
            shards: Shards::new(IdLayout::STANDARD, 0),
            types: HashMap::new(),
        };
        let info = ClusterInfo { cluster: ClusterId([1; 16]), log: LogId(0), layout: IdLayout::STANDARD };
        Working::start(Arc::new(Shared(self.clone())), info, START, options, lasting, 1)
    }
}

struct Shared(Arc<Faults>);

#[async_trait]
impl Backend for Shared {
    async fn begin(&self) -> Result<Begun, Fault> {
        self.0.begins.acquire().await.expect("never closed").forget();
        if let Some(fault) = self.0.begin.lock().take() {
            return Err(fault);
        }
        let begun = self.0.memory.begin().await?;
        let transaction = Box::new(Faulty { faults: self.0.clone(), inner: begun.transaction });
        Ok(Begun { transaction, ..begun })
    }

    async fn is_owner(&self) -> Result<bool, Fault> {
        Ok(!self.0.lost.load(Ordering::Relaxed))
    }

    async fn expire(&self, outcomes_before_ms: u64, log_before_ms: u64) -> Result<bool, Fault> {
        self.0.memory.expire(outcomes_before_ms, log_before_ms).await
    }

    async fn objects(&self, ids: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        self.0.memory.objects(ids).await
    }

    async fn list(&self, key: ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        self.0.memory.list(key, newest, max_bytes).await
    }

    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault> {
        self.0.memory.scan(scan, max_bytes).await
    }

    async fn edges(
        &self,
        key: ListKey,
        id2s: &[ObjectId],
        times: (EdgeTime, EdgeTime),
        max_bytes: usize,
    ) -> Result<AsOf<EdgePage>, Fault> {
        self.0.memory.edges(key, id2s, times, max_bytes).await
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        self.0.memory.intents(shards, after, limit).await
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        self.0.memory.intents_waiting().await
    }

    async fn head(&self) -> Result<Position, Fault> {
        self.0.memory.head().await
    }

    async fn close(&self) {}
}

struct Faulty {
    faults: Arc<Faults>,
    inner: Box<dyn Transaction>,
}

#[async_trait]
impl Transaction for Faulty {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        self.inner.shards().await
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        self.inner.load(wanted).await
    }

    /// Refuses a batch that has an object with a field `poison`.
    async fn write(&mut self, write: &WriteBack) -> Result<(), Fault> {
        let is_poison = |row: &ObjectRow| tao_proto::data::decode(&row.data).is_some_and(|d| d.contains_key("poison"));
        if write.objects.values().flatten().any(is_poison) {
            return Err(Fault::Refused);
        }
        self.inner.write(write).await
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        let fault = self.faults.commit.lock().take();
        if fault.is_none() || self.faults.happens.load(Ordering::Relaxed) {
            self.inner.commit().await?;
        }
        fault.map_or(Ok(()), Err)
    }
}

fn add(name: &str, value: Value) -> Write {
    let data = Data::from([(name.to_owned(), value)]);
    Write::ObjectAdd { otype: TypeId(1), data, placement: Placement::Anywhere }
}

async fn write(store: &Working, write: Write) -> tao_model::Result<Position> {
    store.write(write, WriteContext::default()).await.map(|outcome| outcome.position)
}

#[tokio::test]
async fn a_write_that_the_database_refuses_loses_only_itself() {
    let faults = Faults::new();
    let store = faults.store();
    let mut subscription = store.subscribe().unwrap();
    // All three are queued before the lane runs, so they are one batch.
    let (one, poison, two) = tokio::join!(
        write(&store, add("fine", Value::Int64(1))),
        write(&store, add("poison", Value::Int64(1))),
        write(&store, add("fine", Value::Int64(2))),
    );
    assert!(matches!(poison, Err(Error::Internal { .. })), "{poison:?}");
    assert_eq!((one.unwrap(), two.unwrap()), (START.plus(1), START.plus(2)), "no position is lost");
    for n in 0..2 {
        let commit = subscription.next().await.unwrap();
        assert_eq!((commit.previous, commit.changes.len()), (START.plus(n), 1));
    }
    store.close().await;
}

#[tokio::test]
async fn a_commit_in_doubt_resets_subscribers_whether_or_not_it_happened() {
    for happens in [false, true] {
        let faults = Faults::new();
        let store = faults.store();
        faults.happens.store(happens, Ordering::Relaxed);
        write(&store, add("a", Value::Int64(1))).await.unwrap();
        let mut subscription = store.subscribe().unwrap();
        *faults.commit.lock() = Some(Fault::InDoubt);
        let doubt = write(&store, add("b", Value::Int64(1))).await.unwrap_err();
        assert!(matches!(doubt, Error::Unavailable { not_applied: false, .. }), "{doubt:?}");
        assert!(subscription.next().await.is_none());
        let next = write(&store, add("c", Value::Int64(1))).await.unwrap();
        assert_eq!(next, START.plus(if happens { 3 } else { 2 }));
        assert_eq!(store.subscribe().unwrap().start, next);
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_has_done_nothing() {
    let faults = Faults::new();
    let store = faults.store();
    let mut subscription = store.subscribe().unwrap();
    *faults.begin.lock() = Some(Fault::Unreachable);
    let down = write(&store, add("a", Value::Int64(1))).await.unwrap_err();
    assert!(matches!(down, Error::Unavailable { not_applied: true, .. }), "{down:?}");
    assert_eq!(write(&store, add("a", Value::Int64(1))).await, Ok(START.plus(1)));
    assert_eq!(subscription.next().await.unwrap().previous, START, "the stream goes on");
    // Lost to another: the stream ends at once, and there is no other.
    faults.lost.store(true, Ordering::Relaxed);
    *faults.begin.lock() = Some(Fault::Fenced);
    let fenced = write(&store, add("a", Value::Int64(1))).await.unwrap_err();
    assert!(matches!(fenced, Error::Unavailable { not_applied: true, .. }), "{fenced:?}");
    assert!(subscription.next().await.is_none() && store.subscribe().is_err());
    store.close().await;
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_and_is_done_before_the_end() {
    let faults = Faults::new();
    faults.begins.forget_permits(Semaphore::MAX_PERMITS);
    let store = Arc::new(faults.store());
    let large = || add("x", Value::Bytes(vec![7; 60_000]));
    let writes = (0..1_300).map(|_| {
        let (store, large) = (store.clone(), large());
        tokio::spawn(async move { write(&store, large).await })
    });
    let mut writes: Vec<_> = writes.collect();
    // The last ones are refused before any is done.
    let refused = writes.pop().unwrap().await.unwrap();
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
    faults.begins.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut done = Vec::new();
    for write in writes {
        match write.await.unwrap() {
            Ok(position) => done.push(position),
            Err(error) => assert!(matches!(error, Error::Overloaded { .. }), "{error:?}"),
        }
    }
    assert!((1_000..1_300).contains(&done.len()), "{}", done.len());
    assert_eq!(store.head().await.unwrap(), START.plus(done.len() as u64));
    write(&store, large()).await.unwrap();
    store.close().await;
    assert!(write(&store, large()).await.is_err());
}
