//! Watch on the real program: every change once and in order, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Cluster, Graph, TAO, connect, ready};
use serde_json::json;
use tao_client::{Client, ClientOptions, Session};
use tao_harness::{Postgres, Process, TempDir, grpcurl_output};
use tao_proto::v1::change::Kind;
use tao_proto::v1::*;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

fn number(n: i64) -> BTreeMap<String, Value> {
    [("n".to_owned(), Value { kind: Some(value::Kind::Int64Value(n)) })].into()
}

async fn add_user(graph: &mut Graph, n: i64) -> Object {
    let request = ObjectAddRequest { r#type: "user".to_owned(), data: number(n), ..Default::default() };
    graph.object_add(request).await.unwrap().into_inner().object.unwrap()
}

/// A stream as a stub gives it, and the token of the last answer.
struct Raw {
    answers: Streaming<WatchResponse>,
    token: String,
}

impl Raw {
    async fn begin(graph: &mut Graph, request: WatchRequest) -> Result<Self, Status> {
        let mut answers = graph.watch(request).await?.into_inner();
        let first = answers.message().await?.unwrap();
        assert!(first.changes.is_empty(), "the first answer says where the stream begins: {first:?}");
        Ok(Self { answers, token: first.session_token })
    }

    async fn resume(graph: &mut Graph, token: &str) -> Result<Self, Status> {
        Self::begin(graph, WatchRequest { session_token: token.to_owned(), ..Default::default() }).await
    }

    async fn next(&mut self) -> Result<Vec<Kind>, Status> {
        let answer = tokio::time::timeout(WITHIN, self.answers.message()).await.expect("heartbeats at least")?;
        let answer = answer.expect("a watch ends with an error only");
        self.token = answer.session_token;
        Ok(answer.changes.into_iter().map(|change| change.kind.unwrap()).collect())
    }

    async fn take(&mut self, n: usize) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while kinds.len() < n {
            kinds.extend(self.next().await.unwrap());
        }
        kinds
    }
}

