//! What a load has met.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Microseconds: more than any call's deadline.
const LONGEST: u64 = 60_000_000;

/// Counts and durations of the calls of some time.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Of reads that were answered, in microseconds.
    pub reads: Histogram<u64>,
    /// Of writes that were answered, in microseconds.
    pub writes: Histogram<u64>,
    /// Reads that were not, and why.
    pub failed_reads: Vec<String>,
    /// Writes that were not, and why.
    pub failed_writes: Vec<String>,
    /// Answers that did not show what their session had written or seen.
    pub wrong: Vec<String>,
    /// Attempts beyond the first.
    pub retries: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|e| unreachable!("{e}"));
        Self {
            reads: histogram(),
            writes: histogram(),
            failed_reads: Vec::new(),
            failed_writes: Vec::new(),
            wrong: Vec::new(),
            retries: 0,
        }
    }
}

impl Tally {
    /// A read was answered.
    pub fn read(&mut self, took: Duration) {
        self.reads.saturating_record(took.as_micros() as u64);
    }

    /// A write was answered.
    pub fn written(&mut self, took: Duration) {
        self.writes.saturating_record(took.as_micros() as u64);
    }

    /// Calls, answered or not.
    pub fn calls(&self) -> u64 {
        self.reads.len() + self.writes.len() + (self.failed_reads.len() + self.failed_writes.len()) as u64
    }
}

/// Milliseconds below which so many of a hundred were.
pub fn percentile(of: &Histogram<u64>, percent: f64) -> f64 {
    of.value_at_percentile(percent) as f64 / 1_000.0
}
