//! Empties a database, for a state that is put back. Its history goes on in a new epoch, so that nobody takes the one for the other.

use sqlx::{Connection as _, query};
use tao_model::{Position, SystemClock};

use super::{DirectDatabase, DirectError, Source};
use crate::epoch::NewEpoch;
use crate::open::OpenError;
use crate::rows;
use crate::{postgres, sqlite};

/// Everything but what the database is, how far its log and its ids are, and who has it open.
const EMPTY: [&str; 7] = [
    "DELETE FROM objects",
    "DELETE FROM assocs",
    "DELETE FROM assoc_counts",
    "DELETE FROM change_log",
    "DELETE FROM intents",
    "DELETE FROM intents_done",
    "DELETE FROM outcomes",
];

impl DirectDatabase {
    /// Deletes all objects, edges, and whatever else came of writes, and begins an epoch later than any that has seen `above`; all in
    /// one transaction.
    pub async fn wipe(&self, above: Position) -> Result<Position, DirectError> {
        let why = |head: Position| if head < above { NewEpoch::Beyond(above) } else { NewEpoch::Told };
        match (&self.source, &self.writer) {
            (Source::Postgres(connector), _) => {
                let wiped = async {
                    let mut connection = connector.connect().await?;
                    let mut transaction = connection.begin().await?;
                    let row = query("SELECT epoch, lsn FROM log_head FOR UPDATE").fetch_one(&mut *transaction).await?;
                    let head = rows::position(&row, 0)?;
                    query("TRUNCATE objects, assocs, assoc_counts, change_log, intents, intents_done, outcomes")
                        .execute(&mut *transaction)
                        .await?;
                    let head = postgres::advance(&mut transaction, why(head), head, &SystemClock).await?;
                    transaction.commit().await?;
                    Ok(head)
                };
                wiped.await.map_err(|error| postgres::fault(&error).into())
            }
            (Source::Sqlite(_), Some(writer)) => {
                let wiped = async {
                    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
                    let head =
                        rows::head(&query("SELECT epoch, lsn FROM log_head").fetch_all(&mut *transaction).await?)?;
                    for sql in EMPTY {
                        query(sql).execute(&mut *transaction).await?;
                    }
                    let head = sqlite::advance(&mut transaction, why(head), head, &SystemClock).await?;
                    transaction.commit().await?;
                    Ok(head)
                };
                wiped.await.map_err(|error: sqlx::Error| sqlite::fault(&error).into())
            }
            (Source::Sqlite(_), None) => Err(OpenError::Corrupt("it has no writer").into()),
        }
    }
}
