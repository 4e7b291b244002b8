//! Each rule of docs/consistency.md on its own, at the cache of one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tao_cache::{CacheOptions, CachedList, Entry, Lookup, MemoryCache};
use tao_model::{Change, ChangeKind, Clock, Edge, EdgeKey, Key, ListDelta, ObjectId, Position, ShardId, TypeId};
use tao_proto::edges::{encode_edge, encode_list};

const ID: ObjectId = match ObjectId::new(1) {
    Some(id) => id,
    None => unreachable!(),
};
const OBJECT: Key = Key::Object(ID);
const LIST: Key = Key::List(ID, TypeId(1));

/// A clock that is set.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn cache_at(clock: &Arc<Hand>) -> MemoryCache {
    MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock: clock.clone(), tier: "test", log: 0 })
}

/// A cache whose stream began at 1:100.
fn started() -> MemoryCache {
    let cache = cache_at(&Arc::new(Hand(AtomicU64::new(0))));
    cache.start(at(100));
    cache
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn object(text: &'static str) -> Entry {
    Entry::Object(Some(Bytes::from_static(text.as_bytes())))
}

fn edge(time: u32) -> Edge {
    Edge { id2: ObjectId::new(i64::from(time)).expect("positive"), time, data: Bytes::new() }
}

fn list(times: &[u32]) -> Entry {
    let edges: Vec<_> = times.iter().map(|time| edge(*time)).collect();
    let list = CachedList::from_encoded(times.len() as u64, encode_list(&edges, usize::MAX).0);
    Entry::List(Arc::new(list.expect("a list")))
}

fn put(position: Position, text: &'static str) -> Change {
    let kind = ChangeKind::Object(ID, Some(Bytes::from_static(text.as_bytes())));
    Change { position, shard: ShardId(0), kind }
}

/// An edge at `time` joins a list that then has `count`.
fn add(position: Position, prev: Position, count: u64, time: u32) -> Change {
    let edge = edge(time);
    let delta = ListDelta::Put(EdgeKey { time, id2: edge.id2 }, encode_edge(&edge));
    let kind = ChangeKind::List { id1: ID, atype: TypeId(1), prev, count, delta };
    Change { position, shard: ShardId(0), kind }
}

/// A change of something else.
fn other(position: Position) -> Change {
    let kind = ChangeKind::Object(ObjectId::new(77).expect("positive"), None);
    Change { position, shard: ShardId(0), kind }
}

fn look(cache: &MemoryCache, key: &Key) -> Lookup {
    cache.lookup(key, 0, Position::ZERO)
}

#[test]
fn rule_1_freshness_grows_with_the_stream() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(120), &object("a")).is_some());
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(120)));
    cache.apply_stream(at(100), &[other(at(130))]).unwrap();
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(130)));
}

#[test]
fn rule_2_a_miss_asks_for_the_largest_of_token_memory_and_w0() {
    let cache = started();
    assert_eq!(look(&cache, &OBJECT), Lookup::Miss(at(100)), "w0");
    cache.apply(&put(at(150), "a"));
    assert_eq!(look(&cache, &OBJECT), Lookup::Miss(at(150)), "memory");
    assert_eq!(cache.lookup(&OBJECT, 0, at(170)), Lookup::Miss(at(170)), "token");
    assert!(cache.fill(OBJECT, at(160), &object("b")).is_some());
    assert_eq!(cache.lookup(&OBJECT, 0, at(160)), Lookup::Hit(object("b"), at(160)));
    assert_eq!(cache.lookup(&OBJECT, 0, at(161)), Lookup::Miss(at(161)));
}

#[test]
fn rule_2_a_list_that_shows_too_little_is_a_miss() {
    let cache = started();
    assert!(cache.fill(LIST, at(100), &list(&[9, 8])).is_some());
    assert!(matches!(cache.lookup(&LIST, 50, at(100)), Lookup::Hit(..)), "complete");
    let Entry::List(two) = list(&[9, 8]) else { unreachable!() };
    let prefix = CachedList::from_encoded(5, two.edges_bytes()).unwrap();
    assert!(cache.fill(LIST, at(101), &Entry::List(Arc::new(prefix))).is_some());
    assert!(matches!(cache.lookup(&LIST, 2, at(101)), Lookup::Hit(..)));
    assert_eq!(cache.lookup(&LIST, 3, at(101)), Lookup::Miss(at(101)));
}

#[test]
fn rule_4_a_fill_is_tested_when_it_arrives() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(99), &object("before w0")).is_none());
    assert!(cache.fill(OBJECT, at(120), &object("b")).is_some());
    assert!(cache.fill(OBJECT, at(119), &object("before what is there")).is_none());
    cache.apply(&put(at(130), "c"));
    cache.evict(&OBJECT);
    assert!(cache.fill(OBJECT, at(129), &object("before what is remembered")).is_none());
    assert_eq!(look(&cache, &OBJECT), Lookup::Miss(at(130)));
    assert!(cache.fill(OBJECT, at(130), &object("c")).is_some());
}

