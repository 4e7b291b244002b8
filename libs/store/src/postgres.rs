//! PostgreSQL 15 or newer. Many rows travel as arrays; what a batch reads is one statement, and what it writes is another.

mod connect;
mod epoch;
mod look;
mod session;
mod statistics;
mod swap;
mod text;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::query;
use tao_model::{EdgeTime, ObjectId, Position, ShardId};
use tokio::time::timeout;

use crate::backend::{
    Backend, Base, Begun, EXPIRE_ROWS, Fault, ListKey, LogCut, LogRows, ObjectRow, Rows, Session, ShardRow,
    Transaction, Wanted, WriteBack,
};
use crate::epoch::NewEpoch;
use crate::intents_sql;
use crate::migrations::MINIMUM;
use crate::rows::{self, Columns as _};
use crate::servers::{self, Beat, Server};
use crate::store::{AsOf, EdgePage, IntentPage, IntentsWaiting, ListHead, Scan};

pub(crate) use connect::Connector;
use connect::{Connections, Lease, within};
pub(crate) use epoch::advance;
use session::PostgresSession;
use statistics::Statistics;

pub(crate) struct PostgresBackend {
    connector: Arc<Connector>,
    /// Two, so that one batch looks while another is written, and neither waits behind reads.
    writers: Connections,
    readers: Connections,
    /// For what must not wait behind either: following the log, looking back at it, and keeping house.
    aside: Connections,
    statistics: Statistics,
}

impl PostgresBackend {
    pub fn new(connector: Arc<Connector>, max_connections: u32) -> Self {
        let some = |pool, at_most| Connections::new(connector.clone(), pool, at_most);
        let (readers, aside) = (some("readers", max_connections.saturating_sub(5)), some("aside", 3));
        Self {
            writers: Connections::of_writers(connector.clone(), 2),
            connector,
            readers,
            aside,
            statistics: Statistics::new(),
        }
    }
}

/// What an error means.
pub(crate) fn fault(error: &sqlx::Error) -> Fault {
    rows::fault(error, is_passing)
}

/// Whether an error of this code is about the server's state, and not about what was asked of it: shutting down, crashed or starting
/// up; connection exceptions; out of connections or space; a standby; an idle transaction that was ended; a statement or the wait for a
/// lock that took too long; one that others stood in the way of.
pub(crate) fn is_passing(code: &str) -> bool {
    ["57P", "08", "53"].iter().any(|class| code.starts_with(class))
        || ["25006", "25P03", "55000", "55P03", "57014", "40001", "40P01"].contains(&code)
}

fn ids(ids: &[ObjectId]) -> Vec<i64> {
    ids.iter().map(|id| id.get()).collect()
}

