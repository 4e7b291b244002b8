//! Ids and pages while others write.

use std::collections::HashSet;
use std::sync::Arc;

use tao_model::{AssocRef, Data, EdgeKey, Placement, ShardId, Write};
use tokio::sync::Semaphore;

use super::Suite;
use crate::store::{Scan, WriteContext};

impl Suite {
    /// Allocations and adds of many tasks, most on one shard: no id twice, and each task's ids of that shard ascend.
    pub(super) async fn ids_are_unique(&self) {
        let shard = ShardId(11);
        let otype = self.otype("user");
        let tasks = (0..8).map(|_| {
            let store = self.store.clone();
            tokio::spawn(async move {
                let (mut ids, mut elsewhere) = (Vec::new(), Vec::new());
                for _ in 0..10 {
                    ids.extend(store.allocate(Some(shard), 100).await.unwrap());
                    elsewhere.extend(store.allocate(None, 10).await.unwrap());
                    let add = Write::ObjectAdd { otype, data: Data::new(), placement: Placement::Shard(shard) };
                    let added = store.write(add, WriteContext::default()).await.unwrap();
                    ids.push(added.changes[0].key().owner());
                }
                assert!(ids.is_sorted(), "ids of a shard ascend");
                ids.extend(elsewhere);
                ids
            })
        });
        let mut seen = HashSet::new();
        for task in tasks.collect::<Vec<_>>() {
            for id in task.await.unwrap() {
                assert!(seen.insert(id), "{id} was made twice");
            }
        }
        assert_eq!(seen.len(), 8 * 10 * 111);
    }

    /// Whoever pages through a list by cursor sees each edge that was there all along, once, whatever is added meanwhile.
    pub(super) async fn pages_under_inserts(&self) {
        let (a, atype) = (self.user().await, self.atype("follows"));
        let mut there = HashSet::new();
        for n in 0..40u32 {
            let other = self.user().await;
            self.link(self.edge(a, "follows", other), 1_000 + n / 2).await;
            there.insert(other);
        }
        let mut others = Vec::new();
        for _ in 0..60 {
            others.push(self.user().await);
        }
        let store = self.store.clone();
        // Each page lets two in, so that the list grows while it is paged, however quick the store is.
        let may_insert = Arc::new(Semaphore::new(0));
        let permits = may_insert.clone();
        let inserts = tokio::spawn(async move {
            for (n, id2) in (0u32..).zip(others) {
                permits.acquire().await.unwrap().forget();
                // Before, between and after those that are there.
                let edge = AssocRef { id1: a, atype, id2 };
                let add = Write::AssocAdd { edge, time: Some(990 + n * 7 % 40), data: Data::new() };
                store.write(add, WriteContext::default()).await.unwrap();
            }
        });
        let mut rounds = 0;
        loop {
            let last_round = inserts.is_finished();
            let (mut seen, mut after) = (Vec::<EdgeKey>::new(), None);
            loop {
                let scan = Scan { id1: a, atype, after, offset: 0, limit: 3, low: 0, high: u32::MAX };
                let page = self.store.scan(scan).await.unwrap().value;
                seen.extend(page.edges.iter().map(|e| EdgeKey { time: e.time, id2: e.id2 }));
                after = seen.last().copied();
                may_insert.add_permits(2);
                tokio::task::yield_now().await;
                if !page.more {
                    break;
                }
            }
            assert!(seen.is_sorted_by(|x, y| x < y), "in list order, none twice");
            assert_eq!(seen.iter().filter(|key| there.contains(&key.id2)).count(), there.len(), "none skipped");
            rounds += 1;
            if last_round {
                assert_eq!(seen.len(), 100);
                break;
            }
        }
        assert!(rounds > 1, "the list was paged while it grew");
        inserts.await.unwrap();
    }
}
