//! PostgreSQL connections of one thread.

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 256;

/// A fixed number of connections, made at the start, handed out last in, first out. Leaner than sqlx's pool, which spawns a task whenever
/// a connection comes back.
pub struct Connections {
    options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

/// A connection that is given back with [`Lease::done`]; dropped, it is closed, since nobody knows what it still waits for.
pub struct Lease<'a> {
    connection: PgConnection,
    from: &'a Connections,
    _permit: SemaphorePermit<'a>,
}

impl Connections {
    /// Connects `size` times.
    pub async fn open(url: &str, size: usize) -> Result<Self> {
        // A plan a statement, not one an execution: all are looked up by key.
        let options = url
            .parse::<PgConnectOptions>()?
            .statement_cache_capacity(STATEMENTS)
            .options([("synchronous_commit", "on"), ("plan_cache_mode", "force_generic_plan")]);
        let mut idle = Vec::with_capacity(size);
        for _ in 0..size {
            idle.push(PgConnection::connect_with(&options).await.context("can't connect to PostgreSQL")?);
        }
        Ok(Self { options, idle: Mutex::new(idle), permits: Semaphore::new(size) })
    }

    /// One that is free, as soon as there is one.
    pub async fn take(&self) -> Result<Lease<'_>> {
        let permit = self.permits.acquire().await?;
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.options).await.context("can't connect to PostgreSQL")?,
        };
        Ok(Lease { connection, from: self, _permit: permit })
    }
}

impl Lease<'_> {
    /// The connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives it back, unless the work on it ended in an error.
    pub fn done<T>(self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.is_ok() {
            self.from.idle.lock().push(self.connection);
        }
        result
    }
}
