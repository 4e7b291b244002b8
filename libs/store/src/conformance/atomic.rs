//! Atomic batches: all or nothing, under conditions, once for each key.

use tao_model::{
    AssocRef, Condition, Data, Error, ObjectId, Placement, Result, Value, Write, WriteBatch, WriteOutcome,
};

use super::{Suite, adding, decoded, number};
use crate::store::WriteContext;

fn batch(conditions: Vec<Condition>, writes: Vec<Write>) -> Write {
    Write::Batch(WriteBatch { conditions, writes })
}

fn link(edge: AssocRef, time: u32) -> Write {
    Write::AssocAdd { edge, time: Some(time), data: Data::new() }
}

/// The item that stood in the way, and what it failed with.
fn refused(result: Result<WriteOutcome>) -> (String, Error) {
    match result {
        Err(Error::Item { item, error }) => (item, *error),
        other => panic!("not an item's error: {other:?}"),
    }
}

impl Suite {
    pub(super) async fn batches_are_atomic(&self) {
        let (a, b, c) = (self.user().await, self.user().await, self.user().await);
        let upsert = |id, n| Write::ObjectUpsert { id, otype: self.otype("user"), data: number(n) };
        let new = self.store.allocate(None, 1).await.unwrap()[0];
        let all = || {
            vec![
                upsert(new, 1),
                adding(new, 4, Some(1)),
                link(self.edge(a, "follows", b), 7),
                link(self.edge(a, "follows", c), 8),
                Write::AssocChangeType { edge: self.edge(a, "follows", b), new_atype: self.atype("messaged") },
                Write::ObjectDelete { id: c, expected_version: None },
            ]
        };
        let before = (self.store.head().await.unwrap(), self.object(c).await);
        // Each position of the one that fails: whatever came before it is undone.
        for n in 0..=all().len() {
            let mut writes = all();
            writes.insert(n, adding(a, 1, Some(77)));
            let (item, error) = refused(self.write(batch(Vec::new(), writes)).await);
            let want = Error::VersionMismatch { id: a.get(), expected: 77, actual: 1 };
            assert_eq!((item, error), (format!("writes[{n}]"), want));
        }
        assert_eq!((self.store.head().await.unwrap(), self.object(c).await), before, "nothing was done");
        assert_eq!(self.object(new).await, None);
        for (id, atype) in [(a, "follows"), (a, "messaged"), (b, "followed_by"), (b, "messaged_by")] {
            assert_eq!(self.list(id, atype).await, (0, vec![]));
        }

        let done = self.write(batch(Vec::new(), all())).await.unwrap();
        let changes: Vec<_> = done.items.iter().map(|item| item.changes).collect();
        assert_eq!(changes, [1, 1, 2, 2, 4, 1]);
        assert_eq!(done.changes.len(), 11, "one log row has them all");
        assert_eq!(done.position, before.0.plus(11));
        assert_eq!(decoded(self.object(new).await), (2, number(5)));
        assert_eq!(self.object(new).await, done.items[1].result.object);
        assert!(done.items[5].result.applied && self.object(c).await.is_none());
        assert_eq!(self.list(a, "follows").await, (1, vec![(8, c)]));
        assert_eq!(self.list(b, "messaged_by").await, (1, vec![(7, a)]));
        assert_eq!(self.list(b, "followed_by").await, (0, vec![]));
        // A batch that fails among others that are committed with it: only its own writes are undone.
        let edge = self.edge(b, "follows", a);
        let doomed = batch(Vec::new(), vec![adding(a, 5, None), link(edge, 9), adding(a, 1, Some(9))]);
        let (first, second, third) =
            tokio::join!(self.write(adding(a, 1, None)), self.write(doomed), self.write(adding(a, 1, None)));
        assert!(first.is_ok() && second.is_err() && third.is_ok());
        assert_eq!(decoded(self.object(a).await), (3, number(2)));
        assert_eq!(self.list(b, "follows").await, (0, vec![]));
        let next = self.link(edge, 9).await;
        assert_eq!((next.result.applied, next.result.count), (true, 1));
    }

    pub(super) async fn batches_test_conditions(&self) {
        let (a, b) = (self.user().await, self.user().await);
        let gone = self.store.allocate(None, 1).await.unwrap()[0];
        self.link(self.edge(a, "friend", b), 1).await;
        let object = |id: ObjectId, exists| Condition::Object { id, exists };
        let version = |id: ObjectId, version| Condition::Version { id, version };
        let edge = |edge: AssocRef, exists| Condition::Edge { edge, exists };
        let there = self.edge(b, "friend", a);
        let absent = self.edge(a, "follows", b);
        let write = || vec![adding(a, 1, None)];
        let right = vec![object(a, true), object(gone, false), version(a, 1), edge(there, true), edge(absent, false)];
        assert!(self.write(batch(right.clone(), write())).await.is_ok());
        let mismatch = Error::VersionMismatch { id: a.get(), expected: 1, actual: 2 };
        for (wrong, want) in [
            (object(a, false), "ALREADY_EXISTS"),
            (object(gone, true), "NOT_FOUND"),
            (version(gone, 1), "NOT_FOUND"),
            (version(a, 1), mismatch.reason()),
            (edge(there, false), "ALREADY_EXISTS"),
            (edge(absent, true), "NOT_FOUND"),
        ] {
            let conditions = vec![object(a, true), wrong, object(gone, true)];
            let (item, error) = refused(self.write(batch(conditions, write())).await);
            assert_eq!((item.as_str(), error.reason()), ("preconditions[1]", want), "the first that fails");
            assert!(error.is_not_applied());
        }
        assert_eq!(decoded(self.object(a).await), (2, number(1)), "done once");
        // Conditions are of the state before the batch; of two batches on one version, one is done.
        let both = batch(vec![version(a, 2)], vec![adding(a, 1, None), adding(a, 1, Some(3))]);
        let (one, two) = tokio::join!(self.write(both.clone()), self.write(both));
        assert!(one.is_ok() != two.is_ok());
        assert_eq!(decoded(self.object(a).await), (4, number(3)));
    }

    pub(super) async fn batches_are_bounded_and_repeatable(&self) {
        let a = self.user().await;
        let large = || Write::ObjectAdd {
            otype: self.otype("post"),
            data: Data::from([("text".to_owned(), Value::String("x".repeat(60_000)))]),
            placement: Placement::Anywhere,
        };
        let key =
            |key: &str| WriteContext { idempotency_key: Some(format!("{key} of {a}")), ..WriteContext::default() };
        let write = |writes: Vec<Write>, key| self.store.write(batch(Vec::new(), writes), key);
        let head = self.store.head().await.unwrap();
        let refused = write((0..36).map(|_| large()).collect(), key("large")).await;
        assert_eq!(super::fields(refused.unwrap_err()), ["writes"]);
        assert_eq!(self.store.head().await.unwrap(), head);
        let many = || (0..30).map(|_| large()).chain([adding(a, 1, None)]).collect();
        // The key is for the batch as a whole; one that failed may be tried again with it.
        let first = write(many(), key("large")).await.unwrap();
        assert_eq!(write(many(), key("large")).await.unwrap(), first);
        assert_eq!(decoded(self.object(a).await), (2, number(1)), "done once");
        let other = write(vec![adding(a, 1, None)], key("large")).await;
        assert!(matches!(other, Err(Error::IdempotencyKeyReused { .. })));
        let ids: Vec<_> = first.changes[..30].iter().map(|change| change.key().owner()).collect();
        assert_eq!(self.store.objects(&ids).await.unwrap().value.iter().flatten().count(), 30);
    }
}
