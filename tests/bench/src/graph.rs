//! A graph that is a function of a few numbers, so that 10^7 edges cost a few megabytes: degrees are held, edges and payloads computed.

mod file;
mod shape;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::hash::{Permutation, below, bits};

pub use shape::{MAX_PAYLOAD, Shape};

/// No edge of a fresh graph is newer; those that are added later are.
pub const NEWEST: u32 = 1_700_000_000;

/// A day: how far apart edges of short lists are.
const LONGEST_GAP: u32 = 86_400;
const LENGTH_BITS: u32 = 14;
const NOISE: usize = 1 << (32 - LENGTH_BITS);

/// What a chance is for: each purpose has its own.
mod purpose {
    pub const DEGREES: u64 = 1;
    pub const NEIGHBOURS: u64 = 2;
    pub const TIMES: u64 = 3;
    pub const OBJECTS: u64 = 4;
    pub const EDGES: u64 = 5;
    pub const NOISE: u64 = 6;
    pub const NEW_PAYLOADS: u64 = 7;
}

/// One edge of type `link`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Never the node itself.
    pub id2: u32,
    /// No two edges of a list have the same.
    pub time: u32,
    /// For [`Graph::payload`].
    pub payload: u32,
}

/// Nodes 0 to `nodes` − 1 with payloads, and their edges, newest first.
#[derive(Debug)]
pub struct Graph {
    seed: u64,
    shape: Shape,
    nodes: u32,
    /// Where a node's edges begin among all edges; one more at the end.
    starts: Vec<u32>,
    /// The edges of a file: `(id2, time)`.
    read: Option<Vec<(u32, u32)>>,
    noise: Vec<u8>,
}

impl Graph {
    /// A graph of a published shape with about that many edges (within 2 %), at least 1,000.
    pub fn new(shape: Shape, edges: u64, seed: u64) -> Result<Arc<Self>> {
        ensure!((1_000..=1 << 31).contains(&edges), "--edges {edges}: from 1e3 to 2e9");
        let nodes = fitting(shape, edges);
        let order = Permutation::new(nodes, bits(seed, purpose::DEGREES, 0));
        let mut starts = Vec::with_capacity(nodes as usize + 1);
        let mut edges = 0;
        for node in 0..nodes {
            starts.push(edges);
            edges += degree(shape, nodes, order.get(node));
        }
        starts.push(edges);
        Ok(Arc::new(Self { seed, shape, nodes, starts, read: None, noise: noise(seed) }))
    }

    /// The graph of an edge list (`src dst [time]` a line), with payloads of a shape.
    pub fn read(path: &Path, shape: Shape, seed: u64) -> Result<Arc<Self>> {
        let list = file::read(path)?;
        let nodes = (list.starts.len() - 1) as u32;
        ensure!(nodes > 2, "{}: at least three nodes are needed", path.display());
        Ok(Arc::new(Self { seed, shape, nodes, starts: list.starts, read: Some(list.edges), noise: noise(seed) }))
    }

    /// How many there are.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// How many there are in all lists together.
    pub fn edges(&self) -> u64 {
        u64::from(self.starts[self.nodes as usize])
    }

    /// Bytes of all payloads, of nodes and edges.
    pub fn payload_bytes(&self) -> u64 {
        let edges = |node| self.list(node).map(|edge| Self::payload_len(edge.payload)).map(u64::from).sum::<u64>();
        (0..self.nodes).map(|node| u64::from(Self::payload_len(self.object(node))) + edges(node)).sum()
    }

    /// Whose payloads it has.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All chance comes from it.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The length of a node's list.
    pub fn degree(&self, node: u32) -> u32 {
        self.starts[node as usize + 1] - self.starts[node as usize]
    }

    /// A node's edge at a place of its list, 0 being the newest. The place is below its degree.
    pub fn edge(&self, node: u32, place: u32) -> Edge {
        let at = u64::from(self.starts[node as usize] + place);
        let payload = self.ticket(bits(self.seed, purpose::EDGES, at), Shape::edge_bytes);
        let (id2, time) = match &self.read {
            Some(edges) => edges[at as usize],
            None => (self.neighbour(node, place), self.time(node, place, at)),
        };
        Edge { id2, time, payload }
    }

