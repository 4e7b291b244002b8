//! The public door: requests become calls of the model, or an error that names every violation at once.

use std::collections::BTreeMap;
use std::fmt::Display;

use tao_model::limits::{DEFAULT_LIMIT, MAX_BATCH, MAX_IDS, MAX_LIMIT, MAX_OFFSET, MAX_SHARD_KEY};
use tao_model::{
    AssocRef, Cursor, EdgeKey, EdgeTime, Error, IdLayout, ObjectId, ObjectUpdate, Placement, Result, Schema, ShardId,
    TypeId, Violations, Write,
};
use tao_proto::{data, v1};

/// A read, as validated.
#[derive(Debug, Clone)]
pub enum ReadCall {
    /// One object.
    Object(ObjectId),
    /// Edges to given objects.
    Edges {
        /// The list.
        list: ListRef,
        /// The other ends.
        id2s: Vec<ObjectId>,
        /// Time bounds, both included.
        times: (EdgeTime, EdgeTime),
    },
    /// How many edges.
    Count(ListRef),
    /// Edges by place.
    Range(RangeCall),
}

/// Names a list.
#[derive(Debug, Clone, Copy)]
pub struct ListRef {
    /// Its object.
    pub id1: ObjectId,
    /// Its association type.
    pub atype: TypeId,
}

/// A range or a time range.
#[derive(Debug, Clone)]
pub struct RangeCall {
    /// The list.
    pub list: ListRef,
    /// Where it begins.
    pub from: From,
    /// Time bounds, both included, of a time range.
    pub times: Option<(EdgeTime, EdgeTime)>,
    /// At most so many edges.
    pub limit: usize,
    /// Whether the objects at the other ends are wanted too.
    pub with_objects: bool,
}

/// Where a range begins.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// After so many edges.
    Offset(u64),
    /// After this edge.
    After(EdgeKey),
}

/// What the door knows of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// The types.
    pub schema: &'a Schema,
    /// The ids.
    pub layout: IdLayout,
}

