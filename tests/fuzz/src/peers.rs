//! What another tier sends: calls, replies, and messages of change streams.

use std::time::{Duration, Instant};

use prost::Message as _;
use tao_model::Write;
use tao_proto::{convert, internal, v1};

use crate::stored;

pub fn calls(raw: &[u8]) -> bool {
    let Ok(request) = internal::ExchangeRequest::decode(raw) else { return false };
    let deadline = (Instant::now() + Duration::from_secs(1)).into();
    let mut taken = false;
    for call in request.calls {
        match tao_rpc::call::from_wire(call, deadline) {
            Ok((_, tao_rpc::Op::Write(write))) => taken |= checked_write(write),
            Ok(_) => taken = true,
            Err(_) => {}
        }
    }
    taken
}

/// A write that is taken means the same when it is sent on.
fn checked_write(write: internal::Write) -> bool {
    let Ok(write) = Write::try_from(write) else { return false };
    let again = Write::try_from(internal::Write::from(&write));
    // By text: a NaN is not itself.
    assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, tao_model::Error>(&write)));
    true
}

pub fn call_seeds() -> Vec<Vec<u8>> {
    use internal::call::Op;
    let data = || -> std::collections::BTreeMap<String, v1::Value> {
        [("name".to_owned(), v1::Value { kind: Some(v1::value::Kind::StringValue("Ann".to_owned())) })].into()
    };
    let add = internal::ObjectAdd { otype: 1, data: data(), r#where: None };
    let edge = internal::AssocAdd { id1: 1 << 30, atype: 1, id2: 1 << 31, time: Some(7), data: data() };
    let ops = [
        Op::ObjectRead(internal::ObjectRead { id: 1 << 30 }),
        Op::Write(internal::Write { kind: Some(internal::write::Kind::ObjectAdd(add)) }),
        Op::Write(internal::Write { kind: Some(internal::write::Kind::AssocAdd(edge)) }),
    ];
    let call = |(n, op): (usize, Op)| internal::Call {
        seq: n as u64 + 1,
        timeout_us: 1_000_000,
        idempotency_key: "once".to_owned(),
        floor: Some(internal::Position { epoch: 1, lsn: 9 }),
        shard: 3,
        op: Some(op),
        ..Default::default()
    };
    let calls = ops.into_iter().enumerate().map(call).collect();
    vec![internal::ExchangeRequest { calls, cancels: vec![7] }.encode_to_vec()]
}

/// Answers and messages of change streams, told apart by the first byte.
pub fn replies(raw: &[u8]) -> bool {
    match raw.split_first() {
        Some((0, raw)) => {
            let Ok(response) = internal::ExchangeResponse::decode(raw) else { return false };
            response.replies.into_iter().filter_map(|reply| tao_rpc::call::from_reply(reply).ok()).count() > 0
        }
        Some((_, raw)) => match internal::SubscribeResponse::decode(raw).ok().and_then(|message| message.event) {
            Some(internal::subscribe_response::Event::Changes(changes)) => convert::changes(changes.changes).is_ok(),
            _ => false,
        },
        None => false,
    }
}

pub fn reply_seeds() -> Vec<Vec<u8>> {
    use internal::reply::Result;
    let object = internal::ObjectState { object: Some(vec![1, 2, 3].into()) };
    let reply = internal::Reply { seq: 1, as_of: None, result: Some(Result::Object(object)) };
    let error = internal::Error { reason: "NOT_FOUND".to_owned(), ..Default::default() };
    let refused = internal::Reply { seq: 2, as_of: None, result: Some(Result::Error(error)) };
    let response = internal::ExchangeResponse { replies: vec![reply, refused], draining: false };
    let changes = internal::Changes { changes: stored::wire_changes(), ..Default::default() };
    let message = internal::SubscribeResponse { event: Some(internal::subscribe_response::Event::Changes(changes)) };
    vec![[vec![0], response.encode_to_vec()].concat(), [vec![1], message.encode_to_vec()].concat()]
}
