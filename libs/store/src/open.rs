//! Opens a store: connects, makes sure that it is the right one, migrates, and starts its lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, PgConnection, Row as _, SqlitePool, query};
use tao_model::{Clock, ClusterId, ClusterInfo, IdLayout, LogId, Schema, ShardSet, SystemClock};
use tao_stream::Ring;

use crate::backend::Backend;
use crate::batch::Lasting;
use crate::epoch::{Mark, NewEpoch, Seen};
use crate::feed::Feed;
use crate::memory::{MemoryBackend, MemoryDatabase};
use crate::migrations::{self, COMPAT, MINIMUM};
use crate::postgres::{Connector, PostgresBackend};
use crate::rows::{self, Columns};
use crate::servers::{self, Server};
use crate::shards::Shards;
use crate::sqlite::SqliteBackend;
use crate::store::Store;
use crate::working::Working;

pub(crate) const POSTGRES_CLUSTER: &str =
    "SELECT id, log::bigint, time_bits::bigint, shard_bits::bigint, sequence_bits::bigint, shards::bigint FROM cluster";
/// Of both databases.
pub(crate) const SHARDS: &str = "SELECT CAST(shard AS bigint), CAST(state AS bigint), ids_until FROM shards";
pub(crate) const SQLITE_CLUSTER: &str = "SELECT id, log, time_bits, shard_bits, sequence_bits, shards FROM cluster";

/// What to open.
#[derive(Clone)]
pub struct OpenOptions {
    /// `sqlite:FILE`, `postgres://USER@HOST/DATABASE` or `memory:`.
    pub url: String,
    /// What `memory:` is; `None`: a database of its own.
    pub memory: Option<MemoryDatabase>,
    /// The types.
    pub schema: Arc<Schema>,
    /// The cluster's ids; a database that has another layout is refused.
    pub layout: IdLayout,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Connections to PostgreSQL, or readers of SQLite; at least 6.
    pub max_connections: u32,
    /// The cluster that the database belongs to: a new one is made a part of it, and another's is refused. `None`: whatever the
    /// database says, and a new one gets a cluster of its own.
    pub cluster: Option<ClusterId>,
    /// Which of the cluster's logs the database is; another is refused.
    pub log: LogId,
    /// The logical shards that the database has, exactly; one that has others is refused.
    pub shards: ShardSet,
    /// How long the change log is kept. For a subscriber that lags it is kept up to four times as long.
    pub log_retention: Duration,
    /// How long a statement may take before a database is taken for one that does not answer.
    pub patience: Duration,
    /// About how many bytes of recent changes are kept in memory for subscribers.
    pub ring_bytes: usize,
    /// What operators call this process; it need not be the only one of this name.
    pub server: String,
    /// Begins a new epoch: the database was put back to an earlier state by other means than tao can notice.
    pub new_epoch: bool,
}

