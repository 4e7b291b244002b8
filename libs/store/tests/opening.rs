//! Who may open a database, what it finds there, and what is left when it ends badly.

use std::sync::Arc;
use std::time::Duration;

use tao_harness::{Postgres, TempDir, eventually_async};
use tao_model::{
    AssocRef, Clock, ClusterId, Data, Error, IdLayout, LogId, ObjectId, Placement, Schema, ShardId, ShardSet,
    SystemClock, TypeId, Write,
};
use tao_store::{OpenError, OpenOptions, Scan, Store, WriteContext, open};
use tokio::time::timeout;

const SCHEMA: &str = r#"
    version = 1
    [[object]]
    name = "user"
    number = 1
    [[association]]
    name = "follows"
    number = 1
    inverse = "followed_by"
    [[association]]
    name = "followed_by"
    number = 2
    inverse = "follows"
    [[association]]
    name = "visited"
    number = 3
"#;
const FOLLOWS: TypeId = TypeId(1);
const FOLLOWED_BY: TypeId = TypeId(2);
const VISITED: TypeId = TypeId(3);

fn options(url: &str) -> OpenOptions {
    OpenOptions::new(url, Arc::new(Schema::parse(SCHEMA).unwrap()), IdLayout::STANDARD)
}

/// With the shards that [`shards_elsewhere`] leaves.
fn few(url: &str) -> OpenOptions {
    OpenOptions { shards: "0-7".parse().unwrap(), ..options(url) }
}

fn add(placement: Placement) -> Write {
    Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement }
}

async fn write(store: &dyn Store, write: Write) -> Result<ObjectId, Error> {
    let outcome = store.write(write, WriteContext::default()).await?;
    Ok(outcome.changes[0].key().owner())
}

/// A database, and a way to it past the store.
enum Database {
    Postgres(Box<Postgres>, &'static str),
    Sqlite(TempDir),
}

impl Database {
    fn postgres(postgres: Box<Postgres>, name: &'static str) -> Self {
        postgres.create_database(name).unwrap();
        Self::Postgres(postgres, name)
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(postgres, name) => {
                format!("postgres://postgres@127.0.0.1:{}/{name}", postgres.port())
            }
            Self::Sqlite(folder) => format!("sqlite:{}", folder.join("tao.db").display()),
        }
    }

    /// Runs statements, and gives the first number that they give.
    async fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Postgres(postgres, name) => {
                let text = postgres.execute(name, sql).unwrap();
                if text.is_empty() { 0 } else { text.parse().unwrap() }
            }
            Self::Sqlite(_) => {
                let pool = sqlx::SqlitePool::connect(&format!("{}?mode=rwc", self.url())).await.unwrap();
                let row = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_optional(&pool).await.unwrap();
                pool.close().await;
                row.unwrap_or(0)
            }
        }
    }
}

#[tokio::test]
async fn sqlite_opens_as_it_should() {
    opened_at_once(&Database::Sqlite(TempDir::new().unwrap())).await;
    refused_untouched(&Database::Sqlite(TempDir::new().unwrap())).await;
    half_a_cluster(&Database::Sqlite(TempDir::new().unwrap())).await;
    newer_versions(&Database::Sqlite(TempDir::new().unwrap())).await;
    let database = Database::Sqlite(TempDir::new().unwrap());
    shards_elsewhere(&database).await;
    crashed(&database).await;
    forgotten(&database).await;
}

#[tokio::test]
async fn postgres_opens_as_it_should() {
    let database = Database::postgres(Box::new(Postgres::start().unwrap()), "at_once");
    opened_at_once(&database).await;
    let Database::Postgres(postgres, _) = database else { unreachable!("made above") };
    let database = Database::postgres(postgres, "half");
    half_a_cluster(&database).await;
    let Database::Postgres(postgres, _) = database else { unreachable!("made above") };
    let database = Database::postgres(postgres, "newer");
    newer_versions(&database).await;
    let Database::Postgres(postgres, _) = database else { unreachable!("made above") };
    let database = Database::postgres(postgres, "untouched");
    refused_untouched(&database).await;
    shards_elsewhere(&database).await;
    crashed(&database).await;
    forgotten(&database).await;
}

