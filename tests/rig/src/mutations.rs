//! Each coherence rule turned off in the real processes, one at a time: the judge must notice.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tao_model::mutation::Rule;

/// What came of one rule.
pub struct Found {
    rule: &'static str,
    /// Seconds of load in the run that noticed; `None` when none did.
    caught_within: Option<u64>,
    /// Of that run, or of the last.
    violations: u64,
    operations: u64,
    took: Duration,
}

/// Runs the load and the faults against processes without a rule, at first for a short time, then for longer, until it is noticed.
/// Each run is a process of its own, whose servers inherit what it is told.
pub fn run(rules: &[String], seed: u64, times: &[u64], more: &[String]) -> Result<Vec<Found>> {
    for name in rules {
        ensure!(Rule::ALL.iter().any(|rule| rule.name() == name), "{name} names no rule");
    }
    let all = Rule::ALL.iter().map(|rule| rule.name());
    let chosen = all.filter(|name| rules.is_empty() || rules.iter().any(|rule| rule == name));
    chosen.map(|rule| without(rule, seed, times, more)).collect()
}

fn without(rule: &'static str, seed: u64, times: &[u64], more: &[String]) -> Result<Found> {
    let began = Instant::now();
    let mut found = Found { rule, caught_within: None, violations: 0, operations: 0, took: Duration::ZERO };
    for seconds in times {
        let program = std::env::current_exe()?;
        let mut command = Command::new(program);
        command.args(["faults", "--seconds", &seconds.to_string(), "--seed", &seed.to_string()]).args(more);
        command.env("TAO_MUTATION", rule).stderr(Stdio::null());
        let output = command.output().context("can't run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // 1: a promise was broken. Anything else that is not 0 was no run that could be judged.
        let code = output.status.code();
        ensure!(matches!(code, Some(0 | 1)), "the run without {rule} can't be judged: {}", output.status);
        let last: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let number = |name: &str| last.as_ref().and_then(|last| last[name].as_u64()).unwrap_or(0);
        found.operations += number("operations");
        found.violations = number("violations");
        if code == Some(1) {
            found.caught_within = Some(*seconds);
            break;
        }
    }
    found.took = began.elapsed();
    eprintln!("{}", found.line());
    Ok(found)
}

impl Found {
    /// Whether the judge noticed.
    pub const fn is_caught(&self) -> bool {
        self.caught_within.is_some()
    }

    fn line(&self) -> String {
        let caught = self.caught_within.map_or("not caught".to_owned(), |seconds| format!("within {seconds} s"));
        let Self { rule, violations, operations, took, .. } = self;
        format!("{rule:<28}{caught:>14}{operations:>14}{violations:>14}{:>12}", took.as_secs())
    }
}

/// For people.
pub fn table(found: &[Found]) -> String {
    let mut text =
        format!("{:<28}{:>14}{:>14}{:>14}{:>12}\n", "rule turned off", "caught", "operations", "violations", "took, s");
    for found in found {
        let _ = writeln!(text, "{}", found.line());
    }
    text
}

/// For programs: one line.
pub fn json(seed: u64, found: &[Found]) -> String {
    let names = |caught| {
        let those = found.iter().filter(|found| found.is_caught() == caught);
        those.map(|found| found.rule).collect::<Vec<_>>()
    };
    json!({ "seed": seed, "caught": names(true), "not_caught": names(false) }).to_string()
}