#[async_trait]
impl Backend for PostgresBackend {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    async fn session(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(PostgresSession::new(&self.writers).await?))
    }

    async fn begin(&self) -> Result<Begun, Fault> {
        let (lease, is_used) = self.writers.take().await?;
        match begin(lease, self.connector.patience).await {
            // It broke without anybody's knowing, as when the server was restarted.
            Err(Fault::Unreachable) if is_used => {
                self.writers.forget();
                begin(self.writers.take().await?.0, self.connector.patience).await
            }
            begun => begun,
        }
    }

    fn wrote(&self, write: &WriteBack) {
        self.statistics.wrote(write);
    }

    async fn keep_statistics(&self) -> Result<(), Fault> {
        self.statistics.keep(&self.aside).await
    }

    async fn beat(&self, server: &Server) -> Result<Beat, Fault> {
        let beat = || {
            let query = query(servers::POSTGRES.beat).bind(server.id).bind(&server.name);
            query.bind(servers::VERSION).bind(server.schema_version)
        };
        self.aside.read(beat).await?;
        self.aside.read(|| query(servers::POSTGRES.forget).bind(servers::KEPT_MS)).await?;
        let rows = self.aside.read(|| query(servers::POSTGRES.running).bind(servers::ALIVE_MS)).await?;
        let running = servers::running(&rows).map_err(|e| fault(&e))?;
        let row = self.aside.read(|| query(MINIMUM)).await?;
        let minimum = row.first().map_or(Ok(0), |row| row.int(0)).map_err(|e| fault(&e))?;
        Ok(Beat { running, minimum })
    }

    async fn leave(&self, server: &Server) -> Result<(), Fault> {
        self.aside.read(|| query(servers::POSTGRES.leave).bind(server.id)).await.map(drop)
    }

    async fn expire_outcomes(&self, before_ms: u64) -> Result<bool, Fault> {
        let sql = "DELETE FROM outcomes WHERE key IN \
                   (SELECT key FROM outcomes WHERE expires_ms < $1 LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1";
        let gone = self.aside.read(|| query(sql).bind(before_ms as i64).bind(EXPIRE_ROWS as i64)).await?;
        Ok(gone.len() >= EXPIRE_ROWS)
    }

    async fn expire_log(&self, cut: LogCut) -> Result<bool, Fault> {
        let sql = "SELECT epoch, last_lsn, committed_ms FROM change_log ORDER BY epoch, first_lsn LIMIT $1";
        let oldest = self.aside.read(|| query(sql).bind(EXPIRE_ROWS as i64)).await?;
        let oldest: Result<Vec<_>, _> = oldest.iter().map(rows::log_age).collect();
        let oldest = oldest.map_err(|e| fault(&e))?;
        let count = cut.count(&oldest);
        if count > 0 {
            let last = oldest[count - 1].0;
            let sql = "DELETE FROM change_log WHERE (epoch, first_lsn) <= ($1, $2)";
            self.aside.read(|| query(sql).bind(last.epoch as i64).bind(last.lsn as i64)).await?;
        }
        Ok(count >= EXPIRE_ROWS)
    }

    async fn log_after(&self, after: Position, max_bytes: usize) -> Result<LogRows, Fault> {
        let sql = "SELECT h.epoch, h.lsn, c.first_lsn, c.last_lsn, c.committed_ms, c.payload FROM log_head h \
                   LEFT JOIN (SELECT *, sum(length(payload)) OVER (ORDER BY first_lsn ROWS UNBOUNDED PRECEDING) - length(payload) AS before \
                       FROM (SELECT first_lsn, last_lsn, committed_ms, payload FROM change_log \
                             WHERE epoch = $1 AND last_lsn > $2 AND first_lsn >= coalesce( \
                                 (SELECT max(first_lsn) FROM change_log WHERE epoch = $1 AND first_lsn <= $2 + 1), 0) \
                             ORDER BY first_lsn LIMIT 1000) n) c ON h.epoch = $1 AND c.before < $3 \
                   ORDER BY c.first_lsn";
        let query = || query(sql).bind(after.epoch as i64).bind(after.lsn as i64).bind(max_bytes as i64);
        rows::log(&self.aside.read(query).await?).map_err(|e| fault(&e))
    }

    async fn log_since(&self, since_ms: u64, max_changes: u64) -> Result<Position, Fault> {
        let sql = "SELECT h.epoch, coalesce(\
                   (SELECT c.first_lsn - 1 FROM change_log c WHERE c.epoch = h.epoch AND c.first_lsn > h.lsn - $2 AND c.committed_ms >= $1 \
                    ORDER BY c.first_lsn LIMIT 1), h.lsn) FROM log_head h";
        let max_changes = max_changes.min(i64::MAX as u64) as i64;
        let rows = self.aside.read(|| query(sql).bind(since_ms as i64).bind(max_changes)).await?;
        rows::head(&rows).map_err(|e| fault(&e))
    }

    async fn begin_epoch(&self, why: NewEpoch) -> Result<Position, Fault> {
        let (mut lease, _) = self.aside.take().await?;
        let begin = epoch::begin(&mut lease.connection, why, &*self.connector.clock);
        let head = within(self.connector.patience, begin).await?;
        lease.give_back();
        Ok(head)
    }

    async fn objects(&self, wanted: &[ObjectId]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Fault> {
        let wanted = ids(wanted);
        let sql = "SELECT h.epoch, h.lsn, o.id, o.otype::bigint, o.version, o.created_ms, o.updated_ms, o.data \
                   FROM log_head h LEFT JOIN objects o ON o.id = ANY($1)";
        let rows = self.readers.read(|| query(sql).bind(&wanted)).await?;
        rows::objects(&rows).map_err(|e| fault(&e))
    }

    async fn list(&self, (id1, atype): ListKey, newest: usize, max_bytes: usize) -> Result<AsOf<ListHead>, Fault> {
        let sql = "SELECT h.epoch, h.lsn, a.id2, a.time, a.data, coalesce(c.count, 0) FROM log_head h \
                   LEFT JOIN assoc_counts c ON c.id1 = $1 AND c.atype = $2 \
                   LEFT JOIN (SELECT *, sum(length(data) + 32) OVER (ORDER BY time DESC, id2 DESC ROWS UNBOUNDED PRECEDING) AS bytes \
                       FROM (SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 \
                             ORDER BY time DESC, id2 DESC LIMIT $3) n) a ON a.bytes <= $4 \
                   ORDER BY a.time DESC, a.id2 DESC";
        let query = || query(sql).bind(id1.get()).bind(atype.0 as i32).bind(newest as i64).bind(max_bytes as i64);
        rows::list(&self.readers.read(query).await?).map_err(|e| fault(&e))
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
        };
        rows::page(&self.readers.read(run).await?, scan.limit, max_bytes).map_err(|e| fault(&e))
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
            query.bind(i64::from(high)).bind((max_bytes + rows::ONE_MORE) as i64)
        };
        rows::page(&self.readers.read(run).await?, id2s.len(), max_bytes).map_err(|e| fault(&e))
    }

    async fn intents(&self, shards: &[ShardId], after: Position, limit: usize) -> Result<IntentPage, Fault> {
        let rows = self.readers.read(|| intents_sql::pg_page(shards, after, limit)).await?;
        intents_sql::page(&rows).map_err(|e| fault(&e))
    }

    async fn intents_waiting(&self) -> Result<IntentsWaiting, Fault> {
        let rows = self.aside.read(|| query(intents_sql::WAITING)).await?;
        intents_sql::waiting(&rows).map_err(|e| fault(&e))
    }

    async fn head(&self) -> Result<Position, Fault> {
        let rows = self.readers.read(|| query("SELECT epoch, lsn FROM log_head")).await?;
        rows::head(&rows).map_err(|e| fault(&e))
    }

    async fn close(&self) {
        for connections in [&self.writers, &self.readers, &self.aside] {
            connections.close().await;
        }
    }
}

