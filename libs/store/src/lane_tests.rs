//! The lane over a database that fails on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tao_model::{
    Clock, ClusterId, ClusterInfo, Data, EdgeTime, Error, IdLayout, LogId, ObjectId, Placement, Position, Schema,
    ShardId, ShardSet, SystemClock, TypeId, Value, Write,
};
use tao_stream::Origin;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};

use crate::backend::{
    Backend, Base, Begun, Fault, ListKey, LogCut, LogRows, ObjectRow, Rows, Session, ShardRow, Transaction, Wanted,
    WriteBack,
};
use crate::epoch::NewEpoch;
use crate::housekeeping::Housekeeping;
use crate::listener::Listener;
use crate::memory::{MemoryBackend, MemoryDatabase};
use crate::open::{OpenOptions, start};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan, Store, WriteContext};

mod beside;

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
    /// Whether the log can't be read.
    down: AtomicBool,
    /// Swaps that may get to the database, and answers of swaps that may get back.
    swaps: Semaphore,
    answers: Semaphore,
    /// Looks that are done, and swaps that were begun.
    looked: AtomicUsize,
    swapping: AtomicUsize,
}

impl Faults {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(
                MemoryDatabase::default(),
                START.epoch,
                ShardSet::all(&IdLayout::STANDARD),
                Arc::new(SystemClock),
            ),
            begins: Semaphore::new(Semaphore::MAX_PERMITS),
            begin: Mutex::default(),
            commit: Mutex::default(),
            happens: AtomicBool::new(false),
            down: AtomicBool::new(false),
            swaps: Semaphore::new(Semaphore::MAX_PERMITS),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            looked: AtomicUsize::new(0),
            swapping: AtomicUsize::new(0),
        })
    }

    async fn store(self: &Arc<Self>) -> Arc<dyn Store> {
        let options = OpenOptions::new("memory:", Arc::new(Schema::social()), IdLayout::STANDARD);
        let info = ClusterInfo { cluster: ClusterId([1; 16]), log: LogId(0), layout: IdLayout::STANDARD };
        start(Arc::new(Shared(self.clone())), info, Arc::default(), options).await.unwrap()
    }
}

struct Shared(Arc<Faults>);

