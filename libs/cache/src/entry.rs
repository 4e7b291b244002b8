//! What caches hold and hand on.

use std::sync::Arc;

use bytes::Bytes;
use tao_model::Position;

use crate::list::CachedList;

/// The value of one key. A missing object and an empty list are values too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An encoded tao.v1.Object, or its absence.
    Object(Option<Bytes>),
    /// A list's count and newest edges.
    List(Arc<CachedList>),
}

impl Entry {
    /// About how many bytes it takes, apart from what keeping it costs.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Object(object) => object.as_ref().map_or(0, Bytes::len),
            Self::List(list) => list.memory(),
        }
    }

    /// Whether it can answer a request for so many of a list's newest edges.
    pub(crate) fn covers(&self, newest: usize) -> bool {
        match self {
            Self::Object(_) => true,
            Self::List(list) => list.covers(newest),
        }
    }
}

/// A value as it lies in memory: at most one allocation.
#[derive(Debug)]
pub(crate) enum Value {
    /// No object.
    Absent,
    /// An encoded object.
    Object(Box<[u8]>),
    /// A list's count and newest edges.
    List(CachedList),
}

impl Value {
    /// Bytes of its allocation.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Object(object) => object.len(),
            Self::List(list) => list.memory(),
        }
    }

    /// See [`Entry::covers`].
    pub fn covers(&self, newest: usize) -> bool {
        match self {
            Self::Absent | Self::Object(_) => true,
            Self::List(list) => list.covers(newest),
        }
    }

    /// A copy to hand on; of a list, its edges are shared.
    pub fn to_entry(&self) -> Entry {
        match self {
            Self::Absent => Entry::Object(None),
            Self::Object(object) => Entry::Object(Some(Bytes::copy_from_slice(object))),
            Self::List(list) => Entry::List(Arc::new(list.clone())),
        }
    }
}

impl From<&Entry> for Value {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Object(None) => Self::Absent,
            Entry::Object(Some(object)) => Self::Object(object.as_ref().into()),
            Entry::List(list) => Self::List(list.as_ref().clone()),
        }
    }
}

/// A value and the freshness that its sender vouches for (rule 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh<T> {
    /// The value equals the key's state at this position.
    pub as_of: Position,
    /// The value.
    pub value: T,
}

/// Which answers a read takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A cached one at or above the floor.
    Cached,
    /// As `Cached`, from a cache whose newest heartbeat is at most so many milliseconds old.
    MaxStaleness(u64),
    /// One from the log's owner.
    Strong,
}
