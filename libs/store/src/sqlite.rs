//! SQLite. Many rows travel as one JSON array, in one statement: binding them one by one costs more than writing them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Sqlite, SqlitePool, query};
use tao_model::{AssocRef, Clock, EdgeTime, ObjectId, Position, ShardId};

use crate::backend::{
    AssocRow, Backend, Base, Begun, EXPIRE_ROWS, Fault, ListKey, LogCut, LogRows, ObjectRow, Rows, Session, ShardRow,
    Transaction, Wanted, WriteBack,
};
use crate::epoch::{IDS_AHEAD_MS, NewEpoch};
use crate::intents_sql;
use crate::migrations::MINIMUM;
use crate::rows::{self, Columns as _, stored};
use crate::servers::{self, Beat, Server};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan};

pub(crate) struct SqliteBackend {
    /// One connection: SQLite has one writer.
    pub writer: SqlitePool,
    pub readers: SqlitePool,
    pub clock: Arc<dyn Clock>,
}

/// What an error means. Codes: busy, locked, read-only, input/output, full, can't open; extended codes have those in their low byte.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    rows::fault(error, |code| code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)))
}

/// A JSON array of rows of integers, each with a blob in hexadecimal at its end where there is one.
struct Json(String);

impl Json {
    fn rows<const N: usize>(rows: impl IntoIterator<Item = ([i64; N], Option<Vec<u8>>)>) -> String {
        let mut json = Self("[".to_owned());
        for (ints, blob) in rows {
            json.row(&ints, blob.as_deref());
        }
        json.0.push(']');
        json.0
    }

    fn row(&mut self, ints: &[i64], blob: Option<&[u8]>) {
        self.0.push_str(if self.0.len() == 1 { "[" } else { ",[" });
        for (n, int) in ints.iter().enumerate() {
            // Writing to a string can't fail.
            let _ = write!(self.0, "{}{int}", if n == 0 { "" } else { "," });
        }
        if let Some(blob) = blob {
            self.0.push_str(",\"");
            for byte in blob {
                self.0.push(char::from(HEX[usize::from(byte >> 4)]));
                self.0.push(char::from(HEX[usize::from(byte & 15)]));
            }
            self.0.push('"');
        }
        self.0.push(']');
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn ids<'a>(ids: impl IntoIterator<Item = &'a ObjectId>) -> String {
    let numbers: Vec<String> = ids.into_iter().map(|id| id.get().to_string()).collect();
    format!("[{}]", numbers.join(","))
}

pub(crate) fn assoc_keys<'a>(keys: impl IntoIterator<Item = &'a AssocRef>) -> String {
    Json::rows(keys.into_iter().map(|a| ([a.id1.get(), i64::from(a.atype.0), a.id2.get()], None)))
}

