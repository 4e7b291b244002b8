//! Rows as they stand in parts: as JSON for people and other programs, and as the messages that tiers exchange. Nothing is lost in either.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tao_model::{AssocRef, Data, Edge, EdgeTime, Object, ObjectId, Schema, TypeId, Value};
use tao_proto::{data, edges, internal, v1};
use tao_store::direct::{EdgeRow, GraphRow};

use super::manifest::Types;
use super::plan::PartKind;
use crate::commands::time::{parse_rfc3339, rfc3339};

/// Why a row can't be written or read.
pub type Problem = String;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectLine {
    id: String,
    r#type: String,
    version: i64,
    created_ms: u64,
    updated_ms: u64,
    #[serde(default)]
    data: BTreeMap<String, JsonValue>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeLine {
    id1: String,
    r#type: String,
    id2: String,
    time: EdgeTime,
    #[serde(default)]
    data: BTreeMap<String, JsonValue>,
}

/// A value with its kind. Numbers are texts where other programs' numbers would not hold them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JsonValue {
    Bool(bool),
    Int(String),
    Double(String),
    String(String),
    /// Hexadecimal.
    Bytes(String),
    /// RFC 3339.
    Timestamp(String),
}

/// Writes rows.
pub struct Encoder<'a>(pub &'a Schema);

/// Reads rows; types go by name.
pub struct Decoder<'a> {
    schema: &'a Schema,
    /// By number where the rows were written.
    assocs: HashMap<u32, TypeId>,
}

impl Encoder<'_> {
    /// A line of JSON, without its end.
    pub fn json(&self, row: &GraphRow) -> Result<Vec<u8>, Problem> {
        let line = match row {
            GraphRow::Object(object) => serde_json::to_vec(&ObjectLine {
                id: object.id.to_string(),
                r#type: self.object_type(object)?.to_owned(),
                version: object.version,
                created_ms: object.created_ms,
                updated_ms: object.updated_ms,
                data: to_json(&object.data, object.id)?,
            }),
            GraphRow::Edge(EdgeRow { at, time, data }) => serde_json::to_vec(&EdgeLine {
                id1: at.id1.to_string(),
                r#type: self.edge_type(*at)?.to_owned(),
                id2: at.id2.to_string(),
                time: *time,
                data: to_json(data, at.id1)?,
            }),
        };
        line.map_err(|error| error.to_string())
    }

    /// A message with its length before it.
    pub fn compact(&self, row: &GraphRow) -> Result<Vec<u8>, Problem> {
        use internal::change::Key;
        let key = match row {
            GraphRow::Object(object) => {
                readable(&object.data, object.id)?;
                let encoded = data::encode_object(object, self.object_type(object)?);
                Key::Object(internal::ObjectChange { id: object.id.get(), object: Some(encoded) })
            }
            GraphRow::Edge(EdgeRow { at, time, data }) => {
                self.edge_type(*at)?;
                readable(data, at.id1)?;
                let edge = edges::encode_edge(&Edge { id2: at.id2, time: *time, data: data.clone() });
                Key::List(internal::ListChange {
                    id1: at.id1.get(),
                    atype: at.atype.0,
                    id2: at.id2.get(),
                    edge: Some(edge),
                    ..internal::ListChange::default()
                })
            }
        };
        Ok(internal::Change { key: Some(key), ..internal::Change::default() }.encode_length_delimited_to_vec())
    }

    fn object_type(&self, object: &Object) -> Result<&str, Problem> {
        let known = self.0.object(object.otype).map(|t| t.name.as_str());
        known.ok_or_else(|| format!("object {} is of type {}, which the schema has not", object.id, object.otype))
    }

    fn edge_type(&self, at: AssocRef) -> Result<&str, Problem> {
        let known = self.0.assoc(at.atype).map(|t| t.name.as_str());
        known.ok_or_else(|| format!("an edge of {} is of type {}, which the schema has not", at.id1, at.atype))
    }
}

impl<'a> Decoder<'a> {
    /// Of rows that were written with these types; an error names those that the schema has not.
    pub fn new(schema: &'a Schema, written: &Types) -> Result<Self, Problem> {
        for object in &written.objects {
            schema.object_named(&object.name)?;
        }
        let known = |t: &super::manifest::Type| Ok((t.number, schema.assoc_named(&t.name)?.number));
        Ok(Self { schema, assocs: written.associations.iter().map(known).collect::<Result<_, String>>()? })
    }

