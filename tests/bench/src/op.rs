//! One request, the same for every target, and what came of it.

/// The association types of `schema.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AType {
    /// No inverse. All edges of a fresh graph are of this type.
    Link,
    /// No inverse; empty at first. Changes of type lead here and back.
    Link2,
    /// Its own inverse; empty at first.
    Friend,
}

impl AType {
    /// Its name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Link2 => "link2",
            Self::Friend => "friend",
        }
    }

    /// Its number in the schema.
    pub const fn number(self) -> u16 {
        match self {
            Self::Link => 1,
            Self::Link2 => 2,
            Self::Friend => 3,
        }
    }
}

/// A request. Nodes are places in the graph, from 0; a payload is a ticket for [`Graph::payload`](crate::graph::Graph::payload). Reads
/// of edges are of type `link`. Lists are newest first: `(time desc, id2 desc)` (by a target's own ids where times are equal, which a
/// fresh graph avoids).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// Reads a node. `found` if it is there; `bytes` of its payload.
    ObjectGet { id: u32 },
    /// Makes a node that no later request names.
    ObjectAdd { payload: u32 },
    /// Replaces a node's payload. `found` if it was there.
    ObjectUpdate { id: u32, payload: u32 },
    /// Deletes a node, its edges stay. `found` if it was there.
    ObjectDelete { id: u32 },
    /// Reads one edge. `found` if it is there; `bytes` of its payload.
    AssocGet { id1: u32, id2: u32 },
    /// Length of a list: `items`; `found` if it isn't zero.
    AssocCount { id1: u32 },
    /// The newest edges of a list, with payloads. `found` if there is any.
    AssocRange { id1: u32, limit: u32 },
    /// The newest edges with times from `low` to `high`, both inclusive. `found` if there is any.
    AssocTimeRange { id1: u32, low: u32, high: u32, limit: u32 },
    /// Adds an edge, or replaces its time and payload. `found` if it was there (or always false where a target is not told).
    AssocAdd { id1: u32, id2: u32, time: u32, payload: u32, atype: AType },
    /// Deletes an edge. `found` if it was there.
    AssocDelete { id1: u32, id2: u32, atype: AType },
    /// Moves an edge from `from` to the other of `link` and `link2`. `found` if it was there.
    AssocChangeType { id1: u32, id2: u32, from: AType },
    /// Reads, answered together: no snapshot is asked for. `items` and `bytes` are sums, `found` if any is.
    ReadTransaction(Vec<Op>),
    /// Writes, all or nothing. `found` if any is.
    WriteTransaction(Vec<Op>),
}

impl Op {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        match self {
            Self::ObjectGet { .. }
            | Self::AssocGet { .. }
            | Self::AssocCount { .. }
            | Self::AssocRange { .. }
            | Self::AssocTimeRange { .. }
            | Self::ReadTransaction(_) => false,
            Self::ObjectAdd { .. }
            | Self::ObjectUpdate { .. }
            | Self::ObjectDelete { .. }
            | Self::AssocAdd { .. }
            | Self::AssocDelete { .. }
            | Self::AssocChangeType { .. }
            | Self::WriteTransaction(_) => true,
        }
    }
}

/// What was answered, so that the answers of targets can be compared and nothing is optimised away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// See [`Op`].
    pub found: bool,
    /// Edges returned; for a count its value; 1 for an object or edge that is there; 0 for writes.
    pub items: u32,
    /// Payload bytes returned.
    pub bytes: u32,
}
