//! The conformance suite on every store, and what only durable stores can show.

use std::sync::Arc;
use std::time::Duration;

use tao_harness::{Postgres, TempDir};
use tao_model::{
    Clock, ClusterId, Data, Error, IdLayout, ObjectId, Placement, Schema, ShardId, SystemClock, TypeId, Write,
};
use tao_store::{OpenError, OpenOptions, Store, WriteContext, conformance, open};

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
async fn postgres_conforms_and_survives() {
    let mut postgres = Postgres::start().unwrap();
    let store = open(options(&postgres.create_database("conformance").unwrap())).await.unwrap();
    conformance::run(store.clone()).await;
    store.close().await;

    let url = postgres.create_database("survival").unwrap();
    reopened(&url).await;
    refused(&url).await;
    taken_over(&url).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', true, '', 0)";
    let other = postgres.create_database("newer").unwrap();
    open(options(&other)).await.unwrap().close().await;
    postgres.execute("newer", newer).unwrap();
    assert!(matches!(open(options(&other)).await.err(), Some(OpenError::Newer(9999))));

    let store = open(options(&url)).await.unwrap();
    let id = add(&*store).await.unwrap();
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
    assert!(store.subscribe().is_ok());
}

#[tokio::test]
async fn sqlite_survives() {
    let folder = TempDir::new().unwrap();
    let url = sqlite(&folder);
    reopened(&url).await;
    refused(&url).await;
    taken_over(&url).await;
}

/// What was written is there again, and no id is made twice, even with an older clock.
async fn reopened(url: &str) {
    let store = open(options(url)).await.unwrap();
    let (first, head) = (add(&*store).await.unwrap(), store.head().await.unwrap());
    let info = store.info();
    store.close().await;
    let store = open(OpenOptions { clock: Arc::new(Behind), ..options(url) }).await.unwrap();
    assert_eq!((store.info(), store.head().await.unwrap()), (info, head));
    assert!(store.objects(&[first]).await.unwrap().value[0].is_some());
    assert!(add(&*store).await.unwrap() > first);
    store.close().await;
}

async fn refused(url: &str) {
    let other = OpenOptions { expect_cluster: Some(ClusterId([9; 16])), ..options(url) };
    let error = open(other).await.err().expect("refused");
    assert!(matches!(error, OpenError::OtherCluster { .. }), "{error}");
    let layout = IdLayout::new(42, 12, 10, 4096).unwrap();
    let error = open(OpenOptions { layout, ..options(url) }).await.err().expect("refused");
    assert!(matches!(error, OpenError::OtherLayout { .. }), "{error}");
    assert!(matches!(open(options("mysql://x")).await.err(), Some(OpenError::Url(_))));
}

/// A second process takes the database over; the first can do no harm any more, and says so.
async fn taken_over(url: &str) {
    let first = open(options(url)).await.unwrap();
    add(&*first).await.unwrap();
    let mut subscription = first.subscribe().unwrap();
    let second = open(options(url)).await.unwrap();
    let refused = add(&*first).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { not_applied: true, .. }), "{refused:?}");
    let ended = tokio::time::timeout(Duration::from_secs(5), async { while subscription.next().await.is_some() {} });
    ended.await.expect("its change stream ends");
    assert!(first.subscribe().is_err());
    add(&*second).await.unwrap();
    first.close().await;
    add(&*second).await.unwrap();
    second.close().await;
}
