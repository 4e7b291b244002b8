//! History that was undone: a database put back to an older state, or going on on another timeline, while stores live.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tao_harness::{Postgres, TempDir, eventually_async};
use tao_model::{Data, Error, IdLayout, ObjectId, Placement, Position, Schema, ShardId, TypeId, Write, WriteOutcome};
use tao_store::listener::Listener;
use tao_store::{OpenOptions, Store, WriteContext, open};
use tao_stream::Origin;

const WITHIN: Duration = Duration::from_secs(30);

fn options(url: &str) -> OpenOptions {
    OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD)
}

async fn add(store: &dyn Store) -> Result<WriteOutcome, Error> {
    let write = Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Shard(ShardId(3)) };
    store.write(write, WriteContext::default()).await
}

fn id(outcome: &WriteOutcome) -> ObjectId {
    outcome.changes[0].key().owner()
}

async fn add_until_done(store: &dyn Store) -> WriteOutcome {
    eventually_async(WITHIN, async || Ok(add(store).await?)).await.unwrap()
}

fn run(program: &str, args: &[&Path]) {
    let status = Command::new(program).arg("-a").args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// A server with a database, and a copy of an older state of it.
struct Restorable {
    postgres: Postgres,
    url: String,
    copies: TempDir,
}

impl Restorable {
    fn new() -> Self {
        let postgres = Postgres::start().unwrap();
        let url = postgres.create_database("restored").unwrap();
        Self { postgres, url, copies: TempDir::new().unwrap() }
    }

    /// Copies the present state; the server is stopped for it.
    fn copy(&mut self) {
        self.postgres.stop_immediate().unwrap();
        run("cp", &[&self.postgres.folder().join("data"), &self.copies.join("data")]);
        self.postgres.start_again().unwrap();
    }

    /// Puts the copy back, and lets `change` at the folder before the server starts.
    fn restore(&mut self, change: impl FnOnce(&Path)) {
        self.postgres.stop_immediate().unwrap();
        let data = self.postgres.folder().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        run("cp", &[&self.copies.join("data"), &data]);
        change(&data);
        self.postgres.start_again().unwrap();
    }
}

/// What every case begins with: one change that the copy has, and `lost` that it has not.
async fn history(server: &mut Restorable, lost: usize) -> (Arc<dyn Store>, WriteOutcome, Vec<WriteOutcome>) {
    let store = open(options(&server.url)).await.unwrap();
    let kept = add(&*store).await.unwrap();
    tokio::task::block_in_place(|| server.copy());
    let mut undone = Vec::new();
    for _ in 0..lost {
        undone.push(add_until_done(&*store).await);
    }
    (store, kept, undone)
}

/// The log goes on in an epoch above all that were, from where it was put back to; what came after is gone, and stays so.
async fn goes_on(store: &Arc<dyn Store>, kept: &WriteOutcome, undone: &[WriteOutcome]) -> Position {
    let next = add_until_done(&**store).await;
    let (before, after) = (kept.position, next.position);
    assert!(after.epoch > before.epoch, "{after} follows {before}");
    let ids: Vec<_> = undone.iter().map(id).chain([id(kept), id(&next)]).collect();
    let read = store.objects(&ids).await.unwrap();
    let there: Vec<_> = read.value.iter().map(Option::is_some).collect();
    assert_eq!(there, [vec![false; undone.len()], vec![true; 2]].concat());
    assert!(
        undone.iter().all(|lost| id(lost) != id(&next) && lost.position < after && lost.position.epoch < after.epoch)
    );
    after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_on_the_same_timeline_begins_an_epoch() {
    let mut server = Restorable::new();
    let (store, kept, undone) = history(&mut server, 3).await;
    let other = open(options(&server.url)).await.unwrap();
    let mut listeners = Vec::new();
    for store in [&store, &other] {
        listeners.push(Listener::open(store, Origin::After(kept.position)).await.unwrap());
    }
    for listener in &mut listeners {
        listener.up_to(undone[2].position).await.unwrap();
    }
    tokio::task::block_in_place(|| server.restore(|_| {}));
    let after = goes_on(&store, &kept, &undone).await;
    assert_eq!(after.lsn, kept.position.lsn + 1);
    let last = add_until_done(&*other).await;
    assert_eq!(last.position, after.plus(1), "one epoch for all");
    for (listener, store) in listeners.iter_mut().zip([&store, &other]) {
        let ended = tokio::time::timeout(WITHIN, listener.changes()).await.expect("an end");
        assert!(ended.is_err(), "nothing that follows an undone history is sent: {ended:?}");
        let mut listener = Listener::open(store, Origin::After(undone[2].position)).await.unwrap();
        assert_eq!(listener.position.epoch, after.epoch);
        listener.up_to(last.position).await.unwrap();
    }
}

/// Somebody without a memory has written more than was lost, before the one who knows better came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_grew_again_is_not_taken_for_the_old_one() {
    let mut server = Restorable::new();
    server.postgres.execute("postgres", "CREATE ROLE forgetful LOGIN SUPERUSER").unwrap();
    let (store, kept, undone) = history(&mut server, 2).await;
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    assert_eq!(listener.position, undone[1].position);
    // The store's own connections are refused meanwhile.
    let access = "host all forgetful 127.0.0.1/32 trust\n";
    let hba = server.postgres.folder().join("data/pg_hba.conf");
    let all = std::fs::read_to_string(&hba).unwrap();
    tokio::task::block_in_place(|| server.restore(|data| std::fs::write(data.join("pg_hba.conf"), access).unwrap()));
    let url = server.url.replace("postgres@", "forgetful@");
    let forgetful = open(options(&url)).await.unwrap();
    let mut grown = Vec::new();
    for _ in 0..3 {
        grown.push(add(&*forgetful).await.unwrap());
    }
    assert_eq!(grown[1].position, undone[1].position, "another history, which looks the same from afar");
    forgetful.close().await;
    std::fs::write(&hba, all).unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::query("SELECT pg_reload_conf()").execute(&pool).await.unwrap();

    let after = goes_on(&store, &kept, &undone).await;
    assert_eq!(after.lsn, grown[2].position.lsn + 1);
    assert!(listener.changes().await.is_err(), "nothing of the other history is sent after the old one");
    let grown: Vec<_> = grown.iter().map(id).collect();
    assert!(store.objects(&grown).await.unwrap().value.iter().all(Option::is_some));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_timeline_begins_an_epoch_though_nothing_seems_lost() {
    let mut server = Restorable::new();
    let (store, kept, _) = history(&mut server, 0).await;
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    // As a restore to a point in time does: it reads what log there is, and then begins a timeline.
    let recover = |data: &Path| {
        let settings = data.join("postgresql.auto.conf");
        let mut text = std::fs::read_to_string(&settings).unwrap();
        text.push_str("restore_command = 'false'\n");
        std::fs::write(settings, text).unwrap();
        run("cp", &[&data.join("PG_VERSION"), &data.join("recovery.signal")]);
    };
    tokio::task::block_in_place(|| server.restore(recover));
    let after = goes_on(&store, &kept, &[]).await;
    assert_eq!(after.lsn, kept.position.lsn + 1);
    assert!(listener.changes().await.is_err());
    store.close().await;
    // It is remembered: the same timeline begins no other epoch.
    let store = open(options(&server.url)).await.unwrap();
    assert_eq!(add(&*store).await.unwrap().position, after.plus(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_begins_an_epoch() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.join("tao.db").display());
    let store = open(options(&url)).await.unwrap();
    let before = add(&*store).await.unwrap().position;
    store.close().await;
    let store = open(OpenOptions { new_epoch: true, ..options(&url) }).await.unwrap();
    let after = add(&*store).await.unwrap().position;
    assert!(after.epoch > before.epoch && after.lsn == before.lsn + 1);
    store.close().await;
    let store = open(options(&url)).await.unwrap();
    assert_eq!(store.head().await.unwrap(), after);
}
