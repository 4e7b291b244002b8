//! The vocabulary of tao: ids, objects, associations, positions, tokens, the schema and the limits. No I/O.

pub mod clock;
pub mod compatibility;
pub mod cursor;
pub mod data;
pub mod error;
pub mod graph;
pub mod hash;
pub mod id;
pub mod limits;
pub mod mutation;
pub mod position;
pub mod schema;
pub mod shards;
pub mod token;

mod bytes_reader;

pub use clock::{Clock, SystemClock};
pub use cursor::Cursor;
pub use data::{Data, Value};
pub use error::{Error, Result, Violation, Violations};
pub use graph::{
    AssocRef, Change, ChangeKind, ClusterId, ClusterInfo, Condition, Edge, EdgeKey, EdgeTime, Intent, ItemOutcome, Key,
    ListDelta, LogId, Object, ObjectUpdate, Pending, Placement, Step, TypeId, Write, WriteBatch, WriteOutcome,
    WriteResult,
};
pub use hash::StableHash;
pub use id::{IdGenerator, IdLayout, ObjectId, ShardId};
pub use position::Position;
pub use schema::{AssocType, ObjectType, Schema};
pub use shards::ShardSet;
pub use token::Token;
