//! One slot's requests.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::Workload;
use super::access::Access;
use crate::graph::{Edge, Graph, NEWEST};
use crate::hash::{below, bits, unit};
use crate::op::{AType, Op};

/// How many edges are asked for, where a paper doesn't say: enough that 1 % of the TAO mix's non-empty answers have 500 or more.
pub mod limits {
    /// In the TAO mix.
    pub const TAO: u32 = 1_000;
    /// In LinkBench's mix, which asks for 10,000: as many as one call may ask for here.
    pub const LINKBENCH: u32 = 6_000;
    /// In the workload of that name.
    pub const RANGE_50: u32 = 50;
}

/// Edges that are added are newer than the graph's by up to so many seconds: a store may refuse times that are yet to come.
const NEWER: u32 = 50_000_000;
/// Own edges that a slot remembers, so that it can delete them and change their types.
const REMEMBERED: usize = 1_024;
/// One node in so many may be deleted, once; all others are there for as long as the graph is. Reads meet the gaps.
const MORTAL: u32 = 20;
/// Calls of one transaction at most: a geometric distribution has no end.
const LONGEST_TRANSACTION: usize = 100;
/// `AssocGet`s of the TAO mix that find an edge. The paper says only that most queries for edges are empty.
const TAO_EDGES_FOUND: f64 = 0.25;
/// `getlink`s that ask for an edge that is there.
const LINKBENCH_EDGES_FOUND: f64 = 0.5;

/// An endless stream of requests that depends on the graph, the workload, the round and the slot only. What it writes: new edges (at
/// nodes that are written often), payloads of nodes and edges that are there, new nodes. It deletes, and changes the type of, only edges that
/// it has added itself, so the loaded graph stays; it deletes nodes only among one in twenty.
#[derive(Debug)]
pub struct Stream {
    graph: Arc<Graph>,
    workload: Workload,
    rng: ChaCha8Rng,
    lists_read: Access,
    lists_written: Access,
    nodes_read: Access,
    nodes_written: Access,
    own: VecDeque<(u32, u32, AType)>,
    written: u64,
}