    /// A line of JSON.
    pub fn json(&self, kind: PartKind, line: &[u8]) -> Result<GraphRow, Problem> {
        if kind == PartKind::Objects {
            let line: ObjectLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            return Ok(GraphRow::Object(Object {
                id: id(&line.id)?,
                otype: self.schema.object_named(&line.r#type)?.number,
                version: line.version,
                created_ms: line.created_ms,
                updated_ms: line.updated_ms,
                data: from_json(line.data)?,
            }));
        }
        let line: EdgeLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let atype = self.schema.assoc_named(&line.r#type)?.number;
        let at = AssocRef { id1: id(&line.id1)?, atype, id2: id(&line.id2)? };
        Ok(GraphRow::Edge(EdgeRow { at, time: line.time, data: from_json(line.data)? }))
    }

    /// A message, without its length.
    pub fn compact(&self, message: Bytes) -> Result<GraphRow, Problem> {
        use internal::change::Key;
        let wrong = |_| "a message that can't be read".to_owned();
        match internal::Change::decode(message).map_err(wrong)?.key {
            Some(Key::Object(internal::ObjectChange { object: Some(object), .. })) => {
                let object = v1::Object::decode(object).map_err(wrong)?;
                let ms = |at: Option<tao_client::Timestamp>| {
                    let at = at.ok_or("an object without a time")?;
                    let seconds = u64::try_from(at.seconds).ok().and_then(|seconds| seconds.checked_mul(1_000));
                    let millis = u64::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
                    let ms = seconds.zip(millis).and_then(|(ms, nanos)| ms.checked_add(nanos / 1_000_000));
                    ms.ok_or("an object whose time is none")
                };
                Ok(GraphRow::Object(Object {
                    id: number(object.id)?,
                    otype: self.schema.object_named(&object.r#type)?.number,
                    version: object.version,
                    created_ms: ms(object.created)?,
                    updated_ms: ms(object.updated)?,
                    data: encoded(object.data)?,
                }))
            }
            Some(Key::List(internal::ListChange { id1, atype, edge: Some(edge), .. })) => {
                let key = edges::edge_key(&edge).ok_or("an edge that can't be read")?;
                let atype = self.assocs.get(&atype).ok_or_else(|| format!("association type {atype} is not known"))?;
                let at = AssocRef { id1: number(id1)?, atype: *atype, id2: key.id2 };
                let data = encoded(v1::Assoc::decode(edge).map_err(wrong)?.data)?;
                Ok(GraphRow::Edge(EdgeRow { at, time: key.time, data }))
            }
            Some(Key::Object(_) | Key::List(_)) | None => Err("a row without contents".to_owned()),
        }
    }
}

fn encoded(map: BTreeMap<String, v1::Value>) -> Result<Bytes, Problem> {
    data::from_peer(map).map(|data| data::encode(&data)).ok_or_else(|| "a value that can't be read".to_owned())
}

fn readable(raw: &Bytes, id: ObjectId) -> Result<Data, Problem> {
    data::decode(raw).ok_or_else(|| format!("data of {id} can't be read"))
}

fn number(raw: i64) -> Result<ObjectId, Problem> {
    ObjectId::new(raw).ok_or_else(|| format!("{raw} is no id"))
}

fn id(text: &str) -> Result<ObjectId, Problem> {
    text.parse().ok().and_then(ObjectId::new).ok_or_else(|| format!("{text:?} is no id"))
}

fn to_json(raw: &Bytes, id: ObjectId) -> Result<BTreeMap<String, JsonValue>, Problem> {
    let value = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(b) => JsonValue::Bool(b),
            Value::Int64(n) => JsonValue::Int(n.to_string()),
            Value::Double(d) => JsonValue::Double(double(d)),
            Value::String(s) => JsonValue::String(s),
            Value::Bytes(b) => JsonValue::Bytes(hex(&b)),
            Value::Timestamp(seconds, nanos) => {
                let time = rfc3339(seconds, nanos);
                JsonValue::Timestamp(time.ok_or_else(|| format!("a timestamp of {id} is none"))?)
            }
        };
        Ok((name, value))
    };
    readable(raw, id)?.into_iter().map(value).collect()
}

fn from_json(map: BTreeMap<String, JsonValue>) -> Result<Bytes, Problem> {
    let value = |(name, value): (String, JsonValue)| {
        let wrong = |text: &str| format!("{name:?}: {text:?} is no such value");
        let value = match value {
            JsonValue::Bool(b) => Value::Bool(b),
            JsonValue::Int(text) => Value::Int64(text.parse().map_err(|_| wrong(&text))?),
            JsonValue::Double(text) => Value::Double(parse_double(&text).ok_or_else(|| wrong(&text))?),
            JsonValue::String(text) => Value::String(text),
            JsonValue::Bytes(text) => Value::Bytes(unhex(&text).ok_or_else(|| wrong(&text))?),
            JsonValue::Timestamp(text) => {
                let (seconds, nanos) = parse_rfc3339(&text).ok_or_else(|| wrong(&text))?;
                Value::Timestamp(seconds, nanos)
            }
        };
        Ok((name, value))
    };
    let data: Data = map.into_iter().map(value).collect::<Result<_, String>>()?;
    Ok(data::encode(&data))
}

/// The shortest text that is this number again; what is none, with all of its bits.
fn double(d: f64) -> String {
    if d.is_nan() { format!("nan:{:016x}", d.to_bits()) } else { format!("{d:?}") }
}

fn parse_double(text: &str) -> Option<f64> {
    match text.strip_prefix("nan:") {
        Some(bits) => Some(f64::from_bits(u64::from_str_radix(bits, 16).ok()?)),
        None => text.parse().ok(),
    }
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// [`hex`]'s bytes.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits =
            std::str::from_utf8(pair).ok().filter(|_| pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit));
        u8::from_str_radix(digits?, 16).ok()
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(|bits| Value::Double(f64::from_bits(bits))),
            any::<f64>().prop_map(Value::Double),
            any::<String>().prop_map(Value::String),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            (-62_135_596_800_i64..=253_402_300_799, 0..1_000_000_000).prop_map(|(s, n)| Value::Timestamp(s, n)),
        ]
    }

    fn row() -> impl Strategy<Value = GraphRow> {
        let ids = 1..=i64::MAX;
        let data = prop::collection::btree_map(any::<String>(), value(), 0..5).prop_map(|data| data::encode(&data));
        (ids.clone(), ids, 1_u32..=3, any::<[u32; 4]>(), data, any::<bool>()).prop_map(
            |(a, b, t, n, data, is_object)| {
                let (a, b) = (ObjectId::new(a).unwrap(), ObjectId::new(b).unwrap());
                if !is_object {
                    return GraphRow::Edge(EdgeRow {
                        at: AssocRef { id1: a, atype: TypeId(t), id2: b },
                        time: n[0],
                        data,
                    });
                }
                let (created_ms, updated_ms) = (u64::from(n[1]) * 1_003, u64::from(n[2]) * 2_001);
                GraphRow::Object(Object {
                    id: a,
                    otype: TypeId(t),
                    version: i64::from(n[3]),
                    created_ms,
                    updated_ms,
                    data,
                })
            },
        )
    }

    proptest! {
        /// Also where the same names have other numbers.
        #[test]
        fn a_row_is_read_as_it_was_written(row in row()) {
            let schema = Schema::social();
            let (encoder, decoder) = (Encoder(&schema), Decoder::new(&schema, &Types::of(&schema)).unwrap());
            let kind = match row { GraphRow::Object(_) => PartKind::Objects, GraphRow::Edge(_) => PartKind::Edges };
            let line = encoder.json(&row).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(&decoder.json(kind, &line).unwrap(), &row);
            let message = Bytes::from(encoder.compact(&row).unwrap());
            let mut rest = message.clone();
            let len = prost::decode_length_delimiter(&mut rest).unwrap();
            prop_assert_eq!(len, rest.len());
            prop_assert_eq!(&decoder.compact(rest).unwrap(), &row);
        }

        #[test]
        fn hexadecimal_is_read_back_and_nothing_else_is(bytes: Vec<u8>, text in "\\PC{0,6}") {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
            if let Some(bytes) = unhex(&text) {
                prop_assert_eq!(hex(&bytes), text.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn types_go_by_name_and_those_that_are_missing_are_told() {
        let of = |text: &str| Schema::parse(&format!("version = 1\n{text}")).unwrap();
        let entry = |kind: &str, name: &str, n: u32| format!("[[{kind}]]\nname = \"{name}\"\nnumber = {n}\n");
        let old = of(&(entry("object", "user", 1) + &entry("association", "follows", 2)));
        let new = of(&(entry("object", "user", 7) + &entry("association", "follows", 9)));
        let id = |n| ObjectId::new(n).unwrap();
        let at = AssocRef { id1: id(1), atype: TypeId(2), id2: id(3) };
        let row = GraphRow::Edge(EdgeRow { at, time: 4, data: Bytes::new() });
        let message = Bytes::from(Encoder(&old).compact(&row).unwrap()).slice(1..);
        let decoder = Decoder::new(&new, &Types::of(&old)).unwrap();
        let GraphRow::Edge(read) = decoder.compact(message).unwrap() else { panic!("an edge") };
        assert_eq!(read.at, AssocRef { atype: TypeId(9), ..at });
        assert!(Decoder::new(&of(&entry("object", "user", 1)), &Types::of(&old)).is_err());
        assert!(Encoder(&new).json(&row).unwrap_err().contains("type 2"));
    }
}
