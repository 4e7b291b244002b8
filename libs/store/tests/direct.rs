//! Databases as operators' commands have them, beside a store that is open.

use std::sync::Arc;

use bytes::Bytes;
use tao_harness::{Postgres, TempDir, eventually_async};
use tao_model::{
    AssocRef, Data, Error, IdLayout, Object, ObjectId, Placement, Position, Schema, ShardId, TypeId, Write,
};
use tao_store::direct::{DirectDatabase, DirectError, EdgeRow, GraphRow, RowChange, cut, mend};
use tao_store::{OpenOptions, Store, WriteContext, open};

const FOLLOWS: TypeId = TypeId(1);
const FOLLOWED_BY: TypeId = TypeId(2);
const WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

fn schema() -> Arc<Schema> {
    Arc::new(Schema::social())
}

async fn add(store: &dyn Store) -> ObjectId {
    let write = Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Shard(ShardId(3)) };
    let added = async || Ok(store.write(write.clone(), WriteContext::default()).await?);
    eventually_async(WITHIN, added).await.unwrap().changes[0].key().owner()
}

fn edge(id1: ObjectId, atype: TypeId, id2: ObjectId, time: u32) -> EdgeRow {
    EdgeRow { at: AssocRef { id1, atype, id2 }, time, data: Bytes::new() }
}

fn put(row: EdgeRow) -> RowChange {
    RowChange::Put(GraphRow::Edge(row))
}

async fn count(store: &dyn Store, id1: ObjectId, atype: TypeId) -> (u64, Vec<ObjectId>) {
    let list = store.list(id1, atype, 10).await.unwrap().value;
    (list.count, list.edges.iter().map(|edge| edge.id2).collect())
}