impl OpenOptions {
    /// Log 0 of any cluster, with all shards, the machine's clock, 8 connections, and a change log of one hour.
    pub fn new(url: impl Into<String>, schema: Arc<Schema>, layout: IdLayout) -> Self {
        Self {
            url: url.into(),
            memory: None,
            schema,
            layout,
            clock: Arc::new(SystemClock),
            max_connections: 8,
            cluster: None,
            log: LogId(0),
            shards: ShardSet::all(&layout),
            log_retention: Duration::from_hours(1),
            patience: Duration::from_secs(5),
            ring_bytes: 64 * 1024 * 1024,
            server: format!("process {}", std::process::id()),
            new_epoch: false,
        }
    }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an URL of a store: what it begins with, since the rest may hold a password.
    #[error("{0:?} is no store: use sqlite:FILE, postgres://USER@HOST/DATABASE or memory:")]
    Url(String),
    /// The database can't be reached or does not do as told.
    #[error("the database can't be used: {0}")]
    Database(#[from] sqlx::Error),
    /// Its tables can't be brought to this version.
    #[error("the database's tables can't be migrated: {0}")]
    Migrate(MigrateError),
    /// A later version of tao has taken away what this one needs.
    #[error(
        "the database serves schema version {minimum} and newer, and this tao is at {own}: run a newer tao, or put a copy of before the upgrade back (docs/upgrades.md)"
    )]
    Newer {
        /// The oldest that may open it.
        minimum: i64,
        /// This program's.
        own: i64,
    },
    /// Too old.
    #[error("PostgreSQL {0} is too old: 15 or newer is needed")]
    OldPostgres(i64),
    /// Another cluster's.
    #[error("the database belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// The database's.
        found: ClusterId,
        /// The caller's.
        expected: ClusterId,
    },
    /// Another of the cluster's logs.
    #[error("the database is log {found} of its cluster, not log {expected}")]
    OtherLog {
        /// The database's.
        found: u32,
        /// The configuration's.
        expected: u32,
    },
    /// Other logical shards.
    #[error("the database has shards {found}, and this configuration says {expected}")]
    OtherShards {
        /// The database's.
        found: ShardSet,
        /// The configuration's.
        expected: ShardSet,
    },
    /// The configuration names shards that the cluster does not have.
    #[error("{0}")]
    NoSuchShard(String),
    /// Ids are split otherwise.
    #[error(
        "the database's ids are laid out as {found} and this configuration says {expected} (time/shard/sequence bits, shards): the layout is fixed when a cluster is created"
    )]
    OtherLayout {
        /// The database's.
        found: String,
        /// The configuration's.
        expected: String,
    },
    /// It went away meanwhile.
    #[error("the database can't be used: {0}")]
    Fault(tao_model::Error),
    /// Rows that no version of tao writes.
    #[error("the database is corrupt: {0}")]
    Corrupt(&'static str),
}

/// Opens a store, and runs its lane on the present runtime until it is closed.
pub async fn open(options: OpenOptions) -> Result<Arc<dyn Store>, OpenError> {
    options.shards.check(&options.layout).map_err(OpenError::NoSuchShard)?;
    let seen = Arc::new(Seen::default());
    let (backend, info): Opened = if options.url.starts_with("memory:") {
        let cluster = options.cluster.unwrap_or_else(random_cluster);
        let info = ClusterInfo { cluster, log: options.log, layout: options.layout };
        let (database, epoch) = (options.memory.clone().unwrap_or_default(), options.clock.now_ms() / 1000);
        (Arc::new(MemoryBackend::new(database, epoch, options.shards.clone(), options.clock.clone())), info)
    } else if options.url.starts_with("sqlite:") {
        open_sqlite_patiently(&options).await?
    } else if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
        open_postgres(&options, seen.clone()).await?
    } else {
        let scheme = options.url.split(':').next().unwrap_or_default();
        return Err(OpenError::Url(scheme.to_owned()));
    };
    start(backend, info, seen, options).await
}

/// Puts a database to work.
pub(crate) async fn start(
    backend: Arc<dyn Backend>,
    info: ClusterInfo,
    seen: Arc<Seen>,
    options: OpenOptions,
) -> Result<Arc<dyn Store>, OpenError> {
    let fault = |fault| OpenError::Fault(crate::lane::error(fault));
    // Before anything is written.
    let server = Server::new(&options.server, migrations::version(&migrations::POSTGRES));
    let beat = backend.beat(&server).await.map_err(fault)?;
    // Nobody has waited for a server that was not to be seen yet.
    if beat.minimum > server.schema_version {
        backend.leave(&server).await.map_err(fault)?;
        backend.close().await;
        return Err(OpenError::Newer { minimum: beat.minimum, own: server.schema_version });
    }
    let others: Vec<_> = beat.running.iter().filter(|other| other.schema_version != server.schema_version).collect();
    if !others.is_empty() {
        let others = servers::list(others);
        tracing::info!(own = server.schema_version, others, "storage shards of other versions have the database open");
    }
    if options.new_epoch {
        backend.begin_epoch(NewEpoch::Told).await.map_err(fault)?;
    }
    let mut shards = Shards::new(info.layout, options.clock.now_ms() as usize);
    let mut begun = backend.begin().await.map_err(fault)?;
    shards.update(begun.base.shards_version, &begun.transaction.shards().await.map_err(fault)?);
    begun.transaction.end().await;
    let head = begun.base.head;
    seen.commit(Mark { last: head, row: None });
    let feed = Feed::new(Ring::new(options.ring_bytes), seen, info, head);
    let lasting = Lasting { schema: options.schema.clone(), shards, types: HashMap::new(), counts: HashMap::new() };
    tracing::info!(cluster = %info.cluster, log = info.log.0, shards = %options.shards, %head, "store opened");
    Ok(Arc::new(Working::start(backend, feed, &options, lasting, head, server)))
}

