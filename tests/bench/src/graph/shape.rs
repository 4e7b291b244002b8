//! Published shapes: how many edges nodes have, and how many bytes.

use crate::hash::{bits, log_normal, unit};

/// The longest payload, so that a length fits its ticket: 16 KiB − 1.
pub const MAX_PAYLOAD: u32 = (1 << 14) - 1;

/// Degrees and payloads after a paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Shape {
    /// "TAO: Facebook's Distributed Data Store for the Social Graph" (2013): 45 % of the lists are empty; of the others 64 % have one
    /// edge, 1 % at least 500, none more than 6,000. 39.5 % of the edges have no payload, the others 97.8 bytes on average; objects 673.
    Tao,
    /// "LinkBench" (2013): degrees as its data file gives them (20 % zeros, 53 % ones, 0.1 % above 500; above 740 a power law of
    /// exponent 1.15, above 10,000 of 2.2, up to 311,772). Payload medians 8 and 128 bytes.
    Linkbench,
}

/// `(degree, share of nodes with more edges than that)`; between two points the share falls as a power of the degree.
type Tail = &'static [(f64, f64)];

const TAO: Tail = &[(0.0, 0.55), (1.0, 0.198), (499.0, 0.0055), (6_000.0, 0.000_13)];

const LINKBENCH: Tail = &[
    (0.0, 0.802_53),
    (1.0, 0.270_15),
    (2.0, 0.132_62),
    (3.0, 0.081_83),
    (4.0, 0.055_41),
    (5.0, 0.041_31),
    (7.0, 0.026_21),
    (10.0, 0.016_59),
    (15.0, 0.010_37),
    (20.0, 0.007_78),
    (30.0, 0.005_35),
    (50.0, 0.003_48),
    (100.0, 0.002_26),
    (200.0, 0.001_60),
    (500.0, 0.001_00),
    (740.0, 0.000_813),
    (10_000.0, 4.06e-5),
    (20_000.0, 8.9e-6),
    (50_000.0, 1.5e-6),
    (311_772.0, 1.9e-7),
];

impl Shape {
    /// For reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tao => "tao",
            Self::Linkbench => "linkbench",
        }
    }

    const fn tail(self) -> Tail {
        match self {
            Self::Tao => TAO,
            Self::Linkbench => LINKBENCH,
        }
    }

    /// The degree that a share `above` (in 0 to 1) of all nodes exceeds or equals.
    pub fn degree(self, above: f64) -> u32 {
        let tail = self.tail();
        let next = tail.partition_point(|(_, share)| *share > above);
        let Some(&(high, high_share)) = tail.get(next) else {
            return tail.last().map_or(0, |(most, _)| *most as u32);
        };
        // From nothing to the first point there is nothing to interpolate, nor from zero, which has no logarithm.
        let Some(&(low, low_share)) =
            next.checked_sub(1).and_then(|before| tail.get(before)).filter(|(low, _)| *low > 0.0)
        else {
            return high as u32;
        };
        let exponent = (high_share / low_share).ln() / (high / low).ln();
        // The first degree whose own share above is not more than this one.
        (low * (above / low_share).powf(1.0 / exponent)).ceil() as u32
    }

    /// Bytes of a node's payload.
    pub fn object_bytes(self, chance: u64) -> u32 {
        let median = match self {
            Self::Tao => 673.0 / 0.5_f64.exp(),
            Self::Linkbench => 128.0,
        };
        bounded(log_normal(chance, median, 1.0))
    }

    /// Bytes of an edge's payload.
    pub fn edge_bytes(self, chance: u64) -> u32 {
        match self {
            Self::Tao if unit(bits(chance, 0, 1)) < 0.395 => 0,
            Self::Tao => bounded(log_normal(chance, 97.8 / 0.5_f64.exp(), 1.0)).max(1),
            Self::Linkbench => bounded(log_normal(chance, 8.0, 1.0)),
        }
    }
}

fn bounded(bytes: f64) -> u32 {
    (bytes.round() as u32).min(MAX_PAYLOAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degrees(shape: Shape, n: u32) -> Vec<u32> {
        (0..n).map(|place| shape.degree((f64::from(place) + 0.5) / f64::from(n))).collect()
    }

    fn share(degrees: &[u32], has: impl Fn(u32) -> bool) -> f64 {
        degrees.iter().filter(|degree| has(**degree)).count() as f64 / degrees.len() as f64
    }

    #[test]
    fn degrees_are_as_the_papers_say() {
        let tao = degrees(Shape::Tao, 1_000_000);
        assert!((share(&tao, |degree| degree == 0) - 0.45).abs() < 0.001);
        assert!((share(&tao, |degree| degree == 1) - 0.55 * 0.64).abs() < 0.001);
        assert!((share(&tao, |degree| degree >= 500) - 0.55 * 0.01).abs() < 0.0002);
        assert_eq!(tao.iter().max(), Some(&6_000));
        let linkbench = degrees(Shape::Linkbench, 1_000_000);
        for (up_to, published) in
            [(0, 0.1975), (1, 0.7298), (5, 0.9587), (10, 0.9834), (100, 0.99774), (400, 0.99888), (10_000, 0.99996)]
        {
            let found = share(&linkbench, |degree| degree <= up_to);
            assert!((found - published).abs() < 0.0003, "{up_to}: {found}");
        }
        let mean = linkbench.iter().map(|degree| f64::from(*degree)).sum::<f64>() / 1e6;
        assert!((4.0..6.0).contains(&mean), "{mean}");
    }

    #[test]
    fn payloads_are_as_the_papers_say() {
        let chances = || (0..200_000).map(|place| bits(3, 4, place));
        let edges: Vec<u32> = chances().map(|chance| Shape::Tao.edge_bytes(chance)).collect();
        let empty = share(&edges, |bytes| bytes == 0);
        let sum: f64 = edges.iter().map(|bytes| f64::from(*bytes)).sum();
        assert!((empty - 0.395).abs() < 0.005, "{empty}");
        let mean = sum / (200_000.0 * (1.0 - empty));
        assert!((mean / 97.8 - 1.0).abs() < 0.03, "{mean}");
        let objects: f64 = chances().map(|chance| f64::from(Shape::Tao.object_bytes(chance))).sum();
        assert!((objects / 200_000.0 / 673.0 - 1.0).abs() < 0.03);
        let links: Vec<u32> = chances().map(|chance| Shape::Linkbench.edge_bytes(chance)).collect();
        assert!((0.45..0.55).contains(&share(&links, |bytes| bytes < 8)));
    }
}
