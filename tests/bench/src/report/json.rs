//! The document for machines.

use serde_json::{Map, Value, json};

use super::{ROLES, hit_rate, latency_us, middle};
use crate::fleet::Measured;
use crate::run::Round;

/// Each target with medians, and all of its rounds.
pub fn measured(all: &[Measured]) -> Value {
    all.iter()
        .map(|one| {
            json!({
                "target": one.name,
                "per_second": middle(one, Round::rate),
                "p50_us": latency_us(one, 0.5),
                "p99_us": latency_us(one, 0.99),
                "p999_us": latency_us(one, 0.999),
                "server_cpu_us_per_operation": middle(one, Round::server_cpu_per_op),
                "l1_hit_rate": hit_rate(one, 1),
                "l2_hit_rate": hit_rate(one, 2),
                "rounds": one.rounds.iter().map(round).collect::<Vec<_>>(),
            })
        })
        .collect()
}

fn round(round: &Round) -> Value {
    let latencies = |histogram: &hdrhistogram::Histogram<u64>| {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "n": histogram.len(), "mean_us": histogram.mean() / 1e3, "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99),
            "p999_us": at(0.999), "max_us": histogram.max() as f64 / 1e3,
        })
    };
    let roles = ROLES.iter().filter(|role| round.cpu_us.contains_key(role));
    let processes: Map<String, Value> = roles
        .map(|role| {
            let memory = round.memory.get(role).copied().unwrap_or(0);
            let figures = json!({ "cpu_us_per_operation": round.cpu_per_op(*role), "cpu_us": round.cpu_us[role], "memory_bytes": memory });
            (role.name().to_owned(), figures)
        })
        .collect();
    json!({
        "seconds": round.seconds,
        "per_second": round.rate(),
        "all": latencies(&round.latencies()),
        "reads": latencies(&round.tally.reads),
        "writes": latencies(&round.tally.writes),
        "errors": round.tally.errors,
        "found": round.tally.found,
        "items": round.tally.items,
        "payload_bytes": round.tally.bytes,
        "l1": round.hits.map(|hits| json!({ "hits": hits.l1_hits, "misses": hits.l1_misses })),
        "l2": round.hits.map(|hits| json!({ "hits": hits.l2_hits, "misses": hits.l2_misses })),
        "processes": processes,
        "requests_repeated": round.repeated,
    })
}
