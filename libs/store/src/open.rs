//! Opens a store: connects, migrates, makes sure that it is the right one, takes it over, and starts its lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, query};
use tao_model::{Clock, ClusterId, ClusterInfo, IdGenerator, IdLayout, LogId, Schema, ShardId, SystemClock};

use crate::backend::Backend;
use crate::batch::Lasting;
use crate::lane::OWNER_CHECK;
use crate::memory::MemoryDatabase;
use crate::postgres::{self, PostgresBackend};
use crate::rows::Columns;
use crate::sqlite::SqliteBackend;
use crate::store::Store;
use crate::working::Working;

static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");
static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");

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
    /// Connections to PostgreSQL, or readers of SQLite; at least 2.
    pub max_connections: u32,
    /// When given, a database of another cluster is refused.
    pub expect_cluster: Option<ClusterId>,
}

impl OpenOptions {
    /// With the machine's clock and 8 connections.
    pub fn new(url: impl Into<String>, schema: Arc<Schema>, layout: IdLayout) -> Self {
        let clock = Arc::new(SystemClock);
        Self { url: url.into(), memory: None, schema, layout, clock, max_connections: 8, expect_cluster: None }
    }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an URL of a store.
    #[error("{0:?} is no store: use sqlite:FILE, postgres://USER@HOST/DATABASE or memory:")]
    Url(String),
    /// The database can't be reached or does not do as told.
    #[error("the database can't be used: {0}")]
    Database(#[from] sqlx::Error),
    /// Its tables can't be brought to this version.
    #[error("the database's tables can't be migrated: {0}")]
    Migrate(MigrateError),
    /// A later version of tao has been here.
    #[error("the database has a newer schema (migration {0}) than this version of tao knows: upgrade tao")]
    Newer(i64),
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
    /// Rows that no version of tao writes.
    #[error("the database is corrupt: {0}")]
    Corrupt(&'static str),
}

/// Opens a store, and runs its lane on the present runtime until it is closed.
pub async fn open(options: OpenOptions) -> Result<Arc<dyn Store>, OpenError> {
    let owner = random_name();
    let (backend, info, leases): (Arc<dyn Backend>, _, _) = if options.url.starts_with("memory:") {
        let database = options.memory.unwrap_or_else(|| {
            let info = ClusterInfo { cluster: random_cluster(), log: LogId(0), layout: options.layout };
            MemoryDatabase::new(info, options.clock.now_ms() / 1000)
        });
        let (info, leases) = (database.info, database.leases());
        (Arc::new(database), info, leases)
    } else if options.url.starts_with("sqlite:") {
        open_sqlite(&options, owner).await?
    } else if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
        open_postgres(&options, owner).await?
    } else {
        return Err(OpenError::Url(options.url));
    };
    let head = backend.head().await.map_err(|_| OpenError::Corrupt("the log has no end"))?;
    let now = options.clock.now_ms();
    let generators = (0..info.layout.shards())
        .map(|shard| {
            let leased = leases.get(&i64::from(shard)).copied().unwrap_or(0);
            (IdGenerator::new(info.layout, ShardId(shard), leased), leased)
        })
        .collect();
    let turn = (now % u64::from(info.layout.shards())) as u32;
    let lasting =
        Lasting { schema: options.schema.clone(), layout: info.layout, generators, types: HashMap::new(), turn };
    tracing::info!(cluster = %info.cluster, %head, "store opened");
    let readers = (options.max_connections as usize / 2).max(1);
    Ok(Arc::new(Working::start(backend, info, head, options.clock, options.schema, lasting, readers)))
}

type Opened = (Arc<dyn Backend>, ClusterInfo, HashMap<i64, u64>);

async fn open_sqlite(options: &OpenOptions, owner: String) -> Result<Opened, OpenError> {
    let file = options.url.trim_start_matches("sqlite:").trim_start_matches("//");
    let connect = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-65536")
        .foreign_keys(false);
    let pool = || SqlitePoolOptions::new().test_before_acquire(false).acquire_timeout(Duration::from_secs(5));
    let writer = pool().max_connections(1).connect_with(connect.clone()).await?;
    SQLITE.run(&writer).await.map_err(migrate_error)?;
    let readers = pool().max_connections(options.max_connections).connect_with(connect.read_only(true)).await?;
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let (bits, epoch) = (layout_numbers(options.layout), options.clock.now_ms() / 1000);
    query("INSERT INTO cluster (one, id, log, time_bits, shard_bits, sequence_bits, shards) VALUES (1, ?1, 0, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")
        .bind(random_cluster().0.to_vec())
        .bind(bits[0])
        .bind(bits[1])
        .bind(bits[2])
        .bind(bits[3])
        .execute(&mut *transaction)
        .await?;
    query("INSERT INTO log_head (one, epoch, lsn, owner) VALUES (1, ?1, 0, '') ON CONFLICT DO NOTHING")
        .bind(epoch as i64)
        .execute(&mut *transaction)
        .await?;
    query("WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < ?1) \
           INSERT INTO shards (shard, state, since_epoch, since_lsn, ids_until) SELECT n, 1, 0, 0, 0 FROM s WHERE true ON CONFLICT DO NOTHING")
        .bind(bits[3])
        .execute(&mut *transaction)
        .await?;
    let row = query("SELECT id, log, time_bits, shard_bits, sequence_bits, shards FROM cluster")
        .fetch_one(&mut *transaction)
        .await?;
    let info = check_cluster(options, &row)?;
    let before: String = query("SELECT owner FROM log_head").fetch_one(&mut *transaction).await?.try_get(0)?;
    query("UPDATE log_head SET owner = ?1").bind(&owner).execute(&mut *transaction).await?;
    transaction.commit().await?;
    outlive(&before).await;
    let rows = query("SELECT shard, ids_until FROM shards").fetch_all(&readers).await?;
    Ok((Arc::new(SqliteBackend { writer, readers, owner }), info, leases(&rows)?))
}

async fn open_postgres(options: &OpenOptions, owner: String) -> Result<Opened, OpenError> {
    let connect: PgConnectOptions = options.url.parse()?;
    let pool = postgres::pool(connect, options.max_connections);
    let version: i32 = query("SELECT current_setting('server_version_num')::int").fetch_one(&pool).await?.try_get(0)?;
    if version < 150_000 {
        return Err(OpenError::OldPostgres(i64::from(version / 10_000)));
    }
    POSTGRES.run(&pool).await.map_err(migrate_error)?;
    let mut transaction = pool.begin().await?;
    let (bits, epoch) = (layout_numbers(options.layout), options.clock.now_ms() / 1000);
    query(
        "INSERT INTO cluster (one, id, log, time_bits, shard_bits, sequence_bits, shards) \
           VALUES (1, $1, 0, $2::bigint, $3::bigint, $4::bigint, $5::bigint) ON CONFLICT DO NOTHING",
    )
    .bind(random_cluster().0.to_vec())
    .bind(bits[0])
    .bind(bits[1])
    .bind(bits[2])
    .bind(bits[3])
    .execute(&mut *transaction)
    .await?;
    query("INSERT INTO log_head (one, epoch, lsn, owner) VALUES (1, $1, 0, '') ON CONFLICT DO NOTHING")
        .bind(epoch as i64)
        .execute(&mut *transaction)
        .await?;
    query(
        "INSERT INTO shards (shard, state, since_epoch, since_lsn, ids_until) \
           SELECT n, 1, 0, 0, 0 FROM generate_series(0, $1::bigint - 1) n ON CONFLICT DO NOTHING",
    )
    .bind(bits[3])
    .execute(&mut *transaction)
    .await?;
    let row = query("SELECT id, log::bigint, time_bits::bigint, shard_bits::bigint, sequence_bits::bigint, shards::bigint FROM cluster")
        .fetch_one(&mut *transaction)
        .await?;
    let info = check_cluster(options, &row)?;
    let before: String =
        query("SELECT owner FROM log_head FOR UPDATE").fetch_one(&mut *transaction).await?.try_get(0)?;
    query("UPDATE log_head SET owner = $1").bind(&owner).execute(&mut *transaction).await?;
    transaction.commit().await?;
    outlive(&before).await;
    let rows = query("SELECT shard::bigint, ids_until FROM shards").fetch_all(&pool).await?;
    Ok((Arc::new(PostgresBackend { pool, owner }), info, leases(&rows)?))
}

/// Whoever owned the database, and did not give it up, must have noticed that it lost it before anything is committed: until then
/// it vouches for a log that it no longer sees.
async fn outlive(before: &str) {
    if !before.is_empty() {
        tracing::warn!("the database was not given up by its last storage shard: taking it over");
        tokio::time::sleep(OWNER_CHECK * 8).await;
    }
}

fn layout_numbers(layout: IdLayout) -> [i64; 4] {
    let (time, shard, sequence) = layout.bits();
    [i64::from(time), i64::from(shard), i64::from(sequence), i64::from(layout.shards())]
}

/// Columns: id, log, bits of time, shard and sequence, shards.
fn check_cluster(options: &OpenOptions, row: &impl Columns) -> Result<ClusterInfo, OpenError> {
    let id = row.bytes(0)?.try_into().map_err(|_| OpenError::Corrupt("its cluster id has not 16 bytes"))?;
    let (cluster, log) = (ClusterId(id), LogId(row.int(1)? as u32));
    let numbers = [row.int(2)?, row.int(3)?, row.int(4)?, row.int(5)?];
    if let Some(expected) = options.expect_cluster.filter(|expected| *expected != cluster) {
        return Err(OpenError::OtherCluster { found: cluster, expected });
    }
    let expected = layout_numbers(options.layout);
    if numbers != expected {
        let show = |n: [i64; 4]| format!("{}/{}/{}, {}", n[0], n[1], n[2], n[3]);
        return Err(OpenError::OtherLayout { found: show(numbers), expected: show(expected) });
    }
    Ok(ClusterInfo { cluster, log, layout: options.layout })
}

/// Up to where each shard's ids are leased. Columns: shard, ids_until.
fn leases(rows: &[impl Columns]) -> Result<HashMap<i64, u64>, sqlx::Error> {
    rows.iter().map(|row| Ok((row.int(0)?, row.int(1)? as u64))).collect()
}

fn migrate_error(error: MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::Newer(version),
        other => OpenError::Migrate(other),
    }
}

fn random_cluster() -> ClusterId {
    ClusterId(rand::random())
}

fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}
