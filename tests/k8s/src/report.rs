//! What was disturbed, and what clients saw of it.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Tally, percentile};

/// The disturbance in which writes may fail, as long as their callers are told: nobody can write while the database is away.
pub const DATABASE_GONE: &str = "pod deleted: postgres-0";

/// A disturbance, and the calls that were made meanwhile.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// From its beginning until all was well again.
    pub took: Duration,
    /// The calls.
    pub tally: Tally,
    /// Programs that ended by themselves, or more often than they were killed, and were started again in their pods.
    pub restarts: u64,
}

/// Everything that was done to one load.
#[derive(Debug, Default)]
pub struct Report {
    /// In their order; the first of them is the quiet time before.
    pub rows: Vec<Row>,
    /// Acknowledged writes that were not there at the end.
    pub lost: Vec<String>,
}

impl Row {
    /// Calls that failed break a promise, and so does silence: with nothing answered, nothing was shown.
    fn is_clean(&self) -> bool {
        let Tally { reads, writes, failed_reads, failed_writes, wrong, .. } = &self.tally;
        let may_fail = self.what == DATABASE_GONE;
        let answers = !reads.is_empty() && !writes.is_empty();
        answers
            && self.restarts == 0
            && failed_reads.is_empty()
            && (may_fail || failed_writes.is_empty())
            && wrong.is_empty()
    }
}

impl Report {
    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && !self.rows.is_empty() && self.rows.iter().all(Row::is_clean)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| disturbance | seconds | requests | failed reads | failed writes | wrong answers | crashes | retries | read p50 ms | read p99 ms | write p99 ms |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for Row { what, took, tally, restarts } in &self.rows {
            writeln!(
                text,
                "| {what} | {:.0} | {} | {} | {} | {} | {restarts} | {} | {:.1} | {:.1} | {:.1} |",
                took.as_secs_f64(),
                tally.calls(),
                tally.failed_reads.len(),
                tally.failed_writes.len(),
                tally.wrong.len(),
                tally.retries,
                percentile(&tally.reads, 50.0),
                percentile(&tally.reads, 99.0),
                percentile(&tally.writes, 99.0),
            )
            .ok();
        }
        writeln!(text, "\nwrites lost: {}", self.lost.len()).ok();
        for row in &self.rows {
            let bad = row.tally.wrong.iter().chain(&row.tally.failed_reads).chain(&row.tally.failed_writes);
            for line in bad.take(5) {
                writeln!(text, "{}: {line}", row.what).ok();
            }
        }
        for line in self.lost.iter().take(20) {
            writeln!(text, "lost: {line}").ok();
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({ "rows": rows, "writes_lost": self.lost.len(), "clean": self.is_clean() })
    }
}

fn row(Row { what, took, tally, restarts }: &Row) -> Value {
    json!({
        "disturbance": what, "seconds": took.as_secs_f64(), "requests": tally.calls(),
        "failed_reads": tally.failed_reads.len(), "failed_writes": tally.failed_writes.len(),
        "wrong_answers": tally.wrong.len(), "retries": tally.retries, "crashes": restarts,
        "read_p50_ms": percentile(&tally.reads, 50.0), "read_p99_ms": percentile(&tally.reads, 99.0),
        "write_p99_ms": percentile(&tally.writes, 99.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_breaks_a_promise_shows() {
        let report = |change: fn(&mut Report)| {
            let mut tally = Tally::default();
            tally.read(Duration::from_millis(1));
            tally.written(Duration::from_millis(1));
            let row = Row { what: "quiet".to_owned(), took: Duration::ZERO, tally, restarts: 0 };
            let mut report = Report { rows: vec![row], lost: Vec::new() };
            change(&mut report);
            report
        };
        assert!(report(|_| {}).is_clean());
        let without_database = |r: &mut Report| {
            r.rows[0].what = DATABASE_GONE.to_owned();
            r.rows[0].tally.failed_writes.push("refused".to_owned());
        };
        assert!(report(without_database).is_clean());
        let breaks: [fn(&mut Report); 8] = [
            |r| r.rows.clear(),
            |r| r.lost.push("an edge".to_owned()),
            |r| r.rows[0].restarts = 1,
            |r| r.rows[0].tally.wrong.push("an old value".to_owned()),
            |r| r.rows[0].tally.failed_reads.push("no answer".to_owned()),
            |r| r.rows[0].tally.failed_writes.push("refused".to_owned()),
            |r| r.rows[0].tally.reads.reset(),
            |r| r.rows[0].tally.writes.reset(),
        ];
        for change in breaks {
            let broken = report(change);
            assert!(!broken.is_clean() && broken.json()["clean"] == false, "{}", broken.table());
        }
    }

    #[test]
    fn times_are_in_milliseconds() {
        let mut tally = Tally::default();
        tally.read(Duration::from_millis(20));
        tally.written(Duration::from_secs(600));
        assert!((19.9..20.1).contains(&percentile(&tally.reads, 50.0)));
        assert!(percentile(&tally.writes, 99.0) >= 59_000.0);
        assert_eq!(tally.calls(), 2);
    }
}
