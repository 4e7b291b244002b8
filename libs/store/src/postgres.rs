//! PostgreSQL 15 or newer. Many rows travel as arrays, in one statement.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres, query};
use tao_model::{EdgeTime, ObjectId, Position, ShardId};

use crate::backend::{Backend, Begun, Fault, ListKey, ObjectRow, Rows, ShardRow, Transaction, Wanted, WriteBack};
use crate::intents_sql;
use crate::rows::{self, Columns as _, stored};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan};

/// Until a connection is had.
const ACQUIRE: Duration = Duration::from_secs(2);

pub(crate) struct PostgresBackend {
    /// One connection, so that writes never wait behind reads.
    pub writer: PgPool,
    pub readers: PgPool,
    pub owner: String,
}

/// What an error means. Codes: shutting down, crashed or starting up; connection exceptions; out of connections or space; a standby.
fn fault(error: &sqlx::Error) -> Fault {
    rows::fault(error, |code| {
        code.starts_with("57P") || code.starts_with("08") || code.starts_with("53") || code == "25006"
    })
}

/// Opens connections as they are needed. Each commit is durable when it is acknowledged, whatever the server's default is.
pub(crate) fn pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    let options = options.application_name("tao-shard").options([("synchronous_commit", "on")]);
    // Not tested before each use, which would cost a round trip: a broken connection fails its statement, which is tried again.
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_lazy_with(options)
}

/// Tries again while the pool holds connections that broke without its knowing, as after a restart of the server.
async fn retried<T, F>(pool: &PgPool, run: impl Fn() -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let mut left = pool.size() + 1;
    loop {
        match run().await {
            Ok(value) => return Ok(value),
            Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Database(_))) if left > 0 => {
                if fault(&error) != Fault::Unreachable {
                    return Err(Fault::Refused);
                }
                left -= 1;
            }
            Err(error) => return Err(fault(&error)),
        }
    }
}

fn ids(ids: &[ObjectId]) -> Vec<i64> {
    ids.iter().map(|id| id.get()).collect()
}

#[async_trait]
impl Backend for PostgresBackend {
    async fn begin(&self) -> Result<Begun, Fault> {
        let (transaction, row) = retried(&self.writer, async || {
            let mut transaction = self.writer.begin().await?;
            let sql = "UPDATE log_head SET lsn = lsn WHERE owner = $1 RETURNING epoch, lsn, shards_version";
            let row = query(sql).bind(&self.owner).fetch_optional(&mut *transaction).await?;
            Ok((transaction, row))
        })
        .await?;
        let row = row.ok_or(Fault::Fenced)?;
        let head = rows::position(&row, 0).map_err(|e| fault(&e))?;
        let shards_version = row.int(2).map_err(|e| fault(&e))?;
        Ok(Begun { head, shards_version, transaction: Box::new(PostgresTransaction(transaction)) })
    }

    async fn is_owner(&self) -> Result<bool, Fault> {
        let row = query("SELECT 1 FROM log_head WHERE owner = $1").bind(&self.owner);
        row.fetch_optional(&self.writer).await.map(|row| row.is_some()).map_err(|e| fault(&e))
    }

    async fn expire(&self, outcomes_before_ms: u64, log_before_ms: u64) -> Result<bool, Fault> {
        let mut more = false;
        for (sql, before) in [
            (
                "DELETE FROM outcomes WHERE key IN (SELECT key FROM outcomes WHERE expires_ms < $1 LIMIT 1000)",
                outcomes_before_ms,
            ),
            (
                "DELETE FROM change_log WHERE (epoch, first_lsn) IN \
                 (SELECT epoch, first_lsn FROM change_log WHERE committed_ms < $1 LIMIT 1000)",
                log_before_ms,
            ),
        ] {
            let done = query(sql).bind(before as i64).execute(&self.writer).await.map_err(|e| fault(&e))?;
            more |= done.rows_affected() >= 1000;
        }
        Ok(more)
    }

    async fn objects(&self, wanted: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        let wanted = ids(wanted);
        let sql = "SELECT h.epoch, h.lsn, o.id, o.otype::bigint, o.version, o.created_ms, o.updated_ms, o.data \
                   FROM log_head h LEFT JOIN objects o ON o.id = ANY($1)";
        let rows = retried(&self.readers, || query(sql).bind(&wanted).fetch_all(&self.readers)).await?;
        rows::objects(&rows).map_err(|e| fault(&e))
    }

