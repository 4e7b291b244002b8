//! Connections to PostgreSQL: what each is set to, what is looked at before it is used, and how it is given up when it hangs.
//!
//! Not sqlx's pool, which asks a connection for a sign of life whenever it comes back: a round trip a read, and no end of waiting
//! when the server's host has vanished.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Gauge, Histogram, gauge, histogram};
use parking_lot::Mutex;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection as _, Error, PgConnection, Postgres, query};
use tao_model::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::epoch::check;
use super::fault;
use crate::backend::Fault;
use crate::epoch::Seen;

/// Until a connection is had.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two attempts meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// Makes connections.
pub(crate) struct Connector {
    options: PgConnectOptions,
    /// The longest that a statement may take.
    pub patience: Duration,
    pub seen: Arc<Seen>,
    pub clock: Arc<dyn Clock>,
}

impl Connector {
    pub fn new(options: PgConnectOptions, patience: Duration, seen: Arc<Seen>, clock: Arc<dyn Clock>) -> Self {
        let ms = patience.as_millis().to_string();
        // Each commit is durable when it is acknowledged, whatever the server's default is. A process that stops in the midst of a
        // transaction holds the log's end, and others up, no longer than this.
        let options = options.application_name("tao-shard").options([
            ("synchronous_commit", "on"),
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", &ms),
            ("lock_timeout", &ms),
            ("idle_in_transaction_session_timeout", &ms),
        ]);
        Self { options, patience, seen, clock }
    }

    /// Connects, whatever is there; waits a little for a server that is just starting.
    pub async fn plain(&self) -> Result<PgConnection, Error> {
        let until = Instant::now() + CONNECT;
        let mut before = None;
        loop {
            let error = match timeout_at(until, PgConnection::connect_with(&self.options)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                // The last attempt was begun too late: what the one before was told says more.
                Err(_) => return Err(before.unwrap_or(Error::PoolTimedOut)),
            };
            let is_starting = match &error {
                Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
                Error::Database(error) => error.is_transient_in_connect_phase(),
                _ => false,
            };
            if !is_starting || Instant::now() + AGAIN >= until {
                return Err(error);
            }
            before = Some(error);
            sleep(AGAIN).await;
        }
    }

    /// Connects to a database whose history goes on from what is known of it, if need be in a new epoch.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = self.plain().await?;
        let checked = async {
            keep_alive(&mut connection).await?;
            check(&mut connection, &self.seen, &*self.clock).await
        };
        timeout(CONNECT.max(self.patience), checked).await.map_err(|_| Error::PoolTimedOut)??;
        Ok(connection)
    }
}