type Opened = (Arc<dyn Backend>, ClusterInfo);

/// Several that make one file at the same time get into each other's way, and not all of that can be waited for within SQLite.
async fn open_sqlite_patiently(options: &OpenOptions) -> Result<Opened, OpenError> {
    let mut left = 20;
    loop {
        let error = match open_sqlite(options).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let database = match &error {
            OpenError::Database(error) => error.as_database_error(),
            OpenError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                error.as_database_error()
            }
            _ => None,
        };
        // Busy in all its kinds; or the other has just made the same table.
        let is_passing = database
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 1 | 5 | 6)));
        if left == 0 || !is_passing {
            return Err(error);
        }
        left -= 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn open_sqlite(options: &OpenOptions) -> Result<Opened, OpenError> {
    let file = options.url.trim_start_matches("sqlite:").trim_start_matches("//");
    let connect = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-65536")
        // 32 MiB: a batch touches pages all over the file, and each checkpoint writes and syncs them once more.
        .pragma("wal_autocheckpoint", "8192")
        .foreign_keys(false);
    let pool = || SqlitePoolOptions::new().test_before_acquire(false).acquire_timeout(Duration::from_secs(5));
    let writer = pool().max_connections(1).connect_with(connect.clone()).await?;
    // Before anything is changed: it may be somebody else's.
    if has_sqlite_table(&writer, "cluster").await?
        && let Some(row) = query(SQLITE_CLUSTER).fetch_optional(&writer).await?
    {
        check_cluster(options, &row, &query(SHARDS).fetch_all(&writer).await?)?;
    }
    if has_sqlite_table(&writer, COMPAT).await? {
        migrations::check_minimum(&migrations::SQLITE, query(MINIMUM).fetch_one(&writer).await?.int(0)?)?;
    }
    migrate_sqlite(&writer, &migrations::SQLITE).await?;
    let readers = pool().max_connections(options.max_connections).connect_with(connect.read_only(true)).await?;
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let new = NewDatabase::of(options);
    let made = query("INSERT INTO cluster (one, id, log, time_bits, shard_bits, sequence_bits, shards) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING")
        .bind(new.cluster.0.to_vec())
        .bind(new.log)
        .bind(new.layout[0])
        .bind(new.layout[1])
        .bind(new.layout[2])
        .bind(new.layout[3])
        .execute(&mut *transaction)
        .await?;
    // A shard that has left since then does not come back by itself.
    if made.rows_affected() == 1 {
        query("INSERT INTO log_head (one, epoch, lsn) VALUES (1, ?1, 0)")
            .bind(new.epoch)
            .execute(&mut *transaction)
            .await?;
        query(
            "INSERT INTO shards (shard, state, since_epoch, since_lsn, ids_until) \
               SELECT value, 1, 0, 0, 0 FROM json_each(?1) WHERE true",
        )
        .bind(format!("{:?}", new.shards))
        .execute(&mut *transaction)
        .await?;
    }
    // A newer one may have come in between.
    migrations::check_minimum(&migrations::SQLITE, query(MINIMUM).fetch_one(&mut *transaction).await?.int(0)?)?;
    let shards = query(SHARDS).fetch_all(&mut *transaction).await?;
    let info = check_cluster(options, &query(SQLITE_CLUSTER).fetch_one(&mut *transaction).await?, &shards)?;
    transaction.commit().await?;
    Ok((Arc::new(SqliteBackend { writer, readers, clock: options.clock.clone() }), info))
}