impl Stream {
    /// The stream of a slot. `round` tells runs on the same graph apart: they go on writing, and don't repeat each other.
    pub fn new(graph: &Arc<Graph>, workload: Workload, round: u32, slot: u32) -> Result<Self> {
        let zipf = |shape| Access::zipf(graph, shape);
        let [lists_read, lists_written, nodes_read, nodes_written] = match workload {
            // LinkBench's shapes were measured on the same system, whose paper gives none.
            Workload::Tao | Workload::Linkbench | Workload::TimeRange => {
                [zipf(0.8)?, zipf(0.741)?, zipf(0.625)?, zipf(0.606)?]
            }
            Workload::TaobenchA | Workload::TaobenchO => alike(&Access::shards(graph)),
            Workload::ObjectGet | Workload::Count => alike(&Access::hot(graph, 0)?),
            Workload::Range50 => alike(&Access::hot(graph, limits::RANGE_50)?),
            Workload::AssocGet
            | Workload::AssocAdd
            | Workload::FriendAdd
            | Workload::ObjectAdd
            | Workload::ObjectUpdate => alike(&Access::Uniform(graph.nodes())),
        };
        let place = u64::from(round) << 32 | u64::from(slot);
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(bits(graph.seed(), 200 + workload as u64, place)),
            graph: Arc::clone(graph),
            workload,
            lists_read,
            lists_written,
            nodes_read,
            nodes_written,
            own: VecDeque::new(),
            written: bits(graph.seed(), 300, place) >> 1,
        })
    }

    /// The next request.
    pub fn next(&mut self) -> Op {
        match self.workload {
            Workload::Tao => self.tao(),
            Workload::Linkbench => self.linkbench(),
            Workload::TaobenchA => self.taobench([70.1, 23.4, 6.1, 0.4]),
            Workload::TaobenchO => self.taobench([96.97, 0.22, 2.80, 0.012]),
            Workload::ObjectGet => self.object_get(),
            Workload::Range50 => self.range(limits::RANGE_50),
            Workload::Count => self.count(),
            Workload::AssocGet => self.edge_get(1.0),
            Workload::TimeRange => self.recent(limits::TAO),
            Workload::AssocAdd => self.add(AType::Link),
            Workload::FriendAdd => self.add(AType::Friend),
            Workload::ObjectAdd => self.object_add(),
            Workload::ObjectUpdate => self.object_update(),
        }
    }

    fn tao(&mut self) -> Op {
        if self.chance() < 0.998 {
            return match self.pick(&[15.7, 40.9, 2.8, 11.7, 28.9]) {
                0 => self.edge_get(TAO_EDGES_FOUND / 0.55),
                1 => self.range(limits::TAO),
                2 => self.recent(limits::TAO),
                3 => self.count(),
                _ => self.object_get(),
            };
        }
        match self.pick(&[52.5, 8.3, 0.9, 16.5, 20.7, 2.0]) {
            0 => self.add(AType::Link),
            1 => self.delete(),
            2 => self.change_type(),
            3 => self.object_add(),
            4 => self.object_update(),
            _ => self.object_delete(),
        }
    }

    fn linkbench(&mut self) -> Op {
        match self.pick(&[50.71, 12.93, 8.99, 8.01, 7.37, 4.89, 2.99, 2.57, 1.01, 0.53]) {
            0 if self.chance() < 0.3 => self.history(limits::LINKBENCH),
            0 => self.range(limits::LINKBENCH),
            1 => self.object_get(),
            2 => self.add(AType::Link),
            3 => self.update(),
            4 => self.object_update(),
            5 => self.count(),
            6 => self.delete(),
            7 => self.object_add(),
            8 => self.object_delete(),
            _ => self.edge_get(LINKBENCH_EDGES_FOUND),
        }
    }

    /// Reads, writes, read transactions, write transactions. The paper leaves objects and edges to the configuration: half and half here.
    fn taobench(&mut self, shares: [f64; 4]) -> Op {
        match self.pick(&shares) {
            0 => self.taobench_read(),
            1 => self.taobench_write(),
            2 => {
                let calls = self.calls(19.2);
                Op::ReadTransaction((0..calls).map(|_| self.taobench_read()).collect())
            }
            _ => {
                let calls = self.calls(5.3);
                let mut ops: Vec<Op> = Vec::with_capacity(calls);
                // Two writes of one thing in one transaction would have no order.
                while ops.len() < calls {
                    let op = self.taobench_write();
                    if !ops.iter().any(|other| same_target(other, &op)) {
                        ops.push(op);
                    }
                }
                Op::WriteTransaction(ops)
            }
        }
    }

    fn taobench_read(&mut self) -> Op {
        if self.chance() < 0.5 { self.object_get() } else { self.edge_get(1.0) }
    }

    fn taobench_write(&mut self) -> Op {
        match self.pick(&[50.0, 25.0, 25.0]) {
            0 => self.object_update(),
            1 => self.update(),
            _ => self.add(AType::Link),
        }
    }

    fn object_get(&mut self) -> Op {
        Op::ObjectGet { id: self.nodes_read.node(&mut self.rng) }
    }

    fn count(&mut self) -> Op {
        Op::AssocCount { id1: self.lists_read.node(&mut self.rng) }
    }

    fn range(&mut self, limit: u32) -> Op {
        Op::AssocRange { id1: self.lists_read.node(&mut self.rng), limit }
    }

    /// What is newer than a day to three years, as news is asked for; the span's logarithm is uniform.
    fn recent(&mut self, limit: u32) -> Op {
        let days = 1_095_f64.powf(self.chance());
        let low = NEWEST - (days * 86_400.0) as u32;
        Op::AssocTimeRange { id1: self.lists_read.node(&mut self.rng), low, high: u32::MAX, limit }
    }

    /// What is as old as some edge of the list, or older.
    fn history(&mut self, limit: u32) -> Op {
        let id1 = self.lists_read.node(&mut self.rng);
        let high = self.some_edge(id1).map_or(NEWEST, |edge| edge.time);
        Op::AssocTimeRange { id1, low: 0, high, limit }
    }

    /// An edge that is there with this probability, if the list has any; else one that is most likely not.
    fn edge_get(&mut self, there: f64) -> Op {
        let mut id1 = self.lists_read.node(&mut self.rng);
        if there >= 1.0 {
            id1 = self.with_edges(id1);
        }
        let edge = if self.chance() < there { self.some_edge(id1) } else { None };
        let id2 = edge.map_or_else(|| below(self.rng.next_u64(), self.graph.nodes()), |edge| edge.id2);
        Op::AssocGet { id1, id2 }
    }

    fn add(&mut self, atype: AType) -> Op {
        let id1 = self.lists_written.node(&mut self.rng);
        let others = self.graph.nodes() - 1;
        let id2 = ((u64::from(id1) + 1 + u64::from(below(self.rng.next_u64(), others))) % u64::from(others + 1)) as u32;
        if self.own.len() == REMEMBERED {
            self.own.pop_front();
        }
        self.own.push_back((id1, id2, atype));
        self.write_edge(id1, id2, None, atype)
    }

    /// Another payload for an edge of the loaded graph.
    fn update(&mut self) -> Op {
        let id1 = self.lists_written.node(&mut self.rng);
        let id1 = self.with_edges(id1);
        match self.some_edge(id1) {
            Some(edge) => self.write_edge(id1, edge.id2, Some(edge.time), AType::Link),
            None => self.add(AType::Link),
        }
    }

    fn write_edge(&mut self, id1: u32, id2: u32, time: Option<u32>, atype: AType) -> Op {
        self.written += 1;
        let time = time.unwrap_or_else(|| NEWEST + below(self.rng.next_u64(), NEWER));
        Op::AssocAdd { id1, id2, time, payload: self.graph.new_edge(self.written), atype }
    }

    fn delete(&mut self) -> Op {
        match self.own.pop_front() {
            Some((id1, id2, atype)) => Op::AssocDelete { id1, id2, atype },
            // The first of a round has nothing to delete yet.
            None => self.add(AType::Link),
        }
    }

    fn change_type(&mut self) -> Op {
        match self.own.pop_front() {
            Some((id1, id2, from)) => {
                let to = if from == AType::Link { AType::Link2 } else { AType::Link };
                self.own.push_back((id1, id2, to));
                Op::AssocChangeType { id1, id2, from }
            }
            None => self.add(AType::Link),
        }
    }

    fn object_add(&mut self) -> Op {
        self.written += 1;
        Op::ObjectAdd { payload: self.graph.new_object(self.written) }
    }

    fn object_update(&mut self) -> Op {
        self.written += 1;
        let id = self.nodes_written.node(&mut self.rng);
        // Its neighbour, if it might be gone; the first has one.
        let id = if id.is_multiple_of(MORTAL) { id.checked_sub(1).unwrap_or(1) } else { id };
        Op::ObjectUpdate { id, payload: self.graph.new_object(self.written) }
    }

    fn object_delete(&mut self) -> Op {
        Op::ObjectDelete { id: MORTAL * below(self.rng.next_u64(), self.graph.nodes() / MORTAL) }
    }

    fn some_edge(&mut self, id1: u32) -> Option<Edge> {
        let degree = self.graph.degree(id1);
        (degree > 0).then(|| self.graph.edge(id1, below(self.rng.next_u64(), degree)))
    }

    /// This node, or the next that has edges.
    fn with_edges(&self, node: u32) -> u32 {
        let nodes = self.graph.nodes();
        (node..nodes).chain(0..node).find(|node| self.graph.degree(*node) > 0).unwrap_or(node)
    }

    /// How many calls a transaction has: geometric, at least one.
    fn calls(&mut self, mean: f64) -> usize {
        let calls = (self.chance().ln() / (1.0 - 1.0 / mean).ln()).ceil() as usize;
        calls.clamp(1, LONGEST_TRANSACTION)
    }

    fn chance(&mut self) -> f64 {
        unit(self.rng.next_u64())
    }

    /// A place, by weight.
    fn pick(&mut self, weights: &[f64]) -> usize {
        let mut left = self.chance() * weights.iter().sum::<f64>();
        let past = |weight: &f64| {
            left -= weight;
            left < 0.0
        };
        weights.iter().position(past).unwrap_or(weights.len() - 1)
    }
}

