//! A database as operators' commands have it: read whole, from snapshots in key order, and written to beside storage shards that may
//! run, with rows as they are given. What is written goes through the log like every commit, so caches hear of it (ADR 0016).

mod apply;
mod mend;
mod snapshot;
mod wipe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlitePool, query};
use tao_model::{
    AssocRef, ClusterInfo, EdgeTime, Object, ObjectId, Position, Schema, ShardId, ShardSet, SystemClock, TypeId,
};

use crate::backend::{Backend, Begun, Fault, ShardRow};
use crate::batch::Lasting;
use crate::epoch::{NewEpoch, Seen};
use crate::migrations::{self, MINIMUM};
use crate::open::{OpenError, POSTGRES_CLUSTER, SHARDS, SQLITE_CLUSTER, cluster, has_postgres_table, has_sqlite_table};
use crate::postgres::{Connector, PostgresBackend};
use crate::rows::{self, Columns as _};
use crate::servers;
use crate::shards::Shards;
use crate::sqlite::SqliteBackend;

pub use mend::{mend, pending};
pub use snapshot::{LogEntry, Snapshot};

/// How long a write may take, and hold others up at the most; snapshots take as long as they need.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections for what is written, beside those of snapshots.
const CONNECTIONS: u32 = 6;

/// A row of the graph.
#[derive(Debug, Clone, PartialEq)]
pub enum GraphRow {
    /// An object, with its version and times.
    Object(Object),
    /// One direction of an edge.
    Edge(EdgeRow),
}

/// One direction of an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRow {
    /// The edge.
    pub at: AssocRef,
    /// Its place in the list.
    pub time: EdgeTime,
    /// As in [`tao_model::Edge`].
    pub data: Bytes,
}

/// A list's count as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCount {
    /// The list's object.
    pub id1: ObjectId,
    /// The list's type.
    pub atype: TypeId,
    /// Edges, as far as the row knows.
    pub count: u64,
}

/// A change of single rows; of an edge, of one direction only.
#[derive(Debug, Clone, PartialEq)]
pub enum RowChange {
    /// Puts a row; what is there and equal is not changed.
    Put(GraphRow),
    /// Removes an edge, if it is there.
    RemoveEdge(AssocRef),
    /// Deletes an object, if it is there.
    DeleteObject(ObjectId),
    /// Counts a list anew.
    Recount(ObjectId, TypeId),
}

/// Why something can't be done with a database directly.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// It can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no database of tao, or an older one.
    #[error("{0}")]
    NotReady(&'static str),
    /// It can't be reached, or has refused something; the log has the driver's words.
    #[error("{0}")]
    Failed(tao_model::Error),
}

impl From<Fault> for DirectError {
    fn from(fault: Fault) -> Self {
        Self::Failed(crate::lane::error(fault))
    }
}

impl From<tao_model::Error> for DirectError {
    fn from(error: tao_model::Error) -> Self {
        Self::Failed(error)
    }
}

impl DirectError {
    /// Whether the same may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Open(error) => error.is_passing(),
            Self::NotReady(_) => false,
            Self::Failed(error) => matches!(error, tao_model::Error::Unavailable { .. }),
        }
    }
}

/// How new connections are made.
enum Source {
    Postgres(Arc<Connector>),
    Sqlite(Box<SqliteConnectOptions>),
}

/// See the module.
pub struct DirectDatabase {
    source: Source,
    backend: Arc<dyn Backend>,
    writer: Option<SqlitePool>,
    info: ClusterInfo,
    shards: ShardSet,
    /// By shard, where ids end that may have been made, as far as is known.
    ids_until: Mutex<HashMap<ShardId, u64>>,
    lasting: tokio::sync::Mutex<Lasting>,
}

