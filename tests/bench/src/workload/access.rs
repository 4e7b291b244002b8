//! Which nodes are asked for, and how often.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore as _;
use rand_distr::{Distribution as _, Zipf};

use crate::graph::Graph;
use crate::hash::{Permutation, below, bits, unit};

/// Number of key shards in TAOBench.
pub const SHARDS: u32 = 50;
/// What its hottest and second shards get of all accesses.
const HOTTEST: [f64; 2] = [0.578, 0.223];

/// A way to choose nodes. How popular a node is has nothing to do with its number or its degree.
#[derive(Debug, Clone)]
pub enum Access {
    /// The node of rank r is chosen with a probability that falls as r to the power of the shape.
    Zipf(Zipf<f64>, Permutation),
    /// All alike.
    Uniform(u32),
    /// Some alike, the others never.
    Among(Arc<[u32]>),
    /// The shards of TAOBench, unlike each other; the nodes of a shard alike. Holds the shares of shards up to each.
    Shards(Arc<[f64]>, Permutation),
}

impl Access {
    /// Zipf of this shape over all nodes. One order of popularity a graph: who is read much is written much.
    pub fn zipf(graph: &Graph, shape: f64) -> Result<Self> {
        let zipf = Zipf::new(f64::from(graph.nodes()), shape).with_context(|| format!("Zipf of shape {shape}"))?;
        Ok(Self::Zipf(zipf, order(graph)))
    }

    /// The first of the shards gets 57.8 %, the second 22.3 %, the others what is left, falling by the same power of their rank.
    pub fn shards(graph: &Graph) -> Self {
        let exponent = (HOTTEST[0] / HOTTEST[1]).log2();
        let tail: Vec<f64> = (3..=SHARDS).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let scale = (1.0 - HOTTEST[0] - HOTTEST[1]) / tail.iter().sum::<f64>();
        let shares = HOTTEST.into_iter().chain(tail.into_iter().map(|share| share * scale));
        let sums = shares.scan(0.0, |sum, share| {
            *sum += share;
            Some(*sum)
        });
        Self::Shards(sums.collect(), order(graph))
    }

    /// A few thousand nodes, the same for all: what a cache surely holds. Only those with as many edges as this.
    pub fn hot(graph: &Graph, degree: u32) -> Result<Self> {
        let order = order(graph);
        let nodes: Arc<[u32]> = (0..graph.nodes())
            .map(|rank| order.get(rank))
            .filter(|node| graph.degree(*node) >= degree)
            .take(4096)
            .collect();
        (!nodes.is_empty())
            .then_some(())
            .with_context(|| format!("no node has {degree} edges: a larger graph is needed"))?;
        Ok(Self::Among(nodes))
    }

    /// The next node.
    pub fn node(&self, rng: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::Zipf(zipf, order) => order.get(zipf.sample(rng) as u32 - 1),
            Self::Uniform(nodes) => below(rng.next_u64(), *nodes),
            Self::Among(nodes) => nodes[below(rng.next_u64(), nodes.len() as u32) as usize],
            Self::Shards(sums, order) => {
                let chance = unit(rng.next_u64());
                let shard = sums.partition_point(|sum| *sum < chance).min(SHARDS as usize - 1) as u32;
                let in_shard = (order.len() - shard).div_ceil(SHARDS);
                order.get(shard + SHARDS * below(rng.next_u64(), in_shard))
            }
        }
    }
}

fn order(graph: &Graph) -> Permutation {
    Permutation::new(graph.nodes(), bits(graph.seed(), 100, 0))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;
    use crate::graph::Shape;

    fn accesses(access: &Access, nodes: u32, n: u32) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut times = vec![0; nodes as usize];
        (0..n).for_each(|_| times[access.node(&mut rng) as usize] += 1);
        times
    }

    #[test]
    fn zipf_has_its_shape_whatever_the_degree() {
        let graph = Graph::new(Shape::Linkbench, 50_000, 1).unwrap();
        for shape in [0.606, 0.8] {
            let times = accesses(&Access::zipf(&graph, shape).unwrap(), graph.nodes(), 1_000_000);
            let mut ranked = times.clone();
            ranked.sort_unstable_by_key(|times| std::cmp::Reverse(*times));
            let ideal: f64 = (1..=graph.nodes()).map(|rank| f64::from(rank).powf(-shape)).sum();
            for top in [1, 10, 100, 1000] {
                let found = f64::from(ranked[..top].iter().sum::<u32>()) / 1e6;
                let expected = (1..=top).map(|rank| (rank as f64).powf(-shape)).sum::<f64>() / ideal;
                assert!((found / expected - 1.0).abs() < 0.1, "{shape} {top}: {found}, {expected}");
            }
            let empty = (0..graph.nodes())
                .filter(|node| graph.degree(*node) == 0)
                .map(|node| times[node as usize])
                .sum::<u32>();
            assert!((f64::from(empty) / 1e6 - 0.1975).abs() < 0.04, "{empty} of 1e6 accesses meet an empty list");
        }
    }

    #[test]
    fn the_hottest_shards_have_their_shares() {
        let graph = Graph::new(Shape::Tao, 50_000, 1).unwrap();
        let access = Access::shards(&graph);
        let times = accesses(&access, graph.nodes(), 200_000);
        let order = order(&graph);
        let share = |shard: u32| {
            let nodes = (shard..graph.nodes()).step_by(SHARDS as usize);
            nodes.map(|place| f64::from(times[order.get(place) as usize])).sum::<f64>() / 200_000.0
        };
        assert!((share(0) - 0.578).abs() < 0.01 && (share(1) - 0.223).abs() < 0.01, "{} {}", share(0), share(1));
        assert!((2..SHARDS).all(|shard| share(shard) < 0.05 && share(shard) > 0.0));
    }

    #[test]
    fn hot_nodes_have_the_edges_asked_for() {
        let graph = Graph::new(Shape::Tao, 50_000, 1).unwrap();
        let access = Access::hot(&graph, 50).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..1000).all(|_| graph.degree(access.node(&mut rng)) >= 50));
        assert!(Access::hot(&graph, 100_000).is_err());
    }
}