#[test]
fn rule_5_an_object_is_replaced_and_an_old_change_is_skipped() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_some());
    cache.apply(&put(at(110), "seen"));
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(110)));
    cache.apply(&put(at(111), "b"));
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("b"), at(111)));
}

#[test]
fn rule_5_a_delta_needs_its_predecessor() {
    let cache = started();
    assert!(cache.fill(LIST, at(110), &list(&[8])).is_some());
    cache.apply(&add(at(112), at(105), 2, 9));
    assert_eq!(look(&cache, &LIST), Lookup::Hit(list(&[9, 8]), at(112)));
    // A change between was missed.
    cache.apply(&add(at(116), at(114), 4, 12));
    assert_eq!(look(&cache, &LIST), Lookup::Miss(at(116)));
    assert!(cache.fill(LIST, at(115), &list(&[11, 9, 8])).is_none(), "remembered although it was dropped");
}

#[test]
fn rule_5_a_delta_never_lands_on_undone_history() {
    let cache = started();
    assert!(cache.fill(LIST, at(120), &list(&[8])).is_some());
    // The log was set back to 1:110, and the list's last change before that was at 1:105.
    let first = Position::new(2, 111);
    cache.apply(&add(first, at(105), 1, 9));
    assert_eq!(look(&cache, &LIST), Lookup::Miss(first));
}

#[test]
fn rule_6_only_what_follows_moves_applied() {
    let cache = started();
    cache.apply(&put(at(140), "a write's answer"));
    assert_eq!(cache.applied(), Some(at(100)));
    assert!(cache.apply_stream(at(101), &[other(at(102))]).is_err());
    assert!(cache.heartbeat(at(101), 5).is_err());
    assert_eq!(cache.applied(), Some(at(100)));
    cache.apply_stream(at(100), &[other(at(101)), other(at(102))]).unwrap();
    cache.heartbeat(at(102), 5).unwrap();
    assert_eq!(cache.applied(), Some(at(102)));
}

#[test]
fn rule_6_a_connection_that_ended_moves_nothing() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_some());
    cache.disconnected();
    assert!(cache.apply_stream(at(100), &[other(at(101))]).is_err());
    assert!(cache.heartbeat(at(100), 5).is_err());
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(110)), "frozen, and still of use");
    assert!(cache.fill(LIST, at(150), &list(&[])).is_none(), "nothing is cached without a stream");
}

#[test]
fn rule_7_a_reset_drops_entries_and_keeps_the_memory() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_some());
    cache.apply(&put(at(150), "own write"));
    cache.start(at(120));
    assert_eq!(look(&cache, &OBJECT), Lookup::Miss(at(150)));
    assert!(cache.fill(OBJECT, at(149), &object("late")).is_none());
    // An earlier start does not make older values believable.
    cache.start(at(90));
    assert_eq!((cache.applied(), look(&cache, &LIST)), (Some(at(90)), Lookup::Miss(at(120))));
}

#[test]
fn rule_7_a_higher_epoch_is_no_continuation() {
    let cache = started();
    let next = Position::new(2, 101);
    assert!(cache.apply_stream(at(100), &[put(next, "of another history")]).is_err());
    assert_eq!((cache.applied(), look(&cache, &OBJECT)), (Some(at(100)), Lookup::Miss(at(100))));
    cache.start(Position::new(2, 100));
    cache.apply_stream(Position::new(2, 100), &[other(next)]).unwrap();
    assert_eq!(cache.applied(), Some(next));
    assert!(cache.fill(OBJECT, at(5_000), &object("of the undone history")).is_none());
}

#[test]
fn rule_7_nothing_is_cached_before_the_first_stream() {
    let cache = cache_at(&Arc::new(Hand(AtomicU64::new(0))));
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_none());
    assert_eq!((cache.applied(), look(&cache, &OBJECT)), (None, Lookup::Miss(Position::ZERO)));
}

#[test]
fn rules_4_and_8_what_nothing_is_known_to_have_changed_is_as_fresh_as_the_stream() {
    let cache = started();
    cache.apply_stream(at(100), &[put(at(130), "a"), other(at(140))]).unwrap();
    assert_eq!(cache.fill(OBJECT, at(129), &object("before its change")), None);
    assert_eq!(cache.fill(OBJECT, at(130), &object("a")), Some(at(140)));
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(140)));
    // A delta whose predecessor is anything up to there follows.
    assert_eq!(cache.fill(LIST, at(101), &list(&[8])), Some(at(140)));
    cache.apply(&add(at(141), at(95), 2, 9));
    assert_eq!(look(&cache, &LIST), Lookup::Hit(list(&[9, 8]), at(141)));
    cache.disconnected();
    assert_eq!(cache.fill(OBJECT, at(150), &object("a")), None);
}

