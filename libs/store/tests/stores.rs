//! The conformance suite on every store, and what only durable stores can show.

use std::sync::Arc;
use std::time::Duration;

use tao_harness::{Postgres, TempDir, eventually_async};
use tao_model::{
    AssocRef, Clock, ClusterId, Data, Error, IdLayout, ObjectId, Placement, Schema, ShardId, SystemClock, TypeId, Write,
};
use tao_store::listener::Listener;
use tao_store::{OpenError, OpenOptions, Store, WriteContext, conformance, open};
use tao_stream::Origin;

fn options(url: &str) -> OpenOptions {
    OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD)
}

fn sqlite(folder: &TempDir) -> String {
    format!("sqlite:{}", folder.join("tao.db").display())
}

async fn add(store: &dyn Store) -> Result<ObjectId, Error> {
    let write = Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Shard(ShardId(5)) };
    Ok(store.write(write, WriteContext::default()).await?.changes[0].key().owner())
}

/// A clock that is an hour behind.
struct Behind;

impl Clock for Behind {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() - 3_600_000
    }
}

#[tokio::test]
async fn memory_conforms() {
    conformance::run(open(options("memory:")).await.unwrap()).await;
}

#[tokio::test]
async fn sqlite_conforms() {
    let folder = TempDir::new().unwrap();
    let store = open(options(&sqlite(&folder))).await.unwrap();
    conformance::run(store.clone()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms_on_threads() {
    let folder = TempDir::new().unwrap();
    let store = open(options(&sqlite(&folder))).await.unwrap();
    conformance::run(store.clone()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms_on_threads() {
    conformance::run(open(options("memory:")).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    let postgres = Postgres::start().unwrap();
    let store = open(options(&postgres.create_database("conformance").unwrap())).await.unwrap();
    conformance::run(store.clone()).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_survives() {
    let mut postgres = Postgres::start().unwrap();
    let url = postgres.create_database("survival").unwrap();
    reopened(&url).await;
    refused(&url).await;

    let store = open(options(&url)).await.unwrap();
    let id = add(&*store).await.unwrap();
    let before = store.head().await.unwrap();
    postgres.stop_immediate().unwrap();
    let down = add(&*store).await.unwrap_err();
    assert!(matches!(down, Error::Unavailable { .. }) && down.is_retryable(), "{down:?}");
    assert!(matches!(store.objects(&[id]).await, Err(Error::Unavailable { .. })));
    postgres.start_again().unwrap();
    let mut last = None;
    for _ in 0..50 {
        match add(&*store).await {
            Ok(new) => {
                last = Some(new);
                break;
            }
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    assert!(last.is_some_and(|new| new > id), "writes go on by themselves");
    assert!(store.objects(&[id]).await.unwrap().value[0].is_some(), "nothing acknowledged is lost");
    // The change stream is whole.
    let mut listener = Listener::open(&store, Origin::After(before)).await.unwrap();
    assert_eq!(listener.position, before);
    let new = add(&*store).await.unwrap();
    let heard = listener.up_to(store.head().await.unwrap()).await.unwrap();
    assert_eq!(heard.last().unwrap().key().owner(), new);
    assert_eq!(store.head().await.unwrap().epoch, before.epoch, "a crash undoes nothing");
    store.close().await;
}

/// Statements on a broken connection, in the midst of many writes: each write's error says whether it happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_among_writes_loses_nothing_acknowledged() {
    let mut postgres = Postgres::start().unwrap();
    let store = open(options(&postgres.create_database("killed").unwrap())).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    match add(&*store).await {
                        Ok(id) => done.push(id),
                        Err(error) => {
                            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
                            return done;
                        }
                    }
                }
            })
        })
        .collect();
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    listener.up_to(listener.position.plus(20)).await.expect("commits before the kill");
    tokio::task::block_in_place(|| postgres.stop_immediate()).unwrap();
    let mut acknowledged = Vec::new();
    for writer in writers {
        let ended = tokio::time::timeout(Duration::from_secs(30), writer).await;
        acknowledged.extend(ended.expect("every write is answered").unwrap());
    }
    postgres.start_again().unwrap();
    let read = store.objects(&acknowledged).await.unwrap().value;
    assert!(read.len() >= 20 && read.iter().all(Option::is_some), "nothing acknowledged is lost");
    let new = add(&*store).await.unwrap();
    assert!(!acknowledged.contains(&new), "no id is made twice");
    store.close().await;
}

#[tokio::test]
async fn sqlite_survives() {
    let folder = TempDir::new().unwrap();
    let url = sqlite(&folder);
    reopened(&url).await;
    refused(&url).await;
}

/// What was written is there again, and no id is made twice, even with an older clock.
async fn reopened(url: &str) {
    let store = open(options(url)).await.unwrap();
    let first = add(&*store).await.unwrap();
    let info = store.info();
    let context = || WriteContext { idempotency_key: Some("kept".to_owned()), ..WriteContext::default() };
    let write = Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Shard(ShardId(5)) };
    let edge = AssocRef { id1: first, atype: TypeId(5), id2: first };
    let link = Write::AssocAdd { edge, time: Some(1), data: Data::new() };
    let (once, list) =
        (store.write(write.clone(), context()).await.unwrap(), store.write(link, WriteContext::default()).await);
    let (head, list) = (list.unwrap().position, store.list(first, TypeId(5), 9).await.unwrap());
    let ids = store.allocate(Some(ShardId(5)), 500).await.unwrap();
    store.close().await;
    assert!(add(&*store).await.is_err(), "closed");
    let store = open(OpenOptions { clock: Arc::new(Behind), ..options(url) }).await.unwrap();
    assert_eq!((store.info(), store.head().await.unwrap()), (info, head));
    assert!(store.objects(&[first]).await.unwrap().value[0].is_some());
    assert_eq!(store.list(first, TypeId(5), 9).await.unwrap(), list);
    assert_eq!(store.write(write, context()).await.unwrap(), once, "outcomes are kept");
    assert_eq!(Listener::open(&store, Origin::Now).await.unwrap().position, head);
    let unused = Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Allocated(ids[250]) };
    assert!(
        store.write(unused, WriteContext::default()).await.is_ok(),
        "an id that was allocated before is still good"
    );
    assert!(add(&*store).await.unwrap() > ids[499]);
    assert!(store.allocate(Some(ShardId(5)), 1).await.unwrap()[0] > ids[499]);
    store.close().await;
}

