//! A commit of two round trips on one connection, so that a look notices a connection which broke before anything is written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgSeverity;
use tokio::time::timeout;

use super::connect::{Connections, Lease, within};
use super::{fault, look, swap};
use crate::backend::{Base, Fault, Rows, Session, Wanted, WriteBack};

/// The server gives a statement up first, and says that it has not happened.
const SERVER_FIRST: Duration = Duration::from_millis(500);

pub(super) struct PostgresSession {
    writers: Connections,
    /// `None`: it broke.
    lease: Option<Lease>,
    /// It may have broken without anybody's knowing, as when the server was restarted.
    is_used: bool,
}

impl PostgresSession {
    pub async fn new(writers: &Connections) -> Result<Self, Fault> {
        let (lease, is_used) = writers.take().await?;
        Ok(Self { writers: writers.clone(), lease: Some(lease), is_used })
    }

    async fn look_once(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault> {
        // Dropped in the midst of it, the connection is closed.
        let mut lease = self.lease.take().ok_or(Fault::Unreachable)?;
        let statement = look::statement(wanted).fetch_all(&mut lease.connection);
        let rows = within(self.writers.patience(), statement).await?;
        self.lease = Some(lease);
        look::found(&rows, wanted).map_err(|e| fault(&e))
    }
}

#[async_trait]
impl Session for PostgresSession {
    async fn look(&mut self, wanted: &Wanted) -> Result<(Base, Rows), Fault> {
        let found = self.look_once(wanted).await;
        if !(self.is_used && self.lease.is_none() && matches!(found, Err(Fault::Unreachable))) {
            self.is_used = false;
            return found;
        }
        self.is_used = false;
        self.writers.forget();
        self.lease = Some(self.writers.take().await?.0);
        self.look_once(wanted).await
    }

    async fn swap(mut self: Box<Self>, from: Base, write: Arc<WriteBack>) -> Result<bool, Fault> {
        let mut lease = self.lease.take().ok_or(Fault::Unreachable)?;
        let patience = self.writers.patience() + SERVER_FIRST;
        let statement = swap::statement(from, &write).fetch_optional(&mut lease.connection);
        match timeout(patience, statement).await {
            Ok(Ok(row)) => {
                lease.give_back();
                Ok(row.is_some())
            }
            // The server is there and says that the statement failed, and so all of it is undone.
            Ok(Err(sqlx::Error::Database(error)))
                if error
                    .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
                    .is_some_and(|e| e.severity() == PgSeverity::Error) =>
            {
                lease.give_back();
                Err(fault(&sqlx::Error::Database(error)))
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a commit is in doubt");
                Err(Fault::InDoubt)
            }
            Err(_) => {
                tracing::warn!(?patience, "a commit is in doubt: the database does not answer");
                Err(Fault::InDoubt)
            }
        }
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}