#[async_trait]
impl Backend for SqliteBackend {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    async fn session(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(SqliteSession { writer: self.writer.clone(), readers: self.readers.clone() }))
    }

    async fn begin(&self) -> Result<Begun, Fault> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|e| fault(&e))?;
        let base = base(&mut transaction).await.map_err(|e| fault(&e))?;
        Ok(Begun { base, transaction: Box::new(SqliteTransaction(transaction)) })
    }

    async fn beat(&self, server: &Server) -> Result<Beat, Fault> {
        let beat = async {
            let query = sqlx::query(servers::SQLITE.beat).bind(server.id).bind(&server.name);
            query.bind(servers::VERSION).bind(server.schema_version).execute(&self.writer).await?;
            sqlx::query(servers::SQLITE.forget).bind(servers::KEPT_MS).execute(&self.writer).await?;
            let running = sqlx::query(servers::SQLITE.running).bind(servers::ALIVE_MS);
            let running = servers::running(&running.fetch_all(&self.readers).await?)?;
            Ok(Beat { running, minimum: sqlx::query(MINIMUM).fetch_one(&self.readers).await?.int(0)? })
        };
        beat.await.map_err(|e| fault(&e))
    }

    async fn leave(&self, server: &Server) -> Result<(), Fault> {
        let gone = query(servers::SQLITE.leave).bind(server.id).execute(&self.writer).await;
        gone.map(drop).map_err(|e| fault(&e))
    }

    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault> {
        let sql = "DELETE FROM outcomes WHERE key IN (SELECT key FROM outcomes WHERE expires_ms < ?1 LIMIT ?2)";
        let query = query(sql).bind(before_ms as i64).bind(EXPIRE_ROWS as i64);
        let done = query.execute(&self.writer).await.map_err(|e| fault(&e))?;
        Ok(done.rows_affected() >= EXPIRE_ROWS as u64)
    }

    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault> {
        let sql = "SELECT epoch, last_lsn, committed_ms FROM change_log ORDER BY epoch, first_lsn LIMIT ?1";
        let oldest = query(sql).bind(EXPIRE_ROWS as i64).fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        let oldest: Result<Vec<_>, _> = oldest.iter().map(rows::log_age).collect();
        let oldest = oldest.map_err(|e| fault(&e))?;
        let count = cut.count(&oldest);
        if count > 0 {
            let last = oldest[count - 1].0;
            let sql = "DELETE FROM change_log WHERE (epoch, first_lsn) <= (?1, ?2)";
            let query = query(sql).bind(last.epoch as i64).bind(last.lsn as i64);
            query.execute(&self.writer).await.map_err(|e| fault(&e))?;
        }
        Ok(count >= EXPIRE_ROWS)
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault> {
        let sql = "SELECT h.epoch, h.lsn, c.first_lsn, c.last_lsn, c.committed_ms, c.payload FROM log_head h \
                   LEFT JOIN (SELECT *, sum(length(payload)) OVER (ORDER BY first_lsn ROWS UNBOUNDED PRECEDING) - length(payload) AS before \
                       FROM (SELECT first_lsn, last_lsn, committed_ms, payload FROM change_log \
                             WHERE epoch = ?1 AND last_lsn > ?2 AND first_lsn >= coalesce( \
                                 (SELECT max(first_lsn) FROM change_log WHERE epoch = ?1 AND first_lsn <= ?2 + 1), 0) \
                             ORDER BY first_lsn LIMIT 1000) n) c ON h.epoch = ?1 AND c.before < ?3 \
                   ORDER BY c.first_lsn";
        let query = query(sql).bind(after.epoch as i64).bind(after.lsn as i64).bind(max_bytes as i64);
        let rows = query.fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::log(&rows).map_err(|e| fault(&e))
    }

    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault> {
        let sql = "SELECT h.epoch, coalesce(\
                   (SELECT c.first_lsn - 1 FROM change_log c WHERE c.epoch = h.epoch AND c.first_lsn > h.lsn - ?2 AND c.committed_ms >= ?1 \
                    ORDER BY c.first_lsn LIMIT 1), h.lsn) FROM log_head h";
        let query = query(sql).bind(since_ms as i64).bind(max_changes.min(i64::MAX as u64) as i64);
        let rows = query.fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::head(&rows).map_err(|e| fault(&e))
    }

    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault> {
        self.advance(why).await.map_err(|e| fault(&e))
    }

    async fn objects(&self, wanted: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, o.id, o.otype, o.version, o.created_ms, o.updated_ms, o.data FROM log_head h \
                   LEFT JOIN objects o ON o.id IN (SELECT value FROM json_each(?1))";
        let rows = query(sql).bind(ids(wanted)).fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::objects(&rows).map_err(|e| fault(&e))
    }

    async fn list(&self, (id1, atype): ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data, coalesce(c.count, 0) FROM log_head h \
                   LEFT JOIN assoc_counts c ON c.id1 = ?1 AND c.atype = ?2 \
                   LEFT JOIN (SELECT *, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM (SELECT id2, time, data FROM assocs WHERE id1 = ?1 AND atype = ?2 \
                             ORDER BY time DESC, id2 DESC LIMIT ?3) n) a ON a.bytes <= ?4 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let query = query(sql).bind(id1.get()).bind(i64::from(atype.0)).bind(newest as i64).bind(max_bytes as i64);
        let rows = query.fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::list(&rows).map_err(|e| fault(&e))
    }

    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data FROM log_head h \
                   LEFT JOIN (SELECT *, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM (SELECT id2, time, data FROM assocs WHERE id1 = ?1 AND atype = ?2 AND time >= ?3 \
                             AND (time, id2) < (?4, ?5) ORDER BY time DESC, id2 DESC LIMIT ?7 OFFSET ?6) n) a ON a.bytes <= ?8 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let (time, id2) = scan.below();
        let rows = query(sql)
            .bind(scan.id1.get())
            .bind(i64::from(scan.atype.0))
            .bind(i64::from(scan.low))
            .bind(time)
            .bind(id2)
            .bind(scan.offset as i64)
            .bind(scan.limit as i64 + 1)
            .bind((max_bytes + rows::ONE_MORE) as i64)
            .fetch_all(&self.readers)
            .await
            .map_err(|e| fault(&e))?;
        rows::page(&rows, scan.limit, max_bytes).map_err(|e| fault(&e))
    }

    async fn edges(
        &self,
        (id1, atype): ListKey,
        id2s: &[ObjectId],
        (low, high): (EdgeTime, EdgeTime),
        max_bytes: usize,
    ) -> Result<AsOf<EdgePage>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data FROM log_head h \
                   LEFT JOIN (SELECT id2, time, data, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM assocs WHERE id1 = ?1 AND atype = ?2 AND id2 IN (SELECT value FROM json_each(?3)) \
                       AND time BETWEEN ?4 AND ?5) a ON a.bytes <= ?6 ORDER BY a.time DESC, a.id2 DESC";
        let query = query(sql).bind(id1.get()).bind(i64::from(atype.0)).bind(ids(id2s)).bind(i64::from(low));
        let query = query.bind(i64::from(high)).bind((max_bytes + rows::ONE_MORE) as i64);
        let rows = query.fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::page(&rows, id2s.len(), max_bytes).map_err(|e| fault(&e))
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        let page = intents_sql::sqlite_page(shards, after, limit).fetch_all(&self.readers).await;
        page.and_then(|rows| intents_sql::page(&rows)).map_err(|e| fault(&e))
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        let rows = query(intents_sql::WAITING).fetch_all(&self.readers).await;
        rows.and_then(|rows| intents_sql::waiting(&rows)).map_err(|e| fault(&e))
    }

    async fn head(&self) -> Result<Position, Fault> {
        let rows = query("SELECT epoch, lsn FROM log_head").fetch_all(&self.readers).await.map_err(|e| fault(&e))?;
        rows::head(&rows).map_err(|e| fault(&e))
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl SqliteBackend {
    async fn advance(&self, why: NewEpoch) -> Result<Position, sqlx::Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let rows = query("SELECT epoch, lsn FROM log_head").fetch_all(&mut *transaction).await?;
        let head = rows::head(&rows)?;
        if !why.is_due(head) {
            return Ok(head);
        }
        let head = advance(&mut transaction, why, head, &*self.clock).await?;
        transaction.commit().await?;
        Ok(head)
    }
}

