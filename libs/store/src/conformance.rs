//! What every store must do. Each implementation runs [`run`] on a store of its own, opened with [`Schema::social`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tao_model::limits::MAX_ANSWER;
use tao_model::{
    AssocRef, Change, ChangeKind, Data, EdgeKey, EdgeTime, Error, ListDelta, ObjectId, ObjectUpdate, Placement,
    Position, Result, Schema, ShardId, TypeId, Value, Write, WriteOutcome,
};
use tao_proto::edges::encode_edge;

use crate::store::{Scan, Store, WriteContext};

/// Runs every case. Panics, as tests do, when the store does otherwise.
pub async fn run(store: Arc<dyn Store>) {
    let suite = Suite { store, schema: Schema::social() };
    suite.objects().await;
    suite.allocation().await;
    suite.edges_and_inverses().await;
    suite.symmetric_edges().await;
    suite.changes_of_type().await;
    suite.bounds_of_lists().await;
    suite.large_lists_are_cut().await;
    suite.idempotent_writes().await;
    suite.late_writes_are_not_done().await;
    suite.history().await;
}

struct Suite {
    store: Arc<dyn Store>,
    schema: Schema,
}

fn number(n: i64) -> Data {
    Data::from([("n".to_owned(), Value::Int64(n))])
}

fn fields(error: Error) -> Vec<String> {
    match error {
        Error::InvalidArgument { violations } => violations.into_iter().map(|v| v.field).collect(),
        other => panic!("not INVALID_ARGUMENT: {other:?}"),
    }
}

impl Suite {
    fn otype(&self, name: &str) -> TypeId {
        self.schema.object_named(name).expect("a type").number
    }

    fn atype(&self, name: &str) -> TypeId {
        self.schema.assoc_named(name).expect("a type").number
    }

    fn edge(&self, id1: ObjectId, atype: &str, id2: ObjectId) -> AssocRef {
        AssocRef { id1, atype: self.atype(atype), id2 }
    }

    async fn write(&self, write: Write) -> Result<WriteOutcome> {
        self.store.write(write, WriteContext::default()).await
    }

    async fn link(&self, edge: AssocRef, time: EdgeTime) -> WriteOutcome {
        self.write(Write::AssocAdd { edge, time: Some(time), data: Data::new() }).await.expect("an edge")
    }

    async fn user(&self) -> ObjectId {
        let add = Write::ObjectAdd { otype: self.otype("user"), data: Data::new(), placement: Placement::Anywhere };
        match self.write(add).await.expect("a user").changes[0].kind {
            ChangeKind::Object(id, Some(_)) => id,
            ref other => panic!("{other:?}"),
        }
    }

    async fn object(&self, id: ObjectId) -> Option<Bytes> {
        self.store.objects(&[id]).await.expect("a read").value.pop().expect("one for each id")
    }

    async fn list(&self, id1: ObjectId, atype: &str) -> (u64, Vec<(EdgeTime, ObjectId)>) {
        let head = self.store.list(id1, self.atype(atype), 10_000).await.expect("a list").value;
        (head.count, head.edges.iter().map(|e| (e.time, e.id2)).collect())
    }

    async fn objects(&self) {
        let add = Write::ObjectAdd { otype: self.otype("user"), data: number(5), placement: Placement::Anywhere };
        let added = self.write(add).await.unwrap();
        assert!(added.result.applied && added.changes.len() == 1 && added.changes[0].position == added.position);
        let id = added.changes[0].key().owner();
        assert_eq!(self.object(id).await, added.result.object);

        let update = |add: i64, expected_version| Write::ObjectUpdate {
            id,
            update: ObjectUpdate { add: BTreeMap::from([("n".to_owned(), add)]), ..ObjectUpdate::default() },
            expected_version,
        };
        let updated = self.write(update(3, Some(1))).await.unwrap();
        assert_eq!(self.object(id).await, updated.result.object);
        assert_ne!(updated.result.object, added.result.object);
        let mismatch = self.write(update(3, Some(1))).await.unwrap_err();
        assert_eq!(mismatch, Error::VersionMismatch { id: id.get(), expected: 1, actual: 2 });
        assert!(matches!(self.write(update(i64::MAX, None)).await, Err(Error::NumberOverflow { .. })));
        let text = Data::from([("n".to_owned(), Value::String("x".repeat(65_600)))]);
        let large = ObjectUpdate { set: text, ..ObjectUpdate::default() };
        let large = Write::ObjectUpdate { id, update: large, expected_version: None };
        assert!(matches!(self.write(large).await, Err(Error::DataTooLarge { .. })));
        assert_eq!(self.object(id).await, updated.result.object, "what fails changes nothing");

        let delete = Write::ObjectDelete { id, expected_version: None };
        assert!(self.write(delete.clone()).await.unwrap().result.applied);
        assert_eq!(self.object(id).await, None);
        let again = self.write(delete).await.unwrap();
        assert!(!again.result.applied && again.changes.is_empty());
        assert!(matches!(self.write(update(1, None)).await, Err(Error::NotFound { .. })));
    }

