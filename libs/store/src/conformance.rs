//! What every store must do. Each implementation runs [`run`] on a store of its own, opened with [`Schema::social`].

mod across;
mod atomic;
mod concurrent;
mod history;
mod logs;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tao_model::limits::{MAX_ANSWER, MAX_TIME_AHEAD};
use tao_model::{
    AssocRef, ChangeKind, Clock as _, Data, EdgeKey, EdgeTime, Error, ObjectId, ObjectUpdate, Placement, Result,
    Schema, ShardId, SystemClock, TypeId, Value, Write, WriteOutcome,
};
use tao_proto::{data, v1};

use crate::store::{Scan, Store, WriteContext};

pub use across::{first_shards, run_across};

/// Runs every case. Panics, as tests do, when the store does otherwise. Nobody else may write to the store meanwhile. The random
/// cases print their seed; the environment variable `TAO_SEED` sets it.
pub async fn run(store: Arc<dyn Store>) {
    let suite = Suite { store, schema: Schema::social() };
    suite.objects().await;
    suite.fields_of_objects().await;
    suite.versions_of_objects().await;
    suite.allocation().await;
    suite.edges_and_inverses().await;
    suite.refused_edges().await;
    suite.symmetric_edges().await;
    suite.changes_of_type().await;
    suite.moves_to_another_type().await;
    suite.bounds_of_lists().await;
    suite.large_lists_are_cut().await;
    suite.idempotent_writes().await;
    suite.late_writes_are_not_done().await;
    suite.batches_are_atomic().await;
    suite.batches_test_conditions().await;
    suite.batches_are_bounded_and_repeatable().await;
    suite.ids_are_unique().await;
    suite.pages_under_inserts().await;
    suite.history().await;
    suite.logs().await;
    suite.epochs().await;
}

struct Suite {
    store: Arc<dyn Store>,
    schema: Schema,
}

fn number(n: i64) -> Data {
    Data::from([("n".to_owned(), Value::Int64(n))])
}

fn adding(id: ObjectId, n: i64, expected_version: Option<i64>) -> Write {
    let add = BTreeMap::from([("n".to_owned(), n)]);
    Write::ObjectUpdate { id, update: ObjectUpdate { add, ..ObjectUpdate::default() }, expected_version }
}

