//! Two logs: what one leaves to do in the other, and that it is done once, in order, however often it is delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tao_model::{
    AssocRef, Condition, Data, Error, IdLayout, Intent, ItemOutcome, LogId, ObjectId, Placement, Position, Result,
    Schema, ShardId, ShardSet, Step, TypeId, Write, WriteBatch, WriteOutcome,
};
use tao_proto::intents;

use super::{adding, number};
use crate::store::{IntentsWaiting, Store, WriteContext};

/// Runs every case on two stores of one cluster with [`IdLayout::STANDARD`], opened with [`Schema::social`]: the first has
/// [`first_shards`], the second all others. Otherwise as [`super::run`].
pub async fn run_across(first: Arc<dyn Store>, second: Arc<dyn Store>) {
    let pair = Pair::new(first, second).await;
    pair.the_other_list_follows().await;
    pair.one_side_orders_both().await;
    pair.types_change().await;
    pair.batches_leave_what_cannot_fail().await;
    pair.strangers_are_refused().await;
    pair.random_histories_converge().await;
}

/// Shards of the first of two stores.
pub fn first_shards() -> ShardSet {
    ShardSet::range(ShardId(0), ShardId(511))
}

/// A log, as the other one delivers to it.
struct Side {
    store: Arc<dyn Store>,
    log: LogId,
    shards: ShardSet,
    /// A user, above all users of the other side where it has the higher shards.
    user: ObjectId,
}

struct Pair {
    sides: [Side; 2],
    schema: Schema,
}

fn add_user(shard: ShardId) -> Write {
    Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Shard(shard) }
}

async fn write(store: &Arc<dyn Store>, write: Write) -> Result<WriteOutcome> {
    store.write(write, WriteContext::default()).await
}

impl Side {
    async fn new(store: Arc<dyn Store>, log: LogId, shards: ShardSet) -> Self {
        let some = shards.iter().next().expect("a shard");
        let user = write(&store, add_user(some)).await.expect("a user").changes[0].key().owner();
        Self { store, log, shards, user }
    }

    async fn new_user(&self) -> ObjectId {
        let shard = self.shards.last().expect("a shard");
        write(&self.store, add_user(shard)).await.expect("a user").changes[0].key().owner()
    }

    async fn list(&self, id1: ObjectId, atype: TypeId) -> (u64, Vec<(u32, ObjectId)>) {
        let head = self.store.list(id1, atype, 1_000).await.expect("a list").value;
        (head.count, head.edges.iter().map(|e| (e.time, e.id2)).collect())
    }
}

impl Pair {
    async fn new(first: Arc<dyn Store>, second: Arc<dyn Store>) -> Self {
        let rest = ShardSet::all(&IdLayout::STANDARD).difference(&first_shards());
        let sides = [Side::new(first, LogId(0), first_shards()).await, Side::new(second, LogId(1), rest).await];
        Self { sides, schema: Schema::social() }
    }

    fn atype(&self, name: &str) -> TypeId {
        self.schema.assoc_named(name).expect("a type").number
    }

    fn edge(&self, id1: ObjectId, atype: &str, id2: ObjectId) -> AssocRef {
        AssocRef { id1, atype: self.atype(atype), id2 }
    }

    /// The store that orders an edge's pair.
    fn home(&self, edge: AssocRef) -> &Arc<dyn Store> {
        let shard = IdLayout::STANDARD.shard(self.schema.canonical(edge).id1);
        &self.sides.iter().find(|side| side.shards.contains(shard)).expect("one has it").store
    }

    async fn link(&self, edge: AssocRef, time: u32) -> WriteOutcome {
        let add = Write::AssocAdd { edge, time: Some(time), data: number(i64::from(time)) };
        write(self.home(edge), add).await.expect("an edge")
    }

    /// Does what is left, of at most so many writes, from one side on the other; says how many there were.
    async fn deliver(&self, from: usize, limit: usize) -> usize {
        let (from, to) = (&self.sides[from], &self.sides[1 - from]);
        let page = from.store.intents(&to.shards, Position::ZERO, limit).await.unwrap();
        let Some(last) = page.intents.last() else { return 0 };
        assert!(page.intents.is_sorted_by(|a, b| a.position < b.position) && page.head >= last.position);
        let left = page.intents.iter().map(|intent| {
            assert!(to.shards.contains(intent.shard));
            Intent { position: intent.position, steps: intents::decode(&intent.payload).unwrap() }
        });
        let left: Vec<_> = left.collect();
        let done = write(&to.store, Write::Intents { source: from.log, intents: left.clone() }).await.unwrap();
        assert_eq!(done.items.len(), left.len());
        assert_eq!(done.items.iter().map(|item| item.changes).sum::<usize>(), done.changes.len());
        from.store.delivered(&to.shards, last.position).await.unwrap();
        left.len()
    }