    async fn allocation(&self) {
        let ids = self.store.allocate(Some(ShardId(7)), 1_000).await.unwrap();
        assert!(ids.is_sorted() && ids.iter().collect::<HashSet<_>>().len() == 1_000);
        let layout = self.store.info().layout;
        assert!(ids.iter().all(|id| layout.shard(*id) == ShardId(7)));
        // A millisecond's ids are spent, and the next one's follow.
        for _ in 0..6 {
            let more = self.store.allocate(Some(ShardId(7)), 1_000).await.unwrap();
            assert!(more[0] > ids[999]);
        }
        let add =
            |id| Write::ObjectAdd { otype: self.otype("user"), data: Data::new(), placement: Placement::Allocated(id) };
        self.write(add(ids[0])).await.unwrap();
        assert!(matches!(self.write(add(ids[0])).await, Err(Error::AlreadyExists { .. })));
        let never = ObjectId::new(ids[0].get() + (1 << 50)).unwrap();
        assert_eq!(fields(self.write(add(never)).await.unwrap_err()), ["id"]);
        let upsert = |id, otype| Write::ObjectUpsert { id, otype, data: number(1) };
        assert_eq!(fields(self.write(upsert(never, self.otype("user"))).await.unwrap_err()), ["id"]);
        assert!(self.write(upsert(ids[1], self.otype("user"))).await.unwrap().result.applied);
        assert!(!self.write(upsert(ids[1], self.otype("user"))).await.unwrap().result.applied);
        let other = self.write(upsert(ids[1], self.otype("post"))).await;
        assert!(matches!(other, Err(Error::TypeMismatch { .. })));
        let edge = self.edge(never, "friend", never);
        let add = Write::AssocAdd { edge, time: Some(1), data: Data::new() };
        assert_eq!(fields(self.write(add).await.unwrap_err()), ["id1", "id2"]);
        let on_shard =
            Write::ObjectAdd { otype: self.otype("user"), data: Data::new(), placement: Placement::Shard(ShardId(3)) };
        assert_eq!(self.write(on_shard).await.unwrap().changes[0].shard, ShardId(3));
    }

    async fn edges_and_inverses(&self) {
        let (a, b) = (self.user().await, self.user().await);
        let edge = self.edge(a, "follows", b);
        let added = self.link(edge, 10).await;
        assert_eq!((added.result.applied, added.result.count, added.changes.len()), (true, 1, 2));
        assert_eq!(self.list(b, "followed_by").await, (1, vec![(10, a)]));
        let same = self.link(edge, 10).await;
        assert!(!same.result.applied && same.changes.is_empty(), "an equal edge is no change");
        assert!(same.position >= added.position);
        let moved = self.link(edge, 5).await;
        assert_eq!((moved.result.applied, moved.result.count, moved.changes.len()), (false, 1, 2));
        assert_eq!(self.list(b, "followed_by").await, (1, vec![(5, a)]));
        let inverse = self.edge(b, "followed_by", a);
        let deleted = self.write(Write::AssocDelete { edge: inverse }).await.unwrap();
        assert_eq!((deleted.result.applied, deleted.result.count, deleted.changes.len()), (true, 0, 2));
        assert_eq!(self.list(a, "follows").await, (0, vec![]));
        assert!(self.write(Write::AssocDelete { edge }).await.unwrap().changes.is_empty());

        let ahead = Write::AssocAdd { edge, time: Some(u32::MAX), data: Data::new() };
        assert_eq!(fields(self.write(ahead).await.unwrap_err()), ["time"]);
        let now = self.write(Write::AssocAdd { edge, time: None, data: Data::new() }).await.unwrap();
        assert!(now.result.applied && self.list(a, "follows").await.1[0].0 > 1_600_000_000);
        let wrong = Write::AssocAdd { edge: self.edge(a, "authored", b), time: Some(1), data: Data::new() };
        assert!(matches!(self.write(wrong).await, Err(Error::TypeMismatch { .. })));
        assert_eq!(self.list(a, "authored").await.0, 0);
    }

    async fn symmetric_edges(&self) {
        let (a, b) = (self.user().await, self.user().await);
        self.link(self.edge(a, "friend", b), 3).await;
        assert_eq!(self.list(b, "friend").await, (1, vec![(3, a)]));
        let own = self.link(self.edge(a, "friend", a), 4).await;
        assert_eq!((own.changes.len(), own.result.count), (1, 2), "its own inverse is one row");
        let gone = self.write(Write::AssocDelete { edge: self.edge(a, "friend", a) }).await.unwrap();
        assert_eq!((gone.changes.len(), gone.result.count), (1, 1));
    }

