//! Reads of a whole database as it was at one position.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{Connection as _, Error, PgConnection, SqliteConnection, query};
use tao_model::{AssocRef, Change, EdgeTime, LogId, Object, ObjectId, Position, TypeId};
use tao_proto::convert;

use super::{DirectDatabase, DirectError, EdgeRow, ListCount, Source};
use crate::open::OpenError;
use crate::rows::{self, Columns};
use crate::store::StoredIntent;
use crate::{postgres, sqlite};

/// One connection with an open transaction that only reads. Dropped, it ends.
pub struct Snapshot {
    connection: Connection,
    position: Position,
}

enum Connection {
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
}

/// One commit as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Its first change.
    pub first: Position,
    /// Its last change.
    pub last: Position,
    /// What it changed; the reason where that can't be read.
    pub changes: Result<Vec<Change>, String>,
}

enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Columns for Row {
    fn int(&self, n: usize) -> Result<i64, Error> {
        match self {
            Self::Postgres(row) => row.int(n),
            Self::Sqlite(row) => row.int(n),
        }
    }
    fn maybe_int(&self, n: usize) -> Result<Option<i64>, Error> {
        match self {
            Self::Postgres(row) => row.maybe_int(n),
            Self::Sqlite(row) => row.maybe_int(n),
        }
    }
    fn bytes(&self, n: usize) -> Result<Vec<u8>, Error> {
        match self {
            Self::Postgres(row) => row.bytes(n),
            Self::Sqlite(row) => row.bytes(n),
        }
    }
    fn text(&self, n: usize) -> Result<String, Error> {
        match self {
            Self::Postgres(row) => row.text(n),
            Self::Sqlite(row) => row.text(n),
        }
    }
}

/// Rows are had by key, in key order, whatever the planner knows of tables that were just filled; a throttled reader may be idle for
/// long.
const SETTINGS: &str = "SELECT set_config('statement_timeout', '0', false), set_config('idle_in_transaction_session_timeout', '0', false), \
     set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false), set_config('jit', 'off', false)";

// Of both databases. Bounds are beyond the one and up to the other.
const OBJECTS: &str = "SELECT id, CAST(otype AS bigint), version, created_ms, updated_ms, data FROM objects \
     WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3";
const OBJECT_HOP: &str = "SELECT id FROM objects WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2";
const EDGES: &str = "SELECT id1, CAST(atype AS bigint), id2, time, data FROM assocs \
     WHERE (id1, atype, id2) > ($1, $2, $3) AND (id1, atype, id2) <= ($4, $5, $6) ORDER BY id1, atype, id2 LIMIT $7";
const EDGE_HOP: &str = "SELECT id1, CAST(atype AS bigint), id2 FROM assocs \
     WHERE (id1, atype, id2) > ($1, $2, $3) ORDER BY id1, atype, id2 LIMIT 1 OFFSET $4";
const COUNTS: &str = "SELECT id1, CAST(atype AS bigint), count FROM assoc_counts \
     WHERE (id1, atype) > ($1, $2) ORDER BY id1, atype LIMIT $3";
const LOG: &str = "SELECT epoch, first_lsn, last_lsn, payload FROM change_log \
     WHERE (epoch, first_lsn) > ($1, $2) ORDER BY epoch, first_lsn LIMIT $3";
const INTENTS: &str = "SELECT epoch, number, CAST(shard AS bigint), payload FROM intents \
     WHERE (epoch, number) > ($1, $2) ORDER BY epoch, number LIMIT $3";
const DONE: &str = "SELECT CAST(source_log AS bigint), epoch, number FROM intents_done ORDER BY source_log";
const HEAD: &str = "SELECT epoch, lsn FROM log_head";
const TOTALS: &str =
    "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM assocs), (SELECT count(*) FROM assoc_counts)";
const IS_EMPTY: &str = "SELECT CAST(CAST(NOT EXISTS (SELECT 1 FROM objects) AND NOT EXISTS (SELECT 1 FROM assocs) \
     AND NOT EXISTS (SELECT 1 FROM intents) AS int) AS bigint)";
const LIST_COUNT: &str = "SELECT count(*) FROM assocs WHERE id1 = $1 AND atype = $2";
const LIST_EDGE: &str = "SELECT id1, CAST(atype AS bigint), id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 \
     ORDER BY id2 LIMIT 1";

/// Rows of the log that are read at once: each may have megabytes.
const LOG_ROWS: i64 = 16;
const INTENT_ROWS: i64 = 1_000;

/// Columns: id1, atype, id2, time, data.
fn edge(row: &Row) -> Result<EdgeRow, Error> {
    Ok(EdgeRow { at: rows::edge_key(row, 0)?, time: row.int(3)? as EdgeTime, data: rows::any_data(row, 4)? })
}

/// A key as a bound; in place of none, what lies beyond all keys at one end.
fn edge_bound(at: Option<AssocRef>, otherwise: i64) -> [i64; 3] {
    at.map_or([otherwise; 3], |at| [at.id1.get(), i64::from(at.atype.0), at.id2.get()])
}