    async fn list(&self, (id1, atype): ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data, coalesce(c.count, 0) FROM log_head h \
                   LEFT JOIN assoc_counts c ON c.id1 = $1 AND c.atype = $2 \
                   LEFT JOIN (SELECT *, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM (SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 \
                             ORDER BY time DESC, id2 DESC LIMIT $3) n) a ON a.bytes <= $4 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let run = || {
            let query = query(sql).bind(id1.get()).bind(atype.0 as i32).bind(newest as i64).bind(max_bytes as i64);
            query.fetch_all(&self.readers)
        };
        rows::list(&retried(&self.readers, run).await?).map_err(|e| fault(&e))
    }

    async fn scan(&self, scan: &Scan, max_bytes: usize) -> Result<AsOf<EdgePage>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data FROM log_head h \
                   LEFT JOIN (SELECT *, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM (SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 AND time >= $3 \
                             AND (time, id2) < ($4, $5) ORDER BY time DESC, id2 DESC OFFSET $6 LIMIT $7) n) a ON a.bytes <= $8 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let (time, id2) = scan.below();
        let run = || {
            query(sql)
                .bind(scan.id1.get())
                .bind(scan.atype.0 as i32)
                .bind(i64::from(scan.low))
                .bind(time)
                .bind(id2)
                .bind(scan.offset as i64)
                .bind(scan.limit as i64 + 1)
                .bind((max_bytes + rows::ONE_MORE) as i64)
                .fetch_all(&self.readers)
        };
        rows::page(&retried(&self.readers, run).await?, scan.limit, max_bytes).map_err(|e| fault(&e))
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
                       FROM assocs WHERE id1 = $1 AND atype = $2 AND id2 = ANY($3) AND time BETWEEN $4 AND $5) a ON a.bytes <= $6 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let id2s = ids(id2s);
        let run = || {
            let query = query(sql).bind(id1.get()).bind(atype.0 as i32).bind(&id2s).bind(i64::from(low));
            query.bind(i64::from(high)).bind((max_bytes + rows::ONE_MORE) as i64).fetch_all(&self.readers)
        };
        rows::page(&retried(&self.readers, run).await?, id2s.len(), max_bytes).map_err(|e| fault(&e))
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        let page = || intents_sql::pg_page(&self.readers, shards, after, limit);
        retried(&self.readers, page).await
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        retried(&self.readers, || intents_sql::pg_waiting(&self.readers)).await
    }

    async fn head(&self) -> Result<Position, Fault> {
        let head = || query("SELECT epoch, lsn FROM log_head").fetch_one(&self.readers);
        let row = retried(&self.readers, head).await?;
        rows::position(&row, 0).map_err(|e| fault(&e))
    }

    async fn close(&self) {
        let release = query("UPDATE log_head SET owner = '' WHERE owner = $1").bind(&self.owner);
        if let Err(error) = release.execute(&self.writer).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "can't give the database up");
        }
        self.readers.close().await;
        self.writer.close().await;
    }
}

struct PostgresTransaction(sqlx::Transaction<'static, Postgres>);

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        let query = query("SELECT shard::bigint, state::bigint, ids_until FROM shards");
        let found = query.fetch_all(&mut *self.0).await.map_err(|e| fault(&e))?;
        found.iter().map(rows::shard).collect::<Result<_, _>>().map_err(|e| fault(&e))
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        load(&mut self.0, wanted).await.map_err(|e| fault(&e))
    }

    async fn write(&mut self, write: &WriteBack) -> Result<(), Fault> {
        self::write(&mut self.0, write).await.map_err(|e| fault(&e))
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        self.0.commit().await.map_err(|error| match fault(&error) {
            Fault::Refused => Fault::Refused,
            Fault::Unreachable | Fault::InDoubt | Fault::Fenced => Fault::InDoubt,
        })
    }
}

