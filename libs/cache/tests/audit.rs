//! An audit tells what is wrong from what it can't tell, and notices a fault that was made on purpose.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tao_cache::{Audit, CacheOptions, CachedList, CachedReader, Entry, Fresh, MemoryCache, Mode, Upstream};
use tao_model::mutation::{Rule, without};
use tao_model::{Change, ChangeKind, Edge, Error, Key, ObjectId, Position, Result, ShardId, SystemClock, TypeId};
use tao_proto::edges::encode_list;
use tao_proto::internal::{ListState, ObjectState, call::Op, reply::Result as ReplyBody};
use tokio::time::Instant;

const ID: ObjectId = match ObjectId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};
const OBJECT: Key = Key::Object(ID);
const LIST: Key = Key::List(ID, TypeId(1));

/// A log's owner that has one answer.
#[derive(Clone, Default)]
struct Owner(Arc<Mutex<Option<Fresh<ReplyBody>>>>);

impl Upstream for Owner {
    type Context = Instant;

    fn deadline(context: &Instant) -> Instant {
        *context
    }

    async fn read(&self, _: ObjectId, _: Op, _: Position, mode: Mode, _: &Instant) -> Result<Fresh<ReplyBody>> {
        assert_eq!(mode, Mode::Strong);
        self.0.lock().clone().ok_or_else(|| Error::unavailable("no answer"))
    }
}

struct Tier {
    reader: CachedReader<Owner>,
    owner: Owner,
}

/// The stream began at 1:100 and has come to 1:120.
fn tier() -> Tier {
    let options = CacheOptions { capacity_bytes: 1 << 24, clock: Arc::new(SystemClock), tier: "test", log: 0 };
    let memory = MemoryCache::new(options);
    memory.start(at(100));
    memory.apply_stream(at(100), &[other(120)]).unwrap();
    let owner = Owner::default();
    Tier { reader: CachedReader::new(memory, None, owner.clone()), owner }
}

impl Tier {
    fn memory(&self) -> &MemoryCache {
        self.reader.memory()
    }

    fn stored(&self, as_of: Position, value: ReplyBody) {
        *self.owner.0.lock() = Some(Fresh { as_of, value });
    }