impl Snapshot {
    /// Connects; nothing is seen yet.
    pub(super) async fn connect(database: &DirectDatabase) -> Result<Self, DirectError> {
        let connection = match &database.source {
            Source::Postgres(connector) => {
                let mut connection = connector.plain().await.map_err(OpenError::Database)?;
                query(SETTINGS).execute(&mut connection).await.map_err(OpenError::Database)?;
                Connection::Postgres(Box::new(connection))
            }
            Source::Sqlite(options) => {
                let options = SqliteConnectOptions::clone(options).read_only(true);
                let connection = SqliteConnection::connect_with(&options).await.map_err(OpenError::Database)?;
                Connection::Sqlite(Box::new(connection))
            }
        };
        Ok(Self { connection, position: Position::ZERO })
    }

    /// Takes the snapshot, in place of the one before.
    pub(super) async fn take(&mut self) -> Result<(), DirectError> {
        if self.position != Position::ZERO {
            self.execute("ROLLBACK").await?;
        }
        self.execute(match self.connection {
            Connection::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Connection::Sqlite(_) => "BEGIN",
        })
        .await?;
        let rows = self.rows(HEAD, &[]).await?;
        self.position = self.read(rows::head(&rows))?;
        Ok(())
    }

    /// Of the log: every change up to here is seen, and none after it.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// How many objects, edges (each direction is one) and lists there are.
    pub async fn totals(&mut self) -> Result<(u64, u64, u64), DirectError> {
        let rows = self.rows(TOTALS, &[]).await?;
        let row = &rows[0];
        let all: Result<Vec<u64>, _> = (0..3).map(|n| row.int(n).map(|count| count as u64)).collect();
        self.read(all).map(|all| (all[0], all[1], all[2]))
    }

    /// Whether there is neither an object nor an edge, nor anything left to do elsewhere.
    pub async fn is_empty(&mut self) -> Result<bool, DirectError> {
        let rows = self.rows(IS_EMPTY, &[]).await?;
        let found = rows[0].int(0);
        Ok(self.read(found)? == 1)
    }

