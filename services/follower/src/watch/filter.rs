//! Which changes a watcher wants, and how it gets them.

use std::collections::HashSet;

use tao_access::Caller;
use tao_model::limits::{MAX_IDS, MAX_SINCE_MS};
use tao_model::{Error, ObjectId, Result, Schema, ShardId, TypeId, Violations};
use tao_proto::internal::{self, change::Key};
use tao_proto::{Answer, convert, data, edges, v1};
use tao_topology::ClusterMap;

use crate::validate::Door;

/// Fields of tao.v1.Change, and of AssocChange.
const OBJECT_PUT: u32 = 1;
const OBJECT_DELETED: u32 = 2;
const ASSOC_PUT: u32 = 3;
const ASSOC_DELETED: u32 = 4;
const ASSOC: u32 = 1;
const COUNT: u32 = 2;

/// A checked tao.v1.WatchRequest, without its beginning. What is not set lets everything pass.
#[derive(Debug, Default)]
pub struct Filter {
    shards: Option<HashSet<ShardId>>,
    types: Option<Types>,
    ids: Option<HashSet<ObjectId>>,
}

#[derive(Debug, Default)]
struct Types {
    /// By name, as encoded objects have it.
    objects: HashSet<String>,
    assocs: HashSet<TypeId>,
}

impl Filter {
    /// Of a request; every rule that it breaks is added to the violations.
    pub fn new(request: &v1::WatchRequest, door: &Door<'_>, violations: &mut Violations) -> Self {
        let mut filter = Self::default();
        if !request.shards.is_empty() {
            let mut shards = HashSet::new();
            for (n, raw) in request.shards.iter().enumerate() {
                match u32::try_from(*raw) {
                    Ok(shard) if shard < door.layout.shards() => drop(shards.insert(ShardId(shard))),
                    _ => violations
                        .add(format!("shards[{n}]"), format!("{raw} is not within 0 to {}", door.layout.shards() - 1)),
                }
            }
            filter.shards = Some(shards);
        }
        if !request.object_types.is_empty() || !request.assoc_types.is_empty() {
            let mut types = Types::default();
            for (n, name) in request.object_types.iter().enumerate() {
                match door.schema.object_named(name) {
                    Ok(found) => drop(types.objects.insert(found.name.clone())),
                    Err(rule) => violations.add(format!("object_types[{n}]"), rule),
                }
            }
            for (n, name) in request.assoc_types.iter().enumerate() {
                match door.schema.assoc_named(name) {
                    Ok(found) => drop(types.assocs.insert(found.number)),
                    Err(rule) => violations.add(format!("assoc_types[{n}]"), rule),
                }
            }
            filter.types = Some(types);
        }
        if request.ids.len() > MAX_IDS {
            violations.add("ids", format!("{} ids are more than {MAX_IDS}", request.ids.len()));
        } else if !request.ids.is_empty() {
            filter.ids = Some(door.ids("ids", &request.ids, violations).into_iter().collect());
        }
        if request.since_ms < 0 || request.since_ms as u64 > MAX_SINCE_MS {
            violations.add("since_ms", format!("{} is not within 0 to {MAX_SINCE_MS} ms", request.since_ms));
        }
        if request.since_ms != 0 && !request.session_token.is_empty() {
            violations.add("since_ms", "not together with session_token, which says where to begin");
        }
        filter
    }

    /// Fails unless all that passes may be read.
    pub fn may_be_read(&self, caller: &Caller, schema: &Schema) -> Result<()> {
        if caller.reads_all() {
            return Ok(());
        }
        let Some(types) = &self.types else {
            return Err(caller.denied("watch all types: name those to watch in object_types and assoc_types"));
        };
        types.objects.iter().try_for_each(|name| caller.may_read_object(schema, name))?;
        types.assocs.iter().try_for_each(|number| caller.may_read_assoc(schema, *number))
    }

    /// The places in the topology of the logs that can have a change that passes.
    pub fn places(&self, map: &ClusterMap) -> Vec<usize> {
        let topology = map.topology();
        let of_shards = |shards: &HashSet<ShardId>| shards.iter().map(|s| topology.place_of(*s)).collect();
        let by_shard: Option<HashSet<usize>> = self.shards.as_ref().map(of_shards);
        let by_id: Option<HashSet<usize>> =
            self.ids.as_ref().map(|ids| ids.iter().map(|id| topology.place_of(map.shard(*id))).collect());
        let passes = |place: &usize| [&by_shard, &by_id].iter().all(|f| f.as_ref().is_none_or(|f| f.contains(place)));
        (0..topology.logs().len()).filter(passes).collect()
    }

    fn passes(&self, change: &internal::Change, key: &Key) -> Result<bool> {
        if self.shards.as_ref().is_some_and(|shards| !shards.contains(&ShardId(change.shard))) {
            return Ok(false);
        }
        let (id, of_type) = match key {
            Key::Object(object) => {
                let of_type = |types: &Types| match &object.object {
                    Some(encoded) => data::object_type(encoded).is_some_and(|name| types.objects.contains(name)),
                    None => !types.objects.is_empty(),
                };
                (object.id, self.types.as_ref().is_none_or(of_type))
            }
            Key::List(list) => {
                let of_type = |types: &Types| types.assocs.contains(&TypeId(list.atype));
                (list.id1, self.types.as_ref().is_none_or(of_type))
            }
        };
        let id = convert::id(id)?;
        Ok(of_type && self.ids.as_ref().is_none_or(|ids| ids.contains(&id)))
    }

