//! How close a follower's memory comes to what an ideal static cache of its size would answer on the same trace.
//!
//! Bytes are counted as those of the values that are kept: an encoded object; the newest edges of a list, encoded, with an index entry
//! each. The cache under measurement may use a share of the whole graph's bytes, and pays for its bookkeeping out of that. The ideal cache is
//! told the trace beforehand, and holds from the first request on what will be asked for most for its bytes, once without any
//! bookkeeping and once paying as much for it as ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prost::Message as _;
use serde_json::{Value, json};
use tao_client::v1::{Assoc, Object};

use crate::fleet::{Fleet, Start};
use crate::graph::Graph;
use crate::op::Op;
use crate::progress::Bar;
use crate::run::{Arrivals, Plan, Requests};
use crate::target::{Kind, Setup};
use crate::workload::{Workload, limits};

/// What an index entry of a list takes: where the edge ends.
const INDEX: u64 = 2;
/// What our cache charges for an entry without content.
const BOOKKEEPING: u64 = 132;
/// A list is fetched to the next power of two of what is asked for.
const LONGEST: u32 = limits::TAO.next_power_of_two();
/// What a follower takes at least.
const SMALLEST: u64 = 1 << 20;

/// What is compared.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the graph's bytes that the cache may use.
    pub share: f64,
    /// Requests before anything is counted, and as many that are counted.
    pub requests: usize,
    /// Threads of the client.
    pub threads: usize,
    /// Requests under way at once.
    pub in_flight: usize,
    /// Of all threads together.
    pub connections: usize,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Bytes of all values.
    pub graph_bytes: u64,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Reads that were counted.
    pub reads: u64,
    /// Ours, as a share of look-ups.
    pub ours: f64,
    /// The ideal cache's, without bookkeeping.
    pub ideal: f64,
    /// The ideal cache's, with ours.
    pub ideal_paying: f64,
    /// What the hundredth of keys that is asked for most gets of all reads.
    pub hottest_hundredth: f64,
}

impl Compared {
    /// Ours over the ideal.
    pub fn ratio(&self) -> f64 {
        self.ours / self.ideal
    }

    /// For the report.
    pub fn json(&self) -> Value {
        json!({
            "graph_bytes": self.graph_bytes, "cache_bytes": self.cache_bytes, "reads": self.reads, "ours": self.ours,
            "ideal": self.ideal, "ideal_paying_our_bookkeeping": self.ideal_paying, "ratio": self.ratio(),
            "ratio_to_paying": self.ours / self.ideal_paying,
            "skew": "Zipf 0.8 over lists, 0.625 over nodes", "hottest_hundredth_of_keys_gets": self.hottest_hundredth,
        })
    }
}

/// The TAO mix: one round that fills the cache, one that is counted.
pub fn compare(graph: &Arc<Graph>, options: &Options, bar: &Bar) -> Result<Compared> {
    let sizes = Sizes::new();
    let graph_bytes: u64 = (0..graph.nodes()).map(|node| sizes.object(graph, node) + sizes.list(graph, node)).sum();
    let cache_bytes = ((graph_bytes as f64 * options.share) as u64).max(SMALLEST);
    let setup = Setup {
        threads: options.threads,
        connections: options.connections,
        cache_size: Some(cache_bytes),
        redis: false,
    };
    let start = Start { kinds: &[Kind::TaoPipelined], setup, direct_connections: None, workload: Workload::Tao };
    let fleet = Fleet::start(&start, graph, bar)?;
    let plan = Plan {
        arrivals: Arrivals::Once,
        threads: options.threads,
        in_flight: options.in_flight,
        warm_up: Duration::ZERO,
        measured: Duration::ZERO,
    };
    let trace = |round| Requests::new(graph, Workload::Tao, round, options.in_flight, options.requests);
    bar.say("filling the cache");
    fleet.round(Kind::TaoPipelined, &plan, &trace(0)?)?;
    bar.say("counting hits");
    let counted = trace(1)?;
    let round = fleet.round(Kind::TaoPipelined, &plan, &counted)?;
    let hits = round.hits.context("no figures of the cache")?;
    let asked = Asked::new(graph, &sizes, &counted);
    Ok(Compared {
        graph_bytes,
        cache_bytes,
        reads: asked.reads,
        ours: hits.l1_hits as f64 / (hits.l1_hits + hits.l1_misses).max(1) as f64,
        ideal: asked.ideal(cache_bytes, 0),
        ideal_paying: asked.ideal(cache_bytes, BOOKKEEPING),
        hottest_hundredth: asked.hottest_hundredth(),
    })
}