async fn open_postgres(options: &OpenOptions, seen: Arc<Seen>) -> Result<Opened, OpenError> {
    let connect: PgConnectOptions = options.url.parse()?;
    let connector = Connector::new(connect, options.patience, seen, options.clock.clone());
    let mut connection = connector.plain().await?;
    let sql = "SELECT current_setting('server_version_num')::int";
    let version: i32 = query(sql).fetch_one(&mut connection).await?.try_get(0)?;
    if version < 150_000 {
        return Err(OpenError::OldPostgres(i64::from(version / 10_000)));
    }
    // Before anything is changed: it may be somebody else's.
    if has_postgres_table(&mut connection, "cluster").await?
        && let Some(row) = query(POSTGRES_CLUSTER).fetch_optional(&mut connection).await?
    {
        check_cluster(options, &row, &query(SHARDS).fetch_all(&mut connection).await?)?;
    }
    if has_postgres_table(&mut connection, COMPAT).await? {
        migrations::check_minimum(&migrations::POSTGRES, query(MINIMUM).fetch_one(&mut connection).await?.int(0)?)?;
    }
    // Whoever opens the database at the same time is waited for, however long its migrations take.
    query("SET statement_timeout = 0").execute(&mut connection).await?;
    query("SET lock_timeout = 0").execute(&mut connection).await?;
    migrate_postgres(&mut connection, &migrations::POSTGRES).await?;
    let mut transaction = connection.begin().await?;
    let new = NewDatabase::of(options);
    let made = query(
        "INSERT INTO cluster (one, id, log, time_bits, shard_bits, sequence_bits, shards) \
           VALUES (1, $1, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::bigint) ON CONFLICT DO NOTHING",
    )
    .bind(new.cluster.0.to_vec())
    .bind(new.log)
    .bind(new.layout[0])
    .bind(new.layout[1])
    .bind(new.layout[2])
    .bind(new.layout[3])
    .execute(&mut *transaction)
    .await?;
    // A shard that has left since then does not come back by itself.
    if made.rows_affected() == 1 {
        query("INSERT INTO log_head (one, epoch, lsn) VALUES (1, $1, 0)")
            .bind(new.epoch)
            .execute(&mut *transaction)
            .await?;
        query(
            "INSERT INTO shards (shard, state, since_epoch, since_lsn, ids_until) \
               SELECT n, 1, 0, 0, 0 FROM UNNEST($1::bigint[]) n",
        )
        .bind(new.shards)
        .execute(&mut *transaction)
        .await?;
    }
    // A newer one may have come in between.
    migrations::check_minimum(&migrations::POSTGRES, query(MINIMUM).fetch_one(&mut *transaction).await?.int(0)?)?;
    let shards = query(SHARDS).fetch_all(&mut *transaction).await?;
    let info = check_cluster(options, &query(POSTGRES_CLUSTER).fetch_one(&mut *transaction).await?, &shards)?;
    transaction.commit().await?;
    // It has done its work, however it ends.
    let _ = tokio::time::timeout(options.patience, connection.close()).await;
    Ok((Arc::new(PostgresBackend::new(Arc::new(connector), options.max_connections)), info))
}

/// Brings a database to these migrations, but for what storage shards that run, or may run, would miss.
pub(crate) async fn migrate_sqlite(writer: &SqlitePool, migrator: &Migrator) -> Result<(), OpenError> {
    let mut due = None;
    if has_sqlite_table(writer, "servers").await? {
        let running = query(servers::SQLITE.running).bind(servers::KEPT_MS).fetch_all(writer).await?;
        due = migrations::without_missed(migrator, &servers::running(&running)?);
    }
    due.as_ref().unwrap_or(migrator).run(writer).await.map_err(OpenError::Migrate)
}

