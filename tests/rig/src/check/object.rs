//! Every state that an object had.

use prost::Message as _;
use tao_model::StableHash;
use tao_proto::v1;

use crate::check::Lsn;

/// Stands for an object that does not exist.
pub const ABSENT: u64 = 0;

/// Stands for an object's state, all of it.
pub fn object_hash(object: &v1::Object) -> u64 {
    StableHash::of(&object.encode_to_vec()).max(1)
}

/// A state, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectVersion {
    pub lsn: Lsn,
    pub hash: u64,
    pub version: i64,
    /// Its field `n`.
    pub n: i64,
}

/// All states of one object, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ObjectHistory {
    pub versions: Vec<ObjectVersion>,
}

impl ObjectHistory {
    /// How many states began up to a position.
    fn reached(&self, lsn: Lsn) -> usize {
        self.versions.partition_point(|v| v.lsn <= lsn)
    }

    pub fn at(&self, lsn: Lsn) -> Option<&ObjectVersion> {
        self.reached(lsn).checked_sub(1).map(|i| &self.versions[i])
    }

    pub fn hash_at(&self, lsn: Lsn) -> u64 {
        self.at(lsn).map_or(ABSENT, |v| v.hash)
    }

    /// The first of the states that were current at some position within the bounds and equal `hash`: where it began.
    pub fn earliest(&self, lo: Lsn, hi: Lsn, hash: u64) -> Option<Lsn> {
        let (first, last) = (self.reached(lo), self.reached(hi));
        if first == 0 && hash == ABSENT && hi >= lo {
            return Some(0);
        }
        let states = self.versions.get(first.saturating_sub(1)..last)?;
        states.iter().find(|v| v.hash == hash).map(|v| v.lsn)
    }
}