async fn refused(url: &str) {
    let other = OpenOptions { cluster: Some(ClusterId([9; 16])), ..options(url) };
    let error = open(other).await.err().expect("refused");
    assert!(matches!(error, OpenError::OtherCluster { .. }), "{error}");
    let layout = IdLayout::new(42, 12, 10, 4096).unwrap();
    let error = open(OpenOptions { layout, ..options(url) }).await.err().expect("refused");
    assert!(matches!(error, OpenError::OtherLayout { .. }), "{error}");
    assert!(matches!(open(options("mysql://x")).await.err(), Some(OpenError::Url(_))));
}

/// What a load leaves is known to the planner soon after its end, without autovacuum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_knows_how_large_its_tables_have_become() {
    let postgres = Postgres::start_with(&[("autovacuum", "off")]).unwrap();
    let url = postgres.create_database("statistics").unwrap();
    let store = open(options(&url)).await.unwrap();
    let writers = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..110 {
                add(&*store).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let known = async || {
        let sql = "SELECT reltuples::bigint FROM pg_class WHERE relname = 'objects'";
        let rows: i64 = postgres.execute("statistics", sql)?.parse()?;
        anyhow::ensure!(rows == 11_000, "{rows} rows are known");
        Ok(())
    };
    eventually_async(Duration::from_secs(60), known).await.unwrap();
    store.close().await;
}
