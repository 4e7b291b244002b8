//! Lines for people, and the same for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::memory::Resident;
use super::record::Record;
use crate::target::Role;

/// Two decimals are enough for shares.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// One load.
pub fn line(name: &str, record: &Record) -> String {
    let (sum, seconds) = (record.sum(), record.seconds.len() as f64);
    let rate = |n: u64| n as f64 / seconds;
    let ms = |at: f64| record.latency.value_at_quantile(at) as f64 / 1e3;
    let said: Vec<_> = record.said.iter().map(|(said, n)| format!("{n} × {said}")).collect();
    format!(
        "{name:<18} offered {:>7.0} in time {:>7.0} refused {:>7.0} held back {:>7.0} late {:>6.0} a second; p50 {:>6.1} p99 {:>6.1} ms; generator's lag p99 {:.1} ms {}",
        rate(sum.offered),
        rate(sum.good),
        rate(sum.refused),
        rate(sum.held_back),
        rate(sum.late),
        ms(0.5),
        ms(0.99),
        record.lag.value_at_quantile(0.99) as f64 / 1e3,
        said.join(", "),
    )
}

/// A line a process.
pub fn memory(all: &BTreeMap<Role, Resident>) -> String {
    let line = |(role, m): (&Role, &Resident)| {
        format!("{:<10} {:>5.0} MB at first, {:>5.0} at most, {:>5.0} at last", role.name(), m.first, m.most, m.last)
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// All of a load, by second.
pub fn json(record: &Record) -> Value {
    let (sum, seconds) = (record.sum(), record.seconds.len() as f64);
    let rate = |n: u64| (n as f64 / seconds).round();
    let ms = |at: f64| record.latency.value_at_quantile(at) as f64 / 1e3;
    let lag = |at: f64| record.lag.value_at_quantile(at) as f64 / 1e3;
    json!({
        "per_second": {
            "offered": rate(sum.offered), "in_time": rate(sum.good), "refused": rate(sum.refused),
            "held_back": rate(sum.held_back), "late": rate(sum.late),
        },
        "latency_ms": { "p50": ms(0.5), "p99": ms(0.99), "p999": ms(0.999), "max": record.latency.max() as f64 / 1e3 },
        "generator_lag_ms": { "p50": lag(0.5), "p99": lag(0.99), "max": record.lag.max() as f64 / 1e3 },
        "said": record.said,
        "in_time_by_second": record.seconds.iter().map(|second| second.good).collect::<Vec<_>>(),
    })
}