/// Begins an epoch in a transaction that holds the log's end; gives that.
pub(crate) async fn advance(
    connection: &mut sqlx::SqliteConnection,
    why: NewEpoch,
    head: Position,
    clock: &dyn Clock,
) -> Result<Position, sqlx::Error> {
    let now_ms = clock.now_ms();
    let epoch = why.next(head, now_ms);
    tracing::warn!(?why, %head, epoch, "history was undone: a new epoch begins");
    let sql = "UPDATE log_head SET epoch = ?1, shards_version = shards_version + 1";
    query(sql).bind(epoch as i64).execute(&mut *connection).await?;
    let sql = "UPDATE shards SET ids_until = ?1 WHERE ids_until < ?1";
    query(sql).bind((now_ms + IDS_AHEAD_MS) as i64).execute(connection).await?;
    Ok(Position::new(epoch, head.lsn))
}

async fn base(connection: &mut sqlx::SqliteConnection) -> Result<Base, sqlx::Error> {
    let row = query("SELECT epoch, lsn, commits, shards_version FROM log_head").fetch_one(connection).await?;
    Ok(Base { head: rows::position(&row, 0)?, commits: row.int(2)?, shards_version: row.int(3)? })
}

/// Looks on a reader's connection, so that a batch looks while another is synced.
struct SqliteSession {
    writer: SqlitePool,
    readers: SqlitePool,
}

#[async_trait]
impl Session for SqliteSession {
    async fn look(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault> {
        let look = async {
            let mut snapshot = self.readers.begin().await?;
            let found = (base(&mut snapshot).await?, load(&mut snapshot, wanted).await?);
            snapshot.commit().await?;
            Ok(found)
        };
        look.await.map_err(|e: sqlx::Error| fault(&e))
    }

    async fn swap(self: Box<Self>, from: Base, write: Arc<WriteBack>) -> Result<bool, Fault> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|e| fault(&e))?;
        let is_there = base(&mut transaction).await.map_err(|e| fault(&e))? == from;
        let mut transaction = Box::new(SqliteTransaction(transaction));
        if !is_there {
            transaction.end().await;
            return Ok(false);
        }
        transaction.write(from, &write).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

struct SqliteTransaction(sqlx::Transaction<'static, Sqlite>);

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        let query = query("SELECT shard, state, ids_until FROM shards");
        let found = query.fetch_all(&mut *self.0).await.map_err(|e| fault(&e))?;
        found.iter().map(rows::shard).collect::<Result<_, _>>().map_err(|e| fault(&e))
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        load(&mut self.0, wanted).await.map_err(|e| fault(&e))
    }