async fn begin(mut lease: Lease, patience: Duration) -> Result<Begun, Fault> {
    let row = within(patience, async {
        // Not the server's default, which may be one that sees nothing of what was committed while the row was waited for.
        query("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut lease.connection).await?;
        let sql = "UPDATE log_head SET lsn = lsn RETURNING epoch, lsn, commits, shards_version";
        query(sql).fetch_one(&mut lease.connection).await
    });
    let row = row.await?;
    let head = rows::position(&row, 0).map_err(|e| fault(&e))?;
    let (commits, shards_version) = (row.int(2).map_err(|e| fault(&e))?, row.int(3).map_err(|e| fault(&e))?);
    let base = Base { head, commits, shards_version };
    Ok(Begun { base, transaction: Box::new(PostgresTransaction { lease, patience }) })
}

/// Dropped in the midst of it, the connection is closed, and the server ends the transaction.
struct PostgresTransaction {
    lease: Lease,
    patience: Duration,
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn shards(&mut self) -> Result<Vec<ShardRow>, Fault> {
        let query = query("SELECT shard::bigint, state::bigint, ids_until FROM shards");
        let found = within(self.patience, query.fetch_all(&mut self.lease.connection)).await?;
        found.iter().map(rows::shard).collect::<Result<_, _>>().map_err(|e| fault(&e))
    }

    async fn load(&mut self, wanted: &Wanted) -> Result<Rows, Fault> {
        let statement = look::statement(wanted).fetch_all(&mut self.lease.connection);
        let rows = within(self.patience, statement).await?;
        Ok(look::found(&rows, wanted).map_err(|e| fault(&e))?.1)
    }

    async fn write(&mut self, from: Base, write: &WriteBack) -> Result<(), Fault> {
        let statement = swap::statement(from, write).fetch_optional(&mut self.lease.connection);
        match within(self.patience, statement).await? {
            Some(_) => Ok(()),
            None => {
                tracing::error!(?from, "the log has moved while it was held");
                Err(Fault::Refused)
            }
        }
    }

    async fn commit(mut self: Box<Self>) -> Result<(), Fault> {
        let committed = timeout(self.patience, query("COMMIT").execute(&mut self.lease.connection)).await;
        match committed {
            Ok(Ok(_)) => {
                self.lease.give_back();
                Ok(())
            }
            // It says that it has undone all of it.
            Ok(Err(sqlx::Error::Database(error)))
                if error.code().is_some_and(|code| code.starts_with("23") || code.starts_with("40")) =>
            {
                tracing::error!(%error, "the database refused a commit");
                Err(Fault::Refused)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a commit is in doubt");
                Err(Fault::InDoubt)
            }
            Err(_) => {
                tracing::warn!(patience = ?self.patience, "a commit is in doubt: the database does not answer");
                Err(Fault::InDoubt)
            }
        }
    }

    async fn end(mut self: Box<Self>) {
        if within(self.patience, query("ROLLBACK").execute(&mut self.lease.connection)).await.is_ok() {
            self.lease.give_back();
        }
    }
}