async fn load(connection: &mut sqlx::PgConnection, wanted: &Wanted) -> Result<Rows, sqlx::Error> {
    let mut found = Rows::default();
    if !wanted.objects.is_empty() {
        let sql = "SELECT id, otype::bigint, version, created_ms, updated_ms, data FROM objects WHERE id = ANY($1)";
        for row in query(sql).bind(ids(&wanted.objects)).fetch_all(&mut *connection).await? {
            found.objects.extend([rows::object(&row, 0)?]);
        }
    }
    if !wanted.types.is_empty() {
        let sql = "SELECT id, otype::bigint FROM objects WHERE id = ANY($1)";
        for row in query(sql).bind(ids(&wanted.types)).fetch_all(&mut *connection).await? {
            found.types.extend([rows::otype(&row)?]);
        }
    }
    if !wanted.assocs.is_empty() {
        let id1: Vec<i64> = wanted.assocs.iter().map(|a| a.id1.get()).collect();
        let atype: Vec<i32> = wanted.assocs.iter().map(|a| a.atype.0 as i32).collect();
        let id2: Vec<i64> = wanted.assocs.iter().map(|a| a.id2.get()).collect();
        let sql = "SELECT a.id1, a.atype::bigint, a.id2, a.time, a.data \
                   FROM UNNEST($1::bigint[], $2::int[], $3::bigint[]) AS w(id1, atype, id2) \
                   JOIN assocs a ON a.id1 = w.id1 AND a.atype = w.atype AND a.id2 = w.id2";
        for row in query(sql).bind(id1).bind(atype).bind(id2).fetch_all(&mut *connection).await? {
            found.assocs.extend([rows::assoc(&row)?]);
        }
    }
    if !wanted.counts.is_empty() {
        let id1: Vec<i64> = wanted.counts.iter().map(|c| c.0.get()).collect();
        let atype: Vec<i32> = wanted.counts.iter().map(|c| c.1.0 as i32).collect();
        let sql = "SELECT c.id1, c.atype::bigint, c.count, c.epoch, c.lsn FROM UNNEST($1::bigint[], $2::int[]) AS w(id1, atype) \
                   JOIN assoc_counts c ON c.id1 = w.id1 AND c.atype = w.atype";
        for row in query(sql).bind(id1).bind(atype).fetch_all(&mut *connection).await? {
            found.counts.extend([rows::count(&row)?]);
        }
    }
    if !wanted.outcomes.is_empty() {
        let sql = "SELECT key, fingerprint, answer, expires_ms FROM outcomes WHERE key = ANY($1)";
        for row in query(sql).bind(&wanted.outcomes).fetch_all(&mut *connection).await? {
            found.outcomes.extend([rows::outcome(&row)?]);
        }
    }
    intents_sql::pg_load(connection, wanted, &mut found).await?;
    Ok(found)
}