impl DirectDatabase {
    /// Opens a database that a storage shard of this schema version, or a newer one that serves it, has had open; changes nothing.
    pub async fn open(url: &str, schema: Arc<Schema>) -> Result<Self, DirectError> {
        if url.starts_with("sqlite:") {
            Self::open_sqlite(url, schema).await
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url, schema).await
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            Err(OpenError::Url(scheme.to_owned()).into())
        }
    }

    async fn open_postgres(url: &str, schema: Arc<Schema>) -> Result<Self, DirectError> {
        let options: PgConnectOptions = url.parse().map_err(OpenError::Database)?;
        let connector = Connector::new(options, PATIENCE, Arc::new(Seen::default()), Arc::new(SystemClock));
        let connector = Arc::new(connector);
        let read = async {
            let mut connection = connector.plain().await?;
            if !has_postgres_table(&mut connection, "servers").await? {
                return Ok(None);
            }
            let minimum = query(MINIMUM).fetch_one(&mut connection).await?.int(0)?;
            migrations::check_minimum(&migrations::POSTGRES, minimum)?;
            let Some(row) = query(POSTGRES_CLUSTER).fetch_optional(&mut connection).await? else { return Ok(None) };
            let shards = query(SHARDS).fetch_all(&mut connection).await?;
            let shards = shards.iter().map(rows::shard).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, OpenError>(Some((cluster(&row)?, shards)))
        };
        let (info, shards) = read.await?.ok_or(DirectError::NotReady(NOT_READY))?;
        let backend = Arc::new(PostgresBackend::new(connector.clone(), CONNECTIONS));
        Ok(Self::new(Source::Postgres(connector), backend, None, info, &shards, schema))
    }

    async fn open_sqlite(url: &str, schema: Arc<Schema>) -> Result<Self, DirectError> {
        let file = url.trim_start_matches("sqlite:").trim_start_matches("//");
        let options = SqliteConnectOptions::new()
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30))
            .foreign_keys(false);
        let pool = || SqlitePoolOptions::new().test_before_acquire(false);
        let read = async {
            let writer = pool().max_connections(1).connect_with(options.clone()).await?;
            if !has_sqlite_table(&writer, "servers").await? {
                return Ok(None);
            }
            let minimum = query(MINIMUM).fetch_one(&writer).await?.int(0)?;
            migrations::check_minimum(&migrations::SQLITE, minimum)?;
            let Some(row) = query(SQLITE_CLUSTER).fetch_optional(&writer).await? else { return Ok(None) };
            let shards = query(SHARDS).fetch_all(&writer).await?;
            let shards = shards.iter().map(rows::shard).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, OpenError>(Some((writer, cluster(&row)?, shards)))
        };
        let (writer, info, shards) = read.await?.ok_or(DirectError::NotReady(NOT_READY))?;
        let readers = pool().max_connections(CONNECTIONS).connect_with(options.clone().read_only(true)).await;
        let readers = readers.map_err(OpenError::Database)?;
        let backend = Arc::new(SqliteBackend { writer: writer.clone(), readers, clock: Arc::new(SystemClock) });
        Ok(Self::new(Source::Sqlite(Box::new(options)), backend, Some(writer), info, &shards, schema))
    }

    fn new(
        source: Source,
        backend: Arc<dyn Backend>,
        writer: Option<SqlitePool>,
        info: ClusterInfo,
        rows: &[ShardRow],
        schema: Arc<Schema>,
    ) -> Self {
        let shards = rows.iter().filter(|row| row.is_served).map(|row| row.shard).collect();
        let ids_until = Mutex::new(rows.iter().map(|row| (row.shard, row.ids_until)).collect());
        let (types, counts) = (HashMap::new(), HashMap::new());
        let lasting = Lasting { schema, shards: Shards::new(info.layout, 0), types, counts };
        Self { source, backend, writer, info, shards, ids_until, lasting: tokio::sync::Mutex::new(lasting) }
    }

    /// What the database belongs to.
    pub const fn info(&self) -> ClusterInfo {
        self.info
    }

    /// The logical shards that live in it.
    pub const fn shards(&self) -> &ShardSet {
        &self.shards
    }

    /// The log's end.
    pub async fn head(&self) -> Result<Position, DirectError> {
        Ok(self.backend.head().await?)
    }

    /// The storage shards that have it open, or had a moment ago, in words for an operator.
    pub async fn servers(&self) -> Result<Vec<String>, DirectError> {
        let running = match &self.source {
            Source::Postgres(connector) => {
                let mut connection = connector.plain().await.map_err(OpenError::Database)?;
                let rows = query(servers::POSTGRES.running).bind(servers::ALIVE_MS).fetch_all(&mut connection).await;
                rows.and_then(|rows| servers::running(&rows))
            }
            Source::Sqlite(_) => {
                let Some(writer) = &self.writer else { return Ok(Vec::new()) };
                let rows = query(servers::SQLITE.running).bind(servers::ALIVE_MS).fetch_all(writer).await;
                rows.and_then(|rows| servers::running(&rows))
            }
        };
        Ok(running.map_err(OpenError::Database)?.iter().map(ToString::to_string).collect())
    }

    /// Begins an epoch, later than any that has seen `above`: what was cached is dropped, and tokens of before are refused.
    pub async fn begin_epoch(&self, above: Position) -> Result<Position, DirectError> {
        let head = self.backend.head().await?;
        let why = if head < above { NewEpoch::Beyond(above) } else { NewEpoch::Told };
        Ok(self.backend.begin_epoch(why).await?)
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    /// Waits for what commits now, and keeps others from it.
    async fn hold(&self) -> Result<Begun, DirectError> {
        Ok(self.backend.begin().await?)
    }
}

/// Snapshots of all databases of one moment, so many of each: nothing is committed in any of them while the last are taken, so what
/// one log has caused in another is in both or in neither. Writes wait for that, some milliseconds.
pub async fn cut(databases: &[DirectDatabase], each: usize) -> Result<Vec<Vec<Snapshot>>, DirectError> {
    let mut snapshots = Vec::with_capacity(databases.len());
    for database in databases {
        let mut these = Vec::with_capacity(each);
        for _ in 0..each {
            these.push(Snapshot::connect(database).await?);
        }
        snapshots.push(these);
    }
    let mut held = Vec::with_capacity(databases.len());
    for database in databases {
        held.push(database.hold().await?);
    }
    let mut taken = Ok(());
    'all: for these in &mut snapshots {
        for snapshot in these {
            taken = snapshot.take().await;
            if taken.is_err() {
                break 'all;
            }
        }
    }
    for begun in held {
        begun.transaction.end().await;
    }
    taken.map(|()| snapshots)
}

const NOT_READY: &str =
    "there is no database of tao of this version: a storage shard makes its tables when it first opens it";
