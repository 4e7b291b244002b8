//! What `tao import` and `tao restore` read: rows of parts, and manifests.

use bytes::Bytes;
use tao_model::Schema;
use tao_store::direct::GraphRow;

// The program's own, which uses more of them than its readers.
#[allow(dead_code)]
#[path = "../../../services/tao/src/archive/durable.rs"]
mod durable;
#[allow(dead_code)]
#[path = "../../../services/tao/src/archive/manifest.rs"]
mod manifest;
#[allow(dead_code)]
#[path = "../../../services/tao/src/archive/plan.rs"]
mod plan;
#[allow(dead_code)]
#[path = "../../../services/tao/src/archive/record.rs"]
mod record;

use manifest::{Manifest, Types};
use plan::PartKind;
use record::{Decoder, Encoder};

fn kind(row: &GraphRow) -> PartKind {
    match row {
        GraphRow::Object(_) => PartKind::Objects,
        GraphRow::Edge(_) => PartKind::Edges,
    }
}

/// The first byte says what the others are.
pub fn rows(raw: &[u8]) -> bool {
    let Some((what, raw)) = raw.split_first() else { return false };
    let schema = Schema::social();
    let types = Types::of(&schema);
    let decoder = Decoder::new(&schema, &types).expect("types of the same schema");
    let row = match what % 3 {
        0 => decoder.json(PartKind::Objects, raw),
        1 => decoder.json(PartKind::Edges, raw),
        _ => decoder.compact(Bytes::copy_from_slice(raw)),
    };
    let Ok(row) = row else { return false };
    let encoder = Encoder(&schema);
    let line = encoder.json(&row).expect("what was read can be written");
    assert_eq!(decoder.json(kind(&row), &line).as_ref(), Ok(&row));
    let mut message = Bytes::from(encoder.compact(&row).expect("what was read can be written"));
    prost::decode_length_delimiter(&mut message).expect("its length");
    assert_eq!(decoder.compact(message).as_ref(), Ok(&row));
    true
}

pub fn row_seeds() -> Vec<Vec<u8>> {
    let object = br#"{"id":"4398046511105","type":"user","version":3,"created_ms":1000,"updated_ms":2500,"data":{"name":{"string":"Ann"},"age":{"int":"7"},"ratio":{"double":"0.5"},"key":{"bytes":"00ff"},"born":{"timestamp":"2001-02-03T04:05:06.7Z"},"ok":{"bool":true}}}"#;
    let edge = br#"{"id1":"4398046511105","type":"follows","id2":"8796093022209","time":1082040961,"data":{}}"#;
    let schema = Schema::social();
    let decoder = Decoder::new(&schema, &Types::of(&schema)).expect("types of the same schema");
    let mut seeds = vec![[b"\x00", &object[..]].concat(), [b"\x01", &edge[..]].concat()];
    for (kind, line) in [(PartKind::Objects, &object[..]), (PartKind::Edges, &edge[..])] {
        let row = decoder.json(kind, line).expect("a seed is right");
        let mut message = Bytes::from(Encoder(&schema).compact(&row).expect("a seed is right"));
        prost::decode_length_delimiter(&mut message).expect("its length");
        seeds.push([b"\x02", &message[..]].concat());
    }
    seeds
}

/// What is read means the same when it is written.
pub fn manifests(raw: &[u8]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(raw) else { return false };
    let written = serde_json::to_vec(&manifest).expect("what was read can be written");
    let again = serde_json::from_slice::<Manifest>(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    true
}

pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let text = r#"{"version":1,"tao":"0.1.0","written":"2026-01-02T03:04:05Z","cluster":"00112233445566778899aabbccddeeff",
        "layout":{"time_bits":42,"shard_bits":10,"sequence_bits":12,"shards":1024},"format":"jsonl",
        "schema":{"objects":[{"name":"user","number":1}],"associations":[{"name":"follows","number":1}]},
        "logs":[{"log":0,"shards":"0-1023","epoch":1,"lsn":7,"intents_done":[[1,2,3]]}],"parts":[]}"#;
    vec![text.as_bytes().to_vec()]
}