    async fn write(&mut self, _: Base, write: &WriteBack) -> Result<(), Fault> {
        self::write(&mut self.0, write).await.map_err(|e| fault(&e))
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        self.0.commit().await.map_err(|error| match fault(&error) {
            Fault::Refused => Fault::Refused,
            Fault::Unreachable | Fault::InDoubt => Fault::InDoubt,
        })
    }

    async fn end(self: Box<Self>) {
        if let Err(error) = self.0.rollback().await {
            fault(&error);
        }
    }
}

async fn load(connection: &mut sqlx::SqliteConnection, wanted: &Wanted) -> Result<Rows, sqlx::Error> {
    let mut found = Rows::default();
    if !wanted.objects.is_empty() {
        let sql = "SELECT o.id, o.otype, o.version, o.created_ms, o.updated_ms, o.data FROM json_each(?1) w \
                   CROSS JOIN objects o ON o.id = w.value";
        for row in query(sql).bind(ids(&wanted.objects)).fetch_all(&mut *connection).await? {
            found.objects.extend([rows::object(&row, 0)?]);
        }
    }
    if !wanted.types.is_empty() {
        let sql = "SELECT o.id, o.otype FROM json_each(?1) w CROSS JOIN objects o ON o.id = w.value";
        for row in query(sql).bind(ids(&wanted.types)).fetch_all(&mut *connection).await? {
            found.types.extend([rows::otype(&row, 0)?]);
        }
    }
    if !wanted.assocs.is_empty() {
        let sql = "SELECT a.id1, a.atype, a.id2, a.time, a.data FROM json_each(?1) w CROSS JOIN assocs a \
                   ON a.id1 = w.value ->> 0 AND a.atype = w.value ->> 1 AND a.id2 = w.value ->> 2";
        for row in query(sql).bind(assoc_keys(&wanted.assocs)).fetch_all(&mut *connection).await? {
            found.assocs.extend([rows::assoc(&row, 0, 4)?]);
        }
    }
    if !wanted.counts.is_empty() {
        let keys = Json::rows(wanted.counts.iter().map(|(id1, atype)| ([id1.get(), i64::from(atype.0)], None)));
        let sql = "SELECT c.id1, c.atype, c.count, c.epoch, c.lsn FROM json_each(?1) w CROSS JOIN assoc_counts c \
                   ON c.id1 = w.value ->> 0 AND c.atype = w.value ->> 1";
        for row in query(sql).bind(keys).fetch_all(&mut *connection).await? {
            found.counts.extend([rows::count(&row, 0)?]);
        }
    }
    for key in &wanted.outcomes {
        let sql = "SELECT key, fingerprint, answer, expires_ms FROM outcomes WHERE key = ?1";
        for row in query(sql).bind(key).fetch_all(&mut *connection).await? {
            found.outcomes.extend([rows::outcome(&row)?]);
        }
    }
    if !wanted.shards.is_empty() {
        let shards = Json::rows(wanted.shards.iter().map(|shard| ([i64::from(shard.0)], None)));
        let sql =
            "SELECT s.shard, s.state, s.ids_until FROM json_each(?1) w CROSS JOIN shards s ON s.shard = w.value ->> 0";
        for row in query(sql).bind(shards).fetch_all(&mut *connection).await? {
            let row = rows::shard(&row)?;
            found.shards.insert(row.shard, row.ids_until);
        }
    }
    intents_sql::sqlite_load(connection, wanted, &mut found).await?;
    Ok(found)
}

