//! Pipeline on the real program: every call as the call of its name would be answered, beside others and in any order.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::cluster::{Cluster, Graph, ready, tier};
use futures::future::join_all;
use tao_client::{Client, ClientOptions};
use tao_harness::TempDir;
use tao_proto::v1::pipeline_answer::Result as Answered;
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::*;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

/// A stream as a stub gives it.
struct Raw {
    requests: mpsc::UnboundedSender<PipelineRequest>,
    answers: Streaming<PipelineResponse>,
    next: u64,
}

/// An answer, and the token of what its call has seen.
type Got = (Answered, String);

impl Raw {
    async fn begin(graph: &mut Graph) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let queue = futures::stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        let answers = graph.pipeline(queue).await.unwrap().into_inner();
        Self { requests, answers, next: 1 }
    }

    /// All of these in one message, each with the token at the same place; the answers in the calls' order.
    async fn ask(&mut self, calls: Vec<Call>, tokens: &[&str]) -> Vec<Got> {
        let first = self.next;
        self.next += calls.len() as u64;
        let piped = calls.into_iter().zip(first..).enumerate().map(|(place, (call, seq))| PipelineCall {
            seq,
            session: if tokens.is_empty() { 0 } else { place as u32 + 1 },
            call: Some(call),
            ..Default::default()
        });
        let session_tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        self.send(PipelineRequest { calls: piped.collect(), session_tokens, ..Default::default() });
        let mut got = self.answers((self.next - first) as usize).await;
        (first..self.next).map(|seq| got.remove(&seq).unwrap()).collect()
    }

    async fn one(&mut self, call: Call, token: &str) -> Got {
        let tokens: &[&str] = if token.is_empty() { &[] } else { &[token] };
        self.ask(vec![call], tokens).await.remove(0)
    }

    fn send(&self, request: PipelineRequest) {
        self.requests.send(request).unwrap();
    }

    async fn answers(&mut self, n: usize) -> HashMap<u64, Got> {
        let mut got = HashMap::new();
        while got.len() < n {
            let message = tokio::time::timeout(WITHIN, self.answers.message()).await.expect("an answer");
            let PipelineResponse { answers, session_tokens, .. } = message.unwrap().unwrap();
            for PipelineAnswer { seq, session, result } in answers {
                let seen = session.checked_sub(1).map(|place| session_tokens[place as usize].clone());
                assert!(got.insert(seq, (result.unwrap(), seen.unwrap_or_default())).is_none(), "two answers to {seq}");
            }
        }
        got
    }
}

fn number(n: i64) -> BTreeMap<String, Value> {
    [("n".to_owned(), Value { kind: Some(value::Kind::Int64Value(n)) })].into()
}