    async fn changes_of_type(&self) {
        let (a, b) = (self.user().await, self.user().await);
        let edge = self.edge(a, "follows", b);
        let change = Write::AssocChangeType { edge, new_atype: self.atype("messaged") };
        assert!(matches!(self.write(change.clone()).await, Err(Error::NotFound { .. })));
        self.link(edge, 8).await;
        self.link(self.edge(a, "messaged", b), 1).await;
        let changed = self.write(change).await.unwrap();
        assert_eq!((changed.changes.len(), changed.result.count), (4, 1));
        for (id, atype, want) in [
            (a, "follows", vec![]),
            (b, "followed_by", vec![]),
            (a, "messaged", vec![(8, b)]),
            (b, "messaged_by", vec![(8, a)]),
        ] {
            assert_eq!(self.list(id, atype).await, (want.len() as u64, want), "{atype}");
        }
    }

    async fn bounds_of_lists(&self) {
        let a = self.user().await;
        let mut all = Vec::new();
        for n in 0..30u32 {
            let other = self.user().await;
            self.link(self.edge(a, "follows", other), n / 3).await;
            all.push((n / 3, other));
        }
        all.sort_unstable_by(|x, y| y.cmp(x));
        assert_eq!(self.list(a, "follows").await, (30, all.clone()));
        let newest = self.store.list(a, self.atype("follows"), 4).await.unwrap().value;
        assert_eq!((newest.count, newest.edges.len()), (30, 4));
        let count = self.store.list(a, self.atype("follows"), 0).await.unwrap().value;
        assert_eq!((count.count, count.edges.len()), (30, 0));

        let scan =
            Scan { id1: a, atype: self.atype("follows"), after: None, offset: 0, limit: 7, low: 0, high: u32::MAX };
        let page = async |scan: Scan| {
            let page = self.store.scan(scan).await.unwrap().value;
            (page.edges.iter().map(|e| (e.time, e.id2)).collect::<Vec<_>>(), page.more)
        };
        assert_eq!(page(Scan { offset: 5, ..scan }).await, (all[5..12].to_vec(), true));
        assert_eq!(page(Scan { offset: 23, ..scan }).await, (all[23..].to_vec(), false));
        assert_eq!(page(Scan { offset: 99, ..scan }).await, (vec![], false));
        let within: Vec<_> = all.iter().copied().filter(|(t, _)| (3..=4).contains(t)).collect();
        assert_eq!(page(Scan { low: 3, high: 4, ..scan }).await, (within, false));
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let (edges, more) = page(Scan { after, ..scan }).await;
            after = edges.last().map(|(time, id2)| EdgeKey { time: *time, id2: *id2 });
            paged.extend(edges);
            if !more {
                break;
            }
        }
        assert_eq!(paged, all);

