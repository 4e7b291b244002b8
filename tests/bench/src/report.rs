//! What was measured, for people and for machines.

mod json;
mod machine;
mod plot;
mod table;

pub use json::measured as json;
pub use machine::machine;
pub use plot::{Curve, plot};
pub use table::table;

use crate::fleet::{Measured, median};
use crate::run::Round;
use crate::target::Role;

/// The roles in the order of reports.
const ROLES: [Role; 7] =
    [Role::Client, Role::Follower, Role::Leader, Role::Shard, Role::Service, Role::Redis, Role::Postgres];

/// The median of something over a target's rounds.
fn middle(measured: &Measured, of: impl Fn(&Round) -> f64) -> f64 {
    median(measured.rounds.iter().map(of)).unwrap_or(f64::NAN)
}

/// Microseconds at a quantile, the median over rounds.
fn latency_us(measured: &Measured, quantile: f64) -> f64 {
    middle(measured, |round| round.latencies().value_at_quantile(quantile) as f64 / 1e3)
}

/// Hits of a level in all rounds, as a share of its look-ups; none where nothing was looked up.
fn hit_rate(measured: &Measured, level: usize) -> Option<f64> {
    let hits = measured.rounds.iter().filter_map(|round| round.hits);
    let (hits, misses) = hits.fold((0, 0), |(hits, misses), all| match level {
        1 => (hits + all.l1_hits, misses + all.l1_misses),
        _ => (hits + all.l2_hits, misses + all.l2_misses),
    });
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}
