//! The table for people.

use std::fmt::Write as _;

use super::{ROLES, hit_rate, latency_us, middle};
use crate::fleet::Measured;
use crate::run::Round;
use crate::target::Role;

/// A line a target: medians over its rounds, and how far the rates of rounds lie apart.
pub fn table(title: &str, all: &[Measured]) -> String {
    let roles: Vec<Role> = ROLES
        .into_iter()
        .filter(|role| all.iter().any(|one| one.rounds.iter().any(|round| round.cpu_us.contains_key(role))))
        .collect();
    let mut out = format!(
        "{title}\n{:<16}{:>10}{:>8}{:>10}{:>10}{:>10}{:>8}{:>7}{:>7}",
        "", "per s", "spread", "p50 µs", "p99 µs", "p99.9 µs", "errors", "L1", "L2"
    );
    roles.iter().for_each(|role| out.push_str(&format!("{:>10}", role.name())));
    out.push_str("  (CPU µs an operation)\n");
    for one in all {
        let rates = || one.rounds.iter().map(Round::rate);
        let rate = middle(one, Round::rate);
        let spread = (rates().fold(f64::MIN, f64::max) - rates().fold(f64::MAX, f64::min)) / rate;
        let errors: u64 = one.rounds.iter().map(Round::errors).sum();
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0));
        let _ = write!(out, "{:<16}{rate:>10.0}{:>7.0}%", one.name, spread * 100.0);
        for quantile in [0.5, 0.99, 0.999] {
            let _ = write!(out, "{:>10.0}", latency_us(one, quantile));
        }
        let _ = write!(out, "{errors:>8}{:>7}{:>7}", percent(hit_rate(one, 1)), percent(hit_rate(one, 2)));
        for role in &roles {
            let there = one.rounds.iter().any(|round| round.cpu_us.contains_key(role));
            let cpu =
                if there { format!("{:.2}", middle(one, |round| round.cpu_per_op(*role))) } else { "-".to_owned() };
            let _ = write!(out, "{cpu:>10}");
        }
        out.push('\n');
        let mut kinds = std::collections::BTreeMap::new();
        for (kind, n) in one.rounds.iter().flat_map(|round| &round.tally.errors) {
            *kinds.entry(kind).or_insert(0) += n;
        }
        kinds.into_iter().for_each(|(kind, n)| out.push_str(&format!("{:<16}  {n} × {kind}\n", "")));
        if one.rounds.iter().any(|round| round.repeated) {
            let _ = writeln!(out, "{:<16}  quicker than --ahead: some requests were sent again", "");
        }
    }
    out
}