        let asked = [all[3].1, a, all[20].1];
        let found = self.store.edges(a, self.atype("follows"), &asked, 0, u32::MAX).await.unwrap().value.edges;
        assert_eq!(found.iter().map(|e| e.id2).collect::<Vec<_>>(), [all[3].1, all[20].1]);
        let bounded = self.store.edges(a, self.atype("follows"), &asked, all[3].0, u32::MAX).await.unwrap().value.edges;
        assert_eq!(bounded.len(), 1);
    }

    async fn large_lists_are_cut(&self) {
        let a = self.user().await;
        let mut others = Vec::new();
        for _ in 0..60 {
            let other = self.user().await;
            let data = Data::from([("x".to_owned(), Value::Bytes(vec![7; 64_000]))]);
            let add = Write::AssocAdd { edge: self.edge(a, "follows", other), time: Some(1), data };
            self.write(add).await.unwrap();
            others.push(other);
        }
        let head = self.store.list(a, self.atype("follows"), 60).await.unwrap().value;
        let bytes: usize = head.edges.iter().map(|e| e.data.len()).sum();
        assert!(head.count == 60 && (40..60).contains(&head.edges.len()) && bytes <= MAX_ANSWER);
        let scan =
            Scan { id1: a, atype: self.atype("follows"), after: None, offset: 0, limit: 60, low: 0, high: u32::MAX };
        let page = self.store.scan(scan).await.unwrap().value;
        assert!(page.more && (40..60).contains(&page.edges.len()));
        let found = self.store.edges(a, self.atype("follows"), &others, 0, u32::MAX).await.unwrap().value;
        assert!(found.more && (40..60).contains(&found.edges.len()));
    }

    async fn idempotent_writes(&self) {
        let id = self.user().await;
        let context = || WriteContext { idempotency_key: Some(format!("key of {id}")), deadline: None };
        let add = |n| Write::ObjectUpdate {
            id,
            update: ObjectUpdate { add: BTreeMap::from([("n".to_owned(), n)]), ..ObjectUpdate::default() },
            expected_version: None,
        };
        // In one batch, or in two: whichever came first is done, the other gets its outcome.
        let (one, two) = tokio::join!(self.store.write(add(1), context()), self.store.write(add(1), context()));
        assert_eq!(one.unwrap(), two.unwrap());
        self.write(add(10)).await.unwrap();
        let replayed = self.store.write(add(1), context()).await.unwrap();
        assert_ne!(self.object(id).await, replayed.result.object, "the first outcome, not the present state");
        let other = self.store.write(add(2), context()).await;
        assert!(matches!(other, Err(Error::IdempotencyKeyReused { .. })));
    }

    async fn late_writes_are_not_done(&self) {
        let id = self.user().await;
        let before = self.object(id).await;
        let context = WriteContext { idempotency_key: None, deadline: Some(tokio::time::Instant::now()) };
        let late = self.store.write(Write::ObjectDelete { id, expected_version: None }, context).await;
        assert_eq!(late, Err(Error::DeadlineExceeded { not_applied: true }));
        assert_eq!(self.object(id).await, before);
    }

    /// Many writers at once; what subscribers hear is gapless, and adds up to what is read.
    async fn history(&self) {
        let seed: u64 = std::env::var("TAO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
        println!("TAO_SEED={seed}");
        let mut users = Vec::new();
        for _ in 0..8 {
            users.push(self.user().await);
        }
        let mut before = HashMap::new();
        for id in &users {
            before.insert(*id, self.object(*id).await);
        }
        let mut subscription = self.store.subscribe().unwrap();
        assert_eq!(subscription.start, self.store.head().await.unwrap());
        let atypes: Vec<_> = ["follows", "friend", "messaged"].map(|name| self.atype(name)).into();
        let writers = (0..16).map(|w| {
            let (store, users, atypes) = (self.store.clone(), users.clone(), atypes.clone());
            let mut rng = StdRng::seed_from_u64(seed ^ w);
            tokio::spawn(async move {
                for _ in 0..25 {
                    let write = random_write(&mut rng, &users, &atypes);
                    match store.write(write, WriteContext::default()).await {
                        Ok(_) | Err(Error::NotFound { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let head = self.store.head().await.unwrap();
        let mut replay = Replay { objects: before, ..Replay::default() };
        let mut at = subscription.start;
        while at < head {
            let commit = subscription.next().await.expect("no gap");
            assert_eq!(commit.previous, at);
            for change in &commit.changes {
                at = at.plus(1);
                assert_eq!(change.position, at);
                replay.apply(change);
            }
        }
        assert_eq!(at, head);
        for id in &users {
            let read = self.store.objects(&[*id]).await.unwrap();
            assert_eq!((read.value[0].clone(), read.position), (replay.objects[id].clone(), head), "{id}");
            for atype in self.schema.assocs() {
                let read = self.store.list(*id, atype.number, 1_000).await.unwrap();
                let want = replay.lists.remove(&(*id, atype.number)).unwrap_or_default();
                let got: Vec<_> =
                    read.value.edges.iter().map(|e| (EdgeKey { time: e.time, id2: e.id2 }, encode_edge(e))).collect();
                assert_eq!(got, want.edges.into_iter().collect::<Vec<_>>(), "{} of {id}", atype.name);
                assert_eq!(read.value.count, got.len() as u64);
            }
        }
    }
}

fn random_write(rng: &mut StdRng, users: &[ObjectId], atypes: &[TypeId]) -> Write {
    let mut user = || users[rng.random_range(0..users.len())];
    let (id1, id2) = (user(), user());
    let atype = atypes[rng.random_range(0..atypes.len())];
    let edge = AssocRef { id1, atype, id2 };
    match rng.random_range(0..10) {
        0..=4 => Write::AssocAdd { edge, time: Some(rng.random_range(0..20)), data: number(rng.random_range(0..3)) },
        5 => Write::AssocDelete { edge },
        6 => {
            let other = atypes.iter().copied().find(|t| *t != atype).unwrap_or(atype);
            Write::AssocChangeType { edge, new_atype: other }
        }
        _ => {
            let add = BTreeMap::from([("n".to_owned(), 1)]);
            Write::ObjectUpdate {
                id: id1,
                update: ObjectUpdate { add, ..ObjectUpdate::default() },
                expected_version: None,
            }
        }
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
}
