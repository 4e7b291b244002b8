//! Where writes are decided on: the shard whose log orders them.

use tao_model::{AssocRef, Condition, Placement, Schema, ShardId, StableHash, Write, WriteBatch};
use tao_topology::ClusterMap;

use crate::session::Session;

/// A shard chosen evenly; of a write that may be repeated, always the same.
pub fn any_shard(session: &Session) -> ShardId {
    let layout = &session.map().layout;
    match session.idempotency_key.as_str() {
        "" => ShardId(rand::random_range(0..layout.shards())),
        key => layout.shard_of_key(key),
    }
}

/// A shard of the log that `of` lives in, chosen evenly; for the `n`th of the writes with one key always the same.
pub fn shard_beside(of: ShardId, n: usize, session: &Session) -> ShardId {
    let topology = session.map().topology();
    let shards = topology.logs()[topology.place_of(of)].shards.as_ref();
    let count = shards.map_or(session.map().layout.shards() as usize, tao_model::ShardSet::len);
    let chosen = match session.idempotency_key.as_str() {
        "" => rand::random_range(0..count),
        key => (StableHash::of(format!("{n} {key}").as_bytes()) % count as u64) as usize,
    };
    match shards {
        Some(shards) => shards.iter().nth(chosen).unwrap_or(of),
        None => ShardId(chosen as u32),
    }
}

/// A write whose new object has its shard.
pub fn placed(mut write: Write, session: &Session) -> Write {
    if let Write::ObjectAdd { placement: placement @ Placement::Anywhere, .. } = &mut write {
        *placement = Placement::Shard(any_shard(session));
    }
    write
}

/// The shard whose log orders the writes of an edge and its inverse: where both ends live in one log, the start's; else that of the
/// canonical side, whichever is named, so that writes from both sides have one order.
pub fn home(edge: AssocRef, schema: &Schema, map: &ClusterMap) -> ShardId {
    let (start, end) = (map.shard(edge.id1), map.shard(edge.id2));
    if map.log_of(start) == map.log_of(end) { start } else { map.shard(schema.canonical(edge).id1) }
}

/// The shard whose log orders a write; none when it may be any.
pub fn of_write(write: &Write, schema: &Schema, map: &ClusterMap) -> Option<ShardId> {
    match write {
        Write::ObjectAdd { placement, .. } => match placement {
            Placement::Anywhere => None,
            Placement::Shard(shard) => Some(*shard),
            Placement::Allocated(id) => Some(map.shard(*id)),
        },
        Write::ObjectUpdate { id, .. } | Write::ObjectUpsert { id, .. } | Write::ObjectDelete { id, .. } => {
            Some(map.shard(*id))
        }
        Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } | Write::AssocChangeType { edge, .. } => {
            Some(home(*edge, schema, map))
        }
        Write::Batch(batch) => of_batch(batch, schema, map),
        Write::Intents { .. } => None,
    }
}

/// The shard whose log decides on a batch: that of the first write that has a place, else of the first precondition.
pub fn of_batch(batch: &WriteBatch, schema: &Schema, map: &ClusterMap) -> Option<ShardId> {
    let of_writes = batch.writes.iter().find_map(|write| of_write(write, schema, map));
    of_writes.or_else(|| batch.conditions.first().map(|condition| of_condition(condition, schema, map)))
}

/// The shard in whose log a condition can be tested.
pub fn of_condition(condition: &Condition, schema: &Schema, map: &ClusterMap) -> ShardId {
    match condition.about() {
        Ok(edge) => home(edge, schema, map),
        Err(id) => map.shard(id),
    }
}
