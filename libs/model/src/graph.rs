//! Objects, edges, the writes that change them and the changes that a log carries.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::data::{Data, Value};
use crate::id::{IdLayout, ObjectId, ShardId};
use crate::position::Position;

/// The number of an object or association type, from 1; the schema gives it a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a log (of a database) in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u32);

/// A cluster's random identity, made when its first database is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What every tier must agree on before it talks to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which of its logs.
    pub log: LogId,
    /// How its ids are split.
    pub layout: IdLayout,
}

/// Seconds, 0 to 2^32 − 1.
pub type EdgeTime = u32;

/// An object as a store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its id, for life.
    pub id: ObjectId,
    /// Its type, for life.
    pub otype: TypeId,
    /// 1 when added, one more with every change.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970.
    pub updated_ms: u64,
    /// Its encoded data: fields `data` (number 15) of tao.v1.Object, in name order.
    pub data: Bytes,
}

/// An edge as seen from its start, within a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The other end.
    pub id2: ObjectId,
    /// Orders the list, newest first.
    pub time: EdgeTime,
    /// Its encoded data: fields `data` (number 15) of tao.v1.Assoc, in name order.
    pub data: Bytes,
}

/// An edge's place in its list. Ordered as lists are: newest first, so that the newest is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Seconds.
    pub time: EdgeTime,
    /// The other end.
    pub id2: ObjectId,
}

impl Ord for EdgeKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.time, other.id2).cmp(&(self.time, self.id2))
    }
}

impl PartialOrd for EdgeKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Names one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssocRef {
    /// The start.
    pub id1: ObjectId,
    /// The association type.
    pub atype: TypeId,
    /// The end.
    pub id2: ObjectId,
}

/// What caches keep one entry for: an object, or a list with its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An object, or its absence.
    Object(ObjectId),
    /// The edges of one type from one object, and how many there are.
    List(ObjectId, TypeId),
}

impl Key {
    /// The id whose shard the key lives on.
    pub const fn owner(&self) -> ObjectId {
        match self {
            Self::Object(id) | Self::List(id, _) => *id,
        }
    }
}

/// One change of one cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its position in the log.
    pub position: Position,
    /// The logical shard of the key.
    pub shard: ShardId,
    /// What changed.
    pub kind: ChangeKind,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// An object was put (its encoded tao.v1.Object) or deleted.
    Object(ObjectId, Option<Bytes>),
    /// A list got, moved or lost one edge.
    List {
        /// The list's object.
        id1: ObjectId,
        /// The list's association type.
        atype: TypeId,
        /// The position of the list's previous change; zero when there was none.
        prev: Position,
        /// Edges in the list after the change.
        count: u64,
        /// What happened to the edge.
        delta: ListDelta,
    },
}

/// What happened to an edge of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListDelta {
    /// It is now this: its place, and its encoded tao.v1.Assoc without id1 and type. It may have been elsewhere in the list.
    Put(EdgeKey, Bytes),
    /// It is gone.
    Remove(ObjectId),
}

impl Change {
    /// The cache key that changed.
    pub const fn key(&self) -> Key {
        match &self.kind {
            ChangeKind::Object(id, _) => Key::Object(*id),
            ChangeKind::List { id1, atype, .. } => Key::List(*id1, *atype),
        }
    }
}

/// Where a new id is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On a shard chosen evenly.
    Anywhere,
    /// On this shard.
    Shard(ShardId),
    /// This very id, which was allocated before.
    Allocated(ObjectId),
}

/// Changes of single fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ObjectUpdate {
    /// Fields to set.
    pub set: Data,
    /// Fields to remove.
    pub unset: Vec<String>,
    /// int64 fields to add to; absent counts as 0.
    pub add: BTreeMap<String, i64>,
}

impl ObjectUpdate {
    /// Applies the changes; the error names what can't be done, and then nothing was changed.
    pub fn apply(&self, data: &mut Data) -> Result<(), UpdateError> {
        let mut sums = Vec::with_capacity(self.add.len());
        for (name, delta) in &self.add {
            let old = match data.get(name) {
                None => 0,
                Some(Value::Int64(n)) => *n,
                Some(_) => return Err(UpdateError::NotANumber(name.clone())),
            };
            sums.push((name, old.checked_add(*delta).ok_or_else(|| UpdateError::Overflow(name.clone()))?));
        }
        for (name, sum) in sums {
            data.insert(name.clone(), Value::Int64(sum));
        }
        for name in &self.unset {
            data.remove(name);
        }
        data.extend(self.set.iter().map(|(k, v)| (k.clone(), v.clone())));
        Ok(())
    }
}

/// Why an update can't be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateError {
    /// The field to add to holds another kind of value.
    NotANumber(String),
    /// The sum leaves the range of int64.
    Overflow(String),
}