    /// Until nothing is left anywhere.
    async fn drain(&self) {
        while self.deliver(0, 100).await + self.deliver(1, 100).await > 0 {}
        for side in &self.sides {
            assert_eq!(side.store.intents_waiting().await.unwrap(), IntentsWaiting::default());
        }
    }

    async fn the_other_list_follows(&self) {
        let [here, there] = &self.sides;
        let (a, b) = (here.user, there.user);
        let made = here.store.intents_made();
        let added = self.link(self.edge(a, "follows", b), 10).await;
        assert_eq!((added.result.applied, added.result.count, added.changes.len()), (true, 1, 1));
        assert_eq!(here.list(a, self.atype("follows")).await, (1, vec![(10, b)]));
        assert_eq!(there.list(b, self.atype("followed_by")).await, (0, vec![]), "not yet");
        let [pending] = added.pending[..] else { panic!("{:?}", added.pending) };
        assert_eq!((pending.shard, *made.borrow()), (IdLayout::STANDARD.shard(b), pending.position));
        let waiting = here.store.intents_waiting().await.unwrap();
        assert!(waiting.count == 1 && waiting.oldest_ms.is_some_and(|ms| ms > 1_600_000_000_000));
        assert_eq!(here.store.intents(&here.shards, Position::ZERO, 9).await.unwrap().intents, [], "none for itself");
        let page = here.store.intents(&there.shards, Position::ZERO, 9).await.unwrap();
        assert_eq!((page.head, page.intents.len()), (pending.position, 1));
        let after = here.store.intents(&there.shards, pending.position, 9).await.unwrap();
        assert_eq!((after.head, after.intents.len()), (pending.position, 0));

        // Nothing changes, and what was left before is still left.
        let again = self.link(self.edge(a, "follows", b), 10).await;
        assert_eq!((again.changes.len(), &again.pending), (0, &added.pending));
        assert_eq!(self.deliver(0, 9).await, 1);
        assert_eq!(there.list(b, self.atype("followed_by")).await, (1, vec![(10, a)]));
        let edges = (
            here.store.list(a, self.atype("follows"), 1).await.unwrap().value.edges.remove(0),
            there.store.list(b, self.atype("followed_by"), 1).await.unwrap().value.edges.remove(0),
        );
        assert_eq!((edges.0.data, edges.0.time), (edges.1.data, edges.1.time));
        // Delivered again, by somebody who has not heard that it is done.
        let head = there.store.head().await.unwrap();
        let again = page
            .intents
            .iter()
            .map(|intent| Intent { position: intent.position, steps: intents::decode(&intent.payload).unwrap() });
        let again = Write::Intents { source: here.log, intents: again.collect() };
        let done = write(&there.store, again).await.unwrap();
        assert_eq!(
            (done.items, done.changes.len()),
            (vec![ItemOutcome { skipped: true, ..ItemOutcome::default() }], 0)
        );
        assert_eq!(there.store.head().await.unwrap(), head);
        self.drain().await;
    }

    async fn one_side_orders_both(&self) {
        let [here, there] = &self.sides;
        let (a, b) = (here.new_user().await, there.new_user().await);
        // The pair is ordered where it is followed from, whichever side is named.
        let (named, canonical) = (self.edge(b, "followed_by", a), self.edge(a, "follows", b));
        let add = Write::AssocAdd { edge: named, time: Some(4), data: Data::new() };
        for refused in [add.clone(), Write::AssocDelete { edge: canonical }] {
            let error = write(&there.store, refused).await.unwrap_err();
            assert_eq!(error, Error::WrongShard { shard: IdLayout::STANDARD.shard(a).0 });
        }
        let added = write(&here.store, add).await.unwrap();
        assert!(added.result.applied && added.result.edge.is_some());
        assert_eq!(here.list(a, self.atype("follows")).await, (1, vec![(4, b)]));
        // Moved, deleted and added again before the first has arrived: all of it is done, in order.
        self.link(canonical, 6).await;
        assert!(write(&here.store, Write::AssocDelete { edge: named }).await.unwrap().result.applied);
        assert!(!write(&here.store, Write::AssocDelete { edge: named }).await.unwrap().result.applied);
        self.link(named, 8).await;
        assert_eq!(self.deliver(0, 3).await, 3);
        assert_eq!(there.list(b, named.atype).await, (0, vec![]));
        assert_eq!(self.deliver(0, 3).await, 1);
        assert_eq!(there.list(b, named.atype).await, (1, vec![(8, a)]));
        // Of a symmetric type the smaller id's side orders.
        let friend = self.edge(a.max(b), "friend", a.min(b));
        let other = if a < b { there } else { here };
        let add = Write::AssocAdd { edge: friend, time: Some(1), data: Data::new() };
        assert!(matches!(write(&other.store, add).await, Err(Error::WrongShard { .. })));
        assert!(self.link(friend, 1).await.result.applied);
        self.drain().await;
        assert_eq!((here.list(a, friend.atype).await.0, there.list(b, friend.atype).await.0), (1, 1));
    }

