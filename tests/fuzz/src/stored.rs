//! What a database or a Redis can hand back.

use bytes::Bytes;
use tao_cache::{CachedList, Entry, decode_shared, encode_shared};
use tao_model::{
    AssocRef, Change, ChangeKind, Data, Edge, EdgeKey, Key, ListDelta, ObjectId, Position, ShardId, Step, TypeId, Value,
};
use tao_proto::{convert, edges, intents as stored_intents, internal};

fn id(n: i64) -> ObjectId {
    ObjectId::new(n).expect("positive")
}

fn values() -> Data {
    [
        ("a".to_owned(), Value::Bool(true)),
        ("b".to_owned(), Value::Int64(-1)),
        ("c".to_owned(), Value::Double(0.5)),
        ("d".to_owned(), Value::String("text".to_owned())),
        ("e".to_owned(), Value::Bytes(vec![0, 255])),
        ("f".to_owned(), Value::Timestamp(1_700_000_000, 5)),
    ]
    .into()
}

fn changes() -> Vec<Change> {
    let edge = edges::encode_edge(&Edge { id2: id(8), time: 9, data: tao_proto::data::encode(&values()) });
    let list = |lsn, delta| Change {
        position: Position::new(1, lsn),
        shard: ShardId(3),
        kind: ChangeKind::List { id1: id(7), atype: TypeId(1), prev: Position::new(1, lsn - 1), count: 1, delta },
    };
    let object = ChangeKind::Object(id(7), Some(Bytes::from_static(b"\x08\x07")));
    vec![
        Change { position: Position::new(1, 5), shard: ShardId(3), kind: object },
        list(6, ListDelta::Put(EdgeKey { time: 9, id2: id(8) }, edge)),
        list(7, ListDelta::Remove(id(8))),
    ]
}

pub fn wire_changes() -> Vec<internal::Change> {
    changes().iter().map(Into::into).collect()
}

pub fn log(raw: &[u8]) -> bool {
    let Ok(changes) = convert::decode_log(raw) else { return false };
    assert_eq!(convert::decode_log(&convert::encode_log(&changes)), Ok(changes));
    true
}

pub fn log_seeds() -> Vec<Vec<u8>> {
    vec![convert::encode_log(&changes()), convert::encode_log(&[])]
}

pub fn intents(raw: &[u8]) -> bool {
    let Ok(steps) = stored_intents::decode(raw) else { return false };
    let again = stored_intents::decode(&stored_intents::encode(&steps));
    // By text: a NaN is not itself.
    assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, tao_model::Error>(&steps)));
    true
}

pub fn intent_seeds() -> Vec<Vec<u8>> {
    let edge = AssocRef { id1: id(7), atype: TypeId(1), id2: id(8) };
    let steps = [Step::Put { edge, time: 9, data: tao_proto::data::encode(&values()), both: true }];
    vec![stored_intents::encode(&steps).to_vec()]
}

pub fn data(raw: &[u8]) -> bool {
    let Some(data) = tao_proto::data::decode(&Bytes::copy_from_slice(raw)) else { return false };
    let encoded = tao_proto::data::encode(&data);
    assert_eq!(encoded.len(), tao_proto::data::encoded_len(&data), "the size that is checked is the size");
    let again = tao_proto::data::decode(&encoded).map(|data| tao_proto::data::encode(&data));
    assert_eq!(again, Some(encoded), "equal data, equal bytes");
    true
}

pub fn data_seeds() -> Vec<Vec<u8>> {
    vec![tao_proto::data::encode(&values()).to_vec()]
}

/// Values of Redis; the first byte chooses the key's kind.
pub fn shared(raw: &[u8]) -> bool {
    let Some((kind, raw)) = raw.split_first() else { return false };
    let key = if kind % 2 == 0 { Key::Object(id(7)) } else { Key::List(id(7), TypeId(1)) };
    let Some((as_of, entry)) = decode_shared(key, raw.to_vec()) else { return false };
    if let Entry::List(list) = &entry {
        let index = edges::index(list.encoded()).expect("what is cached can be listed");
        assert_eq!(index.len(), list.len());
        assert!(index.iter().enumerate().all(|(n, edge)| list.end(n + 1) == edge.end as usize));
    }
    assert_eq!(decode_shared(key, encode_shared(as_of, &entry)), Some((as_of, entry)));
    true
}

pub fn shared_seeds() -> Vec<Vec<u8>> {
    let at = Position::new(1, 2);
    let both = [Edge { id2: id(9), time: 9, data: Bytes::new() }, Edge { id2: id(8), time: 3, data: Bytes::new() }];
    let list = CachedList::from_encoded(5, edges::encode_list(&both, 1_000).0).expect("newest first");
    let seed = |kind: u8, entry| [vec![kind], encode_shared(at, &entry)].concat();
    vec![
        seed(0, Entry::Object(None)),
        seed(0, Entry::Object(Some(Bytes::from_static(b"\x08\x07")))),
        seed(1, Entry::List(list.into())),
    ]
}