    /// Objects in key order, after one and up to another.
    pub async fn objects(
        &mut self,
        after: Option<ObjectId>,
        up_to: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<Object>, DirectError> {
        let bounds = [after.map_or(0, ObjectId::get), up_to.map_or(i64::MAX, ObjectId::get), limit as i64];
        let rows = self.rows(OBJECTS, &bounds).await?;
        let object = |row: &Row| {
            Ok(Object {
                id: rows::id(row, 0)?,
                otype: TypeId(row.int(1)? as u32),
                version: row.int(2)?,
                created_ms: row.int(3)? as u64,
                updated_ms: row.int(4)? as u64,
                data: rows::any_data(row, 5)?,
            })
        };
        self.read(rows.iter().map(object).collect())
    }

    /// The key of the object so many objects after this one.
    pub async fn object_beyond(
        &mut self,
        after: Option<ObjectId>,
        skip: usize,
    ) -> Result<Option<ObjectId>, DirectError> {
        let rows = self.rows(OBJECT_HOP, &[after.map_or(0, ObjectId::get), skip as i64]).await?;
        self.read(rows.first().map(|row| rows::id(row, 0)).transpose())
    }

    /// Edges in key order, after one and up to another.
    pub async fn edges(
        &mut self,
        after: Option<AssocRef>,
        up_to: Option<AssocRef>,
        limit: usize,
    ) -> Result<Vec<EdgeRow>, DirectError> {
        let bounds = [&edge_bound(after, 0)[..], &edge_bound(up_to, i64::MAX), &[limit as i64]].concat();
        let rows = self.rows(EDGES, &bounds).await?;
        self.read(rows.iter().map(edge).collect())
    }

    /// The key of the edge so many edges after this one.
    pub async fn edge_beyond(&mut self, after: Option<AssocRef>, skip: usize) -> Result<Option<AssocRef>, DirectError> {
        let bounds = [&edge_bound(after, 0)[..], &[skip as i64]].concat();
        let rows = self.rows(EDGE_HOP, &bounds).await?;
        self.read(rows.first().map(|row| rows::edge_key(row, 0)).transpose())
    }

    /// Those of these edges that exist.
    pub async fn find_edges(&mut self, wanted: &[AssocRef]) -> Result<HashMap<AssocRef, EdgeRow>, DirectError> {
        let rows = match &mut self.connection {
            Connection::Postgres(connection) => {
                let sql = "SELECT a.id1, a.atype::bigint, a.id2, a.time, a.data FROM UNNEST($1::bigint[], $2::int[], $3::bigint[]) AS w(id1, atype, id2) \
                           JOIN assocs a ON a.id1 = w.id1 AND a.atype = w.atype AND a.id2 = w.id2";
                let id1: Vec<i64> = wanted.iter().map(|a| a.id1.get()).collect();
                let atype: Vec<i32> = wanted.iter().map(|a| a.atype.0 as i32).collect();
                let id2: Vec<i64> = wanted.iter().map(|a| a.id2.get()).collect();
                let rows = query(sql).bind(id1).bind(atype).bind(id2).fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect::<Vec<_>>())
            }
            Connection::Sqlite(connection) => {
                let sql = "SELECT a.id1, a.atype, a.id2, a.time, a.data FROM json_each($1) w CROSS JOIN assocs a \
                           ON a.id1 = w.value ->> 0 AND a.atype = w.value ->> 1 AND a.id2 = w.value ->> 2";
                let rows = query(sql).bind(sqlite::assoc_keys(wanted)).fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        };
        let found = rows.and_then(|rows| rows.iter().map(|row| edge(row).map(|edge| (edge.at, edge))).collect());
        self.read(found)
    }

    /// How many edges a list has, counted, and some edge of it.
    pub async fn count_list(&mut self, id1: ObjectId, atype: TypeId) -> Result<(u64, Option<EdgeRow>), DirectError> {
        let list = [id1.get(), i64::from(atype.0)];
        let (count, some) = (self.rows(LIST_COUNT, &list).await?, self.rows(LIST_EDGE, &list).await?);
        let count = count[0].int(0).map(|count| count as u64);
        let some = some.first().map(edge).transpose();
        Ok((self.read(count)?, self.read(some)?))
    }

    /// Counts of lists in key order, after one.
    pub async fn counts(
        &mut self,
        after: Option<(ObjectId, TypeId)>,
        limit: usize,
    ) -> Result<Vec<ListCount>, DirectError> {
        let (id1, atype) = after.map_or((0, 0), |(id1, atype)| (id1.get(), i64::from(atype.0)));
        let rows = self.rows(COUNTS, &[id1, atype, limit as i64]).await?;
        let count = |row: &Row| {
            Ok(ListCount { id1: rows::id(row, 0)?, atype: TypeId(row.int(1)? as u32), count: row.int(2)? as u64 })
        };
        self.read(rows.iter().map(count).collect())
    }

    /// Some commits of the log, in order, after the one that began at a position; none at its end.
    pub async fn log(&mut self, after: Position) -> Result<Vec<LogEntry>, DirectError> {
        let rows = self.rows(LOG, &[after.epoch as i64, after.lsn as i64, LOG_ROWS]).await?;
        let entry = |row: &Row| {
            let first = rows::position(row, 0)?;
            let payload = Bytes::from(row.bytes(3)?);
            let changes = convert::decode_log(&payload).map_err(|error| error.to_string());
            Ok(LogEntry { first, last: Position::new(first.epoch, row.int(2)? as u64), changes })
        };
        self.read(rows.iter().map(entry).collect())
    }

    /// Everything that is left to do in other logs, in order.
    pub async fn intents(&mut self) -> Result<Vec<StoredIntent>, DirectError> {
        let (mut all, mut after) = (Vec::new(), Position::ZERO);
        loop {
            let rows = self.rows(INTENTS, &[after.epoch as i64, after.lsn as i64, INTENT_ROWS]).await?;
            let intent = |row: &Row| {
                let shard = tao_model::ShardId(row.int(2)? as u32);
                Ok(StoredIntent { position: rows::position(row, 0)?, shard, payload: row.bytes(3)?.into() })
            };
            let page: Vec<StoredIntent> = self.read(rows.iter().map(intent).collect())?;
            let Some(last) = page.last() else { return Ok(all) };
            after = last.position;
            all.extend(page);
        }
    }

    /// By other log, the last of its intents that is done here.
    pub async fn done(&mut self) -> Result<HashMap<LogId, Position>, DirectError> {
        let rows = self.rows(DONE, &[]).await?;
        let done = |row: &Row| Ok((LogId(row.int(0)? as u32), rows::position(row, 1)?));
        self.read(rows.iter().map(done).collect())
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), DirectError> {
        let done = match &mut self.connection {
            Connection::Postgres(connection) => query(sql).execute(&mut **connection).await.map(drop),
            Connection::Sqlite(connection) => query(sql).execute(&mut **connection).await.map(drop),
        };
        self.read(done)
    }

    async fn rows(&mut self, sql: &'static str, numbers: &[i64]) -> Result<Vec<Row>, DirectError> {
        let found = match &mut self.connection {
            Connection::Postgres(connection) => {
                let query = numbers.iter().fold(query(sql), |query, number| query.bind(*number));
                let rows = query.fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            Connection::Sqlite(connection) => {
                let query = numbers.iter().fold(query(sql), |query, number| query.bind(*number));
                let rows = query.fetch_all(&mut **connection).await;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
        };
        self.read(found)
    }

    fn read<T>(&self, found: Result<T, Error>) -> Result<T, DirectError> {
        found.map_err(|error| match &self.connection {
            Connection::Postgres(_) => postgres::fault(&error).into(),
            Connection::Sqlite(_) => sqlite::fault(&error).into(),
        })
    }
}
