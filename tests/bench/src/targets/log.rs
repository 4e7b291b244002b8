//! The change log, where direct writes are to do the same work as tao's.

use std::time::{SystemTime, UNIX_EPOCH};

use super::writes::Edge;

/// What a direct write does beside the edge and its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Nothing.
    None,
    /// The same as tao: a row with the change, at the next position of the log, so that positions are in the order of commits and a
    /// reader who follows them misses nothing. The head's row is locked until the commit is durable.
    Ordered,
    /// A row with the change, numbered by a sequence: cheaper, and less. Whoever follows such a log must look out for numbers whose
    /// transactions are still under way.
    Unordered,
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The change as a row of the log holds it: a version byte, then each direction.
pub(super) fn payload(edge: Edge<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 2 * (28 + edge.data.len()));
    out.push(1);
    let mut direction = |id1: i64, id2: i64| {
        out.extend_from_slice(&id1.to_be_bytes());
        out.extend_from_slice(&edge.atype.to_be_bytes());
        out.extend_from_slice(&id2.to_be_bytes());
        out.extend_from_slice(&edge.time.to_be_bytes());
        out.extend_from_slice(edge.data);
    };
    direction(edge.id1, edge.id2);
    if edge.both {
        direction(edge.id2, edge.id1);
    }
    out
}