async fn write(connection: &mut sqlx::PgConnection, write: &WriteBack) -> Result<(), sqlx::Error> {
    write_objects(connection, write).await?;
    write_assocs(connection, write).await?;
    if !write.counts.is_empty() {
        let id1: Vec<i64> = write.counts.keys().map(|k| k.0.get()).collect();
        let atype: Vec<i32> = write.counts.keys().map(|k| k.1.0 as i32).collect();
        let count: Vec<i64> = write.counts.values().map(|c| c.count as i64).collect();
        let epoch: Vec<i64> = write.counts.values().map(|c| c.last.epoch as i64).collect();
        let lsn: Vec<i64> = write.counts.values().map(|c| c.last.lsn as i64).collect();
        let sql = "INSERT INTO assoc_counts (id1, atype, count, epoch, lsn) \
                   SELECT * FROM UNNEST($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[]) \
                   ON CONFLICT (id1, atype) DO UPDATE SET count = EXCLUDED.count, epoch = EXCLUDED.epoch, lsn = EXCLUDED.lsn";
        query(sql).bind(id1).bind(atype).bind(count).bind(epoch).bind(lsn).execute(&mut *connection).await?;
    }
    if !write.outcomes.is_empty() {
        let key: Vec<&str> = write.outcomes.keys().map(String::as_str).collect();
        let fingerprint: Vec<i64> = write.outcomes.values().map(|o| o.fingerprint).collect();
        let answer: Vec<&[u8]> = write.outcomes.values().map(|o| o.answer.as_slice()).collect();
        let expires: Vec<i64> = write.outcomes.values().map(|o| o.expires_ms as i64).collect();
        let sql = "INSERT INTO outcomes (key, fingerprint, answer, expires_ms) \
                   SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bytea[], $4::bigint[]) \
                   ON CONFLICT (key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, answer = EXCLUDED.answer, \
                   expires_ms = EXCLUDED.expires_ms";
        query(sql).bind(key).bind(fingerprint).bind(answer).bind(expires).execute(&mut *connection).await?;
    }
    if !write.leases.is_empty() {
        let shard: Vec<i32> = write.leases.keys().map(|s| s.0 as i32).collect();
        let until: Vec<i64> = write.leases.values().map(|u| *u as i64).collect();
        let sql = "UPDATE shards s SET ids_until = u.until FROM UNNEST($1::int[], $2::bigint[]) AS u(shard, until) \
                   WHERE s.shard = u.shard AND s.ids_until < u.until";
        query(sql).bind(shard).bind(until).execute(&mut *connection).await?;
    }
    intents_sql::pg_write(connection, write).await?;
    if let Some(log) = &write.log {
        let sql = "WITH logged AS (INSERT INTO change_log (epoch, first_lsn, last_lsn, committed_ms, payload) \
                   VALUES ($1, $2, $3, $4, $5)) UPDATE log_head SET lsn = $3";
        let query = query(sql).bind(log.first.epoch as i64).bind(log.first.lsn as i64).bind(log.last.lsn as i64);
        query.bind(log.committed_ms as i64).bind(&log.payload).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_objects(connection: &mut sqlx::PgConnection, write: &WriteBack) -> Result<(), sqlx::Error> {
    let puts: Vec<_> = write.objects.iter().filter_map(|(id, row)| Some((id, row.as_ref()?))).collect();
    if !puts.is_empty() {
        let id: Vec<i64> = puts.iter().map(|(id, _)| id.get()).collect();
        let otype: Vec<i32> = puts.iter().map(|(_, o)| o.otype.0 as i32).collect();
        let version: Vec<i64> = puts.iter().map(|(_, o)| o.version).collect();
        let created: Vec<i64> = puts.iter().map(|(_, o)| o.created_ms as i64).collect();
        let updated: Vec<i64> = puts.iter().map(|(_, o)| o.updated_ms as i64).collect();
        let data: Vec<Vec<u8>> = puts.iter().map(|(_, o)| stored(&o.data)).collect();
        let sql = "INSERT INTO objects (id, otype, version, created_ms, updated_ms, data) \
                   SELECT * FROM UNNEST($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[]) \
                   ON CONFLICT (id) DO UPDATE SET otype = EXCLUDED.otype, version = EXCLUDED.version, \
                   created_ms = EXCLUDED.created_ms, updated_ms = EXCLUDED.updated_ms, data = EXCLUDED.data";
        let query = query(sql).bind(id).bind(otype).bind(version);
        query.bind(created).bind(updated).bind(data).execute(&mut *connection).await?;
    }
    let gone: Vec<i64> = write.objects.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.get()).collect();
    if !gone.is_empty() {
        query("DELETE FROM objects WHERE id = ANY($1)").bind(gone).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_assocs(connection: &mut sqlx::PgConnection, write: &WriteBack) -> Result<(), sqlx::Error> {
    let puts: Vec<_> = write.assocs.iter().filter_map(|(at, row)| Some((at, row.as_ref()?))).collect();
    if !puts.is_empty() {
        let id1: Vec<i64> = puts.iter().map(|(a, _)| a.id1.get()).collect();
        let atype: Vec<i32> = puts.iter().map(|(a, _)| a.atype.0 as i32).collect();
        let id2: Vec<i64> = puts.iter().map(|(a, _)| a.id2.get()).collect();
        let time: Vec<i64> = puts.iter().map(|(_, r)| i64::from(r.time)).collect();
        let data: Vec<Vec<u8>> = puts.iter().map(|(_, r)| stored(&r.data)).collect();
        let sql = "INSERT INTO assocs (id1, atype, id2, time, data) \
                   SELECT * FROM UNNEST($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bytea[]) \
                   ON CONFLICT (id1, atype, id2) DO UPDATE SET time = EXCLUDED.time, data = EXCLUDED.data";
        query(sql).bind(id1).bind(atype).bind(id2).bind(time).bind(data).execute(&mut *connection).await?;
    }
    let gone: Vec<_> = write.assocs.iter().filter(|(_, row)| row.is_none()).map(|(at, _)| at).collect();
    if !gone.is_empty() {
        let id1: Vec<i64> = gone.iter().map(|a| a.id1.get()).collect();
        let atype: Vec<i32> = gone.iter().map(|a| a.atype.0 as i32).collect();
        let id2: Vec<i64> = gone.iter().map(|a| a.id2.get()).collect();
        let sql = "DELETE FROM assocs a USING UNNEST($1::bigint[], $2::int[], $3::bigint[]) AS g(id1, atype, id2) \
                   WHERE a.id1 = g.id1 AND a.atype = g.atype AND a.id2 = g.id2";
        query(sql).bind(id1).bind(atype).bind(id2).execute(&mut *connection).await?;
    }
    Ok(())
}
