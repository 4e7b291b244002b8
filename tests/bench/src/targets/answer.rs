//! What requests come to, the same way for every target.

use super::reads::{EdgeRow, ObjectRow};
use crate::op::{AType, Outcome};

/// A type's number, as columns hold it.
pub(super) fn number(atype: AType) -> i32 {
    i32::from(atype.number())
}

/// The other of the two types that edges move between.
pub(super) fn other(atype: AType) -> AType {
    if atype == AType::Link { AType::Link2 } else { AType::Link }
}

/// Of a node that is there.
pub(super) fn got(row: &ObjectRow) -> Outcome {
    Outcome { found: true, items: 1, bytes: row.data.len() as u32 }
}

/// Of edges that were returned.
pub(super) fn listed(edges: &[EdgeRow]) -> Outcome {
    let bytes = edges.iter().map(|edge| edge.data.len() as u32).sum();
    Outcome { found: !edges.is_empty(), items: edges.len() as u32, bytes }
}

/// Of a write, by whether there was something before it.
pub(super) fn wrote(found: bool) -> Outcome {
    Outcome { found, items: 0, bytes: 0 }
}

/// Of a length.
pub(super) fn counted(count: i64) -> Outcome {
    Outcome { found: count > 0, items: count as u32, bytes: 0 }
}

/// Of several requests that are answered together.
pub(super) fn sum(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    outcomes.into_iter().fold(Outcome::default(), |sum, one| Outcome {
        found: sum.found || one.found,
        items: sum.items + one.items,
        bytes: sum.bytes + one.bytes,
    })
}
