//! Several processes on one database: each is a store of its own here, as nothing but the database joins them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tao_harness::{Postgres, TempDir, eventually_async};
use tao_model::{
    AssocRef, Change, Data, Error, IdLayout, ObjectId, Placement, Position, Schema, ShardId, TypeId, Write,
    WriteOutcome,
};
use tao_store::listener::Listener;
use tao_store::{OpenOptions, Store, WriteContext, open};
use tao_stream::Origin;

const USER: TypeId = TypeId(1);
const WRITERS: usize = 4;
const WRITES: usize = 60;

fn options(url: &str) -> OpenOptions {
    OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD)
}

fn friend() -> TypeId {
    Schema::social().assoc_named("friend").unwrap().number
}

async fn write(store: &dyn Store, write: Write) -> Result<WriteOutcome, Error> {
    store.write(write, WriteContext::default()).await
}

fn add() -> Write {
    // Few shards, so that leases are fought over.
    let shard = ShardId(rand::random_range(0..3));
    Write::ObjectAdd { otype: USER, data: Data::new(), placement: Placement::Shard(shard) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_shared() {
    let postgres = Postgres::start().unwrap();
    shared(&postgres.create_database("shared").unwrap(), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_shared() {
    let folder = TempDir::new().unwrap();
    shared(&format!("sqlite:{}", folder.join("tao.db").display()), 2).await;
}

/// Everybody writes at once, to the same list too, and everybody hears everything in the same order.
async fn shared(url: &str, processes: usize) {
    let mut stores = Vec::new();
    for _ in 0..processes {
        stores.push(open(options(url)).await.unwrap());
    }
    let hub = write(&*stores[0], add()).await.unwrap().changes[0].key().owner();
    let start = stores[0].head().await.unwrap();
    let mut listeners = Vec::new();
    for store in &stores {
        listeners.push(Listener::open(store, Origin::After(start)).await.unwrap());
    }

    let writers = stores.iter().flat_map(|store| std::iter::repeat_n(store, WRITERS)).map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut told = Vec::new();
            for n in 0..WRITES {
                let added = write(&*store, add()).await.unwrap();
                let id = added.changes[0].key().owner();
                told.push(added);
                let edge = AssocRef { id1: hub, atype: friend(), id2: id };
                told.push(
                    write(&*store, Write::AssocAdd { edge, time: Some(n as u32), data: Data::new() }).await.unwrap(),
                );
            }
            (told, store.allocate(Some(ShardId(1)), 5_000).await.unwrap())
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut told: BTreeMap<Position, Change> = BTreeMap::new();
    let mut ids: HashSet<ObjectId> = HashSet::new();
    for writer in writers {
        let (outcomes, allocated) = writer.await.unwrap();
        let added = outcomes.iter().step_by(2).map(|outcome| outcome.changes[0].key().owner());
        for id in added.chain(allocated) {
            assert!(ids.insert(id), "{id} was made twice");
        }
        for change in outcomes.into_iter().flat_map(|outcome| outcome.changes) {
            assert_eq!(told.insert(change.position, change), None, "one position for two changes");
        }
    }

    let total = processes * WRITERS * WRITES;
    let head = start.plus(3 * total as u64);
    for (store, listener) in stores.iter().zip(&mut listeners) {
        assert_eq!(store.head().await.unwrap(), head, "no gaps");
        let heard = tokio::time::timeout(Duration::from_secs(30), listener.up_to(head)).await;
        let heard = heard.expect("all is heard").expect("no gap");
        assert!(heard.iter().eq(told.values()), "everybody hears what the writers were told");
        let list = store.list(hub, friend(), total).await.unwrap().value;
        assert_eq!((list.count, list.edges.len()), (total as u64, total), "counts add up whoever counts");
        assert!(listener.heartbeat().await.is_ok());
    }
    knows_of_others(&stores).await;
    for store in stores {
        store.close().await;
    }
}

/// What one has done holds for another at once: ids, answers to keys, and types.
async fn knows_of_others(stores: &[Arc<dyn Store>]) {
    let (one, two) = (&*stores[0], &*stores[1]);
    let id = one.allocate(Some(ShardId(2)), 1).await.unwrap()[0];
    let upsert = |otype| Write::ObjectUpsert { id, otype, data: Data::new() };
    write(two, upsert(USER)).await.expect("another process's id is known to exist");
    let unmade = ObjectId::new(id.get() + (10_000 << 22)).unwrap();
    let unmade = write(two, Write::ObjectUpsert { id: unmade, otype: USER, data: Data::new() }).await;
    assert!(matches!(unmade, Err(Error::InvalidArgument { .. })), "{unmade:?}");

    let context = || WriteContext { idempotency_key: Some("once".to_owned()), ..WriteContext::default() };
    let first = one.write(add(), context()).await.unwrap();
    let again = Write::ObjectAdd { otype: USER, data: Data::new(), placement: Placement::Anywhere };
    let other = two.write(again, context()).await;
    assert!(matches!(other, Err(Error::IdempotencyKeyReused { .. })), "{other:?}");
    let shard = one.info().layout.shard(first.changes[0].key().owner());
    let same = Write::ObjectAdd { otype: USER, data: Data::new(), placement: Placement::Shard(shard) };
    assert_eq!(two.write(same, context()).await.unwrap(), first);

    // The second process has checked an edge against the object's type; then the object becomes another.
    let schema = Schema::social();
    let friend = schema.assoc_named("friend").unwrap();
    let other = schema.objects().into_iter().find(|o| !friend.to.contains(&o.number) && !friend.to.is_empty());
    let Some(other) = other else { return };
    let peer = write(two, add()).await.unwrap().changes[0].key().owner();
    let link = || Write::AssocAdd {
        edge: AssocRef { id1: peer, atype: friend.number, id2: id },
        time: None,
        data: Data::new(),
    };
    write(two, link()).await.unwrap();
    write(one, Write::ObjectDelete { id, expected_version: None }).await.unwrap();
    write(one, upsert(other.number)).await.unwrap();
    let refused = write(two, link()).await;
    assert!(matches!(refused, Err(Error::TypeMismatch { .. })), "{refused:?}");
}

/// A database that stops answering, without a word, holds nobody up for long; when it goes on, so does everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_given_up_and_taken_up_again() {
    let patience = Duration::from_secs(1);
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("hanging").unwrap();
    let store = open(OpenOptions { patience, ..options(&url) }).await.unwrap();
    let id = write(&*store, add()).await.unwrap().changes[0].key().owner();
    let mut listener = Listener::open(&store, Origin::Now).await.unwrap();
    listener.heartbeat().await.unwrap();

    let paused = Paused::all_of(postgres.pid().unwrap());
    // A hang, and a reconnect that hangs.
    for _ in 0..2 {
        let writes = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { write(&*store, add()).await })
        });
        for written in writes.collect::<Vec<_>>() {
            let failed = tokio::time::timeout(Duration::from_secs(20), written).await.expect("an answer").unwrap();
            assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
        }
        let read = tokio::time::timeout(Duration::from_secs(20), store.objects(&[id])).await.expect("an answer");
        assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    }
    drop(paused);
    eventually_async(Duration::from_secs(20), async || Ok(write(&*store, add()).await.map(drop)?)).await.unwrap();
    assert!(store.objects(&[id]).await.unwrap().value[0].is_some());
    let head = store.head().await.unwrap();
    listener.up_to(head).await.expect("the stream has stayed open");
    listener.heartbeat().await.unwrap();
    store.close().await;
}