    async fn audit(&self, key: Key) -> Audit {
        self.reader.audit(key, Instant::now() + Duration::from_secs(20)).await.unwrap()
    }
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn other(lsn: u64) -> Change {
    let kind = ChangeKind::Object(ObjectId::new(77).expect("positive"), None);
    Change { position: at(lsn), shard: ShardId(0), kind }
}

fn put(lsn: u64, text: &'static str) -> Change {
    Change { position: at(lsn), shard: ShardId(0), kind: ChangeKind::Object(ID, Some(bytes(text))) }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn object(text: &'static str) -> ReplyBody {
    ReplyBody::Object(ObjectState { object: Some(bytes(text)) })
}

fn edges(times: &[u32]) -> Bytes {
    let edge =
        |time: &u32| Edge { id2: ObjectId::new(i64::from(*time)).expect("positive"), time: *time, data: Bytes::new() };
    encode_list(&times.iter().map(edge).collect::<Vec<_>>(), usize::MAX).0
}

fn list(count: u64, times: &[u32]) -> Entry {
    Entry::List(Arc::new(CachedList::from_encoded(count, edges(times)).expect("a list")))
}

fn stored_list(count: u64, times: &[u32]) -> ReplyBody {
    ReplyBody::List(ListState { count, edges: edges(times) })
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_is_compared_with_what_is_stored() {
    let tier = tier();
    assert_eq!(tier.audit(OBJECT).await, Audit::Inconclusive, "not cached");
    tier.memory().fill(OBJECT, at(110), &Entry::Object(Some(bytes("a")))).unwrap();
    tier.stored(at(120), object("a"));
    assert_eq!(tier.audit(OBJECT).await, Audit::Consistent);
    tier.stored(at(120), object("b"));
    let Audit::Inconsistent(found) = tier.audit(OBJECT).await else { panic!("not noticed") };
    assert_eq!((found.key, found.at), (OBJECT, at(120)));
    assert_eq!(found.cached, Entry::Object(Some(bytes("a"))));
    assert_eq!(found.stored, Fresh { as_of: at(120), value: Entry::Object(Some(bytes("b"))) });
    tier.stored(Position::new(2, 120), object("b"));
    assert_eq!(tier.audit(OBJECT).await, Audit::Inconclusive, "history was undone, or will be");
}

#[tokio::test(start_paused = true)]
async fn of_lists_what_both_show_is_compared() {
    let tier = tier();
    tier.memory().fill(LIST, at(110), &list(3, &[9, 8])).unwrap();
    for (count, times, is_same) in [
        (3, &[9, 8, 7][..], true),
        (3, &[9], true),
        (3, &[9, 7], false),
        (4, &[9, 8, 7], false),
        (3, &[10, 9, 8], false),
    ] {
        tier.stored(at(120), stored_list(count, times));
        let found = tier.audit(LIST).await;
        assert_eq!(found == Audit::Consistent, is_same, "{count} {times:?}");
        assert_eq!(matches!(found, Audit::Inconsistent(_)), !is_same, "{count} {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_audit_waits_for_the_stream_and_tells_nothing_of_what_changed() {
    let tier = tier();
    tier.memory().fill(OBJECT, at(110), &Entry::Object(Some(bytes("a")))).unwrap();
    tier.stored(at(130), object("b"));
    let mut early = Box::pin(tier.audit(OBJECT));
    assert!(futures::poll!(&mut early).is_pending());
    tier.memory().apply_stream(at(120), &[put(130, "b")]).unwrap();
    assert_eq!(early.await, Audit::Inconclusive, "it changed in between");
    tier.stored(at(140), object("b"));
    let mut later = Box::pin(tier.audit(OBJECT));
    assert!(futures::poll!(&mut later).is_pending());
    tier.memory().apply_stream(at(130), &[other(140)]).unwrap();
    assert_eq!(later.await, Audit::Consistent);
    tier.stored(at(999), object("b"));
    assert_eq!(tier.audit(OBJECT).await, Audit::Inconclusive, "the stream does not come there in time");
    let mut undone = Box::pin(tier.audit(OBJECT));
    assert!(futures::poll!(&mut undone).is_pending());
    tier.memory().start(Position::new(2, 5));
    assert_eq!(undone.await, Audit::Inconclusive);
}

/// A fault that was made on purpose: a fill that came late was taken.
#[tokio::test(start_paused = true)]
async fn a_broken_rule_is_noticed() {
    for off in [None, Some(Rule::FillTestedOnArrival)] {
        let tier = tier();
        tier.memory().apply_stream(at(120), &[put(130, "b")]).unwrap();
        without(off, || tier.memory().fill(OBJECT, at(125), &Entry::Object(Some(bytes("a")))));
        tier.stored(at(130), object("b"));
        let found = tier.audit(OBJECT).await;
        assert_eq!(matches!(found, Audit::Inconsistent(_)), off.is_some(), "{found:?}");
    }
}

#[test]
fn samples_are_cached_keys() {
    let tier = tier();
    assert_eq!(tier.memory().sample(5), []);
    let keys: HashSet<_> = (1..=50).filter_map(ObjectId::new).map(Key::Object).collect();
    for key in &keys {
        tier.memory().fill(*key, at(110), &Entry::Object(None)).unwrap();
    }
    let sampled: HashSet<_> = tier.memory().sample(50).into_iter().collect();
    assert_eq!(sampled, keys);
    keys.iter().skip(1).for_each(|key| tier.memory().evict(key));
    assert_eq!(tier.memory().sample(50).len(), 1);
    tier.memory().start(at(200));
    assert_eq!(tier.memory().sample(5), []);
}