    async fn types_change(&self) {
        for (here, there) in [(0, 1), (1, 0)] {
            let (a, b) = (self.sides[here].new_user().await, self.sides[there].new_user().await);
            let lists = async || {
                let mut found = BTreeMap::new();
                for (side, id, other) in [(here, a, b), (there, b, a)] {
                    for atype in self.schema.assocs() {
                        let (count, edges) = self.sides[side].list(id, atype.number).await;
                        assert_eq!(count, edges.len() as u64);
                        if let [(time, id2)] = edges[..] {
                            assert_eq!(id2, other);
                            found.insert((side == here, atype.name.clone()), time);
                        }
                    }
                }
                found
            };
            let both = |one: &str, other: &str, time| {
                BTreeMap::from([((true, one.to_owned()), time), ((false, other.to_owned()), time)])
            };
            let edge = self.edge(a, "follows", b);
            let change = async |edge: AssocRef, new: &str| {
                let new_atype = self.atype(new);
                write(self.home(edge), Write::AssocChangeType { edge, new_atype }).await
            };
            assert!(matches!(change(edge, "messaged").await, Err(Error::NotFound { .. })));
            self.link(edge, 5).await;
            // Both types are ordered here; then to one that the smaller id orders, and back, naming the other side.
            change(edge, "messaged").await.unwrap();
            self.drain().await;
            assert_eq!(lists().await, both("messaged", "messaged_by", 5));
            let changed = change(self.edge(a, "messaged", b), "friend").await.unwrap();
            assert!(changed.result.edge.is_some());
            self.drain().await;
            assert_eq!(lists().await, both("friend", "friend", 5));
            change(self.edge(b, "friend", a), "followed_by").await.unwrap();
            self.drain().await;
            assert_eq!(lists().await, both("follows", "followed_by", 5));
            // An edge of the new type is replaced.
            self.link(self.edge(a, "friend", b), 9).await;
            change(self.edge(b, "followed_by", a), "friend").await.unwrap();
            self.drain().await;
            assert_eq!(lists().await, both("friend", "friend", 5));
        }
    }

    async fn batches_leave_what_cannot_fail(&self) {
        let [here, there] = &self.sides;
        let (a, b, c) = (here.new_user().await, there.new_user().await, there.new_user().await);
        let object = |id| async move { there.store.objects(&[id]).await.unwrap().value.remove(0) };
        let batch = |conditions, writes| write(&here.store, Write::Batch(WriteBatch { conditions, writes }));
        let writes = || {
            vec![
                adding(a, 1, None),
                Write::AssocAdd { edge: self.edge(b, "follows", c), time: Some(3), data: number(1) },
                Write::AssocAdd { edge: self.edge(b, "follows", a), time: Some(4), data: number(2) },
                Write::AssocAdd { edge: self.edge(a, "follows", b), time: Some(5), data: number(3) },
                Write::ObjectDelete { id: c, expected_version: None },
            ]
        };
        // What can fail elsewhere can't be left, and then nothing is.
        for wrong in [
            adding(b, 1, None),
            Write::ObjectDelete { id: b, expected_version: Some(1) },
            Write::AssocChangeType { edge: self.edge(b, "follows", a), new_atype: self.atype("friend") },
        ] {
            let refused = batch(Vec::new(), writes().into_iter().chain([wrong]).collect()).await.unwrap_err();
            let shard = IdLayout::STANDARD.shard(b).0;
            assert_eq!(refused, Error::WrongShard { shard }.of_item("writes[5]"));
        }
        let elsewhere = Condition::Object { id: b, exists: true };
        assert!(matches!(batch(vec![elsewhere], writes()).await, Err(Error::Item { .. })));
        assert_eq!(here.store.intents_waiting().await.unwrap().count, 0, "undone with the rest");

        let done = batch(vec![Condition::Version { id: a, version: 1 }], writes()).await.unwrap();
        let items: Vec<_> = done.items.iter().map(|item| (item.changes, item.pending.len())).collect();
        assert_eq!(items, [(1, 0), (0, 1), (0, 1), (1, 1), (0, 1)]);
        assert_eq!((done.pending.len(), here.store.intents_waiting().await.unwrap().count), (4, 4));
        assert!(object(c).await.is_some());
        self.drain().await;
        assert!(object(c).await.is_none());
        assert_eq!(there.list(b, self.atype("follows")).await, (2, vec![(4, a), (3, c)]));
        assert_eq!(there.list(c, self.atype("followed_by")).await, (1, vec![(3, b)]));
        assert_eq!(here.list(a, self.atype("followed_by")).await, (1, vec![(4, b)]), "left by the other side in turn");
        assert_eq!(there.list(b, self.atype("followed_by")).await, (1, vec![(5, a)]));
        // A batch of nothing but such writes changes nothing here, and is done all the same.
        let head = here.store.head().await.unwrap();
        let none = batch(Vec::new(), vec![Write::AssocDelete { edge: self.edge(b, "follows", c) }]).await.unwrap();
        assert_eq!((none.position, none.changes.len(), none.pending.len()), (head, 0, 1));
        self.drain().await;
        assert_eq!(there.list(c, self.atype("followed_by")).await, (0, vec![]));
    }