/// Several processes that find it empty make one cluster.
async fn opened_at_once(database: &Database) {
    let url = database.url();
    let opening: Vec<_> = (0..6).map(|_| tokio::spawn(open(options(&url)))).collect();
    let mut stores = Vec::new();
    for open in opening {
        stores.push(open.await.unwrap().unwrap());
    }
    assert!(stores.iter().all(|store| store.info() == stores[0].info()));
    for store in &stores {
        write(&**store, add(Placement::Anywhere)).await.expect("all of them may write");
    }
    for store in stores {
        store.close().await;
    }
}

/// What is refused is not changed before.
async fn refused_untouched(database: &Database) {
    let url = database.url();
    let strange = || OpenOptions { cluster: Some(ClusterId([9; 16])), ..options(&url) };
    let none = OpenOptions { shards: "1000-1024".parse().unwrap(), ..options(&url) };
    assert!(matches!(open(none).await.err(), Some(OpenError::NoSuchShard(_))));

    let store = open(options(&url)).await.unwrap();
    let info = store.info();
    store.close().await;
    // As an older version of tao would have left it.
    database.number("DELETE FROM _sqlx_migrations WHERE version > 1").await;
    for column in ["shards_version", "system_id", "timeline", "intents", "commits"] {
        if matches!(database, Database::Postgres(..)) || ["shards_version", "intents", "commits"].contains(&column) {
            database.number(&format!("ALTER TABLE log_head DROP COLUMN {column}")).await;
        }
    }
    database.number("DROP TABLE intents_done").await;
    database.number("DROP TABLE schema_compat").await;
    database.number("DROP TABLE servers").await;
    database.number("ALTER TABLE log_head ADD COLUMN owner text NOT NULL DEFAULT 'somebody'").await;
    assert!(
        matches!(open(strange()).await.err(), Some(OpenError::OtherCluster { found, .. }) if found == info.cluster)
    );
    let layout = IdLayout::new(42, 12, 10, 4096).unwrap();
    let shards = ShardSet::all(&layout);
    let other = open(OpenOptions { layout, shards, ..options(&url) }).await.err();
    assert!(matches!(other, Some(OpenError::OtherLayout { .. })));
    let other = open(OpenOptions { log: LogId(1), ..options(&url) }).await.err();
    assert!(matches!(other, Some(OpenError::OtherLog { found: 0, expected: 1 })));
    let half: ShardSet = "0-511".parse().unwrap();
    let other = open(OpenOptions { shards: half.clone(), ..options(&url) }).await.err().expect("refused");
    assert!(matches!(&other, OpenError::OtherShards { expected, .. } if *expected == half), "{other}");
    assert_eq!(database.number("SELECT count(*) FROM _sqlx_migrations").await, 1, "not brought to this version");
    let expected = OpenOptions { cluster: Some(info.cluster), ..options(&url) };
    let store = open(expected).await.unwrap();
    assert_eq!(store.info(), info);
    store.close().await;
}

