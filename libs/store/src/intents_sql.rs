//! The tables of intents in both SQL databases.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Error, Postgres, Sqlite, SqliteConnection, query};
use tao_model::{LogId, Position, ShardId};

use crate::backend::{Rows, Wanted, WriteBack};
use crate::rows::{Columns, position};
use crate::store::{IntentPage, IntentsWaiting, StoredIntent};

/// Columns: epoch and number of the last of all, then an intent's or nulls: epoch, number, shard, payload.
pub(crate) fn page(rows: &[impl Columns]) -> Result<IntentPage, Error> {
    let first = rows.first().ok_or_else(|| Error::Decode("log_head has no row".into()))?;
    let mut page = IntentPage { head: position(first, 0)?, intents: Vec::with_capacity(rows.len()) };
    for row in rows {
        if row.maybe_int(2)?.is_some() {
            page.intents.push(StoredIntent {
                position: position(row, 2)?,
                shard: ShardId(row.int(4)? as u32),
                payload: row.bytes(5)?.into(),
            });
        }
    }
    Ok(page)
}

/// Columns: count, oldest.
pub(crate) fn waiting(rows: &[impl Columns]) -> Result<IntentsWaiting, Error> {
    let row = rows.first().ok_or(Error::RowNotFound)?;
    Ok(IntentsWaiting { count: row.int(0)? as u64, oldest_ms: row.maybe_int(1)?.map(|ms| ms as u64) })
}

/// Columns: source_log, epoch, number.
fn done(row: &impl Columns) -> Result<(LogId, Position), Error> {
    Ok((LogId(row.int(0)? as u32), position(row, 1)?))
}

fn numbers(shards: &[ShardId]) -> Vec<i32> {
    shards.iter().map(|shard| shard.0 as i32).collect()
}

fn json(numbers: impl IntoIterator<Item = u32>) -> String {
    let numbers: Vec<_> = numbers.into_iter().map(|n| n.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// One snapshot; see [`page`].
pub(crate) fn pg_page<'q>(shards: &[ShardId], after: Position, limit: usize) -> Query<'q, Postgres, PgArguments> {
    let sql = "SELECT h.epoch, h.intents, i.epoch, i.number, i.shard::bigint, i.payload FROM log_head h \
               LEFT JOIN (SELECT epoch, number, shard, payload FROM intents WHERE (epoch, number) > ($1, $2) \
                          AND shard = ANY($3) ORDER BY epoch, number LIMIT $4) i ON true ORDER BY i.epoch, i.number";
    query(sql).bind(after.epoch as i64).bind(after.lsn as i64).bind(numbers(shards)).bind(limit as i64)
}

/// One snapshot; see [`page`].
pub(crate) fn sqlite_page<'q>(shards: &[ShardId], after: Position, limit: usize) -> Query<'q, Sqlite, SqliteArguments> {
    let sql = "SELECT h.epoch, h.intents, i.epoch, i.number, i.shard, i.payload FROM log_head h \
               LEFT JOIN (SELECT epoch, number, shard, payload FROM intents WHERE (epoch, number) > (?1, ?2) \
                          AND shard IN (SELECT value FROM json_each(?3)) ORDER BY epoch, number LIMIT ?4) i ON true \
               ORDER BY i.epoch, i.number";
    let shards = json(shards.iter().map(|shard| shard.0));
    query(sql).bind(after.epoch as i64).bind(after.lsn as i64).bind(shards).bind(limit as i64)
}

/// See [`waiting`].
pub(crate) const WAITING: &str = "SELECT count(*), min(created_ms) FROM intents";

pub(crate) async fn sqlite_load(
    connection: &mut SqliteConnection,
    wanted: &Wanted,
    found: &mut Rows,
) -> Result<(), Error> {
    if wanted.intents || !wanted.done.is_empty() {
        found.intents = query("SELECT intents FROM log_head").fetch_one(&mut *connection).await?.int(0)? as u64;
    }
    if !wanted.done.is_empty() {
        let sources = json(wanted.done.iter().map(|log| log.0));
        let sql =
            "SELECT source_log, epoch, number FROM intents_done WHERE source_log IN (SELECT value FROM json_each(?1))";
        for row in query(sql).bind(sources).fetch_all(&mut *connection).await? {
            found.done.extend([done(&row)?]);
        }
    }
    Ok(())
}

pub(crate) async fn sqlite_write(connection: &mut SqliteConnection, write: &WriteBack) -> Result<(), Error> {
    if let Some(delivered) = &write.delivered {
        let sql =
            "DELETE FROM intents WHERE (epoch, number) <= (?1, ?2) AND shard IN (SELECT value FROM json_each(?3))";
        let query = query(sql).bind(delivered.up_to.epoch as i64).bind(delivered.up_to.lsn as i64);
        query.bind(json(delivered.shards.iter().map(|shard| shard.0))).execute(&mut *connection).await?;
    }
    for intent in &write.intents {
        let sql = "INSERT INTO intents (epoch, number, shard, created_ms, payload) VALUES (?1, ?2, ?3, ?4, ?5)";
        let insert = query(sql).bind(intent.position.epoch as i64).bind(intent.position.lsn as i64);
        let insert = insert.bind(i64::from(intent.shard.0)).bind(intent.created_ms as i64).bind(&intent.payload);
        insert.execute(&mut *connection).await?;
    }
    for (source, position) in &write.done {
        let sql = "INSERT OR REPLACE INTO intents_done (source_log, epoch, number) VALUES (?1, ?2, ?3)";
        let query = query(sql).bind(i64::from(source.0)).bind(position.epoch as i64).bind(position.lsn as i64);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