/// All of it on one kind of database.
async fn works_beside_an_open_store(url: &str) {
    assert!(matches!(DirectDatabase::open(url, schema()).await, Err(DirectError::NotReady(_) | DirectError::Open(_))));
    let store = open(OpenOptions::new(url, schema(), IdLayout::STANDARD)).await.unwrap();
    let (one, other) = (add(&*store).await, add(&*store).await);
    let direct = DirectDatabase::open(url, schema()).await.unwrap();
    assert_eq!((direct.info(), direct.shards().len()), (store.info(), 1024));
    assert_eq!(direct.servers().await.unwrap().len(), 1, "the store");
    let databases = [direct];
    let direct = &databases[0];

    // One direction only: what is wrong on purpose is seen, and mended.
    let before = store.head().await.unwrap();
    assert_eq!(direct.apply(&[put(edge(one, FOLLOWS, other, 7))]).await.unwrap(), 1);
    assert_eq!(direct.apply(&[put(edge(one, FOLLOWS, other, 7))]).await.unwrap(), 0, "it is there and equal");
    assert_eq!(store.head().await.unwrap(), before.plus(1));
    let log = store.log_after(before, 1 << 20).await.unwrap();
    assert_eq!(log.last().unwrap().last, before.plus(1), "subscribers hear of it");
    let at = AssocRef { id1: one, atype: FOLLOWS, id2: other };
    assert_eq!(mend(&databases, &schema(), &[at]).await.unwrap(), 1);
    assert_eq!(mend(&databases, &schema(), &[at]).await.unwrap(), 0);
    assert_eq!(count(&*store, other, FOLLOWED_BY).await, (1, vec![one]));
    let differs = edge(other, FOLLOWED_BY, one, 9);
    direct.apply(&[put(differs)]).await.unwrap();
    assert_eq!(mend(&databases, &schema(), &[at]).await.unwrap(), 1, "as the canonical side has it");

    // Rows come with what they had, in the order of the calls, and their ids are not made again.
    let parts = tao_model::id::IdParts { time_ms: 1_900_000_000_000, shard: ShardId(3), sequence: 0 };
    let far = IdLayout::STANDARD.encode(parts).unwrap();
    let object =
        |id, version| Object { id, otype: TypeId(1), version, created_ms: 5, updated_ms: 6, data: Bytes::new() };
    let rows = [object(far, 41), object(one, 8)].map(|object| RowChange::Put(GraphRow::Object(object)));
    assert_eq!(direct.apply(&rows).await.unwrap(), 2);
    let mut snapshot = cut(&databases, 1).await.unwrap().remove(0).remove(0);
    assert_eq!(snapshot.position(), store.head().await.unwrap());
    let objects = snapshot.objects(None, Some(far), 10).await.unwrap();
    assert_eq!(objects.iter().find(|o| o.id == far), Some(&object(far, 41)));
    assert!(snapshot.objects(Some(far), None, 10).await.unwrap().is_empty());
    let edges = snapshot.edges(None, None, 10).await.unwrap();
    assert_eq!(edges.len(), 2);
    let counts = snapshot.counts(None, 10).await.unwrap();
    assert_eq!(counts.iter().map(|list| list.count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(snapshot.edge_beyond(None, 1).await.unwrap(), edges.get(1).map(|edge| edge.at));
    // What is written now is not seen in it.
    let gone = [RowChange::RemoveEdge(at), RowChange::DeleteObject(far)];
    assert_eq!(direct.apply(&gone).await.unwrap(), 2);
    assert_eq!(snapshot.edges(None, None, 10).await.unwrap(), edges);
    assert_eq!(count(&*store, one, FOLLOWS).await, (0, vec![]));
    let mut log = Vec::new();
    let mut after = Position::ZERO;
    while let Some(last) = snapshot.log(after).await.unwrap().last().cloned() {
        after = last.first;
        log.push(last);
    }
    assert_eq!(log.last().unwrap().last, snapshot.position());
    drop(snapshot);

    // Wiped, it is another history, with the same ids behind it.
    let head = direct.wipe(Position::new(9_999_999_999, 1)).await.unwrap();
    assert!(head.epoch >= 10_000_000_000);
    let mut snapshot = cut(&databases, 1).await.unwrap().remove(0).remove(0);
    assert!(snapshot.is_empty().await.unwrap() && snapshot.position() == head);
    assert_eq!(snapshot.totals().await.unwrap(), (0, 0, 0));
    assert!(add(&*store).await > far);
    let answer = store.objects(&[one]).await.unwrap();
    assert!(answer.value[0].is_none() && answer.position.epoch == head.epoch);
    assert!(direct.begin_epoch(Position::ZERO).await.unwrap().epoch > head.epoch);
    databases[0].close().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_works_beside_an_open_store() {
    let postgres = Postgres::start().unwrap();
    works_beside_an_open_store(&postgres.create_database("direct").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_works_beside_an_open_store() {
    let folder = TempDir::new().unwrap();
    works_beside_an_open_store(&format!("sqlite:{}", folder.join("tao.db").display())).await;
}

/// A list's count is put right from its edges, also where there are none any more; more rows than fit into one commit are several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_counted_anew_and_many_rows_are_several_commits() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("direct").unwrap();
    let store = open(OpenOptions::new(&url, schema(), IdLayout::STANDARD)).await.unwrap();
    let (one, other) = (add(&*store).await, add(&*store).await);
    let direct = DirectDatabase::open(&url, schema()).await.unwrap();
    let rows: Vec<_> = (1..=3_000).map(|n| put(edge(one, FOLLOWS, ObjectId::new(n).unwrap(), n as u32))).collect();
    let before: u64 = postgres.execute("direct", "SELECT commits FROM log_head").unwrap().parse().unwrap();
    assert_eq!(direct.apply(&rows).await.unwrap(), 3_000);
    let after: u64 = postgres.execute("direct", "SELECT commits FROM log_head").unwrap().parse().unwrap();
    assert_eq!(after - before, 3);
    let wrong =
        format!("UPDATE assoc_counts SET count = 5; INSERT INTO assoc_counts VALUES ({}, 1, 4, 1, 1)", other.get());
    postgres.execute("direct", &wrong).unwrap();
    let recount = [RowChange::Recount(one, FOLLOWS), RowChange::Recount(other, FOLLOWS)];
    assert_eq!(direct.apply(&recount).await.unwrap(), 2);
    assert_eq!(direct.apply(&recount).await.unwrap(), 0);
    assert_eq!(count(&*store, one, FOLLOWS).await.0, 3_000);
    assert_eq!(count(&*store, other, FOLLOWS).await, (0, vec![]));
    let elsewhere = open(OpenOptions {
        shards: "0-7".parse().unwrap(),
        ..OpenOptions::new(postgres.create_database("part").unwrap(), schema(), IdLayout::STANDARD)
    });
    let elsewhere = elsewhere.await.unwrap();
    let part = DirectDatabase::open(&format!("postgres://postgres@127.0.0.1:{}/part", postgres.port()), schema()).await;
    let foreign = IdLayout::STANDARD.encode(tao_model::id::IdParts {
        time_ms: 1_800_000_000_000,
        shard: ShardId(9),
        sequence: 1,
    });
    let refused = part.unwrap().apply(&[RowChange::DeleteObject(foreign.unwrap())]).await;
    assert!(matches!(refused, Err(DirectError::Failed(Error::WrongShard { shard: 9 }))));
    elsewhere.close().await;
    store.close().await;
}