/// A later version of tao has been here: whether this one may go on is what the database says.
async fn newer_versions(database: &Database) {
    let url = database.url();
    let store = open(options(&url)).await.unwrap();
    let own = database.number("SELECT max(version) FROM _sqlx_migrations").await;
    let added = database
        .number(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 9999, 'of a later version', true, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
    assert_eq!(added, 0);
    database.number("CREATE TABLE of_a_later_version (x integer)").await;
    write(&*store, add(Placement::Anywhere)).await.expect("it runs on beside the newer one");
    let beside = open(options(&url)).await.expect("and may start again");
    write(&*beside, add(Placement::Anywhere)).await.unwrap();
    beside.close().await;
    let outdated = timeout(Duration::from_millis(1), store.outdated()).await;
    assert!(outdated.is_err(), "{outdated:?}");

    // Something was taken away that programs of before 9999 need. One that runs is told, although nobody has waited for it.
    database.number("UPDATE schema_compat SET minimum = 9999").await;
    let outdated = timeout(Duration::from_secs(60), store.outdated()).await.unwrap();
    assert!(matches!(outdated, OpenError::Newer { minimum: 9999, own: at } if at == own), "{outdated}");
    store.close().await;
    let refused = open(options(&url)).await.err().expect("refused");
    assert!(matches!(refused, OpenError::Newer { minimum: 9999, own: at } if at == own), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("9999") && text.contains(&format!("at {own}")) && text.contains("newer tao"), "{text}");
    database.number(&format!("UPDATE schema_compat SET minimum = {own}")).await;
    open(options(&url)).await.expect("it is the oldest that may").close().await;

    // What is known is still compared.
    database
        .number(
            "UPDATE _sqlx_migrations SET checksum = (SELECT checksum FROM _sqlx_migrations WHERE version = 2) WHERE version = 1",
        )
        .await;
    assert!(matches!(open(options(&url)).await.err(), Some(OpenError::Migrate(_))));
}

/// Shards whose rows are not here, or say that they have left, also while the store is open.
async fn shards_elsewhere(database: &Database) {
    let url = database.url();
    let store = open(options(&url)).await.unwrap();
    let mut there = Vec::new();
    for shard in [5, 6, 7] {
        there.push(write(&*store, add(Placement::Shard(ShardId(shard)))).await.unwrap());
    }
    write(&*store, link(there[0], FOLLOWS, there[1])).await.unwrap();
    database.number("UPDATE shards SET state = 2 WHERE shard = 6").await;
    database.number("DELETE FROM shards WHERE shard > 6").await;
    database.number("UPDATE log_head SET shards_version = shards_version + 1").await;

    refuse_what_is_elsewhere(&*store, &there).await;
    store.close().await;
    assert!(matches!(open(options(&url)).await.err(), Some(OpenError::OtherShards { .. })));
    let again = open(OpenOptions { shards: "0-5".parse().unwrap(), ..options(&url) }).await.unwrap();
    assert_eq!(again.info(), store.info());
    refuse_what_is_elsewhere(&*again, &there).await;
    again.close().await;
    let all = "INSERT INTO shards (shard, state, since_epoch, since_lsn, ids_until) VALUES (7, 1, 0, 0, 0)";
    database.number(all).await;
    database.number("UPDATE shards SET state = 1").await;
    database.number("UPDATE log_head SET shards_version = shards_version + 1").await;
}

/// A database of its own for each part of a cluster.
async fn half_a_cluster(database: &Database) {
    let shards: ShardSet = "512-1023".parse().unwrap();
    let cluster = ClusterId([7; 16]);
    let options =
        || OpenOptions { cluster: Some(cluster), log: LogId(1), shards: shards.clone(), ..options(&database.url()) };
    let store = open(options()).await.unwrap();
    assert_eq!((store.info().cluster, store.info().log), (cluster, LogId(1)));
    let elsewhere = write(&*store, add(Placement::Shard(ShardId(511)))).await;
    assert_eq!(elsewhere, Err(Error::WrongShard { shard: 511 }));
    let layout = store.info().layout;
    for _ in 0..20 {
        let id = write(&*store, add(Placement::Anywhere)).await.unwrap();
        assert!(shards.contains(layout.shard(id)));
        assert!(store.objects(&[id]).await.unwrap().value[0].is_some());
    }
    let id = ObjectId::new(1 << 12).unwrap();
    let scan = Scan { id1: id, atype: VISITED, after: None, offset: 0, limit: 1, low: 0, high: 1 };
    let wrong = Error::WrongShard { shard: 1 };
    assert_eq!(store.objects(&[id]).await.unwrap_err(), wrong);
    assert_eq!(store.list(id, VISITED, 1).await.unwrap_err(), wrong);
    assert_eq!(store.edges(id, VISITED, &[id], 0, 1).await.unwrap_err(), wrong);
    assert_eq!(store.scan(scan).await.unwrap_err(), wrong);
    store.close().await;
    open(options()).await.unwrap().close().await;
}

fn link(id1: ObjectId, atype: TypeId, id2: ObjectId) -> Write {
    Write::AssocAdd { edge: AssocRef { id1, atype, id2 }, time: Some(1), data: Data::new() }
}

/// Objects of shards 5, 6 and 7, of which only the first is here.
async fn refuse_what_is_elsewhere(store: &dyn Store, there: &[ObjectId]) {
    let here = there[0];
    let head = store.head().await.unwrap();
    for (id, shard) in [(there[1], 6), (there[2], 7)] {
        for refused in [
            Write::ObjectUpsert { id, otype: TypeId(1), data: Data::new() },
            Write::ObjectDelete { id, expected_version: None },
            Write::AssocDelete { edge: AssocRef { id1: id, atype: FOLLOWS, id2: here } },
            link(id, VISITED, here),
            add(Placement::Shard(ShardId(shard))),
        ] {
            let error = store.write(refused.clone(), WriteContext::default()).await.unwrap_err();
            assert_eq!(error, Error::WrongShard { shard }, "{refused:?}");
        }
        // The other side orders this pair.
        let edge = AssocRef { id1: here, atype: FOLLOWED_BY, id2: id };
        for refused in [
            link(here, FOLLOWED_BY, id),
            Write::AssocDelete { edge },
            Write::AssocChangeType { edge, new_atype: VISITED },
        ] {
            let error = store.write(refused.clone(), WriteContext::default()).await.unwrap_err();
            assert_eq!(error, Error::WrongShard { shard }, "{refused:?}");
        }
        assert_eq!(store.allocate(Some(ShardId(shard)), 1).await, Err(Error::WrongShard { shard }));
    }
    let none = store.allocate(Some(ShardId(1024)), 1).await;
    assert!(matches!(none, Err(Error::InvalidArgument { .. })), "{none:?}");
    assert_eq!(store.head().await.unwrap(), head, "nothing was changed");
    // Without an inverse, the other end may be anywhere.
    write(store, link(here, VISITED, there[2])).await.unwrap();
    write(store, Write::AssocDelete { edge: AssocRef { id1: here, atype: VISITED, id2: there[2] } }).await.unwrap();
    for _ in 0..20 {
        let id = write(store, add(Placement::Anywhere)).await.unwrap();
        assert!(store.info().layout.shard(id).0 <= 5);
    }
}

/// A clock that is an hour behind.
struct Behind;

impl Clock for Behind {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() - 3_600_000
    }
}

/// As after a kill: nothing was given up. No id is made again, even with an older clock.
async fn crashed(database: &Database) {
    let url = database.url();
    let shard = Some(ShardId(3));
    let store = open(few(&url)).await.unwrap();
    let mut last = store.allocate(shard, 1_000).await.unwrap()[999];
    for clock in [Arc::new(SystemClock) as Arc<dyn Clock>, Arc::new(Behind), Arc::new(Behind)] {
        let store = open(OpenOptions { clock, ..few(&url) }).await.unwrap();
        let ids = store.allocate(shard, 5_000).await.unwrap();
        assert!(ids[0] > last && ids.is_sorted());
        last = ids[4_999];
    }
}

/// The change log is kept as long as it is told.
async fn forgotten(database: &Database) {
    let url = database.url();
    let rows = "SELECT count(*) FROM change_log";
    assert!(database.number(rows).await > 0);
    let store = open(OpenOptions { log_retention: Duration::ZERO, ..few(&url) }).await.unwrap();
    let emptied = async || match database.number(rows).await {
        0 => Ok(()),
        left => Err(std::io::Error::other(format!("{left} rows are left")).into()),
    };
    eventually_async(Duration::from_secs(20), emptied).await.unwrap();
    store.close().await;
}
