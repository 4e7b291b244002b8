//! The judge: compares what sessions saw and were told with the log, which is the one truth about order. No I/O.
//!
//! [`Replay`] takes in the log, commit by commit, and keeps every state that a key has ever had; [`History`] is what the sessions did
//! and saw; [`judge`] says which promise of COHERENCE.md was broken, if any.

mod bounds;
mod explain;
mod history;
mod judge;
mod list;
mod object;
mod reads;
mod replay;
mod shape;
mod tables;
mod violation;
mod writes;

#[cfg(test)]
mod tests;

pub use history::{
    Among, Arena, Asked, Done, Failed, Filter, History, Level, Lsn, Outcome, Page, Process, Read, Seen, SessionHistory,
    Span, Step, Time, Write,
};
pub use judge::{Verdict, judge};
pub use list::edge_hash;
pub use object::{ABSENT, object_hash};
pub use replay::{CommitRow, Replay, Truth};
pub use shape::Shape;
pub use tables::{AssocRow, CountRow, ObjectRow, Tables};
pub use violation::{Kind, Violation};
