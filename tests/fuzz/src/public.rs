//! What anybody can send to the public door.

use std::sync::LazyLock;

use prost::Message as _;
use tao_follower::fuzz::Cluster;
use tao_model::{ClusterId, Cursor, EdgeKey, LogId, ObjectId, Position, ShardId, Token, TypeId};
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::{self, PipelineCall, PipelineRequest, WatchRequest, value::Kind};

pub const CLUSTER: ClusterId = ClusterId([9; 16]);
/// On shard 3 of the standard layout, in 2024.
const ID: i64 = (1_000_000 << 22) | (3 << 12) | 7;

static DOOR: LazyLock<Cluster> = LazyLock::new(|| Cluster::new(CLUSTER));

pub fn pipeline(raw: &[u8]) -> bool {
    DOOR.pipeline(raw)
}

pub fn watch(raw: &[u8]) -> bool {
    DOOR.watch(raw)
}

fn data() -> std::collections::BTreeMap<String, v1::Value> {
    let value = |kind| v1::Value { kind: Some(kind) };
    [
        ("name".to_owned(), value(Kind::StringValue("Ann".to_owned()))),
        ("age".to_owned(), value(Kind::Int64Value(-40))),
        ("seen".to_owned(), value(Kind::TimestampValue(tao_proto::data::timestamp(1_700_000_000_123)))),
    ]
    .into()
}

fn write_options() -> Option<v1::WriteOptions> {
    Some(v1::WriteOptions { idempotency_key: "once".to_owned(), ..Default::default() })
}