fn user(n: i64) -> Call {
    Call::ObjectAdd(ObjectAddRequest { r#type: "user".to_owned(), data: number(n), ..Default::default() }.into())
}

fn get(id: i64) -> Call {
    Call::ObjectGet(ObjectGetRequest { id, options: None })
}

fn object(answer: &Answered) -> Object {
    match answer {
        Answered::ObjectAdd(answer) => answer.object.clone().unwrap(),
        Answered::ObjectGet(answer) => answer.object.clone().unwrap(),
        Answered::ObjectUpdate(answer) => answer.object.clone().unwrap(),
        Answered::ObjectUpsert(answer) => answer.object.clone().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn error(answer: &Answered) -> &ItemError {
    if let Answered::Error(error) = answer { error } else { panic!("{answer:?}") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_as_the_call_of_its_name() {
    let cluster = Cluster::dev().await;
    let mut graph = cluster.connect(0).await;
    let mut raw = Raw::begin(&mut graph).await;

    let added = raw.ask((0..3).map(user).collect(), &[]).await;
    let [ann, bob, cleo] = [0, 1, 2].map(|n| object(&added[n].0).id);
    let tokens = added.iter().map(|(_, token)| token.as_str()).collect::<Vec<_>>().join(",");
    let update = ObjectUpdateRequest { id: ann, set: number(7), ..Default::default() };
    let (updated, _) = raw.one(Call::ObjectUpdate(update.into()), &tokens).await;
    assert_eq!((object(&updated).version, object(&updated).data), (2, number(7)));
    let allocated =
        raw.one(Call::AllocateIds(AllocateIdsRequest { count: 2, ..Default::default() }.into()), "").await.0;
    let Answered::AllocateIds(AllocateIdsResponse { ids, session_token }) = allocated else { panic!("{allocated:?}") };
    assert!(ids.len() == 2 && session_token.is_empty());
    let upsert = ObjectUpsertRequest { id: ids[0], r#type: "user".to_owned(), ..Default::default() };
    assert_eq!(object(&raw.one(Call::ObjectUpsert(upsert.into()), "").await.0).id, ids[0]);

    let follows = |id1, id2, time| {
        let time = Some(time);
        Call::AssocAdd(AssocAddRequest { id1, r#type: "follows".to_owned(), id2, time, ..Default::default() }.into())
    };
    let edges = raw.ask(vec![follows(ann, bob, 10), follows(ann, cleo, 20), follows(bob, cleo, 30)], &[]).await;
    assert!(edges.iter().all(|(answer, _)| matches!(answer, Answered::AssocAdd(added) if added.created)), "{edges:?}");
    let token = edges.iter().map(|(_, token)| token.as_str()).collect::<Vec<_>>().join(",");

    // Each read twice: from the tiers behind, and from memory.
    let (list, r#type) = (ann, "follows".to_owned());
    let reads = [
        get(ann),
        Call::AssocCount(AssocCountRequest { id1: list, r#type: r#type.clone(), options: None }),
        Call::AssocRange(AssocRangeRequest { id1: list, r#type: r#type.clone(), limit: 1, ..Default::default() }),
        Call::AssocRange(AssocRangeRequest {
            id1: list,
            r#type: r#type.clone(),
            with_objects: true,
            ..Default::default()
        }),
        Call::AssocTimeRange(AssocTimeRangeRequest {
            id1: list,
            r#type: r#type.clone(),
            high: Some(10),
            ..Default::default()
        }),
        Call::AssocGet(AssocGetRequest {
            id1: list,
            r#type: r#type.clone(),
            id2s: vec![cleo, ann],
            ..Default::default()
        }),
        Call::ObjectMultiGet(ObjectMultiGetRequest { ids: vec![ann, 1], options: None }),
    ];
    let mut before: Option<Vec<Answered>> = None;
    for _ in 0..2 {
        let all = vec![token.as_str(); reads.len()];
        let got: Vec<_> = raw.ask(reads.to_vec(), &all).await.into_iter().map(|(answer, _)| answer).collect();
        let [one, count, newest, both, early, to_cleo, many] = got.as_slice() else { panic!("{got:?}") };
        assert_eq!(object(one), object(&updated));
        assert!(matches!(count, Answered::AssocCount(answer) if answer.count == 2), "{count:?}");
        let Answered::AssocRange(newest) = newest else { panic!("{newest:?}") };
        assert!(newest.assocs[0].id2 == cleo && !newest.next_cursor.is_empty(), "{newest:?}");
        assert!(matches!(both, Answered::AssocRange(answer) if answer.objects.len() == 2), "{both:?}");
        assert!(matches!(early, Answered::AssocTimeRange(answer) if answer.assocs[0].id2 == bob), "{early:?}");
        assert!(matches!(to_cleo, Answered::AssocGet(answer) if answer.assocs.len() == 1), "{to_cleo:?}");
        assert!(matches!(many, Answered::ObjectMultiGet(answer) if answer.results.len() == 2), "{many:?}");
        assert!(
            before.replace(got.clone()).is_none_or(|before| before == got),
            "memory says what the tiers behind said"
        );
    }
    let items =
        vec![BatchItem { call: Some(batch_item::Call::ObjectGet(ObjectGetRequest { id: bob, options: None })) }];
    let batch = raw.one(Call::Batch(BatchRequest { items, options: None }.into()), &token).await.0;
    assert!(matches!(&batch, Answered::Batch(answer) if answer.results.len() == 1), "{batch:?}");
    let r#move = AssocChangeTypeRequest {
        id1: ann,
        r#type: "follows".to_owned(),
        id2: bob,
        new_type: "messaged".to_owned(),
        options: None,
    };
    let (moved, token) = raw.one(Call::AssocChangeType(r#move.into()), "").await;
    assert!(matches!(&moved, Answered::AssocChangeType(answer) if answer.count == 1), "{moved:?}");
    let delete = AssocDeleteRequest { id1: ann, r#type: "messaged".to_owned(), id2: bob, options: None };
    let (gone, _) = raw.one(Call::AssocDelete(delete.into()), &token).await;
    assert!(matches!(&gone, Answered::AssocDelete(answer) if answer.deleted && answer.count == 0), "{gone:?}");
    let (gone, token) =
        raw.one(Call::ObjectDelete(ObjectDeleteRequest { id: bob, ..Default::default() }.into()), "").await;
    assert!(matches!(&gone, Answered::ObjectDelete(answer) if answer.deleted), "{gone:?}");
    let (none, seen) = raw.one(get(bob), &token).await;
    assert_eq!((error(&none).reason.as_str(), error(&none).code), ("NOT_FOUND", Code::NotFound as i32));
    assert!(!seen.is_empty(), "that there is none was seen, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_one_call_is_said_of_it_and_the_others_go_on() {
    let cluster = Cluster::dev().await;
    let mut graph = cluster.connect(0).await;
    let mut raw = Raw::begin(&mut graph).await;
    let (good, token) = raw.one(user(1), "").await;
    let id = object(&good).id;

    let wrong = AssocRangeRequest { id1: -1, r#type: "no".to_owned(), limit: -1, ..Default::default() };
    let unary = graph.assoc_range(wrong.clone()).await.unwrap_err();
    let (piped, _) = raw.one(Call::AssocRange(wrong), "").await;
    let fields = |error: &ItemError| {
        error.violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect::<Vec<_>>()
    };
    let said = unary.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields(error(&piped)), said.into_iter().map(|v| (v.field, v.description)).collect::<Vec<_>>());
    assert_eq!((error(&piped).code, error(&piped).message.as_str()), (unary.code() as i32, unary.message()));

    let call = |seq, session, call| PipelineCall { seq, session, call, ..Default::default() };
    let own = ReadOptions { session_token: token.clone(), ..Default::default() };
    let twice = Call::ObjectGet(ObjectGetRequest { id, options: Some(own) });
    let calls = vec![
        call(101, 0, None),
        call(102, 9, Some(get(id))),
        call(103, 1, Some(twice)),
        call(104, 2, Some(get(id))),
        call(105, 1, Some(get(id))),
    ];
    let session_tokens = vec![token.clone(), "no token".to_owned()];
    raw.send(PipelineRequest { calls, session_tokens, ..Default::default() });
    let got = raw.answers(5).await;
    for (seq, field) in [(101, "call"), (102, "session"), (103, "session"), (104, "session_token")] {
        assert_eq!(fields(error(&got[&seq].0))[0].0, field, "{seq}");
    }
    assert_eq!(object(&got[&105].0), object(&good));

    // More than a message may hold, and two with one number.
    let calls = (0..1_030).map(|n| call(1_000 + n, 0, Some(get(id)))).collect();
    raw.send(PipelineRequest { calls, ..Default::default() });
    let got = raw.answers(1_030).await;
    assert_eq!(got.values().filter(|(answer, _)| matches!(answer, Answered::ObjectGet(_))).count(), 1_024);
    let refused =
        got.values().filter(|(answer, _)| matches!(answer, Answered::Error(_))).map(|(answer, _)| error(answer));
    refused.for_each(|error| assert_eq!((fields(error)[0].0.as_str(), error.retryable), ("calls", false)));
    let late = PipelineCall { seq: 1, timeout_us: 1, call: Some(user(2)), ..Default::default() };
    raw.send(PipelineRequest { calls: vec![late], ..Default::default() });
    let got = raw.answers(1).await;
    assert_eq!(error(&got[&1].0).reason, "DEADLINE_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stops_costs_its_clients_nothing() {
    let data = TempDir::new().unwrap();
    let store = format!("sqlite:{}", data.join("tao.db").display());
    let (_shard, shard) = tier(&["shard", "--store", &store]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let (mut one, first) = tier(&["follower", "--leader", &leader]);
    let (_two, second) = tier(&["follower", "--leader", &leader]);
    ready(&first).await;
    ready(&second).await;
    // Each client begins with one of the two, by chance.
    let client = || Client::connect(&format!("{first},{second}"), ClientOptions::default()).unwrap();
    let session = client().session();
    let add = || ObjectAddRequest { r#type: "user".to_owned(), data: number(0), ..Default::default() };
    let id = session.object_add(add()).await.unwrap().object.unwrap().id;
    let working = join_all((0..32).map(|n| {
        let session = client().session();
        tokio::spawn(async move {
            for turn in 0..200 {
                let field = format!("f{n}");
                let update = ObjectUpdateRequest { id, add: [(field.clone(), 1)].into(), ..Default::default() };
                session.object_update(update).await.unwrap();
                let got = session.object_get(ObjectGetRequest { id, options: None }).await.unwrap().object.unwrap();
                assert_eq!(got.data[&field].kind, Some(value::Kind::Int64Value(turn + 1)), "its own write");
            }
        })
    }));
    let stopping = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(300));
        assert!(one.terminate().unwrap().success());
    });
    working.await.into_iter().for_each(Result::unwrap);
    stopping.await.unwrap();
}