    /// All of a node's edges, newest first.
    pub fn list(&self, node: u32) -> impl Iterator<Item = Edge> + '_ {
        (0..self.degree(node)).map(move |place| self.edge(node, place))
    }

    /// What a node holds when the graph is fresh, for [`Graph::payload`].
    pub fn object(&self, node: u32) -> u32 {
        self.ticket(bits(self.seed, purpose::OBJECTS, u64::from(node)), Shape::object_bytes)
    }

    /// The bytes of a payload: its length is in the ticket, and so is where they are in a block of noise.
    pub fn payload(&self, ticket: u32) -> &[u8] {
        let start = (ticket >> LENGTH_BITS) as usize;
        &self.noise[start..start + Self::payload_len(ticket) as usize]
    }

    /// Their number.
    pub fn payload_len(ticket: u32) -> u32 {
        ticket & MAX_PAYLOAD
    }

    /// A payload for the `n`th object that is written.
    pub fn new_object(&self, n: u64) -> u32 {
        self.ticket(bits(self.seed, purpose::NEW_PAYLOADS, n), Shape::object_bytes)
    }

    /// A payload for the `n`th edge that is written.
    pub fn new_edge(&self, n: u64) -> u32 {
        self.ticket(bits(self.seed, purpose::NEW_PAYLOADS, n), Shape::edge_bytes)
    }

    fn ticket(&self, chance: u64, bytes: impl Fn(Shape, u64) -> u32) -> u32 {
        (chance as u32) << LENGTH_BITS | bytes(self.shape, chance)
    }

    /// The number of other nodes is a prime, so equal steps through them come by each once before any comes again.
    fn neighbour(&self, node: u32, place: u32) -> u32 {
        let others = self.nodes - 1;
        let chance = bits(self.seed, purpose::NEIGHBOURS, u64::from(node));
        let step = 1 + below(chance, others - 1);
        let offset = (u64::from(below(chance << 32, others)) + u64::from(step) * u64::from(place)) % u64::from(others);
        ((u64::from(node) + 1 + offset) % u64::from(self.nodes)) as u32
    }

    fn time(&self, node: u32, place: u32, at: u64) -> u32 {
        let gap = ((NEWEST - 1) / (self.degree(node) + 1)).clamp(1, LONGEST_GAP);
        NEWEST - 1 - place * gap - below(bits(self.seed, purpose::TIMES, at), gap)
    }
}

/// The bytes that payloads are cut from.
fn noise(seed: u64) -> Vec<u8> {
    let words = (NOISE + MAX_PAYLOAD as usize).div_ceil(8) as u64;
    (0..words).flat_map(|word| bits(seed, purpose::NOISE, word).to_le_bytes()).collect()
}

/// The degree of the node at a place in the order of degrees, longest first.
fn degree(shape: Shape, nodes: u32, place: u32) -> u32 {
    shape.degree((f64::from(place) + 0.5) / f64::from(nodes)).min(nodes - 1)
}

/// How many nodes have about so many edges: one more than a prime.
fn fitting(shape: Shape, edges: u64) -> u32 {
    let mut nodes = (edges / 10) as u32;
    // The mean grows slowly with the number of nodes, as longer lists become possible.
    for _ in 0..8 {
        let sum: u64 = (0..nodes).map(|place| u64::from(degree(shape, nodes, place))).sum();
        nodes = ((f64::from(nodes) * edges as f64 / sum as f64) as u32).max(100);
    }
    // There is a prime between any number and its double.
    (nodes..2 * nodes).find(|n| prime(*n)).unwrap_or(nodes) + 1
}

fn prime(n: u32) -> bool {
    n > 1 && (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_graph_has_the_edges_that_were_asked_for() {
        for shape in [Shape::Tao, Shape::Linkbench] {
            for edges in [10_000, 100_000] {
                let graph = Graph::new(shape, edges, 1).unwrap();
                let ratio = graph.edges() as f64 / edges as f64;
                assert!((0.98..1.02).contains(&ratio), "{shape:?} {edges}: {}", graph.edges());
            }
        }
    }

    #[test]
    fn lists_are_newest_first_without_repeats_or_loops() {
        let graph = Graph::new(Shape::Linkbench, 20_000, 5).unwrap();
        for node in 0..graph.nodes() {
            let edges: Vec<Edge> = graph.list(node).collect();
            assert_eq!(edges.len(), graph.degree(node) as usize);
            assert!(edges.windows(2).all(|pair| pair[0].time > pair[1].time), "{node}");
            let ends: HashSet<u32> = edges.iter().map(|edge| edge.id2).collect();
            assert_eq!(ends.len(), edges.len(), "{node}");
            assert!(!ends.contains(&node) && ends.iter().all(|end| *end < graph.nodes()));
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_graph_and_another_another() {
        let lists = |seed| {
            let graph = Graph::new(Shape::Tao, 10_000, seed).unwrap();
            (0..graph.nodes()).map(|node| graph.list(node).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(lists(1), lists(1));
        assert_ne!(lists(1), lists(2));
    }

    #[test]
    fn payloads_are_as_long_as_their_tickets_say() {
        let graph = Graph::new(Shape::Tao, 10_000, 1).unwrap();
        for node in 0..graph.nodes() {
            let ticket = graph.object(node);
            assert_eq!(graph.payload(ticket).len(), Graph::payload_len(ticket) as usize);
        }
        assert_eq!(graph.payload(u32::MAX).len(), MAX_PAYLOAD as usize);
    }
}