/// One of each call.
fn calls() -> Vec<Call> {
    let (id1, id2, r#type) = (ID, ID + 1, "follows".to_owned());
    let near = v1::Placement { r#where: Some(v1::placement::Where::Near(ID)) };
    let key = EdgeKey { time: 5, id2: ObjectId::new(ID).expect("an id") };
    let cursor = Cursor { id1: key.id2, atype: TypeId(1), after: key }.encode();
    let add = v1::ObjectAddRequest {
        r#type: "user".to_owned(),
        data: data(),
        placement: Some(near),
        options: write_options(),
        ..Default::default()
    };
    let edge = v1::AssocAddRequest {
        id1,
        r#type: r#type.clone(),
        id2,
        time: Some(1_700_000_000),
        data: data(),
        ..Default::default()
    };
    let get = v1::ObjectGetRequest { id: ID, options: None };
    let update = v1::ObjectUpdateRequest {
        id: ID,
        set: data(),
        unset: vec!["old".to_owned()],
        add: [("visits".to_owned(), 1)].into(),
        expected_version: Some(2),
        options: write_options(),
    };
    let change =
        v1::AssocChangeTypeRequest { id1, r#type: r#type.clone(), id2, new_type: "friend".to_owned(), options: None };
    let items = [
        v1::batch_item::Call::ObjectGet(get.clone()),
        v1::batch_item::Call::AssocAdd(edge.clone()),
        v1::batch_item::Call::ObjectAdd(add.clone()),
    ];
    let items = items.into_iter().map(|call| v1::BatchItem { call: Some(call) }).collect();
    let writes = [
        v1::write_batch_item::Write::ObjectUpdate(update.clone()),
        v1::write_batch_item::Write::AssocAdd(edge.clone()),
    ];
    let writes = writes.into_iter().map(|write| v1::WriteBatchItem { write: Some(write) }).collect();
    vec![
        Call::ObjectGet(get),
        Call::AssocGet(v1::AssocGetRequest {
            id1,
            r#type: r#type.clone(),
            id2s: vec![id2],
            low: Some(1),
            high: Some(9),
            options: None,
        }),
        Call::AssocCount(v1::AssocCountRequest { id1, r#type: r#type.clone(), options: None }),
        Call::AssocRange(v1::AssocRangeRequest {
            id1,
            r#type: r#type.clone(),
            limit: 10,
            cursor: cursor.clone(),
            ..Default::default()
        }),
        Call::AssocTimeRange(v1::AssocTimeRangeRequest {
            id1,
            r#type: r#type.clone(),
            low: Some(3),
            cursor,
            with_objects: true,
            ..Default::default()
        }),
        Call::ObjectMultiGet(v1::ObjectMultiGetRequest { ids: vec![ID, ID + 1], options: None }),
        Call::ObjectAdd(add.into()),
        Call::ObjectUpdate(update.into()),
        Call::AssocAdd(edge.into()),
        Call::AssocChangeType(change.into()),
        Call::Batch(v1::BatchRequest { items, ..Default::default() }.into()),
        Call::WriteBatch(v1::WriteBatchRequest { writes, options: write_options(), ..Default::default() }.into()),
        Call::AllocateIds(v1::AllocateIdsRequest { count: 10, ..Default::default() }.into()),
    ]
}

pub fn pipeline_seeds() -> Vec<Vec<u8>> {
    let session_tokens = token_seeds().into_iter().filter_map(|token| String::from_utf8(token).ok()).collect();
    let piped = |(seq, call): (usize, Call)| PipelineCall {
        seq: seq as u64 + 1,
        timeout_us: 1_000_000,
        session: (seq % 2) as u32,
        traceparent: String::new(),
        call: Some(call),
    };
    let calls: Vec<_> = calls().into_iter().enumerate().map(piped).collect();
    let mut seeds: Vec<_> = calls
        .iter()
        .map(|call| PipelineRequest { calls: vec![call.clone()], ..Default::default() }.encode_to_vec())
        .collect();
    seeds.push(PipelineRequest { calls, cancels: vec![1, 2], session_tokens }.encode_to_vec());
    seeds
}

pub fn watch_seeds() -> Vec<Vec<u8>> {
    let request = WatchRequest {
        shards: vec![0, 3],
        object_types: vec!["user".to_owned()],
        assoc_types: vec!["follows".to_owned()],
        ids: vec![ID],
        since_ms: 1_000,
        ..Default::default()
    };
    vec![request.encode_to_vec(), Vec::new()]
}

pub fn token(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    let Ok(token) = Token::parse(text) else { return false };
    assert_eq!(Token::parse(&token.encode()).as_ref(), Ok(&token), "what is read comes back");
    let mut twice = token.clone();
    twice.merge(&token);
    assert_eq!(Token::parse(&twice.encode()), Ok(twice), "merged, too");
    true
}

pub fn token_seeds() -> Vec<Vec<u8>> {
    let mut one = Token::new(CLUSTER);
    one.see(ShardId(3), Position::new(1, 70_000), |_| LogId(0));
    let mut many = one.clone();
    for shard in 0..40 {
        many.see(ShardId(shard), Position::new(2, u64::from(shard) << 20), |shard| LogId(shard.0 % 3));
    }
    let both = format!("{},{}", one.encode(), many.encode());
    [one.encode(), many.encode(), both].map(String::into_bytes).into()
}

fn list() -> (ObjectId, TypeId) {
    (ObjectId::new(ID).expect("an id"), TypeId(1))
}

pub fn cursor(raw: &[u8]) -> bool {
    let (id1, atype) = list();
    let Ok(text) = std::str::from_utf8(raw) else { return false };
    let Ok(cursor) = Cursor::decode(text, id1, atype) else { return false };
    assert_eq!(Cursor::decode(&cursor.encode(), id1, atype), Ok(cursor));
    true
}

pub fn cursor_seeds() -> Vec<Vec<u8>> {
    let (id1, atype) = list();
    vec![Cursor { id1, atype, after: EdgeKey { time: u32::MAX, id2: id1 } }.encode().into_bytes()]
}

/// The first byte says how the bytes of a connection are cut.
pub fn frames(raw: &[u8]) -> bool {
    let Some((piece, bytes)) = raw.split_first() else { return false };
    let (passed, answers) = tao_runtime::fuzz::sift(bytes, (*piece).into());
    let at_once = tao_runtime::fuzz::sift(bytes, bytes.len());
    assert!((&passed, &answers) == (&at_once.0, &at_once.1), "how they are cut matters");
    assert!(passed.len() <= bytes.len(), "something is added");
    !answers.is_empty()
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let headers =
        |stream: u8| [b"\0\0\x08\x01\x04\0\0\0".as_slice(), &[stream], b"\x83\x86\x84\x83\x86\x84\x83\x86"].concat();
    let data = |stream: u8| [b"\0\0\x05\0\x01\0\0\0".as_slice(), &[stream], b"\0\0\0\0\0"].concat();
    let calls: Vec<u8> = (0..6).flat_map(|n| [headers(2 * n + 1), data(2 * n + 1)].concat()).collect();
    [1, 7, 255].map(|piece| [&[piece], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &calls].concat()).into()
}