/// A process that stops in the midst of a transaction holds the others up no longer than a statement may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_hangs_does_not_hold_the_log() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("held").unwrap();
    let store = open(OpenOptions { patience: Duration::from_secs(1), ..options(&url) }).await.unwrap();
    write(&*store, add()).await.unwrap();
    // What another process's connection is set to.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = '3s'").execute(&mut *other).await.unwrap();
    sqlx::query("UPDATE log_head SET lsn = lsn").execute(&mut *other).await.unwrap();
    let held = write(&*store, add()).await;
    assert!(matches!(held, Err(Error::Unavailable { not_applied: true, .. })), "{held:?}");
    eventually_async(Duration::from_secs(20), async || Ok(write(&*store, add()).await.map(drop)?)).await.unwrap();
    drop(other);
    store.close().await;
}

/// PostgreSQL's processes, stopped until dropped.
struct Paused(Vec<String>);

impl Paused {
    fn all_of(postmaster: u32) -> Self {
        let postmaster = postmaster.to_string();
        // First, so that it makes no more.
        signal("STOP", &postmaster);
        let mut stopped = vec![postmaster.clone()];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the name, which may have blanks in it: the state, then the parent.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned));
            if pid.parse::<u32>().is_ok() && parent.as_deref() == Some(postmaster.as_str()) {
                signal("STOP", &pid);
                stopped.push(pid);
            }
        }
        assert!(stopped.len() > 3, "{stopped:?}");
        Self(stopped)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal("CONT", pid));
    }
}

fn signal(name: &str, pid: &str) {
    // One that has ended since is no matter.
    let _ = std::process::Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap();
}
