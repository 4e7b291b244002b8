//! Reads that memory answers: decided and encoded where the value lies, without a copy, a wait or a task.

use tao_access::Caller;
use tao_cache::{MIN_FETCHED, Mode};
use tao_model::{Position, ShardId, Token};
use tao_proto::data;
use tao_topology::ClusterMap;

use crate::execute::Executor;
use crate::ranges::{covered, head, known_edges};
use crate::validate::ReadCall;

/// A value as answers have it.
pub enum Found<'a> {
    /// An encoded tao.v1.Object; `None`: there is no such object.
    Object(Option<&'a [u8]>),
    /// Edges of a list.
    Count(u64),
    /// Encoded edges, and where to go on, if there is more.
    Edges(&'a [u8], String),
}

/// What a hit has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Where it looked.
    pub shard: ShardId,
    /// How fresh that was.
    pub position: Position,
    /// Whether all of the log was known up to there, not just this key.
    pub is_of_log: bool,
}

impl Executor {
    /// Whether an encoded object is one that its reader may read.
    fn shows(&self, object: &[u8], caller: &Caller) -> bool {
        caller.reads_all_objects()
            || data::object_type(object).is_some_and(|otype| caller.reads_object(&self.schema, otype))
    }

    /// Shows `see` the value, if memory has it at the token's floor or above, the caller may read it, and caches will do. `None`: whatever
    /// the reason, the long way knows it.
    pub fn hit<T>(
        &self,
        map: &ClusterMap,
        call: &ReadCall,
        caller: &Caller,
        token: Option<&Token>,
        see: impl FnOnce(Found<'_>, At) -> T,
    ) -> Option<T> {
        let (owner, atype) = match call {
            ReadCall::Object(id) => (*id, None),
            ReadCall::Edges { list, .. } | ReadCall::Count(list) => (list.id1, Some(list.atype)),
            ReadCall::Range(range) if range.with_objects => return None,
            ReadCall::Range(range) => (range.list.id1, Some(range.list.atype)),
        };
        if atype.is_some_and(|atype| !caller.reads_assoc(atype)) {
            return None;
        }
        let shard = map.shard(owner);
        let reader = self.reader(shard);
        // Before the value is looked at: what is then as fresh as this, is so since all of the log is.
        let applied = reader.memory().applied()?;
        let floor = token.map_or(Position::ZERO, |token| token.floor(shard, map.log_of(shard)));
        if floor != Position::ZERO && floor.epoch != applied.epoch {
            return None;
        }
        let at = |position| At { shard, position, is_of_log: position == applied };
        let mode = Mode::Cached;
        match call {
            ReadCall::Object(id) => {
                let seen = reader.peek_object(*id, floor, mode, |object, fresh| {
                    object
                        .is_none_or(|object| self.shows(object, caller))
                        .then(|| see(Found::Object(object), at(fresh)))
                });
                seen.flatten()
            }
            ReadCall::Count(list) => {
                let count = |count, fresh| see(Found::Count(count), at(fresh));
                reader.peek_list(list.id1, list.atype, 0, floor, mode, |list, fresh| count(list.count(), fresh))
            }
            ReadCall::Edges { list, id2s, times } => {
                let seen = reader.peek_list(list.id1, list.atype, MIN_FETCHED, floor, mode, |list, fresh| {
                    let known = known_edges(list, id2s, *times)?;
                    Some(see(Found::Edges(&known, String::new()), at(fresh)))
                });
                seen.flatten()
            }
            ReadCall::Range(range) => {
                let newest = head(range).max(MIN_FETCHED);
                let seen = reader.peek_list(range.list.id1, range.list.atype, newest, floor, mode, |list, fresh| {
                    let span = covered(list, range)?;
                    let (edges, next) = span.of(list, range.list)?;
                    Some(see(Found::Edges(edges, next), at(fresh)))
                });
                seen.flatten()
            }
        }
    }
}
