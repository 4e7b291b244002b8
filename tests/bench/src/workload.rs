//! What is asked: published mixes and single operations, as endless streams that depend on a seed only.

mod access;
mod stream;

use clap::ValueEnum;

pub use stream::{Stream, limits};

use crate::graph::Shape;

/// Mixes and single operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Workload {
    /// The mix of the TAO paper
    Tao,
    /// The mix of the LinkBench paper
    Linkbench,
    /// TAOBench's workload A (applications)
    TaobenchA,
    /// TAOBench's workload O (overall)
    TaobenchO,
    /// A few thousand nodes, again and again
    ObjectGet,
    /// The newest 50 edges of some lists that have them, again and again
    #[value(name = "range-50")]
    Range50,
    /// Counts of a few thousand lists, again and again
    Count,
    /// An edge that is there, of any node
    AssocGet,
    /// A part of a list
    TimeRange,
    /// A new edge without an inverse
    AssocAdd,
    /// A new edge with one
    FriendAdd,
    /// A new node
    ObjectAdd,
    /// Another payload for a node
    ObjectUpdate,
}

impl Workload {
    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The graph it is meant for.
    pub fn shape(self) -> Shape {
        match self {
            Self::Linkbench => Shape::Linkbench,
            Self::Tao
            | Self::TaobenchA
            | Self::TaobenchO
            | Self::ObjectGet
            | Self::Range50
            | Self::Count
            | Self::AssocGet
            | Self::TimeRange
            | Self::AssocAdd
            | Self::FriendAdd
            | Self::ObjectAdd
            | Self::ObjectUpdate => Shape::Tao,
        }
    }
}
