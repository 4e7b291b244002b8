//! Compares one cached value with the database.
//!
//! A cached value of freshness F equals the key's state at F. The database's is of a later position S. Once the change stream has
//! come to S, this follower remembers every change up to there: if it remembers none of this key after F, the two states are one,
//! and must be equal. Otherwise the comparison says nothing.

use std::time::Duration;

use prost::Message as _;
use serde::Serialize;
use tao_cache::{CachedList, Entry, Lookup, MemoryCache, Mode, Upstream};
use tao_model::{Error, Key, Position, Result};
use tao_proto::internal::{self, call::Op, reply::Result as ReplyBody};
use tao_proto::v1;
use tokio::time::{Instant, sleep};

use crate::upstream::unexpected;

/// Between two looks at how far the stream has come.
const LOOK: Duration = Duration::from_millis(10);
/// Characters that are shown of a value.
const SHOWN: usize = 512;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Equal.
    Consistent,
    /// The key changed meanwhile, or one of the two was not to be had.
    Inconclusive,
    /// Not equal, though nothing changed between the two.
    Inconsistent(Box<Inconsistency>),
}

/// A cached value that the database does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inconsistency {
    /// The key, such as `object 7` or `list 7 of type 2`.
    pub key: String,
    /// The cached value's freshness.
    pub cached_at: String,
    /// The database's position.
    pub stored_at: String,
    /// The cached value, cut.
    pub cached: String,
    /// The database's, cut.
    pub stored: String,
}

/// Compares a key; `None` when it is not cached.
pub async fn check<U: Upstream>(memory: &MemoryCache, database: &U, key: Key, context: &U::Context) -> Option<Verdict> {
    let Lookup::Hit(cached, cached_at) = memory.lookup(&key, 0, Position::ZERO) else { return None };
    let (stored, stored_at) = match read(database, key, &cached, cached_at, context).await {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!(?key, %error, "can't audit");
            return Some(Verdict::Inconclusive);
        }
    };
    if !reaches(memory, stored_at, U::deadline(context)).await || stored_at.epoch != cached_at.epoch {
        return Some(Verdict::Inconclusive);
    }
    // What is remembered of the key, and where remembering began.
    if memory.floor(&key, Position::ZERO) > cached_at {
        return Some(Verdict::Inconclusive);
    }
    Some(if is_same(&cached, &stored) {
        Verdict::Consistent
    } else {
        Verdict::Inconsistent(Box::new(Inconsistency {
            key: match key {
                Key::Object(id) => format!("object {id}"),
                Key::List(id1, atype) => format!("list {id1} of type {atype}"),
            },
            cached_at: cached_at.to_string(),
            stored_at: stored_at.to_string(),
            cached: shown(&cached),
            stored: shown(&stored),
        }))
    })
}

/// The database's value: of a list, as many edges as the cached one has.
async fn read<U: Upstream>(
    database: &U,
    key: Key,
    cached: &Entry,
    floor: Position,
    context: &U::Context,
) -> Result<(Entry, Position)> {
    let op = match (key, cached) {
        (Key::Object(id), Entry::Object(_)) => Op::ObjectRead(internal::ObjectRead { id: id.get() }),
        (Key::List(id1, atype), Entry::List(list)) => {
            Op::ListRead(internal::ListRead { id1: id1.get(), atype: atype.0, newest: list.len() as u32 })
        }
        (Key::Object(_) | Key::List(..), _) => return Err(unexpected()),
    };
    let reply = database.read(key.owner(), op, floor, Mode::Strong, context).await?;
    let entry = match reply.value {
        ReplyBody::Object(state) => Entry::Object(state.object),
        ReplyBody::List(state) => {
            let list = CachedList::from_encoded(state.count, state.edges);
            Entry::List(list.ok_or_else(|| Error::Internal { what: "a list can't be read".to_owned() })?.into())
        }
        _ => return Err(unexpected()),
    };
    Ok((entry, reply.as_of))
}