impl Door<'_> {
    pub(crate) fn id(&self, field: impl Display, raw: i64, violations: &mut Violations) -> Option<ObjectId> {
        let Some(id) = ObjectId::new(raw) else {
            let rule = if raw == 0 {
                "required: an object's id".to_owned()
            } else {
                format!("{raw} is not positive, as ids are")
            };
            violations.add(field.to_string(), rule);
            return None;
        };
        match self.layout.checked_shard(id) {
            Ok(_) => Some(id),
            Err(rule) => {
                violations.add(field.to_string(), rule);
                None
            }
        }
    }

    /// Ids that a request lists.
    pub fn ids(&self, field: &str, raw: &[i64], violations: &mut Violations) -> Vec<ObjectId> {
        if raw.is_empty() || raw.len() > MAX_IDS {
            violations.add(field, format!("1 to {MAX_IDS} ids, not {}", raw.len()));
            return Vec::new();
        }
        raw.iter().enumerate().filter_map(|(n, raw)| self.id(format_args!("{field}[{n}]"), *raw, violations)).collect()
    }

    fn otype(&self, name: &str, violations: &mut Violations) -> Option<TypeId> {
        let found = self.schema.object_named(name).map(|t| t.number);
        found.map_err(|rule| violations.add("type", rule)).ok()
    }

    fn atype(&self, field: &str, name: &str, violations: &mut Violations) -> Option<TypeId> {
        let found = self.schema.assoc_named(name).map(|t| t.number);
        found.map_err(|rule| violations.add(field, rule)).ok()
    }

    fn list(&self, id1: i64, atype: &str, violations: &mut Violations) -> Option<ListRef> {
        let id1 = self.id("id1", id1, violations);
        let atype = self.atype("type", atype, violations);
        Some(ListRef { id1: id1?, atype: atype? })
    }

    pub(crate) fn edge(&self, id1: i64, atype: &str, id2: i64, violations: &mut Violations) -> Option<AssocRef> {
        let list = self.list(id1, atype, violations);
        let id2 = self.id("id2", id2, violations);
        list.zip(id2).map(|(list, id2)| AssocRef { id1: list.id1, atype: list.atype, id2 })
    }

    /// The shard of a placement; `None` when it is left open.
    pub fn placement(&self, placement: Option<&v1::Placement>, violations: &mut Violations) -> Option<ShardId> {
        match placement?.r#where.as_ref()? {
            v1::placement::Where::Near(id) => {
                self.id("placement.near", *id, violations).map(|id| self.layout.shard(id))
            }
            v1::placement::Where::ShardKey(key) => {
                if key.is_empty() || key.len() > MAX_SHARD_KEY {
                    violations.add("placement.shard_key", format!("1 to {MAX_SHARD_KEY} bytes, not {}", key.len()));
                }
                Some(self.layout.shard_of_key(key))
            }
        }
    }

    /// See [`v1::ObjectAddRequest`].
    pub fn object_add(&self, request: v1::ObjectAddRequest, violations: &mut Violations) -> Option<Write> {
        let otype = self.otype(&request.r#type, violations);
        let data = data::from_proto("data", request.data, violations);
        let shard = self.placement(request.placement.as_ref(), violations);
        let placement = if request.id == 0 {
            shard.map_or(Placement::Anywhere, Placement::Shard)
        } else {
            if request.placement.is_some() {
                violations.add("placement", "not together with id, which has its place already");
            }
            Placement::Allocated(self.id("id", request.id, violations)?)
        };
        Some(Write::ObjectAdd { otype: otype?, data, placement })
    }

    /// See [`v1::ObjectUpdateRequest`].
    pub fn object_update(&self, request: v1::ObjectUpdateRequest, violations: &mut Violations) -> Option<Write> {
        let id = self.id("id", request.id, violations);
        expected(request.expected_version, violations);
        let mut named: BTreeMap<&str, &str> = BTreeMap::new();
        let set = request.set.keys().map(|name| ("set", name));
        let unset = request.unset.iter().map(|name| ("unset", name));
        let add = request.add.keys().map(|name| ("add", name));
        for (field, name) in set.chain(unset).chain(add) {
            if let Some(earlier) = named.insert(name, field) {
                violations
                    .add(data::at(field, name), format!("named by `{earlier}` already: a field can be changed once"));
            }
        }
        if named.is_empty() {
            violations.add("set", "an update changes at least one field: name it in `set`, `unset` or `add`");
        }
        for (field, name) in request.unset.iter().map(|n| ("unset", n)).chain(request.add.keys().map(|n| ("add", n))) {
            data::check_name(field, name, violations);
        }
        if named.len() > tao_model::limits::MAX_FIELDS * 2 {
            violations.add("unset", format!("{} fields are more than an object can have", named.len()));
        }
        let set = data::from_proto("set", request.set, violations);
        let update = ObjectUpdate { set, unset: request.unset, add: request.add };
        Some(Write::ObjectUpdate { id: id?, update, expected_version: request.expected_version })
    }

    /// See [`v1::ObjectUpsertRequest`].
    pub fn object_upsert(&self, request: v1::ObjectUpsertRequest, violations: &mut Violations) -> Option<Write> {
        let id = self.id("id", request.id, violations);
        let otype = self.otype(&request.r#type, violations);
        let data = data::from_proto("data", request.data, violations);
        Some(Write::ObjectUpsert { id: id?, otype: otype?, data })
    }

    /// See [`v1::ObjectDeleteRequest`].
    pub fn object_delete(&self, request: &v1::ObjectDeleteRequest, violations: &mut Violations) -> Option<Write> {
        expected(request.expected_version, violations);
        let id = self.id("id", request.id, violations)?;
        Some(Write::ObjectDelete { id, expected_version: request.expected_version })
    }

    /// See [`v1::AssocAddRequest`].
    pub fn assoc_add(&self, request: v1::AssocAddRequest, violations: &mut Violations) -> Option<Write> {
        let edge = self.edge(request.id1, &request.r#type, request.id2, violations);
        let time = request.time.map(|t| time("time", t, violations));
        let data = data::from_proto("data", request.data, violations);
        Some(Write::AssocAdd { edge: edge?, time: time.map_or(Some(None), |t| t.map(Some))?, data })
    }

    /// See [`v1::AssocDeleteRequest`].
    pub fn assoc_delete(&self, request: &v1::AssocDeleteRequest, violations: &mut Violations) -> Option<Write> {
        let edge = self.edge(request.id1, &request.r#type, request.id2, violations)?;
        Some(Write::AssocDelete { edge })
    }

    /// See [`v1::AssocChangeTypeRequest`].
    pub fn assoc_change_type(
        &self,
        request: &v1::AssocChangeTypeRequest,
        violations: &mut Violations,
    ) -> Option<Write> {
        let edge = self.edge(request.id1, &request.r#type, request.id2, violations);
        let new_atype = self.atype("new_type", &request.new_type, violations);
        if new_atype.is_some() && request.new_type == request.r#type {
            violations.add("new_type", "another type than the edge has");
        }
        Some(Write::AssocChangeType { edge: edge?, new_atype: new_atype? })
    }

    /// See [`v1::ObjectGetRequest`].
    pub fn object_get(&self, request: &v1::ObjectGetRequest, violations: &mut Violations) -> Option<ReadCall> {
        self.id("id", request.id, violations).map(ReadCall::Object)
    }

    /// See [`v1::ObjectMultiGetRequest`].
    pub fn object_multi_get(&self, request: &v1::ObjectMultiGetRequest, violations: &mut Violations) -> Vec<ObjectId> {
        self.ids("ids", &request.ids, violations)
    }

    /// See [`v1::AssocGetRequest`].
    pub fn assoc_get(&self, request: &v1::AssocGetRequest, violations: &mut Violations) -> Option<ReadCall> {
        let list = self.list(request.id1, &request.r#type, violations);
        let id2s = self.ids("id2s", &request.id2s, violations);
        let times = times(request.low, request.high, violations);
        Some(ReadCall::Edges { list: list?, id2s, times: times? })
    }

    /// See [`v1::AssocCountRequest`].
    pub fn assoc_count(&self, request: &v1::AssocCountRequest, violations: &mut Violations) -> Option<ReadCall> {
        self.list(request.id1, &request.r#type, violations).map(ReadCall::Count)
    }

    /// See [`v1::AssocRangeRequest`].
    pub fn assoc_range(&self, request: &v1::AssocRangeRequest, violations: &mut Violations) -> Option<ReadCall> {
        let list = self.list(request.id1, &request.r#type, violations);
        let limit = limit(request.limit, violations);
        if request.offset < 0 || request.offset as u64 > MAX_OFFSET {
            violations.add(
                "offset",
                format!("{} is not within 0 to {MAX_OFFSET}: page with `cursor` instead", request.offset),
            );
        }
        if request.offset != 0 && !request.cursor.is_empty() {
            violations.add("offset", "not together with cursor");
        }
        let from = match list {
            Some(list) if !request.cursor.is_empty() => cursor(&request.cursor, list, violations)?,
            _ => From::Offset(request.offset.unsigned_abs()),
        };
        let with_objects = request.with_objects;
        Some(ReadCall::Range(RangeCall { list: list?, from, times: None, limit, with_objects }))
    }

    /// See [`v1::AssocTimeRangeRequest`].
    pub fn assoc_time_range(
        &self,
        request: &v1::AssocTimeRangeRequest,
        violations: &mut Violations,
    ) -> Option<ReadCall> {
        let list = self.list(request.id1, &request.r#type, violations);
        let limit = limit(request.limit, violations);
        let times = times(request.low, request.high, violations);
        let from = match list {
            Some(list) if !request.cursor.is_empty() => cursor(&request.cursor, list, violations)?,
            _ => From::Offset(0),
        };
        let with_objects = request.with_objects;
        Some(ReadCall::Range(RangeCall { list: list?, from, times: Some(times?), limit, with_objects }))
    }
}

/// What was taken over of a request, unless it has left violations: it is nothing only then.
pub fn taken<T>(call: Option<T>, violations: Violations) -> Result<T> {
    violations.check()?;
    call.ok_or_else(|| Error::Internal { what: "an invalid call without a violation".to_owned() })
}

/// How many ids an AllocateIds asks for.
pub fn id_count(raw: i64, violations: &mut Violations) -> usize {
    match raw {
        0 => 1,
        1.. if raw as usize <= MAX_IDS => raw as usize,
        _ => {
            violations.add("count", format!("{raw} is not within 1 to {MAX_IDS}"));
            1
        }
    }
}

/// Checks how many items a batch has.
pub fn batch_size(items: usize, violations: &mut Violations) {
    if items == 0 || items > MAX_BATCH {
        violations.add("items", format!("1 to {MAX_BATCH} items, not {items}"));
    }
}

fn expected(version: Option<i64>, violations: &mut Violations) {
    if let Some(version) = version.filter(|v| *v < 1) {
        violations.add("expected_version", format!("{version} is no version: they count from 1"));
    }
}

fn time(field: &str, raw: i64, violations: &mut Violations) -> Option<EdgeTime> {
    let time = EdgeTime::try_from(raw).ok();
    if time.is_none() {
        violations.add(field, format!("{raw} is not within 0 to {} seconds", EdgeTime::MAX));
    }
    time
}

fn times(low: Option<i64>, high: Option<i64>, violations: &mut Violations) -> Option<(EdgeTime, EdgeTime)> {
    let lower = time("low", low.unwrap_or(0), violations);
    let upper = time("high", high.unwrap_or(i64::from(EdgeTime::MAX)), violations);
    if let (Some(lower), Some(upper)) = (lower, upper)
        && lower > upper
    {
        violations.add("low", format!("{lower} is above high, {upper}"));
    }
    lower.zip(upper)
}

fn limit(raw: i64, violations: &mut Violations) -> usize {
    match raw {
        0 => DEFAULT_LIMIT,
        1.. if raw as usize <= MAX_LIMIT => raw as usize,
        _ => {
            violations.add("limit", format!("{raw} is not within 1 to {MAX_LIMIT}"));
            DEFAULT_LIMIT
        }
    }
}

fn cursor(text: &str, list: ListRef, violations: &mut Violations) -> Option<From> {
    match Cursor::decode(text, list.id1, list.atype) {
        Ok(cursor) => Some(From::After(cursor.after)),
        Err(Error::InvalidArgument { violations: v }) => {
            v.into_iter().for_each(|v| violations.add(v.field, v.description));
            None
        }
        Err(_) => None,
    }
}
