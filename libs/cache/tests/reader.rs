//! Reading through the caches of a tier: what is asked of the next tier, what is cached of its answers, and who waits for whom.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tao_cache::{CacheOptions, CachedReader, Fresh, MemoryCache, Mode, Read, Upstream};
use tao_model::{
    Change, ChangeKind, Clock, Edge, Error, Key, ObjectId, Position, Result, ShardId, SystemClock, TypeId,
};
use tao_proto::edges::encode_list;
use tao_proto::internal::{ListState, ObjectState, call::Op, reply::Result as ReplyBody};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const ID: ObjectId = match ObjectId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};
const LIST: TypeId = TypeId(1);
const OBJECT: Key = Key::Object(ID);

/// What the next tier was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    newest: Option<u32>,
    floor: Position,
    mode: Mode,
}

/// A next tier that gives the answers it was told to give, when it is let.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<VecDeque<Result<Fresh<ReplyBody>>>>,
    gate: Option<Semaphore>,
}

#[derive(Clone)]
struct Next(Arc<Script>);

impl Upstream for Next {
    type Context = Instant;

    fn deadline(context: &Instant) -> Instant {
        *context
    }

    async fn read(&self, _: ObjectId, op: Op, floor: Position, mode: Mode, _: &Instant) -> Result<Fresh<ReplyBody>> {
        let newest = if let Op::ListRead(ask) = &op { Some(ask.newest) } else { None };
        self.0.asked.lock().push(Asked { newest, floor, mode });
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.expect("open").forget();
        }
        self.0.answers.lock().pop_front().expect("an answer for every question")
    }
}

struct Tier {
    reader: CachedReader<Next>,
    next: Arc<Script>,
}

impl Tier {
    fn new(answers: impl IntoIterator<Item = Result<Fresh<ReplyBody>>>, gate: Option<Semaphore>) -> Self {
        let options = CacheOptions { capacity_bytes: 1 << 26, clock: Arc::new(SystemClock), tier: "test", log: 0 };
        let memory = MemoryCache::new(options);
        memory.start(at(100));
        let answers = Mutex::new(answers.into_iter().collect());
        let next = Arc::new(Script { asked: Mutex::default(), answers, gate });
        Self { reader: CachedReader::new(memory, None, Next(next.clone())), next }
    }

    async fn get(&self, floor: u64, mode: Mode) -> Result<Fresh<Option<Bytes>>> {
        self.reader.object(ID, read(floor, mode)).await
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.next.asked.lock())
    }
}