/// The version and the data of an encoded object.
fn decoded(object: Option<Bytes>) -> (i64, Data) {
    let object = v1::Object::decode(object.expect("an object")).expect("an encoded object");
    (object.version, data::from_peer(object.data.into_iter().collect()).expect("values of known kinds"))
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

        let update = |n, expected_version| adding(id, n, expected_version);
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

    async fn fields_of_objects(&self) {
        let text = |s: &str| Value::String(s.to_owned());
        let first =
            Data::from([("a".to_owned(), text("x")), ("b".to_owned(), text("y")), ("n".to_owned(), Value::Int64(2))]);
        let add = Write::ObjectAdd { otype: self.otype("post"), data: first.clone(), placement: Placement::Anywhere };
        let added = self.write(add).await.unwrap();
        let id = added.changes[0].key().owner();
        assert_eq!(decoded(added.result.object), (1, first));
        let update = ObjectUpdate {
            set: Data::from([("a".to_owned(), text("z")), ("c".to_owned(), Value::Bool(true))]),
            unset: vec!["b".to_owned(), "none".to_owned()],
            add: BTreeMap::from([("n".to_owned(), -5), ("new".to_owned(), 7)]),
        };
        let updated = self.write(Write::ObjectUpdate { id, update, expected_version: None }).await.unwrap();
        let want = Data::from([
            ("a".to_owned(), text("z")),
            ("c".to_owned(), Value::Bool(true)),
            ("n".to_owned(), Value::Int64(-3)),
            ("new".to_owned(), Value::Int64(7)),
        ]);
        assert_eq!(decoded(updated.result.object), (2, want.clone()));
        assert_eq!(decoded(self.object(id).await), (2, want.clone()));
        // A field that can be added to beside one that can't: neither is changed.
        let update =
            ObjectUpdate { add: BTreeMap::from([("a".to_owned(), 1), ("n".to_owned(), 1)]), ..ObjectUpdate::default() };
        let refused = self.write(Write::ObjectUpdate { id, update, expected_version: None }).await;
        assert_eq!(refused, Err(Error::NotANumber { field: "a".to_owned() }));
        assert_eq!(decoded(self.object(id).await), (2, want));
        // An upsert replaces all data.
        let upsert = Write::ObjectUpsert { id, otype: self.otype("post"), data: number(1) };
        self.write(upsert).await.unwrap();
        assert_eq!(decoded(self.object(id).await), (3, number(1)));
        let ids = [id, self.user().await, id];
        let read = self.store.objects(&ids).await.unwrap().value;
        assert!(
            read.len() == 3 && read[0] == read[2] && read[0] != read[1],
            "in the order asked for, twice when asked twice"
        );
    }

    async fn versions_of_objects(&self) {
        let id = self.user().await;
        let before = self.store.head().await.unwrap();
        let delete = |expected_version| Write::ObjectDelete { id, expected_version };
        let mismatch = self.write(delete(Some(2))).await;
        assert_eq!(mismatch, Err(Error::VersionMismatch { id: id.get(), expected: 2, actual: 1 }));
        assert_eq!(self.store.head().await.unwrap(), before, "what fails takes no position");
        assert!(self.object(id).await.is_some());
        // Of many that expect one version, one is done.
        let writes = (0..8).map(|_| {
            let store = self.store.clone();
            tokio::spawn(async move { store.write(adding(id, 1, Some(1)), WriteContext::default()).await })
        });
        let mut done = 0;
        for write in writes.collect::<Vec<_>>() {
            match write.await.unwrap() {
                Ok(_) => done += 1,
                Err(error) => {
                    assert_eq!(error, Error::VersionMismatch { id: id.get(), expected: 1, actual: 2 });
                }
            }
        }
        assert_eq!((done, decoded(self.object(id).await)), (1, (2, number(1))));
        // An id lives on: deleted, it can be put again, and its edges were never gone.
        let other = self.user().await;
        self.link(self.edge(id, "follows", other), 1).await;
        assert!(self.write(delete(Some(2))).await.unwrap().result.applied);
        assert_eq!(self.list(id, "follows").await, (1, vec![(1, other)]));
        let upsert = Write::ObjectUpsert { id, otype: self.otype("user"), data: number(9) };
        assert!(self.write(upsert).await.unwrap().result.applied);
        assert_eq!(decoded(self.object(id).await), (1, number(9)));
        // Also within one batch, which the first write lets gather, and then as another type.
        let post = Write::ObjectUpsert { id, otype: self.otype("post"), data: number(2) };
        let (first, gone, again) =
            tokio::join!(self.write(adding(other, 1, None)), self.write(delete(None)), self.write(post));
        assert!(first.is_ok() && gone.unwrap().result.applied);
        assert_eq!(self.object(id).await, again.unwrap().result.object, "all of it is stored anew");
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

    async fn refused_edges(&self) {
        let (a, b) = (self.user().await, self.user().await);
        let layout = self.store.info().layout;
        let day_ahead = u32::try_from(SystemClock.now_ms() / 1000 + MAX_TIME_AHEAD).unwrap();
        let edge = self.edge(a, "follows", b);
        let before = self.store.head().await.unwrap();
        let late = Write::AssocAdd { edge, time: Some(day_ahead + 60), data: Data::new() };
        assert_eq!(fields(self.write(late).await.unwrap_err()), ["time"]);
        let never = ObjectId::new(a.get() + (1 << 50)).unwrap();
        assert!(layout.checked_shard(never).is_ok(), "the case is about its time");
        for (id1, id2, want) in [(never, b, vec!["id1"]), (a, never, vec!["id2"]), (never, never, vec!["id1", "id2"])] {
            let edge = self.edge(id1, "follows", id2);
            for write in [
                Write::AssocAdd { edge, time: Some(1), data: Data::new() },
                Write::AssocDelete { edge },
                Write::AssocChangeType { edge, new_atype: self.atype("friend") },
            ] {
                assert_eq!(fields(self.write(write.clone()).await.unwrap_err()), want, "{write:?}");
            }
        }
        let none = self.write(Write::AssocDelete { edge }).await.unwrap();
        assert_eq!((none.result.applied, none.result.count, none.changes.len()), (false, 0, 0));
        assert_eq!(self.store.head().await.unwrap(), before, "no change, no position");

        // The types of both ends, where they are known; an edge to an object that isn't there yet is allowed.
        let post = Write::ObjectAdd { otype: self.otype("post"), data: Data::new(), placement: Placement::Anywhere };
        let post = self.write(post).await.unwrap().changes[0].key().owner();
        for edge in [self.edge(a, "follows", post), self.edge(post, "follows", a), self.edge(a, "likes", b)] {
            let add = Write::AssocAdd { edge, time: Some(1), data: Data::new() };
            assert!(matches!(self.write(add).await, Err(Error::TypeMismatch { .. })), "{edge:?}");
        }
        self.link(edge, day_ahead - 60).await;
        let change = Write::AssocChangeType { edge, new_atype: self.atype("likes") };
        assert!(matches!(self.write(change).await, Err(Error::TypeMismatch { .. })));
        assert_eq!(self.list(a, "follows").await, (1, vec![(day_ahead - 60, b)]), "what fails changes nothing");
        let absent = self.store.allocate(None, 1).await.unwrap()[0];
        assert_eq!(self.link(self.edge(a, "likes", absent), 1).await.changes.len(), 2);
        assert_eq!(self.list(absent, "liked_by").await, (1, vec![(1, a)]));
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

    /// Without an edge in the way: it keeps its time and data. To its own inverse type, it turns around.
    async fn moves_to_another_type(&self) {
        let (a, b) = (self.user().await, self.user().await);
        let edge = self.edge(a, "follows", b);
        self.write(Write::AssocAdd { edge, time: Some(6), data: number(4) }).await.unwrap();
        let to_friend = Write::AssocChangeType { edge, new_atype: self.atype("friend") };
        let moved = self.write(to_friend).await.unwrap();
        assert_eq!((moved.changes.len(), moved.result.count), (4, 1));
        for (one, other) in [(a, b), (b, a)] {
            let head = self.store.list(one, self.atype("friend"), 10).await.unwrap().value;
            let want = tao_model::Edge { id2: other, time: 6, data: data::encode(&number(4)) };
            assert_eq!((head.count, head.edges), (1, vec![want]));
        }
        assert_eq!((self.list(a, "follows").await.0, self.list(b, "followed_by").await.0), (0, 0));
        let back = Write::AssocChangeType { edge: self.edge(a, "friend", b), new_atype: self.atype("followed_by") };
        self.write(back).await.unwrap();
        assert_eq!(self.list(a, "followed_by").await, (1, vec![(6, b)]));
        assert_eq!(self.list(b, "follows").await, (1, vec![(6, a)]));
        assert_eq!((self.list(a, "friend").await.0, self.list(b, "friend").await.0), (0, 0));
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
        let oldest_newer = EdgeKey { time: all[14].0, id2: all[14].1 };
        let rest: Vec<_> = all[15..].iter().copied().filter(|(t, _)| *t >= 3).collect();
        for high in [oldest_newer.time, u32::MAX] {
            assert_eq!(page(Scan { after: Some(oldest_newer), low: 3, high, ..scan }).await, (rest.clone(), false));
        }
        let newest = EdgeKey { time: all[0].0, id2: all[0].1 };
        let within: Vec<_> = all.iter().copied().filter(|(t, _)| (3..=4).contains(t)).collect();
        assert_eq!(page(Scan { after: Some(newest), low: 3, high: 4, ..scan }).await, (within, false));
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
        // The rest follows.
        let last = page.edges.last().map(|e| EdgeKey { time: e.time, id2: e.id2 });
        let rest = self.store.scan(Scan { after: last, ..scan }).await.unwrap().value;
        assert_eq!((rest.more, rest.edges.len()), (false, 60 - page.edges.len()));
    }

    async fn idempotent_writes(&self) {
        let id = self.user().await;
        let context = || WriteContext { idempotency_key: Some(format!("key of {id}")), ..WriteContext::default() };
        let add = |n| adding(id, n, None);
        // In one batch, or in two: whichever came first is done, the other gets its outcome.
        let (one, two) = tokio::join!(self.store.write(add(1), context()), self.store.write(add(1), context()));
        assert_eq!(one.unwrap(), two.unwrap());
        self.write(add(10)).await.unwrap();
        let replayed = self.store.write(add(1), context()).await.unwrap();
        assert_ne!(self.object(id).await, replayed.result.object, "the first outcome, not the present state");
        let other = self.store.write(add(2), context()).await;
        assert!(matches!(other, Err(Error::IdempotencyKeyReused { .. })));
        assert_eq!(decoded(self.object(id).await), (3, number(11)), "done once");
        // Two different writes with one key, in one batch: the first is done.
        let context =
            || WriteContext { idempotency_key: Some(format!("other key of {id}")), ..WriteContext::default() };
        let (one, two) = tokio::join!(self.store.write(add(3), context()), self.store.write(add(4), context()));
        assert!(one.is_ok() && matches!(two, Err(Error::IdempotencyKeyReused { .. })), "{one:?} {two:?}");
        assert_eq!(decoded(self.object(id).await), (4, number(14)));
    }

    async fn late_writes_are_not_done(&self) {
        let id = self.user().await;
        let before = self.object(id).await;
        let context = WriteContext { deadline: Some(tokio::time::Instant::now()), ..WriteContext::default() };
        let late = self.store.write(Write::ObjectDelete { id, expected_version: None }, context).await;
        assert_eq!(late, Err(Error::DeadlineExceeded { not_applied: true }));
        assert_eq!(self.object(id).await, before);
    }
}
