//! The storage shards that have a database open: what is taken away from it must not be taken from one of them.

use std::fmt;
use std::time::Duration;

use sqlx::Error;

use crate::rows::Columns;

/// How long after its last sign a server is counted as running: three times as long as between two signs.
pub(crate) const ALIVE_MS: i64 = 30_000;
/// How long its row is kept, and what it needs is not taken away: while a database can't be written to, nobody can show that it lives.
/// One that ends removes its row; so only one that was killed is waited for in vain.
pub(crate) const KEPT_MS: i64 = 600_000;
/// Between two signs.
pub(crate) const BEAT: Duration = Duration::from_secs(10);

/// This process's store, for the others.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Drawn at random: names may repeat.
    pub id: i64,
    pub name: String,
    pub schema_version: i64,
}

impl Server {
    pub fn new(name: &str, schema_version: i64) -> Self {
        Self { id: rand::random(), name: name.to_owned(), schema_version }
    }
}

/// The release that this is.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One that was seen lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub name: String,
    pub version: String,
    pub schema_version: i64,
    /// Milliseconds since its last sign.
    pub seen_ms_ago: i64,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, schema_version, seen_ms_ago } = self;
        write!(f, "{name} (tao {version}, schema version {schema_version}, seen {} s ago)", seen_ms_ago / 1_000)
    }
}

/// What a database says to a sign of life.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    /// All that gave one within [`ALIVE_MS`], the asking one too.
    pub running: Vec<Running>,
    /// The oldest schema version that the database serves, read after the sign was there for others to see.
    pub minimum: i64,
}

/// Several, for an operator.
pub(crate) fn list<'a>(servers: impl IntoIterator<Item = &'a Running>) -> String {
    servers.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Columns as [`Statements::running`] has them.
pub(crate) fn running(rows: &[impl Columns]) -> Result<Vec<Running>, Error> {
    let server = |row: &dyn Columns| {
        let (name, version) = (row.text(0)?, row.text(1)?);
        Ok(Running { name, version, schema_version: row.int(2)?, seen_ms_ago: row.int(3)? })
    };
    rows.iter().map(|row| server(row)).collect()
}

/// What is said to a database.
pub(crate) struct Statements {
    /// Writes down that a server lives: its id, name, version and schema version.
    pub beat: &'static str,
    /// Removes the rows of those that have been gone for long: [`KEPT_MS`].
    pub forget: &'static str,
    /// Those that were seen within so many milliseconds.
    pub running: &'static str,
    /// Removes the row of a server.
    pub leave: &'static str,
}

/// By the database's clock, since those of its servers may differ.
macro_rules! statements {
    ($now:literal) => {
        Statements {
            beat: concat!(
                "INSERT INTO servers (id, name, version, schema_version, started_ms, seen_ms) VALUES ($1, $2, $3, $4, ",
                $now,
                ", ",
                $now,
                ") ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms"
            ),
            forget: concat!("DELETE FROM servers WHERE seen_ms < ", $now, " - $1"),
            running: concat!(
                "SELECT name, version, schema_version, ",
                $now,
                " - seen_ms FROM servers \
                 WHERE seen_ms > ",
                $now,
                " - $1 ORDER BY name, id"
            ),
            leave: "DELETE FROM servers WHERE id = $1",
        }
    };
}

pub(crate) const POSTGRES: Statements = statements!("(extract(epoch FROM clock_timestamp()) * 1000)::bigint");
pub(crate) const SQLITE: Statements = statements!("CAST(unixepoch('subsec') * 1000 AS integer)");