/// Has the server notice within seconds that this host has vanished; where it can't be told so, that is no reason not to be served.
async fn keep_alive(connection: &mut PgConnection) -> Result<(), Error> {
    let sql = "SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false), \
               set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)";
    match query(sql).execute(connection).await {
        Ok(_) | Err(Error::Database(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Has the lane's statements planned once, for look-ups by key: one that was planned while a table was small must not read all of it
/// when it has grown. Costs that are made up to that end must not have it compiled either.
async fn by_key(connection: &mut PgConnection) -> Result<(), Error> {
    let sql = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false), \
               set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false)";
    match query(sql).execute(connection).await {
        // Where these are not known, statements are planned as they are anyway.
        Ok(_) | Err(Error::Database(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Some connections, made as they are needed.
#[derive(Clone)]
pub(crate) struct Connections {
    connector: Arc<Connector>,
    /// Whether they are for the lane.
    are_writers: bool,
    idle: Arc<Mutex<Vec<PgConnection>>>,
    permits: Arc<Semaphore>,
    metrics: Arc<PoolMetrics>,
}

/// What is measured of a pool.
struct PoolMetrics {
    in_use: Gauge,
    /// Seconds until a connection is had, those that are made included.
    wait: Histogram,
}

impl Connections {
    /// For this, as a label of metrics.
    pub fn new(connector: Arc<Connector>, pool: &'static str, at_most: u32) -> Self {
        let at_most = at_most.max(1);
        gauge!("tao_store_connections_limit", "pool" => pool).set(f64::from(at_most));
        let metrics = PoolMetrics {
            in_use: gauge!("tao_store_connections_in_use", "pool" => pool),
            wait: histogram!("tao_store_connection_wait_seconds", "pool" => pool),
        };
        let permits = Arc::new(Semaphore::new(at_most as usize));
        Self { connector, are_writers: false, idle: Arc::default(), permits, metrics: Arc::new(metrics) }
    }

    /// The same for the lane.
    pub fn of_writers(connector: Arc<Connector>, at_most: u32) -> Self {
        Self { are_writers: true, ..Self::new(connector, "writers", at_most) }
    }

    /// The longest that a statement may take.
    pub fn patience(&self) -> Duration {
        self.connector.patience
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = self.connector.connect().await?;
        if self.are_writers {
            timeout(self.patience(), by_key(&mut connection)).await.map_err(|_| Error::PoolTimedOut)??;
        }
        Ok(connection)
    }

    /// One that is free, or a new one; the flag says whether it was used before, and so may be broken without anybody's knowing.
    pub async fn take(&self) -> Result<(Lease, bool), Fault> {
        let began = Instant::now();
        let permit = timeout(CONNECT, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| Error::PoolTimedOut).and_then(|p| p.map_err(|_| Error::PoolClosed));
        let permit = permit.map_err(|error| fault(&error))?;
        let idle = self.idle.lock().pop();
        let is_used = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await.map_err(|error| fault(&error))?,
        };
        self.metrics.wait.record(began.elapsed());
        self.metrics.in_use.increment(1.0);
        let place = Place { metrics: self.metrics.clone(), _permit: permit };
        Ok((Lease { connection, idle: self.idle.clone(), _place: place }, is_used))
    }

    /// Those that are free are dropped, since one of them turned out to be broken.
    pub fn forget(&self) {
        self.idle.lock().clear();
    }

    /// Runs a statement that only reads; once more on a new connection when an old one was broken, as after the server's restart.
    pub async fn read<'q>(&self, query: impl Fn() -> Query<'q, Postgres, PgArguments>) -> Result<Vec<PgRow>, Fault> {
        let (mut lease, is_used) = self.take().await?;
        let mut rows = within(self.connector.patience, query().fetch_all(&mut lease.connection)).await;
        if is_used && matches!(rows, Err(Fault::Unreachable)) {
            drop(lease);
            self.forget();
            lease = self.take().await?.0;
            rows = within(self.connector.patience, query().fetch_all(&mut lease.connection)).await;
        }
        if rows.is_ok() {
            lease.give_back();
        }
        rows
    }

    /// Nothing is given any more; whoever waits hears so.
    pub async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in idle {
            let _ = timeout(CONNECT, connection.close()).await;
        }
    }
}

/// A connection in use. It comes back by [`Lease::give_back`]; dropped, it is closed, and with it whatever it was in the midst of.
pub(crate) struct Lease {
    pub connection: PgConnection,
    idle: Arc<Mutex<Vec<PgConnection>>>,
    _place: Place,
}

/// One of the connections that there may be.
struct Place {
    metrics: Arc<PoolMetrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_use.decrement(1.0);
    }
}

impl Lease {
    /// It is as good as new.
    pub fn give_back(self) {
        self.idle.lock().push(self.connection);
    }
}

/// What hangs for longer than the server would let it is given up.
pub(crate) async fn within<T>(patience: Duration, run: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    match timeout(patience, run).await {
        Ok(done) => done.map_err(|error| fault(&error)),
        Err(_) => {
            tracing::warn!(?patience, "the database does not answer");
            Err(Fault::Unreachable)
        }
    }
}
