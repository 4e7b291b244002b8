//! The data of objects and edges, between maps of the API, the model, and the encoded form that is stored and spliced into
//! answers.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encoded_len_varint};
use tao_model::limits::{MAX_DATA, MAX_FIELD_NAME, MAX_FIELDS};
use tao_model::{Data, Object, Value, Violations};

use crate::answer::field_len;
use crate::v1;

/// The number of the field `data` in tao.v1.Object and in tao.v1.Assoc: the same, so that one encoding serves both.
const DATA_FIELD: u32 = 15;

/// Checks data that a caller gave and takes it over; violations are named below `field`.
pub fn from_proto(field: &str, map: BTreeMap<String, v1::Value>, violations: &mut Violations) -> Data {
    if map.len() > MAX_FIELDS {
        violations.add(field, format!("{} fields are more than {MAX_FIELDS}", map.len()));
    }
    let mut data = Data::new();
    for (name, value) in map {
        check_name(field, &name, violations);
        match value.kind.map(value_from_proto) {
            Some(Ok(value)) => {
                data.insert(name, value);
            }
            Some(Err(why)) => violations.add(at(field, &name), why),
            None => violations.add(at(field, &name), "a value needs a kind: bool_value, int64_value, double_value, string_value, bytes_value or timestamp_value"),
        }
    }
    let size = encoded_len(&data);
    if size > MAX_DATA {
        violations.add(field, too_large(size));
    }
    data
}

/// The path of one entry of a map field, for violations.
pub fn at(field: &str, name: &str) -> String {
    let shown: String = name.chars().take(64).collect();
    format!("{field}[{shown:?}]")
}

/// Checks the name of a field.
pub fn check_name(field: &str, name: &str, violations: &mut Violations) {
    if name.is_empty() || name.len() > MAX_FIELD_NAME {
        violations.add(at(field, name), format!("a field's name has 1 to {MAX_FIELD_NAME} bytes, not {}", name.len()));
    }
}

/// Says that data is too large.
pub fn too_large(size: usize) -> String {
    format!("{size} bytes of data are more than {MAX_DATA}")
}

fn value_from_proto(kind: v1::value::Kind) -> Result<Value, String> {
    use v1::value::Kind;
    Ok(match kind {
        Kind::BoolValue(b) => Value::Bool(b),
        Kind::Int64Value(n) => Value::Int64(n),
        Kind::DoubleValue(d) => Value::Double(d),
        Kind::StringValue(s) => Value::String(s),
        Kind::BytesValue(b) => Value::Bytes(b.to_vec()),
        Kind::TimestampValue(t) => {
            if !(-62_135_596_800..=253_402_300_799).contains(&t.seconds) || !(0..1_000_000_000).contains(&t.nanos) {
                return Err(format!(
                    "a timestamp lies in the years 0001 to 9999, with 0 to 999999999 nanoseconds; not {} s {} ns",
                    t.seconds, t.nanos
                ));
            }
            Value::Timestamp(t.seconds, t.nanos)
        }
    })
}

fn value_to_proto(value: &Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value {
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Int64(n) => Kind::Int64Value(*n),
        Value::Double(d) => Kind::DoubleValue(*d),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Bytes(b) => Kind::BytesValue(Bytes::copy_from_slice(b)),
        Value::Timestamp(seconds, nanos) => {
            Kind::TimestampValue(prost_types::Timestamp { seconds: *seconds, nanos: *nanos })
        }
    };
    v1::Value { kind: Some(kind) }
}

/// The name of an encoded object's type; `None` when it has none, or is corrupt.
pub fn object_type(mut object: &[u8]) -> Option<&str> {
    // Fields are encoded in the order of their numbers: the id, then the type.
    let (tag, wire_type) = decode_key(&mut object).ok()?;
    if (tag, wire_type) == (1, WireType::Varint) {
        decode_varint(&mut object).ok()?;
        let next = decode_key(&mut object).ok()?;
        if next != (2, WireType::LengthDelimited) {
            return None;
        }
    } else if (tag, wire_type) != (2, WireType::LengthDelimited) {
        return None;
    }
    let len = usize::try_from(decode_varint(&mut object).ok()?).ok()?;
    std::str::from_utf8(object.get(..len)?).ok()
}

/// As a map of the API.
pub fn to_proto(data: &Data) -> BTreeMap<String, v1::Value> {
    data.iter().map(|(name, value)| (name.clone(), value_to_proto(value))).collect()
}