fn alike(access: &Access) -> [Access; 4] {
    std::array::from_fn(|_| access.clone())
}

fn same_target(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::ObjectUpdate { id: one, .. }, Op::ObjectUpdate { id: other, .. }) => one == other,
        (Op::AssocAdd { id1, id2, .. }, Op::AssocAdd { id1: other1, id2: other2, .. }) => {
            (id1, id2) == (other1, other2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(workload: Workload, slot: u32, n: usize) -> Vec<Op> {
        let graph = Graph::new(workload.shape(), 50_000, 9).unwrap();
        let mut stream = Stream::new(&graph, workload, 0, slot).unwrap();
        (0..n).map(|_| stream.next()).collect()
    }

    fn share(ops: &[Op], is: impl Fn(&Op) -> bool) -> f64 {
        ops.iter().filter(|op| is(op)).count() as f64 / ops.len() as f64
    }

    fn assert_near(found: f64, published: f64) {
        assert!((found / published - 1.0).abs() < 0.08, "{found} instead of {published}");
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        for workload in [Workload::Tao, Workload::Linkbench, Workload::TaobenchA] {
            assert_eq!(ops(workload, 3, 1000), ops(workload, 3, 1000));
            assert_ne!(ops(workload, 3, 1000), ops(workload, 4, 1000));
        }
    }

    #[test]
    fn the_mix_of_tao() {
        let ops = ops(Workload::Tao, 0, 300_000);
        assert_near(share(&ops, Op::is_write), 0.002);
        assert_near(share(&ops, |op| matches!(op, Op::AssocRange { .. })), 0.409 * 0.998);
        assert_near(share(&ops, |op| matches!(op, Op::ObjectGet { .. })), 0.289 * 0.998);
        assert_near(share(&ops, |op| matches!(op, Op::AssocGet { .. })), 0.157 * 0.998);
        assert_near(share(&ops, |op| matches!(op, Op::AssocCount { .. })), 0.117 * 0.998);
        assert_near(share(&ops, |op| matches!(op, Op::AssocTimeRange { .. })), 0.028 * 0.998);
        let graph = Graph::new(Workload::Tao.shape(), 50_000, 9).unwrap();
        let counts: Vec<Op> = ops.iter().filter(|op| matches!(op, Op::AssocCount { .. })).cloned().collect();
        let zero = share(&counts, |op| matches!(op, Op::AssocCount { id1 } if graph.degree(*id1) == 0));
        assert!((zero - 0.45).abs() < 0.04, "{zero}");
    }

    #[test]
    fn the_mix_of_linkbench() {
        let ops = ops(Workload::Linkbench, 0, 200_000);
        let back = share(&ops, |op| matches!(op, Op::AssocTimeRange { .. }));
        assert_near(back, 0.5071 * 0.3);
        assert_near(back + share(&ops, |op| matches!(op, Op::AssocRange { .. })), 0.5071);
        assert_near(share(&ops, |op| matches!(op, Op::ObjectGet { .. })), 0.1293);
        assert_near(share(&ops, |op| matches!(op, Op::AssocAdd { .. })), 0.0899 + 0.0801);
        assert_near(share(&ops, |op| matches!(op, Op::AssocDelete { .. })), 0.0299);
        assert_near(share(&ops, Op::is_write), 0.3094);
    }

    #[test]
    fn the_transactions_of_taobench() {
        let ops = ops(Workload::TaobenchA, 0, 200_000);
        let sizes = |writes: bool| {
            let sizes: Vec<f64> = ops
                .iter()
                .filter_map(|op| match op {
                    Op::ReadTransaction(calls) if !writes => Some(calls.len() as f64),
                    Op::WriteTransaction(calls) if writes => Some(calls.len() as f64),
                    _ => None,
                })
                .collect();
            (sizes.len() as f64 / 200_000.0, sizes.iter().sum::<f64>() / sizes.len() as f64)
        };
        let ((reads, read_calls), (writes, write_calls)) = (sizes(false), sizes(true));
        assert_near(reads, 0.061);
        assert_near(read_calls, 19.2);
        assert!((writes / 0.004 - 1.0).abs() < 0.15, "{writes}");
        assert_near(write_calls, 5.3);
    }

    #[test]
    fn what_is_deleted_was_added_by_the_same_slot() {
        let mut added = std::collections::HashSet::new();
        for op in ops(Workload::Linkbench, 1, 50_000) {
            match op {
                Op::AssocAdd { id1, id2, .. } => {
                    added.insert((id1, id2));
                }
                Op::AssocDelete { id1, id2, .. } => assert!(added.contains(&(id1, id2))),
                Op::ObjectUpdate { id, .. } => assert!(!id.is_multiple_of(MORTAL)),
                Op::ObjectDelete { id } => assert!(id.is_multiple_of(MORTAL)),
                _ => {}
            }
        }
    }
}