/// Waits until the stream has come to a position; `false` when it doesn't in time.
async fn reaches(memory: &MemoryCache, position: Position, deadline: Instant) -> bool {
    while memory.applied().is_none_or(|applied| applied < position) {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

fn is_same(cached: &Entry, stored: &Entry) -> bool {
    match (cached, stored) {
        (Entry::Object(cached), Entry::Object(stored)) => cached == stored,
        // Either may have fewer of the edges than there are.
        (Entry::List(cached), Entry::List(stored)) => {
            let both = cached.len().min(stored.len());
            cached.count() == stored.count() && cached.newest_bytes(both) == stored.newest_bytes(both)
        }
        (Entry::Object(_) | Entry::List(_), _) => false,
    }
}

fn shown(entry: &Entry) -> String {
    let text = match entry {
        Entry::Object(None) => "no object".to_owned(),
        Entry::Object(Some(object)) => match v1::Object::decode(&object[..]) {
            Ok(object) => format!("{object:?}"),
            Err(_) => format!("{object:?}"),
        },
        Entry::List(list) => {
            let edges = list.index().iter().map(|edge| format!("{}@{}", edge.key.id2, edge.key.time));
            format!("{} edges: {}", list.count(), edges.collect::<Vec<_>>().join(" "))
        }
    };
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::collections::HashMap;
    use std::sync::Arc;
    use tao_cache::{CacheOptions, Fresh};
    use tao_model::{Change, ChangeKind, Edge, EdgeKey, ListDelta, ObjectId, ShardId, SystemClock, TypeId};
    use tao_proto::edges::{encode_edge, encode_list};

    const EDGES: TypeId = TypeId(2);

    fn id(n: i64) -> ObjectId {
        ObjectId::new(n).unwrap()
    }

    fn at(lsn: u64) -> Position {
        Position::new(1, lsn)
    }

    fn object(version: i64) -> Bytes {
        v1::Object { id: 1, version, ..Default::default() }.encode_to_vec().into()
    }

    fn edge(n: i64) -> Edge {
        Edge { id2: id(n), time: n as u32, data: Bytes::new() }
    }

    /// A database of encoded objects and lists, at a position.
    #[derive(Default)]
    struct Database {
        objects: HashMap<ObjectId, Bytes>,
        edges: Vec<Edge>,
        position: Position,
    }

    impl Upstream for Database {
        type Context = Instant;

        fn deadline(context: &Instant) -> Instant {
            *context
        }

        async fn read(
            &self,
            owner: ObjectId,
            op: Op,
            floor: Position,
            mode: Mode,
            _: &Instant,
        ) -> Result<Fresh<ReplyBody>> {
            assert!(mode == Mode::Strong && floor <= self.position);
            let value = match op {
                Op::ListRead(read) => {
                    let newest = self.edges.len().min(read.newest as usize);
                    let (edges, _) = encode_list(&self.edges[..newest], usize::MAX);
                    ReplyBody::List(internal::ListState { count: self.edges.len() as u64, edges })
                }
                _ => ReplyBody::Object(internal::ObjectState { object: self.objects.get(&owner).cloned() }),
            };
            Ok(Fresh { as_of: self.position, value })
        }
    }

    fn change(lsn: u64, kind: ChangeKind) -> Change {
        Change { position: at(lsn), shard: ShardId(0), kind }
    }

    /// A cache that has an object and a list at position 10, as the database has them.
    fn world() -> (MemoryCache, Database) {
        let clock = Arc::new(SystemClock);
        let memory = MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock, tier: "test" });
        memory.start(at(10));
        let edges: Vec<_> = (1..=9).rev().map(edge).collect();
        let (encoded, _) = encode_list(&edges[..4], usize::MAX);
        let list = CachedList::from_encoded(9, encoded).unwrap();
        memory.fill(Key::Object(id(1)), at(10), Entry::Object(Some(object(1))));
        memory.fill(Key::List(id(1), EDGES), at(10), Entry::List(list.into()));
        let database = Database { objects: [(id(1), object(1))].into(), edges, position: at(10) };
        (memory, database)
    }

    async fn verdicts(memory: &MemoryCache, database: &Database) -> [Verdict; 2] {
        let deadline = Instant::now() + Duration::from_millis(50);
        let object = check(memory, database, Key::Object(id(1)), &deadline).await.unwrap();
        [object, check(memory, database, Key::List(id(1), EDGES), &deadline).await.unwrap()]
    }

    fn put(database: &mut Database) -> [Change; 2] {
        database.objects.insert(id(1), object(2));
        database.edges.insert(0, edge(20));
        database.position = at(12);
        let delta = ListDelta::Put(EdgeKey { time: 20, id2: id(20) }, encode_edge(&edge(20)));
        let list = ChangeKind::List { id1: id(1), atype: EDGES, prev: at(9), count: 10, delta };
        [change(11, ChangeKind::Object(id(1), Some(object(2)))), change(12, list)]
    }

    #[tokio::test]
    async fn a_cache_that_follows_the_stream_is_consistent() {
        let (memory, mut database) = world();
        assert_eq!(verdicts(&memory, &database).await, [Verdict::Consistent, Verdict::Consistent]);
        let changes = put(&mut database);
        // Before the stream has come so far, nothing can be told.
        assert_eq!(verdicts(&memory, &database).await, [Verdict::Inconclusive, Verdict::Inconclusive]);
        memory.apply_stream(at(10), &changes).unwrap();
        assert_eq!(verdicts(&memory, &database).await, [Verdict::Consistent, Verdict::Consistent]);
        let deadline = Instant::now() + Duration::from_millis(50);
        assert_eq!(check(&memory, &database, Key::Object(id(9)), &deadline).await, None);
    }

    #[tokio::test]
    async fn what_changed_between_the_two_reads_is_inconclusive() {
        let (memory, mut database) = world();
        let changes = put(&mut database);
        let deadline = Instant::now() + Duration::from_secs(10);
        let key = Key::Object(id(1));
        let checking = check(&memory, &database, key, &deadline);
        let applying = async { memory.apply_stream(at(10), &changes).unwrap() };
        // The check has read both when the changes come.
        let (verdict, ()) = tokio::join!(biased; checking, applying);
        assert_eq!(verdict, Some(Verdict::Inconclusive));
    }

    /// The fault on purpose: the stream claims to have carried both changes, and they have changed something else.
    #[tokio::test]
    async fn a_cache_that_skips_a_change_is_found() {
        let (memory, mut database) = world();
        let changes = put(&mut database);
        let elsewhere =
            changes.map(|c| change(c.position.lsn, ChangeKind::Object(id(1_000 + c.position.lsn as i64), None)));
        memory.apply_stream(at(10), &elsewhere).unwrap();
        let [object, list] = verdicts(&memory, &database).await;
        let Verdict::Inconsistent(object) = object else { panic!("{object:?}") };
        assert_eq!((object.key.as_str(), object.cached_at.as_str()), ("object 1", "1:12"));
        assert!(object.cached.contains("version: 1") && object.stored.contains("version: 2"), "{object:?}");
        let Verdict::Inconsistent(list) = list else { panic!("{list:?}") };
        assert!(list.cached.starts_with("9 edges: 9@9 8@8 7@7 6@6"), "{list:?}");
        assert!(list.stored.starts_with("10 edges: 20@20"), "{list:?}");
    }
}