/// A write, as validated at the public door.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Adds an object.
    ObjectAdd {
        /// Its type.
        otype: TypeId,
        /// Its data.
        data: Data,
        /// Where it goes.
        placement: Placement,
    },
    /// Changes fields of an object.
    ObjectUpdate {
        /// The object.
        id: ObjectId,
        /// The changes.
        update: ObjectUpdate,
        /// The version it must have.
        expected_version: Option<i64>,
    },
    /// Adds an object, or replaces its data.
    ObjectUpsert {
        /// The object.
        id: ObjectId,
        /// Its type.
        otype: TypeId,
        /// Its data.
        data: Data,
    },
    /// Deletes an object; its edges stay.
    ObjectDelete {
        /// The object.
        id: ObjectId,
        /// The version it must have.
        expected_version: Option<i64>,
    },
    /// Adds or replaces an edge, and its inverse.
    AssocAdd {
        /// The edge.
        edge: AssocRef,
        /// Seconds; the shard's now when not given.
        time: Option<EdgeTime>,
        /// Its data.
        data: Data,
    },
    /// Deletes an edge, and its inverse.
    AssocDelete {
        /// The edge.
        edge: AssocRef,
    },
    /// Moves an edge, and its inverse, to another type.
    AssocChangeType {
        /// The edge as it is.
        edge: AssocRef,
        /// The type it gets.
        new_atype: TypeId,
    },
    /// Several writes: all of them, or none.
    Batch(WriteBatch),
    /// What another log has left to do here; idempotent, since each log's intents come in their order.
    Intents {
        /// Whose.
        source: LogId,
        /// In order.
        intents: Vec<Intent>,
    },
}

impl Write {
    /// The single writes that it consists of: of a batch its own, else itself.
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::Batch(batch) => &batch.writes,
            single => std::slice::from_ref(single),
        }
    }
}

/// Writes that are done all together or not at all, and what must be so for that.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteBatch {
    /// Tested before any of the writes, in order.
    pub conditions: Vec<Condition>,
    /// Done in order; none is itself a batch.
    pub writes: Vec<Write>,
}

/// What must be so before a batch is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is such an object, or there is not.
    Object {
        /// The object.
        id: ObjectId,
        /// Whether there is.
        exists: bool,
    },
    /// There is such an object, and it has this version.
    Version {
        /// The object.
        id: ObjectId,
        /// Its version.
        version: i64,
    },
    /// There is such an edge, or there is not.
    Edge {
        /// The edge.
        edge: AssocRef,
        /// Whether there is.
        exists: bool,
    },
}

impl Condition {
    /// The edge that it is about, or the object.
    pub const fn about(&self) -> Result<AssocRef, ObjectId> {
        match self {
            Self::Object { id, .. } | Self::Version { id, .. } => Err(*id),
            Self::Edge { edge, .. } => Ok(*edge),
        }
    }
}

/// What one write in another log has left to do in this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Its place among all intents of its log: epochs are the log's, and within one they are counted.
    pub position: Position,
    /// Done all together.
    pub steps: Vec<Step>,
}

/// One step of an intent. None can fail: what could was checked before the intent was made.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Puts an edge into a list.
    Put {
        /// The edge.
        edge: AssocRef,
        /// Its place in the list.
        time: EdgeTime,
        /// As in [`Edge`].
        data: Bytes,
        /// Whether this log is the one that orders the pair of edges: then it sees to the inverse, too.
        both: bool,
    },
    /// Removes an edge from a list, if it is there.
    Remove {
        /// The edge.
        edge: AssocRef,
        /// As in `Put`.
        both: bool,
    },
    /// Deletes an object, if it is there.
    DeleteObject(ObjectId),
}

impl Step {
    /// Whether the log that does it orders a pair of edges, and may have to leave an intent for the inverse.
    pub const fn is_ordering(&self) -> bool {
        match self {
            Self::Put { both, .. } | Self::Remove { both, .. } => *both,
            Self::DeleteObject(_) => false,
        }
    }
}

/// An intent that is not known to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// A logical shard of the log in which it is to be done.
    pub shard: ShardId,
    /// Its place: it is done when everything up to here is that goes to that log.
    pub position: Position,
    /// Whether that log may leave something to yet another, or to this one, in turn.
    pub more: bool,
    /// Whether it is all of its write: the other log decides what has become of that.
    pub whole: bool,
}

/// What a write has done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteOutcome {
    /// The new state.
    pub result: WriteResult,
    /// The position of its last change; where nothing changed, a position at which the result was seen.
    pub position: Position,
    /// Its changeset, in log order; where it has reached other logs, their changes follow. Empty when nothing changed.
    pub changes: Vec<Change>,
    /// What it has left to do in other logs, as far as it is not known to be done.
    pub pending: Vec<Pending>,
    /// Of [`Write::Batch`] and [`Write::Intents`]: one for each of theirs.
    pub items: Vec<ItemOutcome>,
}

/// What one write of a batch, or one intent, has done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemOutcome {
    /// The new state; nothing is known of a write that is pending.
    pub result: WriteResult,
    /// How many of the outcome's changes are its own: they follow those of the items before it.
    pub changes: usize,
    /// What it has left to do in other logs.
    pub pending: Vec<Pending>,
    /// Of an intent: whether it came before, and nothing was done.
    pub skipped: bool,
}

/// The new state that a write answers with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WriteResult {
    /// The encoded tao.v1.Object.
    pub object: Option<Bytes>,
    /// The encoded tao.v1.Assoc, without id1 and type.
    pub edge: Option<Bytes>,
    /// Edges in the list that the write named.
    pub count: u64,
    /// Adds and upserts: whether it was new. Deletes: whether it was there.
    pub applied: bool,
}