/// Encoded bytes beside payloads.
struct Sizes {
    object: u64,
    edge: u64,
}

impl Sizes {
    fn new() -> Self {
        // Ids and times as they are in a store; their lengths hardly vary.
        let (id, now) = (1 << 58, 1_790_000_000_000);
        let object = Object { id, r#type: "node".to_owned(), version: 1, ..Default::default() };
        // A list's edges are kept without what they have in common.
        let edge = Assoc { id2: id, time: now / 1000, ..Default::default() };
        // Created and updated, and the map's entry with its name.
        Self { object: object.encoded_len() as u64 + 40, edge: edge.encoded_len() as u64 + 20 }
    }

    fn object(&self, graph: &Graph, node: u32) -> u64 {
        self.object + u64::from(Graph::payload_len(graph.object(node)))
    }

    fn list(&self, graph: &Graph, node: u32) -> u64 {
        let edges = graph.list(node).take(LONGEST as usize);
        edges.map(|edge| self.edge + INDEX + u64::from(Graph::payload_len(edge.payload))).sum()
    }
}

/// How often each key is read in a trace.
struct Asked {
    /// `(times, bytes)` of each key.
    keys: Vec<(u64, u64)>,
    reads: u64,
}

impl Asked {
    fn new(graph: &Graph, sizes: &Sizes, trace: &Requests) -> Self {
        let mut times: HashMap<(bool, u32), u64> = HashMap::new();
        for op in trace.all() {
            let key = match *op {
                Op::ObjectGet { id } => (false, id),
                Op::AssocGet { id1, .. }
                | Op::AssocCount { id1 }
                | Op::AssocRange { id1, .. }
                | Op::AssocTimeRange { id1, .. } => (true, id1),
                _ => continue,
            };
            *times.entry(key).or_default() += 1;
        }
        let bytes = |(list, node)| if list { sizes.list(graph, node) } else { sizes.object(graph, node) };
        let keys: Vec<(u64, u64)> = times.iter().map(|(key, times)| (*times, bytes(*key))).collect();
        Self { reads: keys.iter().map(|(times, _)| times).sum(), keys }
    }

    /// The share of reads that a cache answers whose keys are chosen by reads a byte. (What the last key wastes is less than its size.)
    fn ideal(&self, capacity: u64, bookkeeping: u64) -> f64 {
        let mut keys: Vec<(u64, u64)> = self.keys.iter().map(|(times, bytes)| (*times, bytes + bookkeeping)).collect();
        keys.sort_by(|one, other| {
            (u128::from(other.0) * u128::from(one.1)).cmp(&(u128::from(one.0) * u128::from(other.1)))
        });
        let mut left = capacity;
        let mut hits = 0;
        for (times, bytes) in keys {
            if bytes <= left {
                left -= bytes;
                hits += times;
            }
        }
        hits as f64 / self.reads.max(1) as f64
    }

    fn hottest_hundredth(&self) -> f64 {
        let mut times: Vec<u64> = self.keys.iter().map(|(times, _)| *times).collect();
        times.sort_unstable_by_key(|times| std::cmp::Reverse(*times));
        times[..times.len().div_ceil(100)].iter().sum::<u64>() as f64 / self.reads.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ideal_cache_holds_what_is_worth_its_bytes() {
        let asked = Asked { keys: vec![(10, 100), (8, 10), (1, 10), (1, 0)], reads: 20 };
        let near = |share: f64, expected: f64| assert!((share - expected).abs() < 1e-9, "{share}");
        near(asked.ideal(0, 0), 0.05);
        near(asked.ideal(10, 0), 0.45);
        near(asked.ideal(110, 0), 0.95);
        near(asked.ideal(120, 0), 1.0);
        near(asked.ideal(10, 1), 0.05);
    }
}
