//! What a round came to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::target::{Hits, Role};

const LONGEST_NS: u64 = 120_000_000_000;
/// Kinds of errors that are told apart.
const KINDS: usize = 20;
/// Characters of an error that are looked at.
const LONGEST_KIND: usize = 160;

/// Latencies and counts of one thread, or of all.
#[derive(Debug)]
pub struct Tally {
    /// Nanoseconds, reads.
    pub reads: Histogram<u64>,
    /// Nanoseconds, writes.
    pub writes: Histogram<u64>,
    /// Requests that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Requests that found something.
    pub found: u64,
    /// Sum over answers.
    pub items: u64,
    /// Sum over answers.
    pub bytes: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Result<Self> {
        // Three digits: a thousandth of what is measured.
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3)?;
        Ok(Self { writes: histogram.clone(), reads: histogram, errors: BTreeMap::new(), found: 0, items: 0, bytes: 0 })
    }

    /// Adds one answer.
    pub fn answered(&mut self, write: bool, latency: Duration) {
        let histogram = if write { &mut self.writes } else { &mut self.reads };
        histogram.saturating_record(latency.as_nanos() as u64);
    }

    /// Adds one failure.
    pub fn failed(&mut self, error: &str) {
        let kind = kind(error);
        let known = self.errors.len() < KINDS || self.errors.contains_key(&kind);
        *self.errors.entry(if known { kind } else { "others".to_owned() }).or_default() += 1;
    }

    /// Adds another's to this.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.reads.add(&other.reads)?;
        self.writes.add(&other.writes)?;
        for (kind, n) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += n;
        }
        self.found += other.found;
        self.items += other.items;
        self.bytes += other.bytes;
        Ok(())
    }
}

/// What is the same for all errors of a kind: the beginning of the first line, a `#` for each number.
fn kind(error: &str) -> String {
    let mut kind = String::new();
    for c in error.lines().next().unwrap_or_default().chars().take(LONGEST_KIND) {
        if !c.is_ascii_digit() {
            kind.push(c);
        } else if !kind.ends_with('#') {
            kind.push('#');
        }
    }
    if kind.is_empty() { "unnamed".to_owned() } else { kind }
}

/// One round of one target.
#[derive(Debug)]
pub struct Round {
    /// How long was measured.
    pub seconds: f64,
    /// Of what was answered in that time.
    pub tally: Tally,
    /// CPU time of each role in that time, microseconds.
    pub cpu_us: BTreeMap<Role, u64>,
    /// Memory of each role afterwards, bytes.
    pub memory: BTreeMap<Role, u64>,
    /// Hits in that time, where there is a cache.
    pub hits: Option<Hits>,
    /// Whether the rings of requests went round, so that some were sent more than once.
    pub repeated: bool,
}

impl Round {
    /// Answers.
    pub fn answers(&self) -> u64 {
        self.tally.reads.len() + self.tally.writes.len()
    }

    /// Failures.
    pub fn errors(&self) -> u64 {
        self.tally.errors.values().sum()
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answers() as f64 / self.seconds
    }

    /// Microseconds of CPU of a role for each answer.
    pub fn cpu_per_op(&self, role: Role) -> f64 {
        self.cpu_us.get(&role).copied().unwrap_or(0) as f64 / self.answers().max(1) as f64
    }

    /// Microseconds of CPU of all but the client for each answer.
    pub fn server_cpu_per_op(&self) -> f64 {
        self.cpu_us.keys().filter(|role| **role != Role::Client).map(|role| self.cpu_per_op(*role)).sum()
    }

    /// Reads and writes together, nanoseconds.
    pub fn latencies(&self) -> Histogram<u64> {
        let mut all = self.tally.reads.clone();
        // Both have the same bounds.
        let _ = all.add(&self.tally.writes);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_kind_are_counted_together() {
        let mut tally = Tally::new().unwrap();
        tally.failed("unavailable: no leader for shard 17");
        tally.failed("unavailable: no leader for shard 18");
        (0..100).for_each(|n: u8| tally.failed(&format!("{}{}", char::from(b'a' + n / 26), char::from(b'a' + n % 26))));
        assert_eq!(tally.errors["unavailable: no leader for shard #"], 2);
        assert_eq!(tally.errors.values().sum::<u64>(), 102);
        assert!(tally.errors.len() <= KINDS + 1 && tally.errors["others"] > 80);
    }

    #[test]
    fn merged_tallies_have_all() {
        let (mut one, mut other) = (Tally::new().unwrap(), Tally::new().unwrap());
        one.answered(false, Duration::from_micros(100));
        other.answered(true, Duration::from_secs(500));
        other.failed("x");
        one.merge(&other).unwrap();
        assert_eq!((one.reads.len(), one.writes.len(), one.errors["x"]), (1, 1, 1));
        assert!(one.writes.max() >= LONGEST_NS);
    }
}