#[async_trait]
impl Backend for Shared {
    fn system(&self) -> &'static str {
        self.0.memory.system()
    }

    async fn session(&self) -> Result<Box<dyn Session>, Fault> {
        self.0.begins.acquire().await.expect("never closed").forget();
        if let Some(fault) = self.0.begin.lock().take() {
            return Err(fault);
        }
        Ok(Box::new(FaultySession { faults: self.0.clone(), inner: self.0.memory.session().await? }))
    }

    async fn begin(&self) -> Result<Begun, Fault> {
        self.0.begins.acquire().await.expect("never closed").forget();
        if let Some(fault) = self.0.begin.lock().take() {
            return Err(fault);
        }
        let begun = self.0.memory.begin().await?;
        let transaction = Box::new(Faulty { faults: self.0.clone(), inner: begun.transaction });
        Ok(Begun { transaction, ..begun })
    }

    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault> {
        self.0.memory.expire_outcomes(before_ms).await
    }

    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault> {
        self.0.memory.expire_log(cut).await
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault> {
        if self.0.down.load(Ordering::Relaxed) {
            return Err(Fault::Unreachable);
        }
        self.0.memory.log_after(after, max_bytes).await
    }

    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault> {
        self.0.memory.log_since(since_ms, max_changes).await
    }

    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault> {
        self.0.memory.begin_epoch(why).await
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

/// Refuses a batch that has an object with a field `poison`.
fn refuse_poison(write: &WriteBack) -> Result<(), Fault> {
    let is_poison = |row: &ObjectRow| tao_proto::data::decode(&row.data).is_some_and(|d| d.contains_key("poison"));
    if write.objects.values().flatten().any(is_poison) { Err(Fault::Refused) } else { Ok(()) }
}

struct FaultySession {
    faults: Arc<Faults>,
    inner: Box<dyn Session>,
}

#[async_trait]
impl Session for FaultySession {
    async fn look(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault> {
        let found = self.inner.look(wanted).await;
        self.faults.looked.fetch_add(1, Ordering::Relaxed);
        found
    }

    async fn swap(self: Box<Self>, from: Base, write: Arc<WriteBack>) -> Result<bool, Fault> {
        refuse_poison(&write)?;
        self.faults.swapping.fetch_add(1, Ordering::Relaxed);
        self.faults.swaps.acquire().await.expect("never closed").forget();
        let fault = self.faults.commit.lock().take();
        let mut is_there = true;
        if fault.is_none() || self.faults.happens.load(Ordering::Relaxed) {
            is_there = self.inner.swap(from, write).await?;
        }
        self.faults.answers.acquire().await.expect("never closed").forget();
        fault.map_or(Ok(is_there), Err)
    }
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

    async fn write(&mut self, from: Base, write: &WriteBack) -> Result<(), Fault> {
        refuse_poison(write)?;
        self.inner.write(from, write).await
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        let fault = self.faults.commit.lock().take();
        if fault.is_none() || self.faults.happens.load(Ordering::Relaxed) {
            self.inner.commit().await?;
        }
        fault.map_or(Ok(()), Err)
    }

    async fn end(self: Box<Self>) {
        self.inner.end().await;
    }
}

fn add(name: &str, value: Value) -> Write {
    let data = Data::from([(name.to_owned(), value)]);
    Write::ObjectAdd { otype: TypeId(1), data, placement: Placement::Anywhere }
}

async fn write(store: &Arc<dyn Store>, write: Write) -> tao_model::Result<Position> {
    store.write(write, WriteContext::default()).await.map(|outcome| outcome.position)
}

#[tokio::test]
async fn a_write_that_the_database_refuses_loses_only_itself() {
    let faults = Faults::new();
    let store = faults.store().await;
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    // All three are queued before the lane runs, so they are one batch.
    let (one, poison, two) = tokio::join!(
        write(&store, add("fine", Value::Int64(1))),
        write(&store, add("poison", Value::Int64(1))),
        write(&store, add("fine", Value::Int64(2))),
    );
    assert!(matches!(poison, Err(Error::Internal { .. })), "{poison:?}");
    assert_eq!((one.unwrap(), two.unwrap()), (START.plus(1), START.plus(2)), "no position is lost");
    assert_eq!(listener.up_to(START.plus(2)).await.unwrap().len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_commit_in_doubt_is_heard_of_if_it_happened() {
    for happens in [false, true] {
        let faults = Faults::new();
        let store = faults.store().await;
        faults.happens.store(happens, Ordering::Relaxed);
        write(&store, add("a", Value::Int64(1))).await.unwrap();
        let mut listener = Listener::open(&store, Origin::After(START)).await.unwrap();
        *faults.commit.lock() = Some(Fault::InDoubt);
        let doubt = write(&store, add("b", Value::Int64(1))).await.unwrap_err();
        assert!(matches!(doubt, Error::Unavailable { not_applied: false, .. }), "{doubt:?}");
        if happens {
            // Without any other write.
            assert_eq!(listener.up_to(START.plus(2)).await.unwrap().len(), 2);
        }
        let next = write(&store, add("c", Value::Int64(1))).await.unwrap();
        assert_eq!(next, START.plus(if happens { 3 } else { 2 }));
        listener.up_to(next).await.expect("the stream goes on");
        store.close().await;
        assert!(listener.changes().await.is_err());
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_has_done_nothing() {
    let faults = Faults::new();
    let store = faults.store().await;
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    *faults.begin.lock() = Some(Fault::Unreachable);
    let down = write(&store, add("a", Value::Int64(1))).await.unwrap_err();
    assert!(matches!(down, Error::Unavailable { not_applied: true, .. }), "{down:?}");
    assert_eq!(write(&store, add("a", Value::Int64(1))).await, Ok(START.plus(1)));
    assert_eq!(listener.changes().await.unwrap().len(), 1, "the stream goes on");
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_made_only_while_the_log_can_be_read() {
    let faults = Faults::new();
    let store = faults.store().await;
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    let mut last = 0;
    for _ in 0..5 {
        let time_ms = listener.heartbeat().await.unwrap();
        assert!(time_ms > last);
        last = time_ms;
    }
    faults.down.store(true, Ordering::Relaxed);
    // One may have been made before.
    let _ = timeout(Duration::from_secs(1), listener.heartbeat()).await;
    let none = timeout(Duration::from_secs(60), listener.heartbeat()).await;
    assert!(none.is_err(), "it can't be known whether others have written: {none:?}");
    faults.down.store(false, Ordering::Relaxed);
    listener.heartbeat().await.expect("the stream has stayed open");
}

#[tokio::test]
async fn what_others_commit_is_heard_too_and_in_order() {
    let faults = Faults::new();
    let (one, two) = (faults.store().await, faults.store().await);
    let mut listeners = Vec::new();
    for store in [&one, &two] {
        listeners.push(Listener::open(store, Origin::Now).await.unwrap());
    }
    let mut all = Vec::new();
    for n in 0..50 {
        let store = if n % 3 == 0 { &one } else { &two };
        all.push(write(store, add("n", Value::Int64(n))).await.unwrap());
    }
    assert!(all.is_sorted() && all[49] == START.plus(50));
    for listener in &mut listeners {
        let heard = listener.up_to(all[49]).await.unwrap();
        assert_eq!(heard.len(), 50);
    }
}

#[tokio::test]
async fn a_log_that_ends_before_what_was_seen_begins_an_epoch() {
    let faults = Faults::new();
    let store = faults.store().await;
    write(&store, add("a", Value::Int64(1))).await.unwrap();
    let kept = faults.memory.database.snapshot();
    let lost = write(&store, add("b", Value::Int64(1))).await.unwrap();
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    faults.memory.database.restore(&kept);
    // Whoever notices first, the lane or who follows the log.
    let next = write(&store, add("c", Value::Int64(1))).await.unwrap();
    assert!(next.epoch > lost.epoch && next.lsn == 2, "{next}");
    assert!(listener.changes().await.is_err(), "streams of the undone history end");
    let mut listener = Listener::open(&store, Origin::After(lost)).await.unwrap();
    assert_eq!(listener.position.epoch, next.epoch);
    let more = write(&store, add("d", Value::Int64(1))).await.unwrap();
    listener.up_to(more).await.unwrap();
}

/// A clock that stands.
struct At(u64);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        self.0
    }
}

#[tokio::test]
async fn the_log_is_kept_for_who_lags_but_not_for_ever() {
    let faults = Faults::new();
    let store = faults.store().await;
    for n in 0..3 {
        write(&store, add("n", Value::Int64(n))).await.unwrap();
    }
    let mut slow = Listener::open(&store, Origin::After(START.plus(1))).await.unwrap();
    let after = async |hours: u64| {
        let clock = Arc::new(At(SystemClock.now_ms() + hours * 3_600_000 + 60_000));
        let (backend, ring) = (Arc::new(Shared(faults.clone())), store.ring().clone());
        Housekeeping { backend, clock, ring, log_retention: Duration::from_hours(1) }.expire().await;
    };
    after(0).await;
    assert_eq!(store.log_after(START, 1).await.unwrap().len(), 1, "young");
    after(1).await;
    let expired = store.log_after(START, 1).await;
    assert!(matches!(expired, Err(Error::ChangesExpired { .. })), "{expired:?}");
    assert_eq!(store.log_after(START.plus(1), 1 << 20).await.unwrap().len(), 2, "the slowest still needs these");
    after(4).await;
    let expired = store.log_after(START.plus(1), 1).await;
    assert!(matches!(expired, Err(Error::ChangesExpired { .. })), "{expired:?}");
    assert_eq!(store.log_after(START.plus(3), 1).await, Ok(vec![]), "at the end nothing is missing");
    assert_eq!(slow.up_to(START.plus(3)).await.unwrap().len(), 2, "memory may have what the log has not");
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_and_is_done_before_the_end() {
    let faults = Faults::new();
    let store = faults.store().await;
    faults.begins.forget_permits(Semaphore::MAX_PERMITS);
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