#[test]
fn rules_4_and_8_of_equal_states_the_one_that_shows_more_stays() {
    let cache = started();
    let count = |n| Entry::List(Arc::new(CachedList::from_encoded(n, Bytes::new()).unwrap()));
    assert_eq!(cache.fill(LIST, at(110), &count(2)), Some(at(110)));
    assert_eq!(cache.fill(LIST, at(110), &list(&[9, 8])), Some(at(110)));
    assert_eq!(cache.fill(LIST, at(110), &count(2)), Some(at(110)));
    assert_eq!(look(&cache, &LIST), Lookup::Hit(list(&[9, 8]), at(110)));
}

#[test]
fn rule_7_a_stream_that_goes_on_where_it_broke_drops_nothing() {
    let cache = started();
    assert!(!cache_at(&Arc::new(Hand(AtomicU64::new(0)))).resume(Position::ZERO), "there was none");
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_some());
    cache.apply_stream(at(100), &[other(at(120))]).unwrap();
    cache.disconnected();
    assert_eq!(cache.resume_point(), Some(at(120)));
    assert!(!cache.resume(at(121)) && !cache.resume(Position::new(2, 120)), "there it has not been");
    assert!(cache.apply_stream(at(120), &[other(at(121))]).is_err(), "still without a stream");
    assert!(cache.resume(at(120)));
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("a"), at(120)));
    assert!(!cache.is_within(u64::MAX), "not heard yet");
    cache.apply_stream(at(120), &[other(at(121))]).unwrap();
    assert!(cache.fill(LIST, at(100), &list(&[])).is_some(), "w0 is the old one");
}

#[test]
fn rule_14_what_another_leader_repeats_is_seen_without_harm() {
    let cache = started();
    let pieces = [put(at(101), "a"), put(at(102), "b"), other(at(103))];
    cache.apply_stream(at(100), &pieces).unwrap();
    assert!(cache.fill(OBJECT, at(103), &object("b")).is_some());
    cache.disconnected();
    assert!(cache.resume(at(100)));
    cache.apply_stream(at(100), &pieces[..1]).unwrap();
    cache.heartbeat(at(101), 5).unwrap();
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("b"), at(103)));
    // It goes beyond: from where everything is known.
    cache.apply_stream(at(101), &[pieces[1].clone(), pieces[2].clone(), put(at(104), "c")]).unwrap();
    assert_eq!(look(&cache, &OBJECT), Lookup::Hit(object("c"), at(104)));
    assert!(cache.apply_stream(at(105), &[other(at(106))]).is_err(), "105 is missing");
    assert!(cache.apply_stream(at(103), &[other(at(106)), other(at(105))]).is_err(), "no piece of a log");
    assert!(cache.apply_stream(at(104), &[other(at(104))]).is_err(), "no piece of a log");
    assert_eq!(cache.applied(), Some(at(104)));
}

#[test]
fn a_stream_is_as_young_as_its_newest_heartbeat() {
    let clock = Arc::new(Hand(AtomicU64::new(10_000)));
    let cache = cache_at(&clock);
    cache.start(at(100));
    assert!(!cache.is_within(u64::MAX), "none yet");
    cache.heartbeat(at(100), 9_900).unwrap();
    assert!(cache.is_within(100) && !cache.is_within(99));
    cache.apply_stream(at(100), &[other(at(101))]).unwrap();
    assert!(cache.is_within(100), "changes leave the stamp");
    clock.0.store(9_000, Ordering::SeqCst);
    assert!(cache.is_within(0), "a clock that stands behind the storage shard's");
    cache.start(at(100));
    assert!(!cache.is_within(u64::MAX), "a new stream has not been heard yet");
}

#[test]
fn a_value_that_no_longer_fits_is_dropped_and_not_left_old() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(110), &object("small")).is_some());
    let large = Bytes::from(vec![7; 4 << 20]);
    let kind = ChangeKind::Object(ID, Some(large));
    cache.apply(&Change { position: at(111), shard: ShardId(0), kind });
    assert_eq!(look(&cache, &OBJECT), Lookup::Miss(at(111)));
}

/// Tells when it is freed.
struct Owned(Arc<[u8; 64]>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

#[test]
fn an_entry_does_not_keep_the_message_that_it_came_with() {
    let cache = started();
    assert!(cache.fill(OBJECT, at(110), &object("a")).is_some());
    let message = Arc::new([7; 64]);
    let slice = Bytes::from_owner(Owned(message.clone())).slice(..4);
    let kind = ChangeKind::Object(ID, Some(slice));
    cache.apply(&Change { position: at(111), shard: ShardId(0), kind });
    assert!(matches!(look(&cache, &OBJECT), Lookup::Hit(..)));
    assert_eq!(Arc::strong_count(&message), 1, "the message is freed");
}
