//! Lists of edges in their encoded form: fields `assocs` (number 1) of the answers that list edges, one after the other.

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint};
use tao_model::{Edge, EdgeKey, ObjectId};

use crate::answer::put_field_head;

/// The number of the field `assocs` in every answer that lists edges.
const ASSOCS_FIELD: u32 = 1;
const ID2_TAG: u64 = 3 << 3;
const TIME_TAG: u64 = 4 << 3;

/// Encodes an edge as tao.v1.Assoc, without id1 and type.
pub fn encode_edge(edge: &Edge) -> Bytes {
    let mut out = Vec::with_capacity(16 + edge.data.len());
    encode_varint(ID2_TAG, &mut out);
    encode_varint(edge.id2.get() as u64, &mut out);
    if edge.time != 0 {
        encode_varint(TIME_TAG, &mut out);
        encode_varint(u64::from(edge.time), &mut out);
    }
    out.extend_from_slice(&edge.data);
    out.into()
}

/// An edge of which only the other end is known, as tao.v1.Assoc, without id1 and type.
pub fn encode_end(id2: ObjectId) -> Bytes {
    encode_edge(&Edge { id2, time: 0, data: Bytes::new() })
}

/// Prefixes id1 and type to an encoded edge, as the answers to writes have it.
pub fn full_assoc(id1: ObjectId, type_name: &str, edge: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(edge.len() + type_name.len() + 14);
    encode_varint(1 << 3, &mut out);
    encode_varint(id1.get() as u64, &mut out);
    put_field_head(2, type_name.len(), &mut out);
    out.extend_from_slice(type_name.as_bytes());
    out.extend_from_slice(edge);
    out.into()
}

/// Appends an encoded edge to a list.
pub fn push_edge(list: &mut Vec<u8>, edge: &[u8]) {
    put_field_head(ASSOCS_FIELD, edge.len(), list);
    list.extend_from_slice(edge);
}

/// Encodes a list, as many of its edges as fit into `max_bytes`; says how many those are.
pub fn encode_list(edges: &[Edge], max_bytes: usize) -> (Bytes, usize) {
    let mut list = Vec::with_capacity(edges.iter().map(|e| e.data.len() + 20).sum::<usize>().min(max_bytes));
    for (n, edge) in edges.iter().enumerate() {
        let before = list.len();
        push_edge(&mut list, &encode_edge(edge));
        if list.len() > max_bytes {
            list.truncate(before);
            return (list.into(), n);
        }
    }
    (list.into(), edges.len())
}

/// One edge of an encoded list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its place.
    pub key: EdgeKey,
    /// Where its field begins in the list.
    pub start: u32,
    /// Where its field ends.
    pub end: u32,
}

/// Reads where each edge of an encoded list is; `None` when it is corrupt.
pub fn index(list: &[u8]) -> Option<Vec<IndexEntry>> {
    let mut start = 0;
    let mut entries = Vec::with_capacity(list.len() / 24 + 1);
    for field in fields(list) {
        let (key, end) = field?;
        entries.push(IndexEntry { key, start, end: end as u32 });
        start = end as u32;
    }
    Some(entries)
}

/// Each edge of an encoded list: its place, and where its field ends. `None`, and then no more, where the list is corrupt.
pub fn fields(list: &[u8]) -> impl Iterator<Item = Option<(EdgeKey, usize)>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = split_field(&mut rest).and_then(edge_key).map(|key| (key, list.len() - rest.len()));
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

/// The place of the edge that a field of an encoded list holds; `None` when it is corrupt.
pub fn field_key(mut field: &[u8]) -> Option<EdgeKey> {
    split_field(&mut field).and_then(edge_key)
}

/// Whether a field of an encoded list holds an edge that begins as [`encode_end`] encodes it: what leads elsewhere is not decoded.
pub fn leads_to(field: &[u8], end: &[u8]) -> bool {
    // The length begins behind the tag of one byte, and goes on while the highest bit is set.
    let more = field.iter().skip(1).take_while(|byte| **byte >= 0x80).count();
    field.get(2 + more..).is_some_and(|edge| edge.starts_with(end))
}

/// Takes the first field off: what it holds.
fn split_field<'a>(list: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (tag, wire_type) = decode_key(list).ok()?;
    if tag != ASSOCS_FIELD || wire_type != WireType::LengthDelimited {
        return None;
    }
    let len = usize::try_from(decode_varint(list).ok()?).ok()?;
    let (field, rest) = list.split_at_checked(len)?;
    *list = rest;
    Some(field)
}

/// The place of an edge that [`encode_edge`] encoded; `None` when it is corrupt.
pub fn edge_key(mut edge: &[u8]) -> Option<EdgeKey> {
    if decode_varint(&mut edge).ok()? != ID2_TAG {
        return None;
    }
    let id2 = ObjectId::new(decode_varint(&mut edge).ok()? as i64)?;
    let time = if edge.first() == Some(&(TIME_TAG as u8)) {
        edge = &edge[1..];
        u32::try_from(decode_varint(&mut edge).ok()?).ok()?
    } else {
        0
    };
    Some(EdgeKey { time, id2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use prost::Message as _;

    #[test]
    fn lists_are_the_bytes_of_the_answer_and_can_be_indexed() {
        let id = |n| ObjectId::new(n).unwrap();
        let data =
            |text: &str| crate::data::encode(&[("k".to_owned(), tao_model::Value::String(text.to_owned()))].into());
        let edges = [
            Edge { id2: id(1 << 58), time: u32::MAX, data: data(&"long".repeat(40)) },
            Edge { id2: id(9), time: 300, data: Bytes::new() },
            Edge { id2: id(1), time: 0, data: data("short") },
        ];
        let (list, n) = encode_list(&edges, usize::MAX);
        assert_eq!(n, 3);
        let answer = v1::AssocRangeResponse::decode(list.clone()).unwrap();
        assert_eq!(
            answer.assocs.iter().map(|a| (a.id2, a.time)).collect::<Vec<_>>(),
            [(1 << 58, 4_294_967_295), (9, 300), (1, 0)]
        );
        let index = index(&list).unwrap();
        assert_eq!(
            index.iter().map(|e| e.key.id2).collect::<Vec<_>>(),
            edges.iter().map(|e| e.id2).collect::<Vec<_>>()
        );
        let field = |n: usize| &list[index[n].start as usize..index[n].end as usize];
        for (n, edge) in edges.iter().enumerate() {
            let found: Vec<_> = (0..3).filter(|m| leads_to(field(*m), &encode_end(edge.id2))).collect();
            assert_eq!(found, [n]);
        }
        let second = &index[1];
        let one = v1::AssocRangeResponse::decode(list.slice(second.start as usize..second.end as usize)).unwrap();
        assert_eq!(one.assocs, answer.assocs[1..2]);
        assert_eq!(encode_list(&edges, list.len() - 1).1, 2);
        assert!(super::index(&list.slice(..list.len() - 1)).is_none());
    }
}
