//! What every deployment must do. Each case gets a connection to two followers (the same one where there is only one) and makes
//! its own objects.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tao_proto::v1::batch_item::Call;
use tao_proto::v1::batch_result::Result as BatchResult;
use tao_proto::v1::object_result::Result as ObjectResult;
use tao_proto::v1::value::Kind;
use tao_proto::v1::*;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::cluster::Graph;

pub fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

pub fn int(value: i64) -> Value {
    Value { kind: Some(Kind::Int64Value(value)) }
}

pub fn data<const N: usize>(fields: [(&str, Value); N]) -> BTreeMap<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub async fn add(graph: &mut Graph, otype: &str) -> Object {
    let request = ObjectAddRequest { r#type: otype.to_owned(), ..Default::default() };
    graph.object_add(request).await.unwrap().into_inner().object.unwrap()
}

pub async fn user(graph: &mut Graph) -> i64 {
    add(graph, "user").await.id
}

/// A reading option that has seen `token`.
pub fn seen(token: &str) -> Option<ReadOptions> {
    Some(ReadOptions { session_token: token.to_owned(), ..Default::default() })
}

pub fn link(id1: i64, atype: &str, id2: i64, time: i64) -> AssocAddRequest {
    AssocAddRequest { id1, r#type: atype.to_owned(), id2, time: Some(time), ..Default::default() }
}

async fn count(graph: &mut Graph, id1: i64, atype: &str, token: &str) -> i64 {
    let request = AssocCountRequest { id1, r#type: atype.to_owned(), options: seen(token) };
    graph.assoc_count(request).await.unwrap().into_inner().count
}

async fn range(graph: &mut Graph, id1: i64, atype: &str, token: &str) -> Vec<(i64, i64)> {
    let request =
        AssocRangeRequest { id1, r#type: atype.to_owned(), limit: 6_000, options: seen(token), ..Default::default() };
    places(&graph.assoc_range(request).await.unwrap().into_inner().assocs)
}

fn places(assocs: &[Assoc]) -> Vec<(i64, i64)> {
    assocs.iter().map(|a| (a.time, a.id2)).collect()
}

/// Adds users and links `id1` to them at the given times; answers with the users and the last token.
async fn linked(graph: &mut Graph, id1: i64, atype: &str, times: &[i64]) -> (Vec<i64>, String) {
    let adds =
        times.iter().map(|_| Call::ObjectAdd(ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() }));
    let mut ids = Vec::new();
    for result in batch(graph, adds.collect()).await.results {
        let Some(BatchResult::ObjectAdd(added)) = result.result else { panic!("{result:?}") };
        ids.push(added.object.unwrap().id);
    }
    let links = ids.iter().zip(times).map(|(id2, time)| Call::AssocAdd(link(id1, atype, *id2, *time)));
    let answer = batch(graph, links.collect()).await;
    assert!(answer.results.iter().all(|r| matches!(r.result, Some(BatchResult::AssocAdd(_)))), "{answer:?}");
    (ids, answer.session_token)
}

pub async fn batch(graph: &mut Graph, calls: Vec<Call>) -> BatchResponse {
    let mut all = BatchResponse::default();
    for chunk in calls.chunks(1_000) {
        let items = chunk.iter().map(|call| BatchItem { call: Some(call.clone()) }).collect();
        let options = seen(&all.session_token);
        let answer = graph.batch(BatchRequest { items, options }).await.unwrap().into_inner();
        all.results.extend(answer.results);
        all.session_token = answer.session_token;
    }
    all
}

pub async fn objects(mut a: Graph, mut b: Graph) {
    let fields = data([("name", text("Ann")), ("age", int(30))]);
    let request = ObjectAddRequest { r#type: "user".to_owned(), data: fields.clone(), ..Default::default() };
    let added = a.object_add(request).await.unwrap().into_inner();
    let object = added.object.unwrap();
    assert_eq!((object.version, object.r#type.as_str(), &object.data), (1, "user", &fields));
    assert!(object.id > 0 && object.created.is_some() && object.created == object.updated);

    let get = |token: &str| ObjectGetRequest { id: object.id, options: seen(token) };
    let got = b.object_get(get(&added.session_token)).await.unwrap().into_inner();
    assert_eq!(got.object, Some(object.clone()));

    let delete = ObjectDeleteRequest { id: object.id, ..Default::default() };
    let deleted = b.object_delete(delete.clone()).await.unwrap().into_inner();
    assert!(deleted.deleted);
    let missing = a.object_get(get(&deleted.session_token)).await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.get_details_error_info().unwrap().reason.as_str()),
        (Code::NotFound, "NOT_FOUND")
    );
    assert!(missing.metadata().contains_key("tao-session-token"), "errors carry the session too");
    assert!(!a.object_delete(delete).await.unwrap().into_inner().deleted);
}

pub async fn updates(mut a: Graph, mut b: Graph) {
    let fields = data([("name", text("Bob")), ("score", int(5)), ("old", text("x"))]);
    let request = ObjectAddRequest { r#type: "user".to_owned(), data: fields, ..Default::default() };
    let id = a.object_add(request).await.unwrap().into_inner().object.unwrap().id;
    let update = ObjectUpdateRequest {
        id,
        set: data([("name", text("Bobby"))]),
        unset: vec!["old".to_owned(), "never".to_owned()],
        add: [("score".to_owned(), 7), ("fresh".to_owned(), -1)].into(),
        expected_version: Some(1),
        ..Default::default()
    };
    let updated = a.object_update(update.clone()).await.unwrap().into_inner();
    let object = updated.object.unwrap();
    assert_eq!(object.data, data([("name", text("Bobby")), ("score", int(12)), ("fresh", int(-1))]));
    assert_eq!(object.version, 2);
    let got = b.object_get(ObjectGetRequest { id, options: seen(&updated.session_token) }).await.unwrap().into_inner();
    assert_eq!(got.object, Some(object));
    // The same expectation no longer holds.
    let status = b.object_update(update).await.unwrap_err();
    assert_eq!(
        (status.code(), status.get_details_error_info().unwrap().reason.as_str()),
        (Code::Aborted, "VERSION_MISMATCH")
    );
    let status =
        b.object_delete(ObjectDeleteRequest { id, expected_version: Some(9), ..Default::default() }).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
}

pub async fn upserts_and_allocated_ids(mut a: Graph, mut b: Graph) {
    let ids = a.allocate_ids(AllocateIdsRequest { count: 5, ..Default::default() }).await.unwrap().into_inner().ids;
    assert!(ids.len() == 5 && ids.is_sorted(), "{ids:?}");
    let upsert = |id, name: &str| ObjectUpsertRequest {
        id,
        r#type: "user".to_owned(),
        data: data([("name", text(name))]),
        ..Default::default()
    };
    let first = a.object_upsert(upsert(ids[0], "one")).await.unwrap().into_inner();
    assert!(first.created && first.object.as_ref().unwrap().version == 1);
    let second = b.object_upsert(upsert(ids[0], "two")).await.unwrap().into_inner();
    assert!(!second.created);
    assert_eq!(second.object.as_ref().unwrap().data, data([("name", text("two"))]));
    let add = ObjectAddRequest { id: ids[0], r#type: "user".to_owned(), ..Default::default() };
    assert_eq!(b.object_add(add.clone()).await.unwrap_err().code(), Code::AlreadyExists);
    let added = b.object_add(ObjectAddRequest { id: ids[1], ..add }).await.unwrap().into_inner();
    assert_eq!(added.object.unwrap().id, ids[1]);
    let other = ObjectUpsertRequest { r#type: "post".to_owned(), ..upsert(ids[0], "three") };
    let status = a.object_upsert(other).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "TYPE_MISMATCH");
}

fn shard(id: i64) -> i64 {
    (id >> 12) & 1023
}

pub async fn placement(mut a: Graph, _b: Graph) {
    let one = user(&mut a).await;
    let near = Some(Placement { r#where: Some(placement::Where::Near(one)) });
    let request = ObjectAddRequest { r#type: "post".to_owned(), placement: near.clone(), ..Default::default() };
    let two = a.object_add(request).await.unwrap().into_inner().object.unwrap().id;
    assert_eq!(shard(one), shard(two));
    let ids = a
        .allocate_ids(AllocateIdsRequest { count: 3, placement: near, ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .ids;
    assert!(ids.iter().all(|id| shard(*id) == shard(one)));
    let keyed = |key: &str| AllocateIdsRequest {
        placement: Some(Placement { r#where: Some(placement::Where::ShardKey(key.to_owned())) }),
        ..Default::default()
    };
    let first = a.allocate_ids(keyed("tenant-1")).await.unwrap().into_inner().ids[0];
    let again = a.allocate_ids(keyed("tenant-1")).await.unwrap().into_inner().ids[0];
    assert!(first != again && shard(first) == shard(again));
    let mut shards: Vec<_> = Vec::new();
    for _ in 0..32 {
        shards.push(shard(user(&mut a).await));
    }
    shards.sort_unstable();
    shards.dedup();
    assert!(shards.len() > 16, "32 objects on {} shards", shards.len());
}

pub async fn edges_and_inverses(mut a: Graph, mut b: Graph) {
    let (ann, bob) = (user(&mut a).await, user(&mut a).await);
    let request = AssocAddRequest { data: data([("note", text("hi"))]), ..link(ann, "follows", bob, 100) };
    let added = a.assoc_add(request).await.unwrap().into_inner();
    let assoc = added.assoc.unwrap();
    assert_eq!((assoc.id1, assoc.r#type.as_str(), assoc.id2, assoc.time), (ann, "follows", bob, 100));
    assert_eq!((added.created, added.count), (true, 1));
    let token = added.session_token;
    assert_eq!(range(&mut b, bob, "followed_by", &token).await, [(100, ann)]);
    assert_eq!(count(&mut b, bob, "followed_by", &token).await, 1);
    assert_eq!(count(&mut b, ann, "follows", &token).await, 1);
    assert_eq!(count(&mut b, ann, "followed_by", &token).await, 0);

    // Adding it again moves it, on both sides, and counts nothing.
    let moved = b.assoc_add(link(ann, "follows", bob, 200)).await.unwrap().into_inner();
    assert_eq!((moved.created, moved.count), (false, 1));
    assert_eq!(range(&mut a, bob, "followed_by", &moved.session_token).await, [(200, ann)]);

    // It may be deleted from the other side.
    let delete = AssocDeleteRequest { id1: bob, r#type: "followed_by".to_owned(), id2: ann, ..Default::default() };
    let deleted = b.assoc_delete(delete.clone()).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.count), (true, 0));
    assert_eq!(range(&mut a, ann, "follows", &deleted.session_token).await, []);
    assert_eq!(count(&mut a, bob, "followed_by", &deleted.session_token).await, 0);
    let again = a.assoc_delete(delete).await.unwrap().into_inner();
    assert_eq!((again.deleted, again.count), (false, 0));

    // Without a time, an edge gets the storage shard's.
    let now = AssocAddRequest { time: None, ..link(ann, "follows", bob, 0) };
    let time = a.assoc_add(now).await.unwrap().into_inner().assoc.unwrap().time;
    assert!(time > 1_700_000_000, "{time}");
}

pub async fn symmetric_edges(mut a: Graph, mut b: Graph) {
    let (ann, bob) = (user(&mut a).await, user(&mut a).await);
    let token = a.assoc_add(link(ann, "friend", bob, 7)).await.unwrap().into_inner().session_token;
    assert_eq!(range(&mut b, bob, "friend", &token).await, [(7, ann)]);
    assert_eq!(range(&mut b, ann, "friend", &token).await, [(7, bob)]);
    // An edge to itself is its own inverse.
    let own = a.assoc_add(link(ann, "friend", ann, 9)).await.unwrap().into_inner();
    assert_eq!(own.count, 2);
    assert_eq!(range(&mut b, ann, "friend", &own.session_token).await, [(9, ann), (7, bob)]);
    let delete = AssocDeleteRequest { id1: ann, r#type: "friend".to_owned(), id2: ann, ..Default::default() };
    assert_eq!(b.assoc_delete(delete).await.unwrap().into_inner().count, 1);
}

pub async fn change_type(mut a: Graph, mut b: Graph) {
    let (ann, bob) = (user(&mut a).await, user(&mut a).await);
    a.assoc_add(AssocAddRequest { data: data([("k", int(1))]), ..link(ann, "follows", bob, 5) }).await.unwrap();
    a.assoc_add(link(ann, "messaged", bob, 1)).await.unwrap();
    let change = AssocChangeTypeRequest {
        id1: ann,
        r#type: "follows".to_owned(),
        id2: bob,
        new_type: "messaged".to_owned(),
        ..Default::default()
    };
    let changed = b.assoc_change_type(change.clone()).await.unwrap().into_inner();
    let (assoc, token) = (changed.assoc.unwrap(), changed.session_token);
    assert_eq!((assoc.r#type.as_str(), assoc.time, changed.count), ("messaged", 5, 1));
    assert_eq!(assoc.data, data([("k", int(1))]));
    for (id1, atype, want) in [
        (ann, "follows", vec![]),
        (bob, "followed_by", vec![]),
        (ann, "messaged", vec![(5, bob)]),
        (bob, "messaged_by", vec![(5, ann)]),
    ] {
        assert_eq!(range(&mut a, id1, atype, &token).await, want, "{atype}");
        assert_eq!(count(&mut a, id1, atype, &token).await, want.len() as i64, "{atype}");
    }
    assert_eq!(a.assoc_change_type(change).await.unwrap_err().code(), Code::NotFound);
}

pub async fn edges_keep_their_order(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let (ids, token) = linked(&mut a, one, "friend", &[5, 1, 5, 1_700_000_000, 0, 5]).await;
    let mut want: Vec<_> = [5, 1, 5, 1_700_000_000, 0, 5].into_iter().zip(ids).collect();
    want.sort_unstable();
    want.reverse();
    assert_eq!(range(&mut b, one, "friend", &token).await, want);
    let part = AssocRangeRequest {
        id1: one,
        r#type: "friend".to_owned(),
        offset: 2,
        limit: 3,
        options: seen(&token),
        ..Default::default()
    };
    let part = b.assoc_range(part).await.unwrap().into_inner();
    assert_eq!(places(&part.assocs), want[2..5]);
    assert!(!part.next_cursor.is_empty());
    assert!(part.assocs.iter().all(|a| a.id1 == 0 && a.r#type.is_empty()));
}

pub async fn pages_neither_skip_nor_repeat(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let times: Vec<i64> = (0..300).map(|n| n / 7).collect();
    let (_, token) = linked(&mut a, one, "follows", &times).await;
    let all = range(&mut b, one, "follows", &token).await;
    assert_eq!(all.len(), 300);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let request = AssocRangeRequest {
            id1: one,
            r#type: "follows".to_owned(),
            limit: 37,
            cursor,
            options: seen(&token),
            ..Default::default()
        };
        let page = b.assoc_range(request).await.unwrap().into_inner();
        paged.extend(places(&page.assocs));
        // What is written meanwhile is newer, and must not shift what follows.
        linked(&mut a, one, "follows", &[1_000]).await;
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
}

pub async fn time_ranges(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let times: Vec<i64> = (0..200).collect();
    let (_, token) = linked(&mut a, one, "messaged", &times).await;
    let all = range(&mut a, one, "messaged", &token).await;
    for (low, high, limit) in
        [(50, 59, 100), (0, 0, 10), (150, 4_000_000_000, 20), (199, 199, 1), (10, 180, 64), (500, 600, 5)]
    {
        let want: Vec<_> = all.iter().copied().filter(|(t, _)| (low..=high).contains(t)).collect();
        let (mut got, mut cursor) = (Vec::new(), String::new());
        loop {
            let request = AssocTimeRangeRequest {
                id1: one,
                r#type: "messaged".to_owned(),
                low: Some(low),
                high: Some(high),
                limit,
                cursor,
                options: seen(&token),
                ..Default::default()
            };
            let page = b.assoc_time_range(request).await.unwrap().into_inner();
            assert!(page.assocs.len() as i64 <= limit);
            got.extend(places(&page.assocs));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(got, want, "{low}..={high}");
    }
    let open = AssocTimeRangeRequest {
        id1: one,
        r#type: "messaged".to_owned(),
        low: Some(190),
        options: seen(&token),
        ..Default::default()
    };
    assert_eq!(b.assoc_time_range(open).await.unwrap().into_inner().assocs.len(), 10);
}

pub async fn given_edges(mut a: Graph, mut b: Graph) {
    for (others, name) in [(20, "all cached"), (200, "beyond what is cached")] {
        let one = user(&mut a).await;
        let times: Vec<i64> = (0..others).collect();
        let (ids, token) = linked(&mut a, one, "follows", &times).await;
        let stranger = user(&mut a).await;
        let request = AssocGetRequest {
            id1: one,
            r#type: "follows".to_owned(),
            id2s: vec![ids[1], stranger, ids[5], ids[others as usize - 1], ids[5]],
            options: seen(&token),
            ..Default::default()
        };
        let got = b.assoc_get(request.clone()).await.unwrap().into_inner();
        assert_eq!(places(&got.assocs), [(others - 1, ids[others as usize - 1]), (5, ids[5]), (1, ids[1])], "{name}");
        let bounded = AssocGetRequest { low: Some(2), high: Some(5), ..request };
        let got = b.assoc_get(bounded).await.unwrap().into_inner();
        assert_eq!(places(&got.assocs), [(5, ids[5])], "{name}");
    }
}

pub async fn objects_at_the_other_ends(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let (ids, _) = linked(&mut a, one, "follows", &[1, 2, 3]).await;
    let gone = a.object_delete(ObjectDeleteRequest { id: ids[1], ..Default::default() }).await.unwrap().into_inner();
    let request = AssocRangeRequest {
        id1: one,
        r#type: "follows".to_owned(),
        with_objects: true,
        options: seen(&gone.session_token),
        ..Default::default()
    };
    let got = b.assoc_range(request).await.unwrap().into_inner();
    assert_eq!(places(&got.assocs), [(3, ids[2]), (2, ids[1]), (1, ids[0])]);
    assert_eq!(got.objects.iter().map(|o| o.id).collect::<Vec<_>>(), [ids[2], ids[0]]);
    assert_eq!(got.next_cursor, "");
}

/// Longer than a cached list can be.
pub async fn long_lists(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let times: Vec<i64> = (0..6_500).collect();
    let (_, token) = linked(&mut a, one, "messaged", &times).await;
    assert_eq!(count(&mut b, one, "messaged", &token).await, 6_500);
    let page = |offset, cursor: &str| AssocRangeRequest {
        id1: one,
        r#type: "messaged".to_owned(),
        limit: 6_000,
        offset,
        cursor: cursor.to_owned(),
        options: seen(&token),
        ..Default::default()
    };
    let first = b.assoc_range(page(0, "")).await.unwrap().into_inner();
    assert_eq!(first.assocs.len(), 6_000);
    let rest = b.assoc_range(page(0, &first.next_cursor)).await.unwrap().into_inner();
    assert_eq!((rest.assocs.len(), rest.next_cursor.as_str()), (500, ""));
    let times: Vec<_> = first.assocs.iter().chain(&rest.assocs).map(|a| a.time).collect();
    assert!(times.iter().copied().eq((0..6_500).rev()));
    let far = b.assoc_range(page(6_400, "")).await.unwrap().into_inner();
    assert_eq!(far.assocs.first().map(|a| a.time), Some(99));
    assert_eq!(b.assoc_range(page(7_000, "")).await.unwrap().into_inner().assocs, []);
    let old = AssocTimeRangeRequest {
        id1: one,
        r#type: "messaged".to_owned(),
        high: Some(3),
        options: seen(&token),
        ..Default::default()
    };
    assert_eq!(b.assoc_time_range(old).await.unwrap().into_inner().assocs.len(), 4);
}

pub async fn large_answers_end_early(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let (ids, _) = linked(&mut a, one, "follows", &[0; 80]).await;
    let mut token = String::new();
    for id2 in &ids {
        let note = data([("note", text(&"x".repeat(60_000)))]);
        let request = AssocAddRequest { data: note, ..link(one, "follows", *id2, 1) };
        token = a.assoc_add(request).await.unwrap().into_inner().session_token;
    }
    let (mut total, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let request = AssocRangeRequest {
            id1: one,
            r#type: "follows".to_owned(),
            limit: 100,
            cursor,
            options: seen(&token),
            ..Default::default()
        };
        let page = b.assoc_range(request).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&page) <= 3 * 1024 * 1024);
        total += page.assocs.len();
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert!(total == 80 && pages == 2, "{total} edges on {pages} pages");
    let get = AssocGetRequest {
        id1: one,
        r#type: "follows".to_owned(),
        id2s: ids.clone(),
        options: seen(&token),
        ..Default::default()
    };
    let got = b.assoc_get(get.clone()).await.unwrap().into_inner();
    assert_eq!(got.assocs.len() + got.remaining.len(), 80);
    let rest = b.assoc_get(AssocGetRequest { id2s: got.remaining, ..get }).await.unwrap().into_inner();
    assert_eq!((got.assocs.len() + rest.assocs.len(), rest.remaining.len()), (80, 0));
}

pub async fn batches(mut a: Graph, mut b: Graph) {
    let (ann, bob) = (user(&mut a).await, user(&mut a).await);
    let calls = vec![
        Call::AssocAdd(link(ann, "follows", bob, 3)),
        Call::ObjectGet(ObjectGetRequest { id: ann, options: None }),
        Call::ObjectGet(ObjectGetRequest { id: -1, options: None }),
        Call::ObjectAdd(ObjectAddRequest { r#type: "nobody".to_owned(), ..Default::default() }),
        Call::ObjectUpdate(ObjectUpdateRequest { id: bob, set: data([("a", int(1))]), ..Default::default() }),
    ];
    let answer = batch(&mut a, calls).await;
    let results: Vec<_> = answer.results.into_iter().map(|r| r.result.unwrap()).collect();
    assert!(matches!(&results[0], BatchResult::AssocAdd(r) if r.count == 1 && r.session_token.is_empty()));
    assert!(matches!(&results[1], BatchResult::ObjectGet(r) if r.object.as_ref().unwrap().id == ann));
    assert!(matches!(&results[2], BatchResult::Error(e) if e.code == 3 && e.violations[0].field == "id"));
    assert!(matches!(&results[3], BatchResult::Error(e) if e.violations[0].field == "type" && !e.retryable));
    assert!(matches!(&results[4], BatchResult::ObjectUpdate(r) if r.object.as_ref().unwrap().version == 2));

    let reads = vec![
        Call::AssocCount(AssocCountRequest { id1: bob, r#type: "followed_by".to_owned(), options: None }),
        Call::AssocRange(AssocRangeRequest { id1: ann, r#type: "follows".to_owned(), ..Default::default() }),
        Call::AssocTimeRange(AssocTimeRangeRequest { id1: ann, r#type: "follows".to_owned(), ..Default::default() }),
        Call::AssocGet(AssocGetRequest {
            id1: ann,
            r#type: "follows".to_owned(),
            id2s: vec![bob],
            ..Default::default()
        }),
    ];
    let items = reads.into_iter().map(|call| BatchItem { call: Some(call) }).collect();
    let got = b.batch(BatchRequest { items, options: seen(&answer.session_token) }).await.unwrap().into_inner();
    let results: Vec<_> = got.results.into_iter().map(|r| r.result.unwrap()).collect();
    assert!(matches!(&results[0], BatchResult::AssocCount(r) if r.count == 1), "{results:?}");
    assert!(matches!(&results[1], BatchResult::AssocRange(r) if places(&r.assocs) == [(3, bob)]));
    assert!(matches!(&results[2], BatchResult::AssocTimeRange(r) if places(&r.assocs) == [(3, bob)]));
    assert!(matches!(&results[3], BatchResult::AssocGet(r) if places(&r.assocs) == [(3, bob)]));
}

pub async fn multi_get(mut a: Graph, mut b: Graph) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(user(&mut a).await);
    }
    let gone = a.object_delete(ObjectDeleteRequest { id: ids[1], ..Default::default() }).await.unwrap().into_inner();
    ids.push(ids[0]);
    let request = ObjectMultiGetRequest { ids: ids.clone(), options: seen(&gone.session_token) };
    let got = b.object_multi_get(request).await.unwrap().into_inner().results;
    let brief: Vec<_> = got
        .into_iter()
        .map(|r| match r.result.unwrap() {
            ObjectResult::Object(object) => Ok(object.id),
            ObjectResult::Error(error) => Err(error.code),
        })
        .collect();
    assert_eq!(brief, [Ok(ids[0]), Err(5), Ok(ids[2]), Ok(ids[0])]);

    // What doesn't fit into an answer fails by itself.
    let large = data([("x", text(&"x".repeat(60_000)))]);
    let mut big = Vec::new();
    for _ in 0..60 {
        let request = ObjectAddRequest { r#type: "post".to_owned(), data: large.clone(), ..Default::default() };
        big.push(a.object_add(request).await.unwrap().into_inner().object.unwrap().id);
    }
    let got = a.object_multi_get(ObjectMultiGetRequest { ids: big, options: None }).await.unwrap().into_inner();
    assert!(prost::Message::encoded_len(&got) <= 3 * 1024 * 1024);
    let fitting = got.results.iter().filter(|r| matches!(r.result, Some(ObjectResult::Object(_)))).count();
    let too_large =
        got.results.iter().filter(|r| matches!(&r.result, Some(ObjectResult::Error(e)) if e.code == 8)).count();
    assert!((40..60).contains(&fitting) && fitting + too_large == 60, "{fitting} + {too_large}");
}

pub async fn idempotent_writes(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let key = format!("key-{one}");
    let options = Some(WriteOptions { idempotency_key: key.clone(), ..Default::default() });
    let update = ObjectUpdateRequest { id: one, add: [("n".to_owned(), 1)].into(), options, ..Default::default() };
    let first = a.object_update(update.clone()).await.unwrap().into_inner();
    a.object_update(ObjectUpdateRequest { options: None, ..update.clone() }).await.unwrap();
    let again = b.object_update(update.clone()).await.unwrap().into_inner();
    assert_eq!(again.object, first.object, "the first outcome, although the object has changed since");
    let got =
        b.object_get(ObjectGetRequest { id: one, options: seen(&again.session_token) }).await.unwrap().into_inner();
    assert!(got.object.unwrap().version >= 2);
    let mut other = Request::new(ObjectUpdateRequest { add: [("n".to_owned(), 2)].into(), options: None, ..update });
    other.metadata_mut().insert("tao-idempotency-key", key.parse().unwrap());
    let status = b.object_update(other).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "IDEMPOTENCY_KEY_REUSED");
}

pub async fn consistency_levels(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    for round in 1..=20 {
        let update = ObjectUpdateRequest { id: one, set: data([("n", int(round))]), ..Default::default() };
        let token = a.object_update(update).await.unwrap().into_inner().session_token;
        let strong = ReadOptions { consistency: Consistency::Strong as i32, ..Default::default() };
        let fresh = ReadOptions {
            consistency: Consistency::AtLeastAsFresh as i32,
            session_token: token.clone(),
            ..Default::default()
        };
        for options in [strong, fresh] {
            let got = b.object_get(ObjectGetRequest { id: one, options: Some(options) }).await.unwrap().into_inner();
            assert_eq!(got.object.unwrap().data["n"], int(round));
            assert!(!got.session_token.is_empty());
        }
        let bounded = ReadOptions {
            consistency: Consistency::BoundedStaleness as i32,
            max_staleness_ms: 60_000,
            ..Default::default()
        };
        b.object_get(ObjectGetRequest { id: one, options: Some(bounded) }).await.unwrap();
    }
}

pub async fn tokens_in_metadata(mut a: Graph, mut b: Graph) {
    let one = user(&mut a).await;
    let update = ObjectUpdateRequest { id: one, set: data([("n", int(1))]), ..Default::default() };
    assert!(
        !a.object_update(update.clone()).await.unwrap().metadata().contains_key("tao-session-token"),
        "not asked for"
    );
    let mut update = Request::new(update);
    update.metadata_mut().insert("tao-session-token", "".parse().unwrap());
    let response = a.object_update(update).await.unwrap();
    let token = response.metadata().get("tao-session-token").unwrap().clone();
    assert_eq!(token.to_str().unwrap(), response.into_inner().session_token);
    let mut get = Request::new(ObjectGetRequest { id: one, options: None });
    get.metadata_mut().insert("tao-session-token", token);
    get.metadata_mut().insert("tao-consistency", "at_least_as_fresh".parse().unwrap());
    assert_eq!(b.object_get(get).await.unwrap().into_inner().object.unwrap().data["n"], int(1));
}

/// The promise of the product: the token of a write, and the next read sees it, wherever it goes.
pub async fn own_writes_through_the_other_follower(mut a: Graph, mut b: Graph) {
    let (one, two) = (user(&mut a).await, user(&mut a).await);
    // Warm the other follower's caches with what will be old.
    range(&mut b, one, "follows", "").await;
    range(&mut b, two, "followed_by", "").await;
    for round in 1..=300 {
        let added = a.assoc_add(link(one, "follows", two, round)).await.unwrap().into_inner();
        assert_eq!(range(&mut b, two, "followed_by", &added.session_token).await, [(round, one)]);
        let update = ObjectUpdateRequest { id: one, set: data([("n", int(round))]), ..Default::default() };
        let token = b.object_update(update).await.unwrap().into_inner().session_token;
        let got = a.object_get(ObjectGetRequest { id: one, options: seen(&token) }).await.unwrap().into_inner();
        assert_eq!(got.object.unwrap().data["n"], int(round));
    }
}

/// The other follower learns of a write by itself, from the change stream.
pub async fn without_a_token_within_a_second(mut a: Graph, mut b: Graph) {
    let (one, two) = (user(&mut a).await, user(&mut a).await);
    assert_eq!(count(&mut b, two, "followed_by", "").await, 0);
    a.assoc_add(link(one, "follows", two, 1)).await.unwrap();
    // The writer's own follower shows it at once (P3).
    assert_eq!(count(&mut a, two, "followed_by", "").await, 1);
    let begun = Instant::now();
    while count(&mut b, two, "followed_by", "").await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(1), "the change stream took more than a second");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn concurrent_writers_keep_counts(mut a: Graph, b: Graph) {
    let hub = user(&mut a).await;
    let others: Vec<i64> = {
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(user(&mut a).await);
        }
        ids
    };
    let writers = (0..8u64).map(|w| {
        let (mut graph, others) = (if w % 2 == 0 { a.clone() } else { b.clone() }, others.clone());
        tokio::spawn(async move {
            for n in 0..40 {
                let other = others[((w * 7 + n * 3) % 20) as usize];
                if (w + n) % 3 == 0 {
                    let delete =
                        AssocDeleteRequest { id1: hub, r#type: "friend".to_owned(), id2: other, ..Default::default() };
                    graph.assoc_delete(delete).await.unwrap();
                } else {
                    graph.assoc_add(link(hub, "friend", other, n as i64)).await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let strong = Some(ReadOptions { consistency: Consistency::Strong as i32, ..Default::default() });
    let request = AssocRangeRequest {
        id1: hub,
        r#type: "friend".to_owned(),
        limit: 100,
        options: strong.clone(),
        ..Default::default()
    };
    let list = a.assoc_range(request).await.unwrap().into_inner().assocs;
    let counted = a
        .assoc_count(AssocCountRequest { id1: hub, r#type: "friend".to_owned(), options: strong.clone() })
        .await
        .unwrap();
    assert_eq!(counted.into_inner().count, list.len() as i64);
    for other in others {
        let request = AssocRangeRequest {
            id1: other,
            r#type: "friend".to_owned(),
            options: strong.clone(),
            ..Default::default()
        };
        let inverse = a.assoc_range(request).await.unwrap().into_inner().assocs;
        let want: Vec<_> = list.iter().filter(|a| a.id2 == other).map(|a| (a.time, hub)).collect();
        assert_eq!(places(&inverse), want);
    }
}
