//! Requests as the API has them.

use std::collections::BTreeMap;

use bytes::Bytes;
use tao_client::v1::value::Kind;
use tao_client::v1::{
    Assoc, AssocAddRequest, AssocChangeTypeRequest, AssocCountRequest, AssocDeleteRequest, AssocGetRequest,
    AssocRangeRequest, AssocTimeRangeRequest, Object, ObjectAddRequest, ObjectDeleteRequest, ObjectGetRequest,
    ObjectUpdateRequest, Value,
};

use crate::op::{AType, Outcome};

/// The type of all objects.
pub const NODE: &str = "node";
/// The field that holds a payload. An empty payload has none.
const FIELD: &str = "data";

pub type Data = BTreeMap<String, Value>;

/// A payload as the API has it.
pub fn data(payload: &[u8]) -> Data {
    let value = Value { kind: Some(Kind::BytesValue(Bytes::copy_from_slice(payload))) };
    (!payload.is_empty()).then(|| (FIELD.to_owned(), value)).into_iter().collect()
}

fn payload_len(data: &Data) -> u32 {
    match data.get(FIELD).and_then(|value| value.kind.as_ref()) {
        Some(Kind::BytesValue(bytes)) => bytes.len() as u32,
        _ => 0,
    }
}

pub fn object_get(id: i64) -> ObjectGetRequest {
    ObjectGetRequest { id, options: None }
}

/// With an id that was allocated; 0: the store chooses.
pub fn object_add(id: i64, payload: &[u8]) -> ObjectAddRequest {
    ObjectAddRequest { r#type: NODE.to_owned(), data: data(payload), id, ..Default::default() }
}

pub fn object_update(id: i64, payload: &[u8]) -> ObjectUpdateRequest {
    let unset = if payload.is_empty() { vec![FIELD.to_owned()] } else { Vec::new() };
    ObjectUpdateRequest { id, set: data(payload), unset, ..Default::default() }
}

pub fn object_delete(id: i64) -> ObjectDeleteRequest {
    ObjectDeleteRequest { id, ..Default::default() }
}

pub fn assoc_get((id1, id2): (i64, i64)) -> AssocGetRequest {
    AssocGetRequest { id1, r#type: AType::Link.name().to_owned(), id2s: vec![id2], ..Default::default() }
}

pub fn assoc_count(id1: i64) -> AssocCountRequest {
    AssocCountRequest { id1, r#type: AType::Link.name().to_owned(), options: None }
}

pub fn assoc_range(id1: i64, limit: u32) -> AssocRangeRequest {
    AssocRangeRequest { id1, r#type: AType::Link.name().to_owned(), limit: limit.into(), ..Default::default() }
}

pub fn assoc_time_range(id1: i64, (low, high): (u32, u32), limit: u32) -> AssocTimeRangeRequest {
    AssocTimeRangeRequest {
        id1,
        r#type: AType::Link.name().to_owned(),
        low: Some(low.into()),
        high: Some(high.into()),
        limit: limit.into(),
        ..Default::default()
    }
}

pub fn assoc_add((id1, id2): (i64, i64), atype: AType, time: u32, payload: &[u8]) -> AssocAddRequest {
    AssocAddRequest {
        id1,
        r#type: atype.name().to_owned(),
        id2,
        time: Some(time.into()),
        data: data(payload),
        options: None,
    }
}

pub fn assoc_delete((id1, id2): (i64, i64), atype: AType) -> AssocDeleteRequest {
    AssocDeleteRequest { id1, r#type: atype.name().to_owned(), id2, options: None }
}

pub fn assoc_change_type((id1, id2): (i64, i64), from: AType, to: AType) -> AssocChangeTypeRequest {
    AssocChangeTypeRequest { id1, r#type: from.name().to_owned(), id2, new_type: to.name().to_owned(), options: None }
}

/// Of an object that was returned.
pub fn got(object: Option<&Object>) -> Outcome {
    object.map_or_else(Outcome::default, |object| Outcome { found: true, items: 1, bytes: payload_len(&object.data) })
}

/// Of edges that were returned.
pub fn listed(edges: &[Assoc]) -> Outcome {
    let bytes = edges.iter().map(|edge| payload_len(&edge.data)).sum();
    Outcome { found: !edges.is_empty(), items: edges.len() as u32, bytes }
}
