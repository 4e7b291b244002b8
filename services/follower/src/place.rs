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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tao_model::{ClusterId, ClusterInfo, Data, IdLayout, LogId, ObjectId, TypeId, Violations};
    use tao_proto::v1::WriteOptions;
    use tao_topology::Topology;
    use tonic::metadata::MetadataMap;

    /// A session with this key, in a cluster of 16 shards: 0 to 7 in log 0, the others in log 1.
    pub(crate) fn session(key: &str) -> Session {
        let topology = "version = 1\ncluster = \"6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11\"\nleaders = [\"l:1\"]\n\
            [[logs]]\nid = 0\nshards = [\"0-7\"]\nservers = [\"a:1\"]\n\
            [[logs]]\nid = 1\nshards = [\"8-15\"]\nservers = [\"b:1\"]\n";
        let topology = Topology::parse(topology).unwrap();
        let layout = IdLayout::new(42, 10, 12, 16).unwrap();
        let info = ClusterInfo { cluster: topology.cluster().unwrap(), log: LogId(0), layout };
        let map = ClusterMap::new(&info, topology.into()).unwrap();
        let options = WriteOptions { idempotency_key: key.to_owned(), ..Default::default() };
        Session::of_write(
            &tao_access::Caller::anybody().into(),
            &map,
            Some(&options),
            &MetadataMap::new(),
            &mut Violations::default(),
        )
        .unwrap()
    }

    /// The `n`th id of a shard.
    pub(crate) fn id(shard: i64, n: i64) -> ObjectId {
        ObjectId::new((1 << 40) | (shard << 12) | n).unwrap()
    }

    #[test]
    fn both_sides_of_a_pair_have_one_home() {
        let (schema, session) = (Schema::social(), session(""));
        let map = session.map();
        assert_eq!(map.cluster, ClusterId(*b"\x6c\x7f\x2f\x86\x5a\x0e\x4c\x0c\x9d\x3b\x0d\x9a\x3f\x1f\x4b\x11"));
        let edge = |id1, name: &str, id2| AssocRef { id1, atype: schema.assoc_named(name).unwrap().number, id2 };
        let (a, b, far) = (id(1, 1), id(2, 1), id(9, 1));
        let home = |edge| home(edge, &schema, map).0;
        assert_eq!((home(edge(a, "follows", b)), home(edge(b, "followed_by", a))), (1, 2), "as before in one log");
        for (one, inverse, want) in [
            (edge(a, "follows", far), edge(far, "followed_by", a), 1),
            (edge(far, "follows", a), edge(a, "followed_by", far), 9),
            (edge(a, "friend", far), edge(far, "friend", a), 1),
        ] {
            assert_eq!((home(one), home(inverse)), (want, want));
            let change = Write::AssocChangeType { edge: inverse, new_atype: TypeId(1) };
            assert_eq!(of_write(&change, &schema, map), Some(ShardId(want)));
        }
        let condition = Condition::Edge { edge: edge(far, "followed_by", a), exists: true };
        assert_eq!(of_condition(&condition, &schema, map), ShardId(1));
    }

    #[test]
    fn new_objects_go_to_the_same_place_when_they_are_repeated() {
        let add = || Write::ObjectAdd { otype: TypeId(1), data: Data::new(), placement: Placement::Anywhere };
        let session = session("key");
        assert_eq!(placed(add(), &session), placed(add(), &session));
        let beside = |n| shard_beside(ShardId(9), n, &session);
        assert!((0..100).all(|n| beside(n) == beside(n) && (8..16).contains(&beside(n).0)));
        let all: std::collections::HashSet<_> = (0..100).map(beside).collect();
        assert_eq!(all.len(), 8, "spread over all of the log's shards");
        let random = super::tests::session("");
        assert!((0..100).all(|n| shard_beside(ShardId(3), n, &random).0 < 8));
    }
}
