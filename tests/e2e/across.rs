//! Edges and batches that span two databases: both directions are there when the answer says so, and in any case in the end.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tao_proto::v1::precondition::About;
use tao_proto::v1::write_batch_item::Write;
use tao_proto::v1::*;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::cluster::{Graph, TwoLogs};

/// Until something that must happen by itself has happened.
const WITHIN: Duration = Duration::from_secs(60);

/// The log that an id lives in.
fn log_of(id: i64) -> usize {
    ((id >> 12 & 1023) / 512) as usize
}

async fn user_in(graph: &mut Graph, log: usize) -> i64 {
    for n in 0.. {
        let key = format!("{n} {}", rand::random::<u64>());
        let placement = Some(Placement { r#where: Some(placement::Where::ShardKey(key)) });
        let request = ObjectAddRequest { r#type: "user".to_owned(), placement, ..Default::default() };
        let id = patiently(async || graph.clone().object_add(request.clone()).await).await.object.unwrap().id;
        if log_of(id) == log {
            return id;
        }
    }
    unreachable!("half of all keys are of this log")
}

/// Repeats what can be repeated until it is done.
async fn patiently<T>(call: impl AsyncFn() -> Result<tonic::Response<T>, Status>) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status:?}");
                assert!(begun.elapsed() < WITHIN, "{status:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(5));
    request
}

fn adding(id1: i64, atype: &str, id2: i64, time: i64) -> AssocAddRequest {
    AssocAddRequest { id1, r#type: atype.to_owned(), id2, time: Some(time), ..Default::default() }
}

fn deleting(id1: i64, atype: &str, id2: i64) -> AssocDeleteRequest {
    AssocDeleteRequest { id1, r#type: atype.to_owned(), id2, ..Default::default() }
}

fn changing(id1: i64, atype: &str, id2: i64, new_type: &str) -> AssocChangeTypeRequest {
    AssocChangeTypeRequest { id1, r#type: atype.to_owned(), id2, new_type: new_type.to_owned(), ..Default::default() }
}

/// The times and other ends of a list, and its count.
async fn list(graph: &Graph, id1: i64, atype: &str, options: ReadOptions) -> (i64, Vec<(i64, i64)>) {
    let (r#type, options) = (atype.to_owned(), Some(options));
    let range =
        AssocRangeRequest { id1, r#type: r#type.clone(), limit: 100, options: options.clone(), ..Default::default() };
    let range = patiently(async || graph.clone().assoc_range(within(range.clone())).await).await;
    let count = AssocCountRequest { id1, r#type, options };
    let count = patiently(async || graph.clone().assoc_count(within(count.clone())).await).await.count;
    (count, range.assocs.iter().map(|a| (a.time, a.id2)).collect())
}

fn seen(token: &str) -> ReadOptions {
    ReadOptions { session_token: token.to_owned(), ..Default::default() }
}

fn strong() -> ReadOptions {
    ReadOptions { consistency: Consistency::Strong.into(), ..Default::default() }
}

/// One edge and its inverse, or neither, as a session that has this token sees it through a follower.
async fn assert_pair(graph: &Graph, edge: (i64, &str, i64), inverse: &str, time: Option<i64>, options: &ReadOptions) {
    let (id1, atype, id2) = edge;
    let want = |other: i64| (i64::from(time.is_some()), time.map(|t| (t, other)).into_iter().collect::<Vec<_>>());
    assert_eq!(list(graph, id1, atype, options.clone()).await, want(id2), "{edge:?}");
    assert_eq!(list(graph, id2, inverse, options.clone()).await, want(id1), "inverse of {edge:?}");
}

/// Types, their inverses, and types that they may change to, with theirs.
const TYPES: [(&str, &str, &str, &str); 4] = [
    ("follows", "followed_by", "messaged", "messaged_by"),
    ("followed_by", "follows", "friend", "friend"),
    ("friend", "friend", "follows", "followed_by"),
    ("messaged_by", "messaged", "friend", "friend"),
];

/// From either side, through either follower: an answer covers both databases, or says that it does not yet (as on a machine that is
/// busy with other things; then whoever asks waits).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_are_there_when_a_write_is_answered() {
    let cluster = TwoLogs::start().await;
    let [mut one, other] = cluster.connect().await;
    let mut covered = [0; 3];
    for (from, to) in [(0, 1), (1, 0)] {
        let (a, b) = (user_in(&mut one, from).await, user_in(&mut one, to).await);
        for (atype, inverse, new, new_inverse) in TYPES {
            let (mut one, mut other) = (one.clone(), other.clone());
            let added = one.assoc_add(within(adding(a, atype, b, 5))).await.unwrap().into_inner();
            assert!(added.created, "{atype}: {added:?}");
            if added.inverse_pending {
                settled(&cluster).await;
            } else {
                covered[0] += 1;
                assert_eq!(added.count, 1);
                assert_pair(&other, (a, atype, b), inverse, Some(5), &seen(&added.session_token)).await;
                // The follower that has acknowledged it shows it without a token.
                assert_pair(&one, (a, atype, b), inverse, Some(5), &ReadOptions::default()).await;
            }
            // Nothing is to be changed any more: whoever says so shows it, too.
            let again = other.assoc_add(within(adding(b, inverse, a, 5))).await.unwrap().into_inner();
            assert!(!again.created && again.count == 1, "{atype}: {again:?}");
            if !again.inverse_pending {
                assert_pair(&other, (a, atype, b), inverse, Some(5), &ReadOptions::default()).await;
            }

            let changed = one.assoc_change_type(within(changing(a, atype, b, new))).await.unwrap().into_inner();
            if changed.inverse_pending {
                settled(&cluster).await;
            } else {
                covered[1] += 1;
                assert_eq!(changed.count, 1);
                assert_pair(&other, (a, new, b), new_inverse, Some(5), &seen(&changed.session_token)).await;
                assert_pair(&other, (a, atype, b), inverse, None, &seen(&changed.session_token)).await;
            }
            let missing = one.assoc_change_type(within(changing(b, inverse, a, new_inverse))).await.unwrap_err();
            assert_eq!(missing.code(), Code::NotFound);

            let deleted = one.assoc_delete(within(deleting(b, new_inverse, a))).await.unwrap().into_inner();
            assert!(deleted.deleted, "{new}: {deleted:?}");
            if deleted.inverse_pending {
                settled(&cluster).await;
            } else {
                covered[2] += 1;
                assert_eq!(deleted.count, 0);
                assert_pair(&other, (a, new, b), new_inverse, None, &seen(&deleted.session_token)).await;
            }
            let again = other.assoc_delete(within(deleting(a, new, b))).await.unwrap().into_inner();
            assert!(!again.deleted && again.count == 0);
        }
    }
    assert!(covered.iter().all(|n| *n > 0), "of 8 each, some are in time: {covered:?}");
}

/// Waits until nothing is left to do in either database.
async fn settled(cluster: &TwoLogs) {
    let begun = Instant::now();
    // What one leaves to the other may leave something to the first in turn, behind the back of who looks once.
    let mut nothing = 0;
    while nothing < 2 {
        let left = tokio::task::block_in_place(|| cluster.intents());
        nothing = if left == [0, 0] { nothing + 1 } else { 0 };
        assert!(begun.elapsed() < WITHIN, "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every storage shard says that nothing is left.
async fn measured(cluster: &TwoLogs) {
    let begun = Instant::now();
    for shard in 0..3 {
        while cluster.metric(shard, "tao_shard_intents") != Some(0.0) {
            assert!(
                begun.elapsed() < WITHIN,
                "storage shard {shard}: {:?}",
                cluster.metric(shard, "tao_shard_intents")
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The other database is away: the write is done, says that its inverse is pending, and loses nothing when whoever has to deliver
/// it dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pending_arrives_whoever_dies() {
    let mut cluster = TwoLogs::start().await;
    let [mut one, other] = cluster.connect().await;
    for round in 0..3 {
        let (a, b) = (user_in(&mut one, 0).await, user_in(&mut one, 1).await);
        match round {
            // Killed, and back later.
            0 => cluster.shards[2].kill9().unwrap(),
            // Alive, and deaf: it may do what it is sent after its sender has died.
            _ => cluster.shards[2].pause().unwrap(),
        }
        let add = adding(a, "follows", b, 5);
        let added = patiently(async || one.clone().assoc_add(within(add.clone())).await).await;
        assert!(added.inverse_pending && added.count == 1, "{added:?}");
        assert_eq!(list(&other, a, "follows", seen(&added.session_token)).await, (1, vec![(5, b)]));
        let begun = Instant::now();
        while !(0..2).any(|shard| cluster.metric(shard, "tao_shard_intents").is_some_and(|n| n >= 1.0)) {
            assert!(begun.elapsed() < WITHIN);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Named from the far side, with the count as it is without the write; moved in time, so that it is one.
        let moved = patiently(async || one.clone().assoc_add(within(adding(b, "followed_by", a, 6))).await).await;
        assert!(moved.inverse_pending && !moved.created && moved.count == 0, "{moved:?}");
        if round > 0 {
            for shard in &mut cluster.shards[..2] {
                shard.kill9().unwrap();
            }
        }
        if round == 0 {
            cluster.shards[2].start_again().unwrap();
        } else {
            cluster.shards[2].resume().unwrap();
        }
        if round == 2 {
            // After its sender, its receiver, whatever it has done by now.
            cluster.shards[2].kill9().unwrap();
            cluster.shards[2].start_again().unwrap();
        }
        if round > 0 {
            for shard in &mut cluster.shards[..2] {
                shard.start_again().unwrap();
            }
        }
        settled(&cluster).await;
        assert_pair(&other, (a, "follows", b), "followed_by", Some(6), &strong()).await;
        measured(&cluster).await;
        assert_eq!(cluster.metric(2, "tao_shard_intents_oldest_seconds"), Some(0.0));
        // From now on, answers cover both again.
        let deleted = patiently(async || one.clone().assoc_delete(within(deleting(b, "followed_by", a))).await).await;
        if !deleted.inverse_pending {
            assert_pair(&other, (a, "follows", b), "followed_by", None, &seen(&deleted.session_token)).await;
        }
    }
}

/// Writers on both sides of the same few pairs, while storage shards are killed: in the end each edge has its inverse, and counts
/// are right. The seed is in `TAO_SEED`, or random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_converge() {
    let seed: u64 = std::env::var("TAO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TAO_SEED={seed}");
    let mut cluster = TwoLogs::start().await;
    let graphs = cluster.connect().await;
    let mut users = Vec::new();
    for log in [0, 1, 0, 1] {
        users.push(user_in(&mut graphs[0].clone(), log).await);
    }
    let writers: Vec<_> = (0..6u64)
        .map(|n| {
            let (graph, users) = (graphs[n as usize % 2].clone(), users.clone());
            tokio::spawn(async move {
                let mut rng = StdRng::seed_from_u64(seed ^ n);
                for time in 0..60 {
                    let (a, b) = (*users.choose(&mut rng).unwrap(), *users.choose(&mut rng).unwrap());
                    let (atype, _, new, _) = TYPES.choose(&mut rng).unwrap();
                    let mut graph = graph.clone();
                    // What fails may have been done or not: either way, both sides must agree.
                    let done = match rng.random_range(0..5) {
                        0 => graph.assoc_delete(within(deleting(a, atype, b))).await.map(drop),
                        1 => graph.assoc_change_type(within(changing(a, atype, b, new))).await.map(drop),
                        _ => graph.assoc_add(within(adding(a, atype, b, time))).await.map(drop),
                    };
                    let fine = |code| matches!(code, Code::NotFound | Code::Unavailable | Code::DeadlineExceeded);
                    assert!(done.as_ref().is_ok() || fine(done.as_ref().unwrap_err().code()), "{done:?}");
                }
            })
        })
        .collect();
    let mut rng = StdRng::seed_from_u64(seed);
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let shard = &mut cluster.shards[rng.random_range(0..3)];
        shard.kill9().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        shard.start_again().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..1_200))).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    settled(&cluster).await;
    let mut edges = 0;
    for (atype, inverse) in [
        ("follows", "followed_by"),
        ("followed_by", "follows"),
        ("friend", "friend"),
        ("messaged", "messaged_by"),
        ("messaged_by", "messaged"),
    ] {
        for a in &users {
            let (count, found) = list(&graphs[0], *a, atype, strong()).await;
            assert_eq!(count, found.len() as i64);
            for (time, b) in found {
                let (_, back) = list(&graphs[1], b, inverse, strong()).await;
                assert!(back.contains(&(time, *a)), "{a} {atype} {b} at {time} has no inverse: {back:?}");
                edges += 1;
            }
        }
    }
    assert!(edges > 0);
}

fn write(write: Write) -> WriteBatchItem {
    WriteBatchItem { write: Some(write) }
}

fn update(id: i64, n: i64) -> WriteBatchItem {
    let add = [("n".to_owned(), n)].into();
    write(Write::ObjectUpdate(ObjectUpdateRequest { id, add, ..Default::default() }))
}

fn batch(writes: Vec<WriteBatchItem>, about: Vec<About>, key: &str) -> WriteBatchRequest {
    let preconditions = about.into_iter().map(|about| Precondition { about: Some(about) }).collect();
    let options = Some(WriteOptions { idempotency_key: key.to_owned(), ..Default::default() });
    WriteBatchRequest { writes, preconditions, options }
}

fn version(id: i64, version: i64) -> About {
    About::Object(ObjectPrecondition { id, must: Some(object_precondition::Must::HaveVersion(version)) })
}

/// The reason of an error, and the item that it names.
fn refused(result: Result<tonic::Response<WriteBatchResponse>, Status>) -> (String, String) {
    let info = result.unwrap_err().get_details_error_info().unwrap();
    (info.reason, info.metadata.get("item").cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_done_as_a_whole_and_follow_elsewhere() {
    let mut cluster = TwoLogs::start().await;
    let [mut one, mut other] = cluster.connect().await;
    let (a, b, c) = (user_in(&mut one, 0).await, user_in(&mut one, 1).await, user_in(&mut one, 1).await);
    let all = || {
        vec![
            update(a, 1),
            write(Write::AssocAdd(adding(a, "follows", b, 1))),
            write(Write::AssocAdd(adding(b, "follows", a, 2))),
            write(Write::AssocAdd(adding(b, "follows", c, 3))),
            write(Write::ObjectAdd(ObjectAddRequest { r#type: "post".to_owned(), ..Default::default() })),
            write(Write::ObjectDelete(ObjectDeleteRequest { id: c, ..Default::default() })),
        ]
    };
    // One that fails: nothing is done, here or there.
    let failing = update(a, i64::MAX);
    let result = one.write_batch(within(batch([all(), vec![failing]].concat(), vec![], ""))).await;
    assert_eq!(refused(result), ("NUMBER_OVERFLOW".to_owned(), "writes[6]".to_owned()));
    let result = one.write_batch(within(batch(all(), vec![version(a, 1), version(a, 2)], ""))).await;
    assert_eq!(refused(result), ("VERSION_MISMATCH".to_owned(), "preconditions[1]".to_owned()));
    settled(&cluster).await;
    assert_pair(&other, (a, "follows", b), "followed_by", None, &strong()).await;
    // What can fail elsewhere is refused, all of it at once.
    let change = write(Write::AssocChangeType(changing(b, "follows", a, "friend")));
    let stranger = batch([all(), vec![update(b, 1), change]].concat(), vec![version(c, 1)], "");
    let status = one.write_batch(within(stranger)).await.unwrap_err();
    let fields: Vec<_> =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect();
    assert_eq!(
        (status.code(), fields.as_slice()),
        (Code::InvalidArgument, ["preconditions[0]", "writes[6]", "writes[7]"].map(String::from).as_slice())
    );

    let done = one.write_batch(within(batch(all(), vec![version(a, 1)], "first"))).await.unwrap().into_inner();
    assert!(done.results.len() == 6 && done.results[0].applied && done.results[1].applied, "{done:?}");
    assert_eq!(done.results[0].object.as_ref().map(|o| (o.id, o.version)), Some((a, 2)));
    assert_eq!(done.results[3].assoc.as_ref().map(|e| (e.id1, e.id2, e.time)), Some((b, c, 3)));
    let post = done.results[4].object.as_ref().unwrap().id;
    assert_eq!(log_of(post), 0, "beside the others");
    assert!(done.results[5].pending != done.results[5].applied, "known as soon as it is done: {done:?}");
    let token = if done.pending {
        settled(&cluster).await;
        strong()
    } else {
        seen(&done.session_token)
    };
    assert_eq!(list(&other, b, "follows", token.clone()).await, (2, vec![(3, c), (2, a)]));
    assert_eq!(list(&other, a, "followed_by", token.clone()).await, (1, vec![(2, b)]));
    assert_eq!(list(&other, b, "followed_by", token.clone()).await, (1, vec![(1, a)]));
    assert_eq!(list(&other, c, "followed_by", token.clone()).await, (1, vec![(3, b)]));
    let gone = other.object_get(within(ObjectGetRequest { id: c, options: Some(token) })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);

    // Through the other follower, and other processes: the first outcome, though the precondition would fail now.
    for killed in [0, 1, 2] {
        cluster.shards[killed].kill9().unwrap();
        cluster.shards[killed].start_again().unwrap();
    }
    let again = batch(all(), vec![version(a, 1)], "first");
    let again = patiently(async || other.clone().write_batch(within(again.clone())).await).await;
    assert_eq!(again.results[4].object.as_ref().map(|o| o.id), Some(post));
    assert_eq!(again.results[0].object, done.results[0].object);
    let reused = batch(vec![update(a, 2)], vec![], "first");
    let reused = patiently_err(async || one.clone().write_batch(within(reused.clone())).await).await;
    assert_eq!(reused.get_details_error_info().unwrap().reason, "IDEMPOTENCY_KEY_REUSED");

    // The other database is away.
    cluster.shards[2].kill9().unwrap();
    let (id1, id2) = (a, b);
    let writes = vec![update(id1, 1), write(Write::AssocDelete(deleting(id2, "follows", id1)))];
    let pending =
        patiently(async || one.clone().write_batch(within(batch(writes.clone(), vec![], "second"))).await).await;
    assert!(pending.pending && !pending.results[0].pending && pending.results[1].pending, "{pending:?}");
    cluster.shards[2].start_again().unwrap();
    settled(&cluster).await;
    assert_eq!(list(&other, a, "followed_by", strong()).await.0, 0);
    assert_eq!(list(&other, b, "follows", strong()).await.0, 1);
}

/// Waits for an error that no repetition mends.
async fn patiently_err<T>(call: impl AsyncFn() -> Result<tonic::Response<T>, Status>) -> Status {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(_) => panic!("done"),
            Err(status) if !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => return status,
            Err(status) => assert!(begun.elapsed() < WITHIN, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A write that is repeated with its key after a crash gets the first outcome, whichever processes serve it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_writes_get_the_first_outcome_from_other_processes() {
    let mut cluster = TwoLogs::start().await;
    let [mut one, other] = cluster.connect().await;
    let (a, b) = (user_in(&mut one, 0).await, user_in(&mut one, 1).await);
    let keyed = |key: &str| Some(WriteOptions { idempotency_key: key.to_owned(), ..Default::default() });
    let object =
        |n: i64| ObjectAddRequest { r#type: "user".to_owned(), options: keyed(&format!("o{n}")), ..Default::default() };
    let add = |n: i64| AssocAddRequest { options: keyed(&format!("a{n}")), ..adding(b, "followed_by", a, n) };
    let delete = |n: i64| AssocDeleteRequest { options: keyed(&format!("d{n}")), ..deleting(b, "followed_by", a) };
    for n in 0..6 {
        let made = patiently(async || one.clone().object_add(within(object(n))).await).await.object.unwrap();
        let added = patiently(async || one.clone().assoc_add(within(add(n))).await).await;
        let deleted = patiently(async || one.clone().assoc_delete(within(delete(n))).await).await;
        assert!(added.created && deleted.deleted, "{added:?} {deleted:?}");
        // Whoever took them dies, and perhaps more.
        cluster.shards[n as usize % 3].kill9().unwrap();
        cluster.leaders[n as usize % 2].kill9().unwrap();
        let again = patiently(async || other.clone().assoc_add(within(add(n))).await).await;
        assert!(again.created && again.assoc == added.assoc, "{again:?}");
        cluster.shards[n as usize % 3].start_again().unwrap();
        cluster.leaders[n as usize % 2].start_again().unwrap();
        let again = patiently(async || other.clone().object_add(within(object(n))).await).await.object.unwrap();
        assert_eq!(again, made);
        assert!(patiently(async || other.clone().assoc_delete(within(delete(n))).await).await.deleted);
    }
    settled(&cluster).await;
    assert_pair(&other, (a, "follows", b), "followed_by", None, &strong()).await;
}