    /// The change as a tao.v1.Change, if it passes. What is cached encoded is not decoded.
    pub fn take(&self, change: internal::Change, schema: &Schema) -> Result<Option<Answer>> {
        let broken = || Error::Internal { what: "a change without a key".to_owned() };
        let key = change.key.as_ref().ok_or_else(broken)?;
        if !self.passes(&change, key)? {
            return Ok(None);
        }
        let mut out = Answer::new();
        match change.key.ok_or_else(broken)? {
            Key::Object(object) => match object.object {
                Some(encoded) => out.push_field(OBJECT_PUT, encoded),
                None => out.push_int(OBJECT_DELETED, object.id),
            },
            Key::List(list) => {
                let name = schema.assoc(TypeId(list.atype)).map(|t| t.name.as_str()).ok_or_else(|| {
                    Error::Internal { what: format!("this follower's schema has no association type {}", list.atype) }
                })?;
                let field = if list.edge.is_some() { ASSOC_PUT } else { ASSOC_DELETED };
                let edge = match list.edge {
                    Some(edge) => edge,
                    None => edges::encode_end(convert::id(list.id2)?),
                };
                let mut content = Answer::new();
                content.push_field(ASSOC, edges::full_assoc(convert::id(list.id1)?, name, &edge));
                content.push_int(COUNT, list.count as i64);
                out.push_answer(field, content);
            }
        }
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use prost::Message as _;
    use tao_model::{Change, ChangeKind, Edge, EdgeKey, IdLayout, ListDelta, Position};

    fn id(n: i64) -> ObjectId {
        ObjectId::new(n).unwrap()
    }

    fn filter(request: &v1::WatchRequest) -> Result<Filter> {
        let schema = Schema::social();
        let mut violations = Violations::default();
        let filter = Filter::new(request, &Door { schema: &schema, layout: IdLayout::STANDARD }, &mut violations);
        violations.check().map(|()| filter)
    }

    /// An object put and deleted on shard 0, an edge put and removed on shard 3.
    fn changes() -> Vec<internal::Change> {
        let object = v1::Object { id: 7, r#type: "post".to_owned(), version: 2, ..Default::default() };
        let edge = Edge { id2: id(7), time: 5, data: Bytes::new() };
        let list = |delta| ChangeKind::List { id1: id(9), atype: TypeId(3), prev: Position::ZERO, count: 4, delta };
        let kinds = [
            (0, ChangeKind::Object(id(7), Some(object.encode_to_vec().into()))),
            (0, ChangeKind::Object(id(7), None)),
            (3, list(ListDelta::Put(EdgeKey { time: 5, id2: id(7) }, edges::encode_edge(&edge)))),
            (3, list(ListDelta::Remove(id(7)))),
        ];
        let change = |(shard, kind)| {
            internal::Change::from(&Change { position: Position::new(1, 1), shard: ShardId(shard), kind })
        };
        kinds.into_iter().map(change).collect()
    }

    fn taken(request: &v1::WatchRequest) -> Vec<v1::change::Kind> {
        let (filter, schema) = (filter(request).unwrap(), Schema::social());
        let take = |change| filter.take(change, &schema).unwrap();
        let decode = |answer: Answer| v1::Change::decode(answer.to_bytes()).unwrap().kind.unwrap();
        changes().into_iter().filter_map(take).map(decode).collect()
    }

    #[test]
    fn changes_are_what_the_api_says() {
        let assoc = |time| v1::Assoc { id1: 9, r#type: "likes".to_owned(), id2: 7, time, ..Default::default() };
        let change = |time| v1::AssocChange { assoc: Some(assoc(time)), count: 4 };
        let object = v1::Object { id: 7, r#type: "post".to_owned(), version: 2, ..Default::default() };
        let all = [
            v1::change::Kind::ObjectPut(object),
            v1::change::Kind::ObjectDeleted(7),
            v1::change::Kind::AssocPut(change(5)),
            v1::change::Kind::AssocDeleted(change(0)),
        ];
        assert_eq!(taken(&v1::WatchRequest::default()), all);
        let post = v1::WatchRequest { object_types: vec!["post".to_owned()], ..Default::default() };
        assert_eq!(taken(&post), all[..2]);
        let likes = v1::WatchRequest { assoc_types: vec!["likes".to_owned()], ..Default::default() };
        assert_eq!(taken(&likes), all[2..]);
        let both = v1::WatchRequest { object_types: vec!["user".to_owned()], ..likes.clone() };
        assert_eq!(taken(&both), all[1..], "a deletion does not tell its type");
        let ids = |ids| v1::WatchRequest { ids, ..Default::default() };
        assert_eq!(taken(&ids(vec![7])), all[..2], "the other end is not what it starts at");
        assert_eq!(taken(&ids(vec![9, 7])), all);
        assert_eq!(taken(&v1::WatchRequest { shards: vec![3], ..Default::default() }), all[2..]);
        assert!(taken(&v1::WatchRequest { shards: vec![3], ..ids(vec![7]) }).is_empty(), "every filter counts");
    }

    #[test]
    fn every_wrong_filter_is_reported() {
        let wrong = v1::WatchRequest {
            shards: vec![0, -1, 1024],
            object_types: vec!["likes".to_owned()],
            assoc_types: vec!["post".to_owned()],
            ids: vec![0],
            since_ms: -1,
            session_token: "x".to_owned(),
        };
        let Err(Error::InvalidArgument { violations }) = filter(&wrong) else { panic!("accepted") };
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        let want = ["shards[1]", "shards[2]", "object_types[0]", "assoc_types[0]", "ids[0]", "since_ms", "since_ms"];
        assert_eq!(fields, want);
        assert!(filter(&v1::WatchRequest { ids: vec![1; 1001], ..Default::default() }).is_err());
    }
}