async fn write(connection: &mut sqlx::SqliteConnection, write: &WriteBack) -> Result<(), sqlx::Error> {
    let puts = write.objects.iter().filter_map(|(id, row)| row.as_ref().map(|row| object_row(*id, row)));
    let puts = Json::rows(puts);
    if puts.len() > 2 {
        let sql = "INSERT INTO objects (id, otype, version, created_ms, updated_ms, data) \
                   SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5) FROM json_each(?1) WHERE true \
                   ON CONFLICT (id) DO UPDATE SET otype = excluded.otype, version = excluded.version, \
                   created_ms = excluded.created_ms, updated_ms = excluded.updated_ms, data = excluded.data";
        query(sql).bind(puts).execute(&mut *connection).await?;
    }
    let gone: Vec<_> = write.objects.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id).collect();
    if !gone.is_empty() {
        let sql = "DELETE FROM objects WHERE id IN (SELECT value FROM json_each(?1))";
        query(sql).bind(ids(gone)).execute(&mut *connection).await?;
    }
    let puts = Json::rows(write.assocs.iter().filter_map(|(at, row)| row.as_ref().map(|row| assoc_row(*at, row))));
    if puts.len() > 2 {
        let sql = "INSERT INTO assocs (id1, atype, id2, time, data) \
                   SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4) FROM json_each(?1) WHERE true \
                   ON CONFLICT (id1, atype, id2) DO UPDATE SET time = excluded.time, data = excluded.data";
        query(sql).bind(puts).execute(&mut *connection).await?;
    }
    let gone: Vec<_> = write.assocs.iter().filter(|(_, row)| row.is_none()).map(|(at, _)| at).collect();
    if !gone.is_empty() {
        let sql = "DELETE FROM assocs WHERE (id1, atype, id2) IN \
                   (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1))";
        query(sql).bind(assoc_keys(gone)).execute(&mut *connection).await?;
    }
    if !write.counts.is_empty() {
        let counts = write.counts.iter().map(|((id1, atype), c)| {
            ([id1.get(), i64::from(atype.0), c.count as i64, c.last.epoch as i64, c.last.lsn as i64], None)
        });
        let sql = "INSERT INTO assoc_counts (id1, atype, count, epoch, lsn) \
                   SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1) WHERE true \
                   ON CONFLICT (id1, atype) DO UPDATE SET count = excluded.count, epoch = excluded.epoch, lsn = excluded.lsn";
        query(sql).bind(Json::rows(counts)).execute(&mut *connection).await?;
    }
    for (key, outcome) in &write.outcomes {
        let sql = "INSERT OR REPLACE INTO outcomes (key, fingerprint, answer, expires_ms) VALUES (?1, ?2, ?3, ?4)";
        let query = query(sql).bind(key).bind(outcome.fingerprint).bind(&outcome.answer);
        query.bind(outcome.expires_ms as i64).execute(&mut *connection).await?;
    }
    if !write.leases.is_empty() {
        let leases = Json::rows(write.leases.iter().map(|(shard, until)| ([i64::from(shard.0), *until as i64], None)));
        let sql = "UPDATE shards SET ids_until = w.value ->> 1 FROM json_each(?1) w \
                   WHERE shards.shard = w.value ->> 0 AND shards.ids_until < w.value ->> 1";
        query(sql).bind(leases).execute(&mut *connection).await?;
    }
    intents_sql::sqlite_write(connection, write).await?;
    if let Some(log) = &write.log {
        let sql =
            "INSERT INTO change_log (epoch, first_lsn, last_lsn, committed_ms, payload) VALUES (?1, ?2, ?3, ?4, ?5)";
        let insert = query(sql).bind(log.first.epoch as i64).bind(log.first.lsn as i64).bind(log.last.lsn as i64);
        insert.bind(log.committed_ms as i64).bind(&*log.payload).execute(&mut *connection).await?;
    }
    let sql = "UPDATE log_head SET commits = commits + 1, lsn = coalesce(?1, lsn), intents = coalesce(?2, intents)";
    let lsn = write.log.as_ref().map(|log| log.last.lsn as i64);
    query(sql).bind(lsn).bind(write.intents_made().map(|n| n as i64)).execute(&mut *connection).await?;
    Ok(())
}

fn object_row(id: ObjectId, row: &ObjectRow) -> ([i64; 5], Option<Vec<u8>>) {
    let ints = [id.get(), i64::from(row.otype.0), row.version, row.created_ms as i64, row.updated_ms as i64];
    (ints, Some(stored(&row.data)))
}

fn assoc_row(at: AssocRef, row: &AssocRow) -> ([i64; 4], Option<Vec<u8>>) {
    ([at.id1.get(), i64::from(at.atype.0), at.id2.get(), i64::from(row.time)], Some(stored(&row.data)))
}
