//! Sessions at the edges of what is allowed: large commits, forged tokens, tokens of single items, writes that change nothing.

use futures::future::join_all;
use tao_model::{LogId, Position, ShardId, Token};
use tao_proto::v1::batch_item::Call;
use tao_proto::v1::batch_result::Result as BatchResult;
use tao_proto::v1::value::Kind;
use tao_proto::v1::*;
use tonic_types::StatusExt as _;

use super::suite::{batch, data, int, link, seen, user};
use crate::cluster::Graph;

/// What a session that has written `id` has seen of it, and of nothing else.
fn forged(token: &str, id: i64, ahead: u64) -> String {
    let genuine = Token::parse(token).unwrap();
    let shard = ShardId((id as u64 >> 12) as u32 & 1023);
    let log = LogId(0);
    let mut token = Token::new(genuine.cluster());
    token.see(shard, genuine.floor(shard, log).plus(ahead), |_| log);
    token.encode()
}

fn blob(bytes: usize) -> Value {
    Value { kind: Some(Kind::BytesValue(vec![7; bytes].into())) }
}

/// One commit whose changes are larger than a message between tiers may be.
pub async fn a_batch_of_large_updates(mut a: Graph, mut b: Graph) {
    const OBJECTS: usize = 300;
    let mut ids = Vec::new();
    let mut token = String::new();
    for _ in 0..OBJECTS / 30 {
        let add =
            ObjectAddRequest { r#type: "user".to_owned(), data: data([("blob", blob(60_000))]), ..Default::default() };
        let answer = batch(&mut a, vec![Call::ObjectAdd(add); 30]).await;
        for result in answer.results {
            let Some(BatchResult::ObjectAdd(added)) = result.result else { panic!("{result:?}") };
            ids.push(added.object.unwrap().id);
        }
        token = answer.session_token;
    }
    let update = |id: &i64| {
        Call::ObjectUpdate(ObjectUpdateRequest { id: *id, add: [("n".to_owned(), 1)].into(), ..Default::default() })
    };
    let items = ids.iter().map(|id| BatchItem { call: Some(update(id)) }).collect();
    let request = BatchRequest { items, options: seen(&token) };
    let answer = a.batch(request).await.unwrap().into_inner();
    let versions = answer.results.iter().map(|r| match &r.result {
        Some(BatchResult::ObjectUpdate(updated)) => updated.object.as_ref().unwrap().version,
        // What doesn't fit into the answer was done all the same.
        Some(BatchResult::Error(error)) if error.reason == "ANSWER_TOO_LARGE" => 2,
        other => panic!("{other:?}"),
    });
    assert!(versions.into_iter().all(|version| version == 2));
    for id in [ids[0], ids[OBJECTS / 2], ids[OBJECTS - 1]] {
        let get = ObjectGetRequest { id, options: seen(&answer.session_token) };
        let object = b.object_get(get).await.unwrap().into_inner().object.unwrap();
        assert_eq!((object.version, &object.data["n"]), (2, &int(1)));
    }
}

/// A token that nobody was given fails its own read, and nobody else's read of the same key.
pub async fn a_forged_token_fails_alone(mut a: Graph, b: Graph) {
    for _ in 0..20 {
        let added = a
            .object_add(ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() })
            .await
            .unwrap()
            .into_inner();
        let id = added.object.unwrap().id;
        let reads = (0..16).map(|n| {
            let mut b = b.clone();
            let token = forged(&added.session_token, id, if n % 2 == 0 { 0 } else { 1_000_000_000 });
            async move { (n, b.object_get(ObjectGetRequest { id, options: seen(&token) }).await) }
        });
        for (n, answer) in join_all(reads).await {
            match answer {
                Ok(_) => assert_eq!(n % 2, 0, "a read from the future was answered"),
                Err(status) => {
                    let reason = status.get_details_error_info().unwrap().reason;
                    assert_eq!((n % 2, reason.as_str()), (1, "TOKEN_FROM_FUTURE"), "{status:?}");
                }
            }
        }
    }
}

/// Many answers of nearly the limit, of which one fits.
pub async fn a_batch_of_large_lists(mut a: Graph, mut b: Graph) {
    let id1 = user(&mut a).await;
    let mut token = String::new();
    for half in 0..2 {
        let links = (0..20).map(|n| {
            let id2 = id1 - (half * 20 + n) * 4_096 * 1_024;
            Call::AssocAdd(AssocAddRequest { data: data([("blob", blob(62_000))]), ..link(id1, "messaged", id2, n) })
        });
        let answer = batch(&mut a, links.collect()).await;
        assert!(answer.results.iter().all(|r| matches!(r.result, Some(BatchResult::AssocAdd(_)))), "{answer:?}");
        token = answer.session_token;
    }
    let range = AssocRangeRequest { id1, r#type: "messaged".to_owned(), limit: 40, ..Default::default() };
    let items = vec![BatchItem { call: Some(Call::AssocRange(range)) }; 200];
    let answer = b.batch(BatchRequest { items, options: seen(&token) }).await.unwrap().into_inner();
    let (mut fitting, mut refused) = (0, 0);
    for result in answer.results {
        match result.result.unwrap() {
            BatchResult::AssocRange(range) => {
                assert_eq!(range.assocs.len(), 40);
                fitting += 1;
            }
            BatchResult::Error(error) if error.reason == "ANSWER_TOO_LARGE" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fitting, refused), (1, 199));
}

/// A token of one item is a floor for that item, and the answer's token has seen what it has.
pub async fn items_bring_tokens_of_their_own(mut a: Graph, mut b: Graph) {
    for _ in 0..20 {
        let add = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
        let added = a.object_add(add).await.unwrap().into_inner();
        let id = added.object.unwrap().id;
        let get = ObjectGetRequest { id, options: seen(&added.session_token) };
        let other = ObjectGetRequest { id: id + 1, options: None };
        let items = [Call::ObjectGet(get), Call::ObjectGet(other)].map(|call| BatchItem { call: Some(call) }).into();
        let answer = b.batch(BatchRequest { items, options: None }).await.unwrap().into_inner();
        assert!(matches!(answer.results[0].result, Some(BatchResult::ObjectGet(_))), "{answer:?}");
        let shard = ShardId((id as u64 >> 12) as u32 & 1023);
        let at = |token: &str| Token::parse(token).unwrap().floor(shard, LogId(0));
        assert!(at(&answer.session_token) >= at(&added.session_token));
        assert!(at(&added.session_token) > Position::ZERO);
    }
}

/// A follower that was told that there was nothing to do shows no older state from then on.
pub async fn a_write_that_changes_nothing_has_been_seen(mut a: Graph, mut b: Graph) {
    let (id1, id2) = (user(&mut a).await, user(&mut a).await);
    for n in 0..30 {
        a.assoc_add(link(id1, "follows", id2, n)).await.unwrap();
        let get = AssocGetRequest { id1, r#type: "follows".to_owned(), id2s: vec![id2], ..Default::default() };
        b.assoc_get(get.clone()).await.unwrap();
        let delete = AssocDeleteRequest { id1, r#type: "follows".to_owned(), id2, ..Default::default() };
        assert!(a.assoc_delete(delete.clone()).await.unwrap().into_inner().deleted);
        assert!(!b.assoc_delete(delete).await.unwrap().into_inner().deleted);
        let shown = b.assoc_get(get).await.unwrap().into_inner();
        assert!(shown.assocs.is_empty(), "round {n}: {shown:?}");
    }
}
