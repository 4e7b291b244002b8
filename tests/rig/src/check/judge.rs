//! All checks in their order.

use std::collections::BTreeMap;

use crate::check::{History, Kind, Truth, Violation, reads, writes};

/// What the judge found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Every broken promise.
    pub violations: Vec<Violation>,
    /// Acknowledged writes that the log lacks.
    pub acknowledged_lost: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes of which nobody was told what became of them.
    pub in_doubt: u64,
    /// Reads that were judged.
    pub reads: u64,
}

/// Compares what sessions did and saw with the log.
pub fn judge(truth: &Truth, history: &History) -> Verdict {
    let writes = writes::examine(truth, history);
    let reads = reads::examine(truth, history, &writes.bounds);
    let mut violations = writes.violations;
    violations.extend(reads.violations);
    Verdict {
        violations,
        acknowledged_lost: writes.lost,
        acknowledged: writes.acknowledged,
        in_doubt: writes.in_doubt,
        reads: reads.reads,
    }
}

impl Verdict {
    /// How many there are of each kind.
    pub fn by_kind(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for violation in &self.violations {
            *counts.entry(violation.kind).or_default() += 1;
        }
        counts
    }
}
