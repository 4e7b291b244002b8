//! What a run says at its end: a table for people, and one JSON object.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use crate::check::Outcome::{Done, InDoubt, NotApplied, Refused};
use crate::check::{History, Kind, Step, Time};
use crate::faults::Injection;
use crate::run::Outcome;

/// Broken promises that are shown in full.
const SHOWN: usize = 20;
/// What goes on before the first fault.
const NO_FAULT: &str = "(none)";

/// What happened while faults of one kind were under way, until the next one began.
#[derive(Debug, Default, Clone)]
struct Line {
    injections: u64,
    operations: u64,
    violations: u64,
    lost: u64,
    read_outage: Time,
    write_outage: Time,
}

/// A stretch of time that a fault is answerable for.
struct Stretch<'a> {
    name: &'a str,
    from: Time,
    to: Time,
}

/// The report of a run.
pub struct Report {
    seed: u64,
    lines: BTreeMap<String, Line>,
    total: Line,
    reads: u64,
    shown: String,
    kinds: BTreeMap<Kind, usize>,
    acknowledged: u64,
    in_doubt: u64,
    changes: u64,
}

impl Report {
    /// Of what came of a run.
    pub fn new(seed: u64, outcome: &Outcome) -> Self {
        let stretches = stretches(&outcome.injections, outcome.ended);
        let at = |time: Time| stretches.partition_point(|s| s.from <= time).saturating_sub(1);
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for injection in &outcome.injections {
            lines.entry(injection.name.clone()).or_default().injections += 1;
        }
        let mut operations = vec![0; stretches.len()];
        let times = Times::of(&outcome.history, outcome.ended, |start| operations[at(start)] += 1);
        for (stretch, operations) in stretches.iter().zip(&operations) {
            let line = lines.entry(stretch.name.to_owned()).or_default();
            line.operations += operations;
            line.read_outage = line.read_outage.max(longest_gap(&times.reads, stretch));
            line.write_outage = line.write_outage.max(longest_gap(&times.writes, stretch));
        }
        for violation in &outcome.verdict.violations {
            let line = lines.entry(stretches[at(violation.time)].name.to_owned()).or_default();
            line.violations += 1;
            line.lost += u64::from(violation.kind == Kind::LostWrite);
        }
        let total = lines.values().fold(Line::default(), |sum, line| Line {
            injections: sum.injections + line.injections,
            operations: sum.operations + line.operations,
            violations: sum.violations + line.violations,
            lost: sum.lost + line.lost,
            read_outage: sum.read_outage.max(line.read_outage),
            write_outage: sum.write_outage.max(line.write_outage),
        });
        let mut shown = String::new();
        for violation in outcome.verdict.violations.iter().take(SHOWN) {
            let _ = writeln!(shown, "{:?} at {} µs: {}", violation.kind, violation.time, violation.text);
        }
        let verdict = &outcome.verdict;
        Self {
            seed,
            lines,
            total,
            reads: verdict.reads,
            shown,
            kinds: verdict.by_kind(),
            acknowledged: verdict.acknowledged,
            in_doubt: verdict.in_doubt,
            changes: outcome.changes,
        }
    }

    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.total.violations == 0 && self.total.lost == 0
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = self.shown.clone();
        let _ = writeln!(
            text,
            "{:<36}{:>7}{:>12}{:>12}{:>7}{:>16}{:>16}",
            "fault", "times", "operations", "violations", "lost", "no reads, ms", "no writes, ms"
        );
        for (name, line) in self.lines.iter().chain([(&"all".to_owned(), &self.total)]) {
            let Line { injections, operations, violations, lost, read_outage, write_outage } = line;
            let (reads, writes) = (read_outage / 1_000, write_outage / 1_000);
            let _ = writeln!(
                text,
                "{name:<36}{injections:>7}{operations:>12}{violations:>12}{lost:>7}{reads:>16}{writes:>16}"
            );
        }
        for (kind, count) in &self.kinds {
            let _ = writeln!(text, "{kind:?}: {count}");
        }
        text
    }

    /// For programs: one line.
    pub fn json(&self) -> String {
        json!({
            "seed": self.seed,
            "operations": self.total.operations,
            "reads": self.reads,
            "acknowledged_writes": self.acknowledged,
            "writes_in_doubt": self.in_doubt,
            "changes": self.changes,
            "injections": self.total.injections,
            "violations": self.total.violations,
            "acknowledged_lost": self.total.lost,
            "longest_read_outage_ms": self.total.read_outage / 1_000,
            "longest_write_outage_ms": self.total.write_outage / 1_000,
        })
        .to_string()
    }
}

fn stretches(injections: &[Injection], end: Time) -> Vec<Stretch<'_>> {
    let first = injections.first().map_or(end, |i| i.start);
    let mut stretches = vec![Stretch { name: NO_FAULT, from: 0, to: first }];
    for (n, injection) in injections.iter().enumerate() {
        let to = injections.get(n + 1).map_or(end, |next| next.start);
        stretches.push(Stretch { name: &injection.name, from: injection.start, to });
    }
    stretches
}

/// When calls were answered, in order.
struct Times {
    reads: Vec<Time>,
    writes: Vec<Time>,
}

impl Times {
    fn of(history: &History, ended: Time, mut began: impl FnMut(Time)) -> Self {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for step in history.sessions.iter().flat_map(|s| &s.steps) {
            match step {
                Step::Read(read) if !read.continued && read.start <= ended => {
                    began(read.start);
                    reads.push(read.end);
                }
                Step::Read(_) | Step::Odd(_) => {}
                Step::Write(write) => {
                    began(write.start);
                    match write.outcome {
                        Done(_) | Refused => writes.push(write.end),
                        InDoubt | NotApplied => {}
                    }
                }
                Step::Failed(failed) => began(failed.start),
            }
        }
        reads.sort_unstable();
        writes.sort_unstable();
        Self { reads, writes }
    }
}

/// The longest time within a stretch in which nothing was answered, of what lies between two answers.
fn longest_gap(answered: &[Time], stretch: &Stretch<'_>) -> Time {
    let first = answered.partition_point(|t| *t < stretch.from).saturating_sub(1);
    let gaps = answered[first..].windows(2).take_while(|pair| pair[0] < stretch.to);
    gaps.map(|pair| pair[1].min(stretch.to) - pair[0].max(stretch.from)).max().unwrap_or(0)
}
