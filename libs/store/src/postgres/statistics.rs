//! Keeps PostgreSQL's statistics of the graph's tables fresh: autovacuum looks once a minute, and plans reads of a table that was
//! filled since as if it were empty.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, query};
use tokio::time::timeout;

use super::connect::Connections;
use super::fault;
use crate::backend::{Fault, WriteBack};

/// Rows below which it is left to autovacuum.
const ENOUGH: u64 = 10_000;
/// A table is looked at anew when so many of its rows, one of this, were written.
const PART: u64 = 10;
/// In milliseconds, and as the server takes it. It reads a bounded sample of a table.
const LONGEST: std::time::Duration = std::time::Duration::from_mins(5);
const LONGEST_SQL: &str = "SET statement_timeout = '5min'";

/// What this process has written to a table.
struct Table {
    name: &'static str,
    /// Since the last look.
    written: AtomicU64,
    /// As of the last look.
    rows: AtomicU64,
}

impl Table {
    const fn new(name: &'static str) -> Self {
        Self { name, written: AtomicU64::new(0), rows: AtomicU64::new(0) }
    }

    fn is_due(&self, is_calm: bool) -> bool {
        let (written, rows) = (self.written.load(Ordering::Relaxed), self.rows.load(Ordering::Relaxed));
        written >= ENOUGH && (is_calm || written >= rows / PART)
    }
}

/// See the module.
pub(super) struct Statistics {
    objects: Table,
    assocs: Table,
    counts: Table,
    /// Whether anything was written since the last time.
    is_busy: AtomicBool,
}

impl Statistics {
    pub const fn new() -> Self {
        Self {
            objects: Table::new("objects"),
            assocs: Table::new("assocs"),
            counts: Table::new("assoc_counts"),
            is_busy: AtomicBool::new(false),
        }
    }

    /// A commit has happened.
    pub fn wrote(&self, write: &WriteBack) {
        let rows = [write.objects.len(), write.assocs.len(), write.counts.len()];
        for (table, rows) in [&self.objects, &self.assocs, &self.counts].into_iter().zip(rows) {
            table.written.fetch_add(rows as u64, Ordering::Relaxed);
        }
        self.is_busy.store(true, Ordering::Relaxed);
    }

    /// Looks at the tables of which much was written: at once when it is a good part, and as soon as writes calm down in any case.
    pub async fn keep(&self, connections: &Connections) -> Result<(), Fault> {
        let is_calm = !self.is_busy.swap(false, Ordering::Relaxed);
        for table in [&self.objects, &self.assocs, &self.counts] {
            if table.is_due(is_calm) {
                let written = table.written.swap(0, Ordering::Relaxed);
                let rows = analyze(connections, table.name).await?;
                tracing::debug!(table = table.name, written, rows, "statistics are fresh");
                table.rows.store(rows, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Gives about how many rows there are.
async fn analyze(connections: &Connections, table: &'static str) -> Result<u64, Fault> {
    let (mut lease, _) = connections.take().await?;
    let run = async {
        query(LONGEST_SQL).execute(&mut lease.connection).await?;
        query(AssertSqlSafe(format!("ANALYZE {table}"))).execute(&mut lease.connection).await?;
        query("RESET statement_timeout").execute(&mut lease.connection).await?;
        let rows = query("SELECT reltuples::bigint FROM pg_class WHERE oid = $1::regclass").bind(table);
        sqlx::Row::try_get::<i64, _>(&rows.fetch_one(&mut lease.connection).await?, 0)
    };
    // Dropped in the midst of it, the connection is closed.
    let rows = timeout(LONGEST, run).await.map_err(|_| Fault::Unreachable)?.map_err(|e| fault(&e))?;
    lease.give_back();
    Ok(u64::try_from(rows).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_due_when_a_part_of_it_was_written_or_all_is_calm() {
        let table = Table::new("t");
        table.written.store(ENOUGH - 1, Ordering::Relaxed);
        assert!(!table.is_due(true), "left to autovacuum");
        table.written.store(ENOUGH, Ordering::Relaxed);
        assert!(table.is_due(false), "it was empty when last looked at");
        table.rows.store(ENOUGH * PART + PART, Ordering::Relaxed);
        assert!(!table.is_due(false) && table.is_due(true));
        table.written.store(ENOUGH + 1, Ordering::Relaxed);
        assert!(table.is_due(false));
    }
}
