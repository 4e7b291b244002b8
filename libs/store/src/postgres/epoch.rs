//! Finds out whether PostgreSQL's history is still the one that was seen, and begins an epoch when it is not.

use sqlx::{Connection as _, Error, PgConnection, query};
use tao_model::{Clock, Position};

use crate::epoch::{IDS_AHEAD_MS, NewEpoch, Seen};
use crate::rows::{self, Columns as _};

/// The server's name for itself, and the timeline that it writes; another of either after a restore or a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    system: String,
    timeline: i64,
}

/// Looks at a new connection before anything else is done on it: whatever undoes commits also breaks connections.
pub(crate) async fn check(connection: &mut PgConnection, seen: &Seen, clock: &dyn Clock) -> Result<(), Error> {
    let identity = identity(connection).await?;
    let mark = seen.mark();
    let (first, committed_ms) = mark.row.unwrap_or_default();
    // The log is cut from its beginning only, so with anything of it up to the mark, the mark's own row is there too.
    let sql = "SELECT h.epoch, h.lsn, h.system_id, h.timeline, \
               EXISTS (SELECT 1 FROM change_log WHERE epoch = $1 AND first_lsn <= $3), \
               EXISTS (SELECT 1 FROM change_log WHERE epoch = $1 AND first_lsn = $2 AND last_lsn = $3 AND committed_ms = $4) \
               FROM log_head h";
    let query = query(sql).bind(mark.last.epoch as i64).bind(first as i64).bind(mark.last.lsn as i64);
    let row = query.bind(committed_ms as i64).fetch_one(&mut *connection).await?;
    let head = rows::position(&row, 0)?;
    let known = Identity { system: row.text(2)?, timeline: row.int(3)? };
    let (is_kept, is_same): (bool, bool) = (sqlx::Row::try_get(&row, 4)?, sqlx::Row::try_get(&row, 5)?);

    if let Some(identity) = identity.filter(|identity| *identity != known) {
        adopt(connection, &identity, clock).await?;
    }
    if head < mark.last {
        begin(connection, NewEpoch::Beyond(mark.last), clock).await?;
    } else if head.epoch == mark.last.epoch && mark.row.is_some() && is_kept && !is_same {
        begin(connection, NewEpoch::Differs(head.epoch), clock).await?;
    }
    Ok(())
}

/// `None` where PostgreSQL's own functions are missing or forbidden: then another server can't be told from this one. A standby is
/// an error: nothing can be written to it, and a connection would live on while it is promoted to another timeline.
async fn identity(connection: &mut PgConnection) -> Result<Option<Identity>, Error> {
    let sql = "SELECT system_identifier::text, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()";
    let row = match query(sql).fetch_one(connection).await {
        Ok(row) => row,
        Err(Error::Database(error)) if error.code().as_deref() != Some(IN_RECOVERY) => {
            tracing::debug!(%error, "the database does not say which server and timeline it is on");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let timeline = row.text(1)?.get(..8).and_then(|digits| i64::from_str_radix(digits, 16).ok());
    let timeline = timeline.ok_or_else(|| Error::Decode("the name of a log file without a timeline".into()))?;
    Ok(Some(Identity { system: row.text(0)?, timeline }))
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Object not in prerequisite state: recovery is in progress.
const IN_RECOVERY: &str = "55000";

/// Remembers the server, and begins an epoch unless none was remembered. Of several that find this at once, one does it.
async fn adopt(connection: &mut PgConnection, identity: &Identity, clock: &dyn Clock) -> Result<(), Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let row =
        query("SELECT epoch, lsn, system_id, timeline FROM log_head FOR UPDATE").fetch_one(&mut *transaction).await?;
    let known = Identity { system: row.text(2)?, timeline: row.int(3)? };
    if known != *identity {
        let sql = "UPDATE log_head SET system_id = $1, timeline = $2";
        query(sql).bind(&identity.system).bind(identity.timeline).execute(&mut *transaction).await?;
        if !known.system.is_empty() {
            tracing::warn!(?known, found = ?identity, "the database is on another server or timeline");
            advance(&mut transaction, NewEpoch::Told, rows::position(&row, 0)?, clock).await?;
        }
    }
    transaction.commit().await
}

/// Begins an epoch, if it is still due; gives the log's end.
pub(crate) async fn begin(connection: &mut PgConnection, why: NewEpoch, clock: &dyn Clock) -> Result<Position, Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    let row = query("SELECT epoch, lsn FROM log_head FOR UPDATE").fetch_one(&mut *transaction).await?;
    let mut head = rows::position(&row, 0)?;
    if why.is_due(head) {
        head = advance(&mut transaction, why, head, clock).await?;
    }
    transaction.commit().await?;
    Ok(head)
}

/// Begins an epoch in a transaction that holds the log's end; gives that.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    why: NewEpoch,
    head: Position,
    clock: &dyn Clock,
) -> Result<Position, Error> {
    let now_ms = clock.now_ms();
    let epoch = why.next(head, now_ms);
    tracing::warn!(?why, %head, epoch, "history was undone: a new epoch begins");
    let sql = "UPDATE log_head SET epoch = $1, shards_version = shards_version + 1";
    query(sql).bind(epoch as i64).execute(&mut *connection).await?;
    let sql = "UPDATE shards SET ids_until = $1 WHERE ids_until < $1";
    query(sql).bind((now_ms + IDS_AHEAD_MS) as i64).execute(connection).await?;
    Ok(Position::new(epoch, head.lsn))
}
