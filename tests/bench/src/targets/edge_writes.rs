//! Edges written by many at once: this store through all three tiers, and the same work done straight in PostgreSQL, one transaction
//! an edge.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::closed_loop::{Pace, median, rate};
use super::log::Log;
use super::postgres::Direct;
use super::tao::Tao;
use crate::graph::{Graph, NEWEST};
use crate::hash::{below, bits};
use crate::op::{AType, Op};

/// Connections that direct writes are tried with.
pub const CONNECTIONS: [usize; 4] = [8, 16, 32, 64];
/// Writes under way at once, on either side.
pub const IN_FLIGHT: usize = 256;
/// Purposes of chance that nothing else has: see `hash`.
const ENDS: u64 = 0xed6e;
/// Between two callers' edges, more than any of them writes.
const STRIDE: u64 = 1 << 24;

/// How long it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of the client.
    pub threads: usize,
    /// Interleaved; medians count.
    pub rounds: usize,
    /// Of one side in one round; trying a number of connections takes half of it.
    pub seconds: f64,
}

/// What writing edges of one type comes to, in edges a second (an edge and its inverse are one).
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeWrites {
    /// `link`: no inverse; `friend`: its own.
    pub atype: AType,
    /// Ours, round by round.
    pub ours: Vec<f64>,
    /// Edge, count, and a log row at the log's next position: the same work.
    pub direct: DirectWrites,
    /// Edge, count, and a log row numbered by a sequence: less work, since such a log has no order that can be followed.
    pub unordered: DirectWrites,
}

/// What direct writes come to.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectWrites {
    /// With which they did best.
    pub connections: usize,
    /// With each number of connections, before the rounds.
    pub tried: Vec<(usize, f64)>,
    /// With the best, round by round.
    pub rates: Vec<f64>,
}

impl EdgeWrites {
    /// Ours over direct, medians.
    pub fn ratio(&self) -> f64 {
        median(self.ours.iter().copied()) / self.direct.median()
    }

    /// Ours over direct writes whose log has no order.
    pub fn ratio_to_unordered(&self) -> f64 {
        median(self.ours.iter().copied()) / self.unordered.median()
    }
}

impl DirectWrites {
    /// Of the rounds.
    pub fn median(&self) -> f64 {
        median(self.rates.iter().copied())
    }
}

/// A new edge between two nodes, newer than the graph's: the same for every side.
fn edge(nodes: u32, slot: usize, n: u64, atype: AType) -> Op {
    let at = slot as u64 * STRIDE + n;
    let chance = bits(atype.number().into(), ENDS, at);
    let id1 = below(chance, nodes);
    // Never the same node.
    let id2 = (id1 + 1 + below(chance << 32, nodes - 1)) % nodes;
    // 16 bytes of payload, from anywhere in the noise.
    Op::AssocAdd { id1, id2, time: NEWEST + 1 + n as u32, payload: (chance as u32) << 14 | 16, atype }
}

/// Compares them; both are loaded with the same graph, the direct side without a log.
pub fn compare(tao: &Tao, direct: &Direct, graph: &Graph, atype: AType, options: Options) -> Result<EdgeWrites> {
    let nodes = graph.nodes();
    let pace = |share: f64| Pace {
        threads: options.threads,
        in_flight: IN_FLIGHT,
        warm_up: Duration::from_secs_f64(options.seconds * share / 4.0),
        measured: Duration::from_secs_f64(options.seconds * share),
    };
    // No two runs write the same edges: an edge that is there is less work than a new one.
    let mut runs = 0;
    let mut direct_rate = |connections: usize, log: Log, share: f64| {
        runs += 1;
        let from = runs << 40;
        direct.set(connections / options.threads, log);
        rate(direct, pace(share), move |slot, n| edge(nodes, slot, from + n, atype))
    };
    let mut tried = |log: Log| -> Result<DirectWrites> {
        let tried = CONNECTIONS.map(|connections| Ok((connections, direct_rate(connections, log, 0.5)?)));
        let tried = tried.into_iter().collect::<Result<Vec<_>>>()?;
        let best = tried.iter().max_by(|a, b| a.1.total_cmp(&b.1)).context("nothing was tried")?;
        Ok(DirectWrites { connections: best.0, tried: tried.clone(), rates: Vec::new() })
    };
    let (mut ordered, mut unordered) = (tried(Log::Ordered)?, tried(Log::Unordered)?);
    let mut ours = Vec::new();
    for round in 0..options.rounds as u64 {
        let from = (round + 1) << 40;
        ours.push(rate(tao, pace(1.0), move |slot, n| edge(nodes, slot, from + n, atype))?);
        ordered.rates.push(direct_rate(ordered.connections, Log::Ordered, 1.0)?);
        unordered.rates.push(direct_rate(unordered.connections, Log::Unordered, 1.0)?);
    }
    direct.set(CONNECTIONS[0] / options.threads, Log::None);
    Ok(EdgeWrites { atype, ours, direct: ordered, unordered })
}
