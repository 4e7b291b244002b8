//! A random history: what subscribers hear is gapless, is what writers were told, and adds up to what readers saw.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tao_model::{
    AssocRef, Change, ChangeKind, Edge, EdgeKey, Error, ListDelta, ObjectId, Position, TypeId, Write, WriteBatch,
    WriteOutcome,
};
use tao_proto::convert;
use tao_proto::edges::encode_edge;
use tao_stream::Origin;

use super::{Suite, adding, number};
use crate::listener::Listener;
use crate::store::{Scan, Store, WriteContext};

const WRITERS: u64 = 16;
const WRITES: usize = 25;
const READERS: u64 = 3;
/// Reads of one reader, at the most.
const READS: usize = 2_000;

/// What a random history is about.
#[derive(Clone)]
struct World {
    ids: Vec<ObjectId>,
    otype: TypeId,
    atypes: Vec<TypeId>,
}

/// What a read gave, to be compared with the state at its position.
#[derive(Debug)]
enum Seen {
    Object(ObjectId, Option<Bytes>),
    List(ObjectId, TypeId, u64, Vec<(EdgeKey, Bytes)>),
    Scan(ObjectId, TypeId, Vec<(EdgeKey, Bytes)>),
}

impl Suite {
    /// Many writers and readers at once, from the seed in `TAO_SEED`, or a random one.
    pub(super) async fn history(&self) {
        let seed: u64 = std::env::var("TAO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
        println!("TAO_SEED={seed}");
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(self.user().await);
        }
        // These are not there yet.
        ids.extend(self.store.allocate(None, 4).await.unwrap());
        let names = ["follows", "followed_by", "friend", "messaged"];
        let world = World { ids, otype: self.otype("user"), atypes: names.map(|name| self.atype(name)).into() };
        let mut replay = Replay::default();
        for id in &world.ids {
            replay.objects.insert(*id, self.object(*id).await);
        }
        let mut listener = Listener::open(&self.store, Origin::Now).await.unwrap();
        assert_eq!(listener.position, self.store.head().await.unwrap());

        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..READERS)
            .map(|r| {
                let rng = StdRng::seed_from_u64(seed ^ (1_000 + r));
                tokio::spawn(read(self.store.clone(), world.clone(), rng, done.clone()))
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let rng = StdRng::seed_from_u64(seed ^ w);
                tokio::spawn(write(self.store.clone(), world.clone(), rng))
            })
            .collect();
        let mut told = BTreeMap::new();
        for writer in writers {
            for outcome in writer.await.unwrap() {
                for change in outcome.changes {
                    assert_eq!(told.insert(change.position, change), None, "two writers were told of one position");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        let mut seen: BTreeMap<Position, Vec<Seen>> = BTreeMap::new();
        for reader in readers {
            for (position, read) in reader.await.unwrap() {
                seen.entry(position).or_default().push(read);
            }
        }

        let head = self.store.head().await.unwrap();
        let mut at = listener.position;
        let heard = listener.up_to(head).await.expect("no gap");
        let mut heard = heard.iter();
        replay.check(&seen.remove(&at).unwrap_or_default());
        while at < head {
            let commits = self.store.log_after(at, 10_000).await.expect("the log is kept");
            assert!(!commits.is_empty());
            for commit in commits {
                assert_eq!(commit.previous, at);
                for change in convert::changes(commit.changes).unwrap() {
                    at = at.plus(1);
                    assert_eq!(change.position, at);
                    assert_eq!(change.shard, self.store.info().layout.shard(change.key().owner()));
                    assert_eq!(heard.next(), Some(&change), "subscribers hear what the log has");
                    assert_eq!(told.remove(&at).as_ref(), Some(&change), "subscribers and writers are told the same");
                    replay.apply(&change);
                }
                replay.check(&seen.remove(&at).unwrap_or_default());
            }
        }
        assert_eq!(at, head);
        assert!(told.is_empty(), "all that writers were told is in the log");
        assert!(seen.is_empty(), "reads are of the state between two commits, not within one: {:?}", seen.keys());
        self.read_all(&world, &replay, head).await;
    }

    /// Everything, as read at the end, is what the changes add up to.
    async fn read_all(&self, world: &World, replay: &Replay, head: Position) {
        for id in &world.ids {
            let read = self.store.objects(&[*id]).await.unwrap();
            assert_eq!((&read.value[0], read.position), (&replay.objects[id], head), "{id}");
            for atype in self.schema.assocs() {
                let atype = atype.number;
                let read = self.store.list(*id, atype, 1_000).await.unwrap();
                assert_eq!(read.position, head);
                replay.check(&[Seen::List(*id, atype, read.value.count, encoded(&read.value.edges))]);
                let everyone = self.store.edges(*id, atype, &world.ids, 0, u32::MAX).await.unwrap().value;
                assert_eq!(everyone.edges, read.value.edges);
            }
        }
    }
}

async fn write(store: Arc<dyn Store>, world: World, mut rng: StdRng) -> Vec<WriteOutcome> {
    let mut done = Vec::new();
    for _ in 0..WRITES {
        let write = match rng.random_range(0..4) {
            0 => {
                let writes = (0..rng.random_range(1..5)).map(|_| random_write(&mut rng, &world)).collect();
                Write::Batch(WriteBatch { conditions: Vec::new(), writes })
            }
            _ => random_write(&mut rng, &world),
        };
        match store.write(write.clone(), WriteContext::default()).await {
            Ok(outcome) => {
                if let Some(last) = outcome.changes.last() {
                    assert_eq!(last.position, outcome.position);
                }
                assert!(outcome.position <= store.head().await.unwrap(), "what is acknowledged is committed");
                done.push(outcome);
            }
            Err(Error::NotFound { .. }) => {}
            // Nothing of the batch is done, or subscribers would hear of what no writer was told.
            Err(Error::Item { error, .. }) => assert!(matches!(*error, Error::NotFound { .. }), "{write:?}: {error}"),
            Err(error) => panic!("{write:?}: {error}"),
        }
    }
    done
}

/// Reads until the writers are done. A read's position lies between the log's end before it and after it.
async fn read(store: Arc<dyn Store>, world: World, mut rng: StdRng, done: Arc<AtomicBool>) -> Vec<(Position, Seen)> {
    let mut all = Vec::new();
    for _ in 0..READS {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let (id, atype) = (*world.ids.choose(&mut rng).unwrap(), *world.atypes.choose(&mut rng).unwrap());
        let before = store.head().await.unwrap();
        let (position, seen) = match rng.random_range(0..3) {
            0 => {
                let mut read = store.objects(&[id]).await.unwrap();
                (read.position, Seen::Object(id, read.value.remove(0)))
            }
            1 => {
                let read = store.list(id, atype, 100).await.unwrap();
                (read.position, Seen::List(id, atype, read.value.count, encoded(&read.value.edges)))
            }
            _ => {
                let scan = Scan { id1: id, atype, after: None, offset: 0, limit: 100, low: 0, high: u32::MAX };
                let read = store.scan(scan).await.unwrap();
                (read.position, Seen::Scan(id, atype, encoded(&read.value.edges)))
            }
        };
        let after = store.head().await.unwrap();
        assert!(before <= position && position <= after, "{before} <= {position} <= {after}");
        all.push((position, seen));
        tokio::task::yield_now().await;
    }
    all
}

fn encoded(edges: &[Edge]) -> Vec<(EdgeKey, Bytes)> {
    edges.iter().map(|e| (EdgeKey { time: e.time, id2: e.id2 }, encode_edge(e))).collect()
}

fn random_write(rng: &mut StdRng, world: &World) -> Write {
    let (id1, id2) = (*world.ids.choose(rng).unwrap(), *world.ids.choose(rng).unwrap());
    let (atype, new_atype) = (*world.atypes.choose(rng).unwrap(), *world.atypes.choose(rng).unwrap());
    let edge = AssocRef { id1, atype, id2 };
    match rng.random_range(0..20) {
        0..=9 => Write::AssocAdd { edge, time: Some(rng.random_range(0..20)), data: number(rng.random_range(0..3)) },
        10..=11 => Write::AssocDelete { edge },
        12..=14 => Write::AssocChangeType { edge, new_atype },
        15..=16 => adding(id1, 1, None),
        17..=18 => Write::ObjectUpsert { id: id1, otype: world.otype, data: number(rng.random_range(0..9)) },
        _ => Write::ObjectDelete { id: id1, expected_version: None },
    }
}

#[derive(Default)]
struct ReplayedList {
    last: Position,
    edges: BTreeMap<EdgeKey, Bytes>,
}

/// The state that changes add up to.
#[derive(Default)]
struct Replay {
    objects: HashMap<ObjectId, Option<Bytes>>,
    lists: HashMap<(ObjectId, TypeId), ReplayedList>,
}

impl Replay {
    fn apply(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Object(id, object) => drop(self.objects.insert(*id, object.clone())),
            ChangeKind::List { id1, atype, prev, count, delta } => {
                let list = self.lists.entry((*id1, *atype)).or_default();
                assert_eq!(list.last, *prev, "each change names the one before it");
                list.last = change.position;
                let id2 = match delta {
                    ListDelta::Put(key, _) => key.id2,
                    ListDelta::Remove(id2) => *id2,
                };
                list.edges.retain(|key, _| key.id2 != id2);
                if let ListDelta::Put(key, edge) = delta {
                    list.edges.insert(*key, edge.clone());
                }
                assert_eq!(list.edges.len() as u64, *count);
            }
        }
    }

    fn list(&self, id1: ObjectId, atype: TypeId) -> Vec<(EdgeKey, Bytes)> {
        let edges = self.lists.get(&(id1, atype)).map(|list| &list.edges);
        edges.into_iter().flatten().map(|(key, edge)| (*key, edge.clone())).collect()
    }

    /// Reads of the present position saw the present state.
    fn check(&self, seen: &[Seen]) {
        for read in seen {
            match read {
                Seen::Object(id, object) => assert_eq!(*object, self.objects[id], "object {id}"),
                Seen::List(id1, atype, count, edges) => {
                    assert_eq!(
                        (*count, edges),
                        (edges.len() as u64, &self.list(*id1, *atype)),
                        "list {atype} of {id1}"
                    );
                }
                Seen::Scan(id1, atype, edges) => {
                    assert_eq!(*edges, self.list(*id1, *atype), "scan of {atype} of {id1}");
                }
            }
        }
    }
}