fn reason(status: &Status) -> (Code, String, bool) {
    let info = status.get_details_error_info().unwrap();
    (status.code(), info.reason, info.metadata["retryable"] == "true")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_is_seen_once_in_order_and_filters_choose() {
    let cluster = Cluster::dev().await;
    let mut graph = cluster.connect(0).await;
    let mut all = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap();
    let likes = WatchRequest { assoc_types: vec!["likes".to_owned()], ..Default::default() };
    let mut likes = Raw::begin(&mut graph, likes).await.unwrap();

    let ann = add_user(&mut graph, 1).await;
    let post = ObjectAddRequest { r#type: "post".to_owned(), ..Default::default() };
    let post = graph.object_add(post).await.unwrap().into_inner().object.unwrap();
    let posts = WatchRequest { ids: vec![post.id], ..Default::default() };
    let mut posts = Raw::begin(&mut graph, posts).await.unwrap();
    let like = AssocAddRequest {
        id1: ann.id,
        r#type: "likes".to_owned(),
        id2: post.id,
        time: Some(7),
        data: number(5),
        options: None,
    };
    let liked = graph.assoc_add(like.clone()).await.unwrap().into_inner().assoc.unwrap();
    let update = ObjectUpdateRequest { id: ann.id, set: number(2), ..Default::default() };
    let updated = graph.object_update(update).await.unwrap().into_inner().object.unwrap();
    let unlike = AssocDeleteRequest { id1: ann.id, r#type: "likes".to_owned(), id2: post.id, options: None };
    graph.assoc_delete(unlike.clone()).await.unwrap();
    graph.assoc_delete(unlike).await.unwrap();
    graph.object_delete(ObjectDeleteRequest { id: ann.id, ..Default::default() }).await.unwrap();
    let bob = add_user(&mut graph, 3).await;

    let bare = |id1, atype: &str, id2| Assoc { id1, r#type: atype.to_owned(), id2, ..Default::default() };
    let put = |assoc| Kind::AssocPut(AssocChange { assoc: Some(assoc), count: 1 });
    let removed = |assoc| Kind::AssocDeleted(AssocChange { assoc: Some(assoc), count: 0 });
    let there = [put(liked.clone()), removed(bare(ann.id, "likes", post.id))];
    let inverse = Assoc { id1: post.id, r#type: "liked_by".to_owned(), id2: ann.id, ..liked };
    let back = [put(inverse), removed(bare(post.id, "liked_by", ann.id))];
    let seen = all.take(9).await;
    let (mut ends, rest): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|kind| matches!(kind, Kind::AssocPut(_) | Kind::AssocDeleted(_)));
    let want = [
        Kind::ObjectPut(ann.clone()),
        Kind::ObjectPut(post.clone()),
        Kind::ObjectPut(updated),
        Kind::ObjectDeleted(ann.id),
        Kind::ObjectPut(bob),
    ];
    assert_eq!(rest, want);
    // The two directions of an edge are one commit, in no order that the API promises.
    assert_eq!(likes.take(2).await, there);
    assert_eq!(posts.take(2).await, back);
    for kind in there.iter().chain(&back) {
        let at = ends.iter().position(|seen| seen == kind).unwrap();
        ends.remove(at);
    }
    assert!(ends.is_empty(), "{ends:?}");

    // What the token covers does not come again; what it does not cover comes.
    let after = add_user(&mut graph, 4).await;
    let mut resumed = Raw::resume(&mut graph, &all.token).await.unwrap();
    assert_eq!(resumed.take(1).await, [Kind::ObjectPut(after.clone())]);
    // A read with the stream's token sees what the stream has shown.
    let options = Some(ReadOptions { session_token: resumed.token.clone(), ..Default::default() });
    let read = graph.object_get(ObjectGetRequest { id: after.id, options }).await.unwrap().into_inner();
    assert_eq!(read.object, Some(after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_watched_is_refused() {
    let (_shard, shard) = crate::cluster::tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = crate::cluster::tier(&["leader", "--shard", &shard]);
    let (mut follower, address) = crate::cluster::tier(&["follower", "--leader", &leader, "--max-watches", "2"]);
    ready(&address).await;
    let mut graph = connect(&address).await;
    let mut watch = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap();
    let of_this = tao_model::Token::parse(&watch.token).unwrap();

    let other = tao_model::Token::new(tao_model::ClusterId([1; 16])).encode();
    let refused = Raw::resume(&mut graph, &other).await.err().unwrap();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "TOKEN_OTHER_CLUSTER".to_owned(), false));
    let user = add_user(&mut graph, 1).await;
    assert_eq!(watch.take(1).await, [Kind::ObjectPut(user)]);
    let log = tao_model::LogId(0);
    let now = tao_model::Token::parse(&watch.token).unwrap().resume_point(log).unwrap();
    for (position, want) in [
        (tao_model::Position::new(now.epoch, now.lsn + 1_000), "TOKEN_FROM_FUTURE"),
        (tao_model::Position::new(now.epoch + 1, 1), "TOKEN_FROM_FUTURE"),
        (tao_model::Position::new(now.epoch - 1, 1), "HISTORY_UNDONE"),
    ] {
        let mut token = tao_model::Token::new(of_this.cluster());
        token.see_log(log, position);
        let refused = Raw::resume(&mut graph, &token.encode()).await.err().unwrap();
        assert_eq!(reason(&refused), (Code::FailedPrecondition, want.to_owned(), false), "{position}");
    }
    let wrong = WatchRequest { shards: vec![5_000], assoc_types: vec!["loathes".to_owned()], ..Default::default() };
    let refused = graph.watch(wrong).await.err().unwrap();
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations.len(), 2, "{refused:?}");

    // A deadline of the caller's ends a watch.
    let mut timed = tonic::Request::new(WatchRequest::default());
    timed.set_timeout(Duration::from_millis(700));
    let mut timed = graph.watch(timed).await.unwrap().into_inner();
    let ended = loop {
        if let Err(status) = timed.message().await {
            break status;
        }
    };
    assert!(matches!(ended.code(), Code::DeadlineExceeded | Code::Cancelled), "{ended:?}");

    let _second = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap();
    let full = Raw::begin(&mut graph, WatchRequest::default()).await.err().unwrap();
    assert_eq!(reason(&full), (Code::ResourceExhausted, "OVERLOADED".to_owned(), true));
    assert!(full.get_details_retry_info().unwrap().retry_delay.is_some());

    let stopping = tokio::task::spawn_blocking(move || follower.terminate());
    let ended = loop {
        if let Err(status) = watch.next().await {
            break status;
        }
    };
    assert_eq!(reason(&ended), (Code::Unavailable, "UNAVAILABLE".to_owned(), true));
    assert!(stopping.await.unwrap().unwrap().success());
}

/// A shard, two leaders and two followers that know both, each on an address of its own that it keeps.
struct Pairs {
    shard: Process,
    leaders: Vec<Process>,
    followers: Vec<Process>,
    addresses: Vec<String>,
    leader_addresses: Vec<String>,
}

impl Pairs {
    async fn start(store: &str) -> Self {
        let ports = |n: usize| -> Vec<String> {
            (0..n).map(|_| format!("127.0.0.1:{}", tao_harness::free_port().unwrap())).collect()
        };
        let run = |args: &[&str]| {
            let args = [args, &["--admin-listen", "127.0.0.1:0"]].concat();
            Process::spawn(TAO, &args, &[]).unwrap()
        };
        let (shard_address, leader_addresses, addresses) = (&ports(1)[0], ports(2), ports(2));
        let both = leader_addresses.join(",");
        let shard = run(&["shard", "--listen", shard_address, "--store", store]);
        let leader = |address: &String| run(&["leader", "--listen", address, "--shard", shard_address]);
        let follower = |address: &String| run(&["follower", "--listen", address, "--leader", &both]);
        let pairs = Self {
            shard,
            leaders: leader_addresses.iter().map(leader).collect(),
            followers: addresses.iter().map(follower).collect(),
            addresses,
            leader_addresses,
        };
        let mut pairs = pairs;
        for process in pairs.leaders.iter_mut().chain(&mut pairs.followers) {
            process.wait_line("listening for gRPC", WITHIN).unwrap();
        }
        for address in pairs.leader_addresses.iter().chain(&pairs.addresses) {
            ready(address).await;
        }
        pairs
    }

    async fn restart_leader(&mut self, n: usize) {
        self.leaders[n].start_again().unwrap();
        self.leaders[n].wait_line("listening for gRPC", WITHIN).unwrap();
        ready(&self.leader_addresses[n]).await;
    }
}

fn session(addresses: &str) -> Session {
    let options = ClientOptions { deadline: WITHIN, ..Default::default() };
    Client::connect(addresses, options).unwrap().session()
}

/// Updates an object, again and again; its versions tell the order.
async fn update(session: &Session, id: i64, times: i64) {
    for n in 0..times {
        session.object_update(ObjectUpdateRequest { id, set: number(n), ..Default::default() }).await.unwrap();
    }
}

fn versions(kinds: impl IntoIterator<Item = Kind>) -> Vec<i64> {
    let version = |kind| match kind {
        Kind::ObjectPut(object) => object.version,
        other => panic!("{other:?}"),
    };
    kinds.into_iter().map(version).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_doubled_when_a_follower_is_killed() {
    let data = TempDir::new().unwrap();
    let mut pairs = Pairs::start(&format!("sqlite:{}", data.join("tao.db").display())).await;
    let mut graph = connect(&pairs.addresses[0]).await;
    let id = add_user(&mut graph, 0).await.id;
    let mut by_hand = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap();
    let writer = session(&pairs.addresses[1]);
    // This one resumes by itself.
    let both = session(&pairs.addresses.join(","));
    let mut by_itself = both.watch(WatchRequest { ids: vec![id], ..Default::default() });
    by_itself.begin().await.unwrap();

    let writing = tokio::spawn(async move { update(&writer, id, 300).await });
    let mut seen = versions(by_hand.take(40).await);
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last() != Some(&301) {
            seen.extend(versions(by_itself.next().await.unwrap().into_iter().filter_map(|change| change.kind)));
        }
        seen
    });
    pairs.followers[0].kill9().unwrap();
    // What was on its way counts, as far as its token says.
    while let Ok(more) = by_hand.next().await {
        seen.extend(versions(more));
    }
    let mut graph = connect(&pairs.addresses[1]).await;
    let mut by_hand = Raw::resume(&mut graph, &by_hand.token).await.unwrap();
    while seen.last() != Some(&301) {
        seen.extend(versions(by_hand.next().await.unwrap()));
    }
    writing.await.unwrap();
    let want: Vec<i64> = (2..=301).collect();
    assert_eq!(seen, want);
    assert_eq!(watching.await.unwrap(), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_does_not_notice_when_a_leader_is_killed() {
    let mut pairs = Pairs::start("memory:").await;
    let mut graph = connect(&pairs.addresses[0]).await;
    let id = add_user(&mut graph, 0).await.id;
    let writer = session(&pairs.addresses.join(","));
    // Several, so that some are at each leader.
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push((Raw::begin(&mut graph, WatchRequest::default()).await.unwrap(), vec![1]));
    }
    for (round, killed) in [(1, Some(0)), (2, Some(1)), (3, None)] {
        let writes = writer.clone();
        let writing = tokio::spawn(async move { update(&writes, id, 100).await });
        if let Some(killed) = killed {
            // In the midst of it.
            let (watch, seen) = &mut watches[0];
            seen.extend(versions(watch.take(20).await));
            pairs.leaders[killed].kill9().unwrap();
        }
        for (watch, seen) in &mut watches {
            while seen.last() != Some(&(round * 100 + 1)) {
                seen.extend(versions(watch.next().await.unwrap()));
            }
        }
        writing.await.unwrap();
        if let Some(killed) = killed {
            pairs.restart_leader(killed).await;
        }
    }
    // Both at once: what follows is read from the database's log.
    let writes = writer.clone();
    let writing = tokio::spawn(async move { update(&writes, id, 100).await });
    let (watch, seen) = &mut watches[0];
    seen.extend(versions(watch.take(20).await));
    for leader in &mut pairs.leaders {
        leader.kill9().unwrap();
    }
    for n in 0..2 {
        pairs.restart_leader(n).await;
    }
    writing.await.unwrap();
    let want: Vec<i64> = (1..=401).collect();
    for (watch, mut seen) in watches {
        let mut watch = watch;
        while seen.last() != Some(&401) {
            seen.extend(versions(watch.next().await.unwrap()));
        }
        assert_eq!(seen, want);
    }
    // A watch may begin with what was.
    let back = WatchRequest { since_ms: 600_000, ..Default::default() };
    let mut back = Raw::begin(&mut graph, back).await.unwrap();
    assert_eq!(versions(back.take(401).await), want);
    drop(pairs.shard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_several_databases_come_once_each_and_resume_together() {
    let data = TempDir::new().unwrap();
    let port = || format!("127.0.0.1:{}", tao_harness::free_port().unwrap());
    let (shards, leader, followers) = ([port(), port()], port(), [port(), port()]);
    let topology = data.join("topology.toml");
    let text = format!(
        "version = 1\ncluster = \"6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11\"\nleaders = [{leader:?}]\n\
         [[logs]]\nid = 0\nshards = [\"0-511\"]\nservers = [{:?}]\n\
         [[logs]]\nid = 3\nshards = [\"512-1023\"]\nservers = [{:?}]\n",
        shards[0], shards[1]
    );
    std::fs::write(&topology, text).unwrap();
    let topology = topology.to_string_lossy().into_owned();
    let run = |args: &[&str]| {
        let args = [args, &["--topology", &topology, "--admin-listen", "127.0.0.1:0"]].concat();
        Process::spawn(TAO, &args, &[]).unwrap()
    };
    let store = |n: &str| format!("sqlite:{}", data.join(n).display());
    let _shards = [
        run(&["shard", "--listen", &shards[0], "--store", &store("0.db"), "--log-id", "0"]),
        run(&["shard", "--listen", &shards[1], "--store", &store("3.db"), "--log-id", "3"]),
    ];
    let _leader = run(&["leader", "--listen", &leader]);
    let mut servers = followers.each_ref().map(|address| run(&["follower", "--listen", address]));
    for (server, address) in servers.iter_mut().zip(&followers) {
        server.wait_line("listening for gRPC", WITHIN).unwrap();
        ready(address).await;
    }
    let (mut a, mut b) = (connect(&followers[0]).await, connect(&followers[1]).await);
    let mut all = Raw::begin(&mut a, WatchRequest::default()).await.unwrap();
    let half = WatchRequest { shards: (512..1024).collect(), ..Default::default() };
    let mut half = Raw::begin(&mut b, half).await.unwrap();
    let mut added = Vec::new();
    for n in 0..40 {
        added.push(add_user(&mut b, n).await);
    }
    let mut seen = all.take(30).await;
    servers[0].kill9().unwrap();
    while let Ok(more) = all.next().await {
        seen.extend(more);
    }
    for n in 40..60 {
        added.push(add_user(&mut b, n).await);
    }
    let mut all = Raw::resume(&mut b, &all.token).await.unwrap();
    seen.extend(all.take(60 - seen.len()).await);
    let log = |object: &Object| (object.id >> 12) % 1024 / 512;
    let by_log = |which: i64, objects: &[Object]| -> Vec<Object> {
        objects.iter().filter(|object| log(object) == which).cloned().collect()
    };
    let seen: Vec<Object> = seen
        .into_iter()
        .map(|kind| match kind {
            Kind::ObjectPut(object) => object,
            other => panic!("{other:?}"),
        })
        .collect();
    for which in 0..2 {
        let of_log = by_log(which, &added);
        assert!(of_log.len() > 10, "both databases have objects");
        assert_eq!(by_log(which, &seen), of_log);
    }
    let of_half = by_log(1, &added);
    let shown: Vec<_> = half.take(of_half.len()).await;
    assert_eq!(shown, of_half.into_iter().map(Kind::ObjectPut).collect::<Vec<_>>());
}

/// Bytes of a process's memory.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_watchers_are_waited_for_and_cost_no_memory() {
    let pairs = Pairs::start("memory:").await;
    let mut graph = connect(&pairs.addresses[0]).await;
    let id = add_user(&mut graph, 0).await.id;
    let mut slow = Vec::new();
    for _ in 0..16 {
        // Each on a connection of its own, as different clients are.
        let mut graph = connect(&pairs.addresses[0]).await;
        slow.push(Raw::begin(&mut graph, WatchRequest::default()).await.unwrap());
    }
    let before = resident(&pairs.followers[0]);
    let session = session(&pairs.addresses[0]);
    let text = Value { kind: Some(value::Kind::StringValue("x".repeat(60_000))) };
    for _ in 0..300 {
        let set = [("text".to_owned(), text.clone())].into();
        session.object_update(ObjectUpdateRequest { id, set, ..Default::default() }).await.unwrap();
    }
    let grown = resident(&pairs.followers[0]).saturating_sub(before);
    // 18 MB of changes, 16 times, would be 288 MB.
    assert!(grown < 96 << 20, "{} MiB more", grown >> 20);
    for watch in &mut slow {
        assert_eq!(versions(watch.take(300).await), (2..=301).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_not_kept_any_more_is_refused() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let mut pairs = Pairs::start(&url).await;
    let mut graph = connect(&pairs.addresses[0]).await;
    let id = add_user(&mut graph, 0).await.id;
    let watch = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap();
    update(&session(&pairs.addresses[0]), id, 10).await;
    // As time would: the tables forget, and no process has it in memory.
    for process in pairs.leaders.iter_mut().chain([&mut pairs.shard]) {
        process.kill9().unwrap();
    }
    postgres.execute("tao", "DELETE FROM change_log").unwrap();
    pairs.shard.start_again().unwrap();
    for n in 0..2 {
        pairs.restart_leader(n).await;
    }
    update(&session(&pairs.addresses[0]), id, 1).await;
    let refused = Raw::resume(&mut graph, &watch.token).await.err().unwrap();
    assert_eq!(reason(&refused), (Code::OutOfRange, "CHANGES_EXPIRED".to_owned(), false), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_watch_with_grpcurl_and_with_the_command() {
    let cluster = Cluster::dev().await;
    let address = cluster.address(0).to_owned();
    let mut graph = cluster.connect(0).await;
    let args = ["watch", "--address", &address, "--type", "user", "--type", "follows"];
    let mut command = Process::spawn(TAO, args, &[]).unwrap();
    let begun = Raw::begin(&mut graph, WatchRequest::default()).await.unwrap().token;
    // The command has begun when a change shows up.
    let (ann, bob) = loop {
        let ann = add_user(&mut graph, 1).await;
        if let Ok(line) = command.wait_line(&ann.id.to_string(), Duration::from_secs(1)) {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&line["change"], &line["object"]["data"]["n"]), (&"object_put".into(), &1.into()));
            break (ann, add_user(&mut graph, 2).await);
        }
    };
    let follow = AssocAddRequest { id1: ann.id, r#type: "follows".to_owned(), id2: bob.id, ..Default::default() };
    graph.assoc_add(follow).await.unwrap();
    let line = command.wait_line("assoc_put", WITHIN).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["id1"], &line["id2"]), (&ann.id.to_string().into(), &bob.id.to_string().into()));
    assert_eq!((&line["type"], &line["count"]), (&"follows".into(), &1.into()));
    assert!(command.interrupt().unwrap().success(), "{}", command.log_tail());
    let log = command.log().unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(!log.contains("followed_by"), "{log}");

    // The next one goes on where that one ended.
    let third = add_user(&mut graph, 3).await;
    let args = ["watch", "--address", &address, "--token", last["session_token"].as_str().unwrap()];
    let mut command = Process::spawn(TAO, args, &[]).unwrap();
    let line = command.wait_line("change", WITHIN).unwrap();
    assert!(line.contains(&third.id.to_string()), "{line}");
    assert!(command.terminate().unwrap().success());
    let unknown = Process::spawn(TAO, ["watch", "--address", &address, "--type", "loathes"], &[]);
    let mut unknown = unknown.unwrap();
    assert_eq!(unknown.wait(WITHIN).unwrap().code(), Some(2), "{}", unknown.log_tail());

    let request = json!({"sessionToken": begun, "assocTypes": ["follows"]}).to_string();
    let output =
        grpcurl_output(["-plaintext", "-max-time", "2", "-d", &request, &address, "tao.v1.GraphService/Watch"]);
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    let answers = serde_json::Deserializer::from_str(&printed).into_iter::<serde_json::Value>();
    let answers: Vec<_> = answers.map(Result::unwrap).collect();
    let changes: Vec<_> = answers.iter().flat_map(|a| a["changes"].as_array().cloned().unwrap_or_default()).collect();
    assert_eq!(changes.len(), 1, "{printed}");
    assert_eq!(changes[0]["assocPut"]["assoc"]["id1"], ann.id.to_string());
    assert!(answers.len() > 1 && answers.iter().all(|a| a["sessionToken"].is_string()), "{printed}");
}