/// The same for PostgreSQL.
pub(crate) async fn migrate_postgres(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), OpenError> {
    let mut due = None;
    if has_postgres_table(connection, "servers").await? {
        let running = query(servers::POSTGRES.running).bind(servers::KEPT_MS).fetch_all(&mut *connection).await?;
        due = migrations::without_missed(migrator, &servers::running(&running)?);
    }
    // As `run` does; that one's trait does not go with a connection in a future that is sent to other threads.
    due.as_ref().unwrap_or(migrator).run_direct(None, connection, false).await.map_err(OpenError::Migrate)
}

pub(crate) async fn has_sqlite_table(pool: &SqlitePool, name: &str) -> Result<bool, sqlx::Error> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
    Ok(query(sql).bind(name).fetch_one(pool).await?.int(0)? > 0)
}

pub(crate) async fn has_postgres_table(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    let sql =
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1";
    Ok(query(sql).bind(name).fetch_one(connection).await?.int(0)? > 0)
}

/// What a database begins with.
struct NewDatabase {
    cluster: ClusterId,
    log: i64,
    layout: [i64; 4],
    epoch: i64,
    shards: Vec<i64>,
}

impl NewDatabase {
    fn of(options: &OpenOptions) -> Self {
        Self {
            cluster: options.cluster.unwrap_or_else(random_cluster),
            log: i64::from(options.log.0),
            layout: layout_numbers(options.layout),
            epoch: (options.clock.now_ms() / 1000) as i64,
            shards: options.shards.iter().map(|shard| i64::from(shard.0)).collect(),
        }
    }
}

fn layout_numbers(layout: IdLayout) -> [i64; 4] {
    let (time, shard, sequence) = layout.bits();
    [i64::from(time), i64::from(shard), i64::from(sequence), i64::from(layout.shards())]
}

/// Whether the database is the one that was meant. Columns: id, log, bits of time, shard and sequence, shards; and as of [`SHARDS`].
fn check_cluster(options: &OpenOptions, row: &impl Columns, shards: &[impl Columns]) -> Result<ClusterInfo, OpenError> {
    let (id, log) = (row.bytes(0)?, LogId(row.int(1)? as u32));
    let numbers = [row.int(2)?, row.int(3)?, row.int(4)?, row.int(5)?];
    let cluster = ClusterId(id.try_into().map_err(|_: Vec<u8>| OpenError::Corrupt("its cluster id has not 16 bytes"))?);
    if let Some(expected) = options.cluster.filter(|expected| *expected != cluster) {
        return Err(OpenError::OtherCluster { found: cluster, expected });
    }
    if log != options.log {
        return Err(OpenError::OtherLog { found: log.0, expected: options.log.0 });
    }
    let expected = layout_numbers(options.layout);
    if numbers != expected {
        let show = |n: [i64; 4]| format!("{}/{}/{}, {}", n[0], n[1], n[2], n[3]);
        return Err(OpenError::OtherLayout { found: show(numbers), expected: show(expected) });
    }
    let shards = shards.iter().map(rows::shard).collect::<Result<Vec<_>, _>>()?;
    let found: ShardSet = shards.iter().filter(|shard| shard.is_served).map(|shard| shard.shard).collect();
    if found != options.shards {
        return Err(OpenError::OtherShards { found, expected: options.shards.clone() });
    }
    Ok(ClusterInfo { cluster, log, layout: options.layout })
}

/// What a database says of itself. Columns as of [`POSTGRES_CLUSTER`].
pub(crate) fn cluster(row: &impl Columns) -> Result<ClusterInfo, OpenError> {
    let id = row.bytes(0)?.try_into();
    let cluster = ClusterId(id.map_err(|_: Vec<u8>| OpenError::Corrupt("its cluster id has not 16 bytes"))?);
    let bits = |n| Ok::<_, sqlx::Error>(row.int(n)? as u8);
    let layout = IdLayout::new(bits(2)?, bits(3)?, bits(4)?, row.int(5)? as u32);
    let layout = layout.map_err(|_| OpenError::Corrupt("its ids have no layout"))?;
    Ok(ClusterInfo { cluster, log: LogId(row.int(1)? as u32), layout })
}

fn random_cluster() -> ClusterId {
    ClusterId(rand::random())
}