fn read(floor: u64, mode: Mode) -> Read<Instant> {
    Read { floor: at(floor), mode, context: Instant::now() + Duration::from_secs(20) }
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn object(as_of: u64, text: &'static str) -> Result<Fresh<ReplyBody>> {
    Ok(Fresh {
        as_of: at(as_of),
        value: ReplyBody::Object(ObjectState { object: Some(Bytes::from_static(text.as_bytes())) }),
    })
}

fn shown(as_of: u64, text: &'static str) -> Result<Fresh<Option<Bytes>>> {
    Ok(Fresh { as_of: at(as_of), value: Some(Bytes::from_static(text.as_bytes())) })
}

/// A list of `count` edges, of which `n` are shown, with so many bytes of data each.
fn list(as_of: u64, count: u64, n: u32, bytes: usize) -> Result<Fresh<ReplyBody>> {
    let data = Bytes::from(vec![0; bytes]);
    let edge = |n| Edge { id2: ObjectId::new(i64::from(n)).expect("positive"), time: n, data: data.clone() };
    let edges: Vec<_> = (1..=n).rev().map(edge).collect();
    let state = ListState { count, edges: encode_list(&edges, usize::MAX).0 };
    Ok(Fresh { as_of: at(as_of), value: ReplyBody::List(state) })
}

fn change(lsn: u64) -> Change {
    Change { position: at(lsn), shard: ShardId(0), kind: ChangeKind::Object(ID, None) }
}

#[tokio::test]
async fn what_is_missed_is_asked_for_once() {
    let tier = Tier::new([object(150, "a"), object(170, "b")], None);
    assert_eq!(tier.get(0, Mode::Cached).await, shown(150, "a"));
    assert_eq!(tier.get(150, Mode::Cached).await, shown(150, "a"));
    assert_eq!(tier.asked(), [Asked { newest: None, floor: at(100), mode: Mode::Cached }]);
    assert_eq!(tier.get(160, Mode::Cached).await, shown(170, "b"));
    assert_eq!(tier.asked(), [Asked { newest: None, floor: at(160), mode: Mode::Cached }]);
}

#[tokio::test]
async fn an_answer_below_the_floor_is_an_error_and_not_cached() {
    let tier = Tier::new([object(119, "old"), object(120, "a")], None);
    assert!(matches!(tier.get(120, Mode::Cached).await, Err(Error::Unavailable { .. })));
    assert_eq!(tier.get(0, Mode::Cached).await, shown(120, "a"));
}

#[tokio::test]
async fn an_answer_of_another_kind_or_that_cannot_be_read_is_an_error() {
    let broken = ListState { count: 1, edges: Bytes::from_static(b"no list") };
    let broken = Fresh { as_of: at(150), value: ReplyBody::List(broken) };
    let tier = Tier::new([list(150, 0, 0, 0), object(150, "a"), Ok(broken)], None);
    assert!(matches!(tier.get(0, Mode::Cached).await, Err(Error::Internal { .. })));
    for _ in 0..2 {
        let found = tier.reader.list(ID, LIST, 0, read(0, Mode::Cached)).await;
        assert!(matches!(found, Err(Error::Internal { .. })));
    }
}

#[tokio::test]
async fn strong_goes_past_the_cache_and_fills_it() {
    let tier = Tier::new([object(150, "a"), object(160, "b")], None);
    tier.get(0, Mode::Cached).await.unwrap();
    assert_eq!(tier.get(0, Mode::Strong).await, shown(160, "b"));
    assert_eq!(tier.asked().last().map(|asked| asked.mode), Some(Mode::Strong));
    assert_eq!(tier.get(0, Mode::Cached).await, shown(160, "b"));
}

#[tokio::test]
async fn bounded_staleness_asks_on_when_the_stream_is_silent() {
    let tier = Tier::new([object(150, "a"), object(160, "b")], None);
    tier.get(0, Mode::Cached).await.unwrap();
    assert_eq!(tier.get(0, Mode::MaxStaleness(60_000)).await, shown(160, "b"), "not heard yet");
    tier.reader.memory().heartbeat(at(100), SystemClock.now_ms()).unwrap();
    assert_eq!(tier.get(0, Mode::MaxStaleness(60_000)).await, shown(160, "b"));
    assert_eq!(tier.asked().len(), 2);
}

#[tokio::test]
async fn a_late_answer_serves_who_asked_and_nobody_after() {
    let tier = Tier::new([object(150, "a"), object(200, "b")], Some(Semaphore::new(0)));
    let mut early = Box::pin(tier.get(0, Mode::Cached));
    assert!(futures::poll!(&mut early).is_pending());
    tier.reader.apply_write(&[change(180)]);
    let mut late = Box::pin(tier.get(0, Mode::Cached));
    assert!(futures::poll!(&mut late).is_pending());
    tier.next.gate.as_ref().unwrap().add_permits(2);
    assert_eq!(early.await, shown(150, "a"), "began before the write");
    assert_eq!(late.await, shown(200, "b"), "began after it, and so does not join");
    assert_eq!(tier.asked().iter().map(|asked| asked.floor).collect::<Vec<_>>(), [at(100), at(180)]);
    assert_eq!(tier.get(0, Mode::Cached).await, shown(200, "b"));
}

#[tokio::test]
async fn who_wants_it_younger_does_not_join() {
    let tier = Tier::new([object(150, "a"), object(160, "b")], Some(Semaphore::new(0)));
    tier.reader.memory().heartbeat(at(100), SystemClock.now_ms()).unwrap();
    let mut any = Box::pin(tier.get(0, Mode::Cached));
    let mut young = Box::pin(tier.get(0, Mode::MaxStaleness(60_000)));
    let mut also_any = Box::pin(tier.get(0, Mode::Cached));
    assert!(futures::poll!(&mut any).is_pending() && futures::poll!(&mut young).is_pending());
    assert!(futures::poll!(&mut also_any).is_pending());
    assert_eq!(
        tier.asked().iter().map(|asked| asked.mode).collect::<Vec<_>>(),
        [Mode::Cached, Mode::MaxStaleness(60_000)]
    );
    tier.next.gate.as_ref().unwrap().add_permits(2);
    let (any, young, also_any) = futures::join!(any, young, also_any);
    assert_eq!((any, young.clone()), (shown(150, "a"), shown(160, "b")));
    assert_eq!(also_any, young, "joins the younger");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_until_its_own_deadline() {
    let tier = Tier::new([], Some(Semaphore::new(0)));
    let impatient = Read { context: Instant::now() + Duration::from_millis(30), ..read(0, Mode::Cached) };
    let found = tier.reader.object(ID, impatient).await;
    assert_eq!(found, Err(Error::DeadlineExceeded { not_applied: true }));
}

#[tokio::test]
async fn lists_are_fetched_by_sensible_numbers_and_no_more_often_than_needed() {
    let tier =
        Tier::new([list(150, 500, 0, 0), list(150, 500, 64, 0), list(150, 500, 128, 0), list(150, 500, 500, 0)], None);
    let newest = async |n| {
        let found = tier.reader.list(ID, LIST, n, read(0, Mode::Cached)).await.unwrap().value;
        (found.count(), found.len())
    };
    assert_eq!(newest(0).await, (500, 0), "the count alone");
    assert_eq!(newest(1).await, (500, 64));
    assert_eq!((newest(50).await, newest(0).await), ((500, 64), (500, 64)));
    assert_eq!(newest(65).await, (500, 128));
    assert_eq!((newest(5_000).await, newest(6_000).await), ((500, 500), (500, 500)), "complete");
    assert_eq!(tier.asked().iter().filter_map(|asked| asked.newest).collect::<Vec<_>>(), [0, 64, 128, 6_000]);
}

#[tokio::test]
async fn a_list_that_was_cut_by_size_is_not_asked_for_again() {
    for (n, bytes) in [(47, 64 * 1024), (5_900, 500)] {
        let tier = Tier::new([list(150, 6_000, n, bytes)], None);
        for _ in 0..2 {
            let found = tier.reader.list(ID, LIST, 6_000, read(0, Mode::Cached)).await.unwrap();
            assert_eq!(found.value.len(), n as usize);
        }
        assert_eq!(tier.asked().len(), 1, "edges of {bytes} bytes");
    }
}

/// Tells when it is freed.
struct Owned(Arc<[u8; 64]>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

#[tokio::test]
async fn a_cached_value_does_not_keep_the_message_that_it_came_with() {
    let message = Arc::new([7; 64]);
    let slice = Bytes::from_owner(Owned(message.clone())).slice(..4);
    let answer = Fresh { as_of: at(150), value: ReplyBody::Object(ObjectState { object: Some(slice) }) };
    let tier = Tier::new([Ok(answer)], None);
    tier.get(0, Mode::Cached).await.unwrap();
    assert!(matches!(tier.reader.memory().lookup(&OBJECT, 0, at(0)), tao_cache::Lookup::Hit(..)));
    assert_eq!(Arc::strong_count(&message), 1, "the message is freed");
}