/// From a peer that has checked it; `None` when a value has no kind.
pub fn from_peer(map: BTreeMap<String, v1::Value>) -> Option<Data> {
    map.into_iter().map(|(name, value)| Some((name, value_from_proto(value.kind?).ok()?))).collect()
}

/// Bytes of [`encode`]'s result.
pub fn encoded_len(data: &Data) -> usize {
    let text = |number, len: usize| if len == 0 { 0 } else { field_len(number, len) };
    let entry =
        |(name, value): (&String, &Value)| field_len(DATA_FIELD, text(1, name.len()) + field_len(2, value_len(value)));
    data.iter().map(entry).sum()
}

/// Bytes of a value as a tao.v1.Value.
fn value_len(value: &Value) -> usize {
    let number = |n: u64| 1 + encoded_len_varint(n);
    let unless_zero = |n: i64| if n == 0 { 0 } else { number(n as u64) };
    match value {
        Value::Bool(_) => 2,
        Value::Int64(n) => number(*n as u64),
        Value::Double(_) => 9,
        Value::String(s) => field_len(4, s.len()),
        Value::Bytes(b) => field_len(5, b.len()),
        Value::Timestamp(seconds, nanos) => field_len(6, unless_zero(*seconds) + unless_zero(i64::from(*nanos))),
    }
}

/// Encodes data as the fields `data` of an object or edge, in name order: equal data, equal bytes.
pub fn encode(data: &Data) -> Bytes {
    v1::Object { data: to_proto(data), ..Default::default() }.encode_to_vec().into()
}

/// Reads [`encode`]'s result; `None` when it is corrupt.
pub fn decode(encoded: &Bytes) -> Option<Data> {
    let mut rest = encoded.clone();
    let mut map = BTreeMap::new();
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        if tag != DATA_FIELD || wire_type != WireType::LengthDelimited {
            return None;
        }
        prost::encoding::btree_map::merge(
            prost::encoding::string::merge,
            prost::encoding::message::merge,
            &mut map,
            &mut rest,
            DecodeContext::default(),
        )
        .ok()?;
    }
    from_peer(map)
}

/// Milliseconds since 1970 as the API has it.
pub fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 }
}

/// Encodes an object as tao.v1.Object, with its type's name.
pub fn encode_object(object: &Object, type_name: &str) -> Bytes {
    let head = v1::Object {
        id: object.id.get(),
        r#type: type_name.to_owned(),
        version: object.version,
        created: Some(timestamp(object.created_ms)),
        updated: Some(timestamp(object.updated_ms)),
        data: BTreeMap::new(),
    };
    let mut out = Vec::with_capacity(head.encoded_len() + object.data.len());
    head.encode_raw(&mut out);
    out.extend_from_slice(&object.data);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ObjectId, TypeId};

    #[test]
    fn data_survives_its_encoding_and_splices_into_objects() {
        let data = Data::from([
            ("a".to_owned(), Value::Int64(-3)),
            ("b".to_owned(), Value::String("x".to_owned())),
            ("c".to_owned(), Value::Timestamp(-1, 999_999_999)),
            ("d".to_owned(), Value::Bytes(vec![0, 255])),
            ("e".to_owned(), Value::Bool(false)),
            ("f".to_owned(), Value::Double(0.5)),
        ]);
        let encoded = encode(&data);
        assert_eq!(encoded.len(), encoded_len(&data));
        for value in [
            Value::Int64(0),
            Value::Int64(i64::MAX),
            Value::String(String::new()),
            Value::String("x".repeat(200)),
            Value::Bytes(vec![1; 20_000]),
            Value::Timestamp(0, 0),
            Value::Timestamp(1, 0),
        ] {
            let one = Data::from([("n".repeat(128), value.clone()), (String::new(), value)]);
            assert_eq!(encode(&one).len(), encoded_len(&one));
        }
        assert_eq!(decode(&encoded), Some(data.clone()));
        assert_eq!(decode(&encoded.slice(..encoded.len() - 1)), None);
        let object = Object {
            id: ObjectId::new(7).unwrap(),
            otype: TypeId(1),
            version: 2,
            created_ms: 1_500,
            updated_ms: 2_000,
            data: encoded,
        };
        let read = v1::Object::decode(encode_object(&object, "user")).unwrap();
        assert_eq!(from_peer(read.data), Some(data));
        assert_eq!((read.id, read.r#type.as_str(), read.version), (7, "user", 2));
        assert_eq!(read.created.unwrap().nanos, 500_000_000);
    }
}