    async fn strangers_are_refused(&self) {
        let [here, there] = &self.sides;
        let edge = |id1| Step::Remove { edge: self.edge(id1, "followed_by", here.user), both: false };
        let intents = [there.user, here.user]
            .into_iter()
            .enumerate()
            .map(|(n, id)| Intent { position: Position::new(1, n as u64 + 1), steps: vec![edge(id)] });
        let head = there.store.head().await.unwrap();
        let strange = Write::Intents { source: LogId(9), intents: intents.collect() };
        let error = write(&there.store, strange).await.unwrap_err();
        assert_eq!(error, Error::WrongShard { shard: IdLayout::STANDARD.shard(here.user).0 });
        assert_eq!(there.store.head().await.unwrap(), head);
    }

    /// Edges between three users of each side, written from everywhere, delivered in any portions. The seed is in `TAO_SEED`, or
    /// random.
    async fn random_histories_converge(&self) {
        let seed: u64 = std::env::var("TAO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
        println!("TAO_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut users = Vec::new();
        for side in [0, 1, 0, 1, 0, 1] {
            users.push((side, self.sides[side].new_user().await));
        }
        let names = ["follows", "followed_by", "friend", "messaged"];
        for round in 0..150 {
            let ((_, id1), (_, id2)) = (*users.choose(&mut rng).unwrap(), *users.choose(&mut rng).unwrap());
            let edge = self.edge(id1, names.choose(&mut rng).unwrap(), id2);
            let time = Some(round);
            let single = match rng.random_range(0..10) {
                0..=4 => Write::AssocAdd { edge, time, data: number(i64::from(round)) },
                5..=7 => Write::AssocDelete { edge },
                _ => Write::AssocChangeType { edge, new_atype: self.atype(names.choose(&mut rng).unwrap()) },
            };
            let both_at_home = Write::Batch(WriteBatch { conditions: Vec::new(), writes: vec![single.clone()] });
            let random = if rng.random_bool(0.2) { both_at_home } else { single };
            match write(self.home(edge), random.clone()).await {
                Ok(_) | Err(Error::NotFound { .. } | Error::Item { .. }) => {}
                Err(error) => panic!("{random:?}: {error}"),
            }
            while rng.random_bool(0.5) {
                self.deliver(rng.random_range(0..2), rng.random_range(1..4)).await;
            }
        }
        self.drain().await;
        let mut edges = BTreeMap::new();
        for (side, id1) in &users {
            for atype in self.schema.assocs() {
                let head = self.sides[*side].store.list(*id1, atype.number, 1_000).await.unwrap().value;
                assert_eq!(head.count, head.edges.len() as u64);
                for edge in head.edges {
                    let at = AssocRef { id1: *id1, atype: atype.number, id2: edge.id2 };
                    edges.insert(at, (edge.time, edge.data));
                }
            }
        }
        assert!(!edges.is_empty());
        for (at, edge) in &edges {
            let inverse = self.schema.inverse(*at).unwrap_or(*at);
            assert_eq!(edges.get(&inverse), Some(edge), "{at:?} and its inverse");
        }
    }
}
