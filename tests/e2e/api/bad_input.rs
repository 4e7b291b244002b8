//! Bad input gets a clear error that names the field, and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tao_proto::v1::batch_item::Call;
use tao_proto::v1::*;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::api::suite::{add, batch, data, int, link, text, user};
use crate::cluster::Graph;

/// The fields that an INVALID_ARGUMENT complains about.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("tao", "INVALID_ARGUMENT"));
    assert_eq!(info.metadata["not_applied"], "true");
    let violations = status.get_details_bad_request().expect("BadRequest").field_violations;
    assert!(violations.iter().all(|v| !v.description.is_empty()));
    violations.into_iter().map(|v| v.field).collect()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("ErrorInfo").reason
}

/// An id that no generator has reached: a year ahead.
fn never_allocated(id: i64) -> i64 {
    id + ((365 * 24 * 3_600_000) << 22)
}

pub async fn ids(mut a: Graph, _b: Graph) {
    for id in [0, -5] {
        let status = a.object_get(ObjectGetRequest { id, options: None }).await.unwrap_err();
        assert_eq!(fields(&status), ["id"]);
    }
    let one = user(&mut a).await;
    let ahead = never_allocated(one);
    let upsert = ObjectUpsertRequest { id: ahead, r#type: "user".to_owned(), ..Default::default() };
    assert_eq!(fields(&a.object_upsert(upsert).await.unwrap_err()), ["id"]);
    let add = ObjectAddRequest { id: ahead, r#type: "user".to_owned(), ..Default::default() };
    assert_eq!(fields(&a.object_add(add).await.unwrap_err()), ["id"]);
    assert_eq!(fields(&a.assoc_add(link(one, "follows", ahead, 1)).await.unwrap_err()), ["id2"]);
    assert_eq!(fields(&a.assoc_add(link(ahead, "follows", ahead, 1)).await.unwrap_err()), ["id1", "id2"]);
    assert_eq!(a.object_get(ObjectGetRequest { id: ahead, options: None }).await.unwrap_err().code(), Code::NotFound);
    let too_many = ObjectMultiGetRequest { ids: vec![one; 1_001], options: None };
    assert_eq!(fields(&a.object_multi_get(too_many).await.unwrap_err()), ["ids"]);
    assert_eq!(fields(&a.object_multi_get(ObjectMultiGetRequest::default()).await.unwrap_err()), ["ids"]);
    let one_bad = ObjectMultiGetRequest { ids: vec![one, 0, one], options: None };
    assert_eq!(fields(&a.object_multi_get(one_bad).await.unwrap_err()), ["ids[1]"]);
    for count in [-1, 1_001] {
        let status = a.allocate_ids(AllocateIdsRequest { count, ..Default::default() }).await.unwrap_err();
        assert_eq!(fields(&status), ["count"]);
    }
}

pub async fn types(mut a: Graph, _b: Graph) {
    let status = a.object_add(ObjectAddRequest { r#type: "usr".to_owned(), ..Default::default() }).await.unwrap_err();
    assert_eq!(fields(&status), ["type"]);
    assert!(status.message().contains("comment, page, post, user"), "{}", status.message());
    let one = user(&mut a).await;
    let status = a.assoc_add(link(one, "", one, 1)).await.unwrap_err();
    assert!(status.message().contains("required") && status.message().contains("followed_by"), "{}", status.message());
    let count = AssocCountRequest { id1: one, r#type: "user".to_owned(), options: None };
    assert_eq!(fields(&a.assoc_count(count).await.unwrap_err()), ["type"]);
    let same = AssocChangeTypeRequest {
        id1: one,
        r#type: "likes".to_owned(),
        id2: one,
        new_type: "likes".to_owned(),
        options: None,
    };
    assert_eq!(fields(&a.assoc_change_type(same).await.unwrap_err()), ["new_type"]);
}

pub async fn data_limits(mut a: Graph, _b: Graph) {
    let add =
        |data: BTreeMap<String, Value>| ObjectAddRequest { r#type: "user".to_owned(), data, ..Default::default() };
    let many: BTreeMap<_, _> = (0..257).map(|n| (format!("f{n}"), int(n))).collect();
    assert_eq!(fields(&a.object_add(add(many)).await.unwrap_err()), ["data"]);
    let most: BTreeMap<_, _> = (0..256).map(|n| (format!("f{n}"), int(n))).collect();
    a.object_add(add(most)).await.unwrap();
    let large = data([("x", text(&"x".repeat(65_536)))]);
    assert_eq!(fields(&a.object_add(add(large)).await.unwrap_err()), ["data"]);
    let largest = data([("x", text(&"x".repeat(65_500)))]);
    a.object_add(add(largest)).await.unwrap();
    let unnamed = data([("", int(1))]);
    assert_eq!(fields(&a.object_add(add(unnamed)).await.unwrap_err()), ["data[\"\"]"]);
    let long_name = "n".repeat(129);
    assert_eq!(fields(&a.object_add(add(data([(long_name.as_str(), int(1))]))).await.unwrap_err()).len(), 1);
    let kindless = data([("k", Value { kind: None })]);
    assert_eq!(fields(&a.object_add(add(kindless)).await.unwrap_err()), ["data[\"k\"]"]);
    let timeless = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let timeless = data([("t", Value { kind: Some(value::Kind::TimestampValue(timeless)) })]);
    assert_eq!(fields(&a.object_add(add(timeless)).await.unwrap_err()), ["data[\"t\"]"]);
    let empty = a.object_add(add(BTreeMap::new())).await.unwrap().into_inner().object.unwrap();
    assert!(empty.data.is_empty());
}

pub async fn lists(mut a: Graph, _b: Graph) {
    let one = user(&mut a).await;
    let two = user(&mut a).await;
    for time in [-1, 4_294_967_296, 4_294_967_295 - 1] {
        // The last lies within 32 bits, but years ahead.
        let status = a.assoc_add(link(one, "follows", two, time)).await;
        match status {
            Err(status) => assert_eq!(fields(&status), ["time"], "{time}"),
            Ok(_) => panic!("time {time} was accepted"),
        }
    }
    let range = |limit, offset, cursor: &str| AssocRangeRequest {
        id1: one,
        r#type: "follows".to_owned(),
        limit,
        offset,
        cursor: cursor.to_owned(),
        ..Default::default()
    };
    assert_eq!(fields(&a.assoc_range(range(6_001, 0, "")).await.unwrap_err()), ["limit"]);
    assert_eq!(fields(&a.assoc_range(range(-1, -1, "")).await.unwrap_err()), ["limit", "offset"]);
    assert_eq!(fields(&a.assoc_range(range(1, 1_000_001, "")).await.unwrap_err()), ["offset"]);
    assert_eq!(fields(&a.assoc_range(range(1, 0, "bm90IGE")).await.unwrap_err()), ["cursor"]);
    a.assoc_add(link(one, "messaged", two, 1)).await.unwrap();
    a.assoc_add(link(one, "messaged", one, 1)).await.unwrap();
    let messaged = AssocRangeRequest { r#type: "messaged".to_owned(), ..range(1, 0, "") };
    let cursor = a.assoc_range(messaged).await.unwrap().into_inner().next_cursor;
    let status = a.assoc_range(range(1, 0, &cursor)).await.unwrap_err();
    assert_eq!(fields(&status), ["cursor"]);
    assert!(status.message().contains("another list"), "{}", status.message());
    let times = AssocTimeRangeRequest {
        id1: one,
        r#type: "follows".to_owned(),
        low: Some(5),
        high: Some(4),
        ..Default::default()
    };
    assert_eq!(fields(&a.assoc_time_range(times).await.unwrap_err()), ["low"]);
    let get =
        AssocGetRequest { id1: one, r#type: "follows".to_owned(), id2s: vec![], low: Some(-1), ..Default::default() };
    assert_eq!(fields(&a.assoc_get(get).await.unwrap_err()), ["id2s", "low"]);
}

pub async fn updates(mut a: Graph, _b: Graph) {
    let request = ObjectAddRequest {
        r#type: "user".to_owned(),
        data: data([("s", text("x")), ("n", int(i64::MAX))]),
        ..Default::default()
    };
    let id = a.object_add(request).await.unwrap().into_inner().object.unwrap().id;
    let update = ObjectUpdateRequest { id, ..Default::default() };
    assert_eq!(fields(&a.object_update(update.clone()).await.unwrap_err()), ["set"]);
    let twice = ObjectUpdateRequest { set: data([("s", int(1))]), unset: vec!["s".to_owned()], ..update.clone() };
    assert_eq!(fields(&a.object_update(twice).await.unwrap_err()), ["unset[\"s\"]"]);
    let version = ObjectUpdateRequest { unset: vec!["s".to_owned()], expected_version: Some(0), ..update.clone() };
    assert_eq!(fields(&a.object_update(version).await.unwrap_err()), ["expected_version"]);
    let missing = ObjectDeleteRequest { id, ..Default::default() };
    for (add, want) in [("s", "NOT_A_NUMBER"), ("n", "NUMBER_OVERFLOW")] {
        let status = a
            .object_update(ObjectUpdateRequest { add: [(add.to_owned(), 1)].into(), ..update.clone() })
            .await
            .unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, want));
    }
    let half = data([("big", text(&"x".repeat(40_000)))]);
    a.object_update(ObjectUpdateRequest { set: half, ..update.clone() }).await.unwrap();
    let other_half = data([("big2", text(&"x".repeat(40_000)))]);
    let status = a.object_update(ObjectUpdateRequest { set: other_half, ..update.clone() }).await.unwrap_err();
    assert_eq!(reason(&status), "DATA_TOO_LARGE");
    let got = a.object_get(ObjectGetRequest { id, options: None }).await.unwrap().into_inner().object.unwrap();
    assert_eq!((got.version, &got.data["n"], got.data.len()), (2, &int(i64::MAX), 3), "refused updates change nothing");
    a.object_delete(missing).await.unwrap();
    let status = a.object_update(ObjectUpdateRequest { set: data([("s", int(1))]), ..update }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

pub async fn options(mut a: Graph, _b: Graph) {
    let id = user(&mut a).await;
    let get = |options: ReadOptions| ObjectGetRequest { id, options: Some(options) };
    let fresh = ReadOptions { consistency: 2, ..Default::default() };
    assert_eq!(fields(&a.object_get(get(fresh)).await.unwrap_err()), ["options.session_token"]);
    let bounded = ReadOptions { consistency: 3, max_staleness_ms: 3_600_001, ..Default::default() };
    assert_eq!(fields(&a.object_get(get(bounded)).await.unwrap_err()), ["options.max_staleness_ms"]);
    let unknown = ReadOptions { consistency: 77, ..Default::default() };
    assert_eq!(fields(&a.object_get(get(unknown)).await.unwrap_err()), ["options.consistency"]);
    let garbage = ReadOptions { session_token: "not a token".to_owned(), ..Default::default() };
    assert_eq!(fields(&a.object_get(get(garbage)).await.unwrap_err()), ["session_token"]);
    let mut request = Request::new(ObjectGetRequest { id, options: None });
    request.metadata_mut().insert("tao-consistency", "eventually".parse().unwrap());
    assert_eq!(fields(&a.object_get(request).await.unwrap_err()), ["metadata tao-consistency"]);

    let other = tao_model::Token::new(tao_model::ClusterId([1; 16])).encode();
    let status = a.object_get(get(ReadOptions { session_token: other, ..Default::default() })).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "TOKEN_OTHER_CLUSTER"));

    // A token that has seen what the log has not reached, and one of an epoch that is over.
    let own = a.object_get(ObjectGetRequest { id, options: None }).await.unwrap().into_inner().session_token;
    let own = tao_model::Token::parse(&own).unwrap();
    let (cluster, epoch) = (own.cluster(), own.resume_point(tao_model::LogId(0)).unwrap().epoch);
    let shard = tao_model::ShardId(((id >> 12) & 1023) as u32);
    for (position, want) in [
        (tao_model::Position::new(epoch, 1 << 40), "TOKEN_FROM_FUTURE"),
        (tao_model::Position::new(epoch - 1, 1), "HISTORY_UNDONE"),
    ] {
        let mut token = tao_model::Token::new(cluster);
        token.see(shard, position, |_| tao_model::LogId(0));
        let status =
            a.object_get(get(ReadOptions { session_token: token.encode(), ..Default::default() })).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, want));
    }
    let long = Some(WriteOptions { idempotency_key: "k".repeat(65), ..Default::default() });
    let status = a.object_delete(ObjectDeleteRequest { id, options: long, ..Default::default() }).await.unwrap_err();
    assert_eq!(fields(&status), ["options.idempotency_key"]);
}

pub async fn batches(mut a: Graph, _b: Graph) {
    assert_eq!(fields(&a.batch(BatchRequest::default()).await.unwrap_err()), ["items"]);
    let items = vec![BatchItem { call: None }; 1_001];
    assert_eq!(fields(&a.batch(BatchRequest { items, options: None }).await.unwrap_err()), ["items"]);
    let one = user(&mut a).await;
    let items = vec![
        BatchItem { call: None },
        BatchItem { call: Some(Call::ObjectGet(ObjectGetRequest { id: one, options: None })) },
    ];
    let answer = a.batch(BatchRequest { items, options: None }).await.unwrap().into_inner();
    assert!(
        matches!(&answer.results[0].result, Some(batch_result::Result::Error(e)) if e.violations[0].field == "call")
    );
    assert!(matches!(&answer.results[1].result, Some(batch_result::Result::ObjectGet(_))));
}

pub async fn ends_of_the_wrong_type(mut a: Graph, _b: Graph) {
    let (one, post) = (user(&mut a).await, add(&mut a, "post").await.id);
    let status = a.assoc_add(link(one, "follows", post, 1)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "TYPE_MISMATCH"));
    a.assoc_add(link(one, "likes", post, 1)).await.unwrap();
    let status = a.assoc_add(link(post, "authored", one, 1)).await.unwrap_err();
    assert_eq!(reason(&status), "TYPE_MISMATCH");
    let calls = vec![Call::AssocCount(AssocCountRequest { id1: one, r#type: "follows".to_owned(), options: None })];
    assert!(
        matches!(&batch(&mut a, calls).await.results[0].result, Some(batch_result::Result::AssocCount(c)) if c.count == 0)
    );
}

pub async fn deadlines_and_sizes(mut a: Graph, _b: Graph) {
    let id = user(&mut a).await;
    // Its own client gives a call up that has no time left; what a server makes of one, libs/rpc tests.
    let mut request = Request::new(ObjectGetRequest { id, options: None });
    request.set_timeout(Duration::ZERO);
    let status = a.object_get(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    let huge = data([("x", text(&"x".repeat(5 * 1024 * 1024)))]);
    let status = a
        .object_add(ObjectAddRequest { r#type: "user".to_owned(), data: huge, ..Default::default() })
        .await
        .unwrap_err();
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange), "{status:?}");
    // The connection is still good.
    let mut request = Request::new(ObjectGetRequest { id, options: None });
    request.set_timeout(Duration::from_secs(5));
    a.object_get(request).await.unwrap();
}

pub async fn every_violation_at_once(mut a: Graph, _b: Graph) {
    let request = AssocAddRequest {
        id1: 0,
        r#type: "loathes".to_owned(),
        id2: -1,
        time: Some(-9),
        data: data([("k", Value { kind: None })]),
        options: Some(WriteOptions { idempotency_key: "k".repeat(100), session_token: "?".to_owned() }),
    };
    let mut got = fields(&a.assoc_add(request).await.unwrap_err());
    got.sort();
    assert_eq!(got, ["data[\"k\"]", "id1", "id2", "options.idempotency_key", "session_token", "time", "type"]);
}
