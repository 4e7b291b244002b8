//! Loads edge lists with `tao load` and compares every count, order and range with a plain recount of the file: on SQLite and on
//! PostgreSQL. The project's own small graph always; the large public ones when `TAO_GRAPH_DATA` names their folder.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Graph, TAO};
use tao_harness::{Process, TempDir, repository};
use tao_proto::v1::batch_item::Call;
use tao_proto::v1::batch_result::Result as BatchResult;
use tao_proto::v1::*;

/// The larger graphs take minutes where the build is slow and the machine small.
const LOAD_WITHIN: Duration = Duration::from_secs(900);

/// An edge list, and how it is loaded.
struct Input {
    path: PathBuf,
    atype: &'static str,
    inverse: &'static str,
    undirected: bool,
}

fn inputs() -> Vec<Input> {
    let small = repository().join("examples/graphs/reading-circle.txt");
    let mut inputs = vec![Input { path: small, atype: "messaged", inverse: "messaged_by", undirected: false }];
    if let Some(folder) = std::env::var_os("TAO_GRAPH_DATA").map(PathBuf::from) {
        let large =
            |name: &str, atype, inverse, undirected| Input { path: folder.join(name), atype, inverse, undirected };
        inputs.push(large("CollegeMsg.txt", "messaged", "messaged_by", false));
        inputs.push(large("facebook_combined.txt", "friend", "friend", true));
    }
    inputs
}

/// Every user's edges by a plain reading of the file: (time, other end), by direction.
#[derive(Default)]
struct Recount {
    out: BTreeMap<u64, Vec<(i64, u64)>>,
    inward: BTreeMap<u64, Vec<(i64, u64)>>,
    edges: usize,
}

fn recount(input: &Input) -> Recount {
    let mut newest: HashMap<(u64, u64), i64> = HashMap::new();
    for line in std::fs::read_to_string(&input.path).expect("the graph is there").lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (Some(Ok(a)), Some(Ok(b))) = (fields.first().map(|f| f.parse()), fields.get(1).map(|f| f.parse())) else {
            continue;
        };
        let time = fields.get(2).map_or(0, |t| t.parse().expect("a time"));
        if a == b {
            continue;
        }
        let pair = if input.undirected && a > b { (b, a) } else { (a, b) };
        let known = newest.entry(pair).or_insert(time);
        *known = time.max(*known);
    }
    let mut recount = Recount { edges: newest.len(), ..Default::default() };
    for ((a, b), time) in newest {
        recount.out.entry(a).or_default().push((time, b));
        let back = if input.undirected { &mut recount.out } else { &mut recount.inward };
        back.entry(b).or_default().push((time, a));
        recount.out.entry(b).or_default();
        recount.inward.entry(a).or_default();
        recount.inward.entry(b).or_default();
    }
    if input.undirected {
        recount.inward = recount.out.clone();
    }
    recount
}

async fn count_all(graph: &mut Graph, ids: &[i64], atype: &str) -> Vec<i64> {
    let mut counts = Vec::new();
    for chunk in ids.chunks(1_000) {
        let item = |id1: &i64| BatchItem {
            call: Some(Call::AssocCount(AssocCountRequest { id1: *id1, r#type: atype.to_owned(), options: None })),
        };
        let request = BatchRequest { items: chunk.iter().map(item).collect(), options: None };
        for result in graph.batch(request).await.unwrap().into_inner().results {
            match result.result {
                Some(BatchResult::AssocCount(count)) => counts.push(count.count),
                other => panic!("{other:?}"),
            }
        }
    }
    counts
}

async fn check(cluster: &Cluster, input: &Input) {
    let folder = TempDir::new().unwrap();
    let (map, state) = (folder.join("map"), folder.join("state"));
    let (path, address) = (input.path.to_string_lossy(), cluster.address(0));
    let (map_arg, state_arg) = (map.to_string_lossy(), state.to_string_lossy());
    let mut args =
        vec!["load", &path, "--type", input.atype, "--address", address, "--map", &map_arg, "--state", &state_arg];
    args.extend(["--output", "json"]);
    if input.undirected {
        args.push("--undirected");
    }
    let begun = Instant::now();
    let mut load = Process::spawn(TAO, &args, &[]).unwrap();
    let status = load.wait(LOAD_WITHIN).unwrap();
    assert!(status.success(), "{}", load.log_tail());
    let want = recount(input);
    eprintln!("{}: {} edges in {:.1?}\n{}", input.path.display(), want.edges, begun.elapsed(), load.log_tail());

    let mapped = std::fs::read_to_string(&map).unwrap();
    let object_of: HashMap<u64, i64> = mapped
        .lines()
        .map(|line| line.split_once(' ').expect("two ids a line"))
        .map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()))
        .collect();
    assert_eq!(object_of.len(), want.out.len(), "users");

    // Through the other follower, where there is one: as fresh as the change stream makes it, at the latest after a second.
    let mut graph = cluster.connect(1).await;
    let strong = Some(ReadOptions { consistency: Consistency::Strong as i32, ..Default::default() });
    let users: Vec<u64> = want.out.keys().copied().collect();
    let ids: Vec<i64> = users.iter().map(|u| object_of[u]).collect();
    let mut total = 0;
    for (atype, lists) in [(input.atype, &want.out), (input.inverse, &want.inward)] {
        let counts = count_all(&mut graph, &ids, atype).await;
        for (user, count) in users.iter().zip(&counts) {
            assert_eq!(*count as usize, lists[user].len(), "{atype} of {user}");
        }
        total += counts.iter().sum::<i64>();
    }
    let sides = if input.undirected { 4 } else { 2 };
    assert_eq!(total as usize, want.edges * sides, "both directions of every edge, from both sides");

    let (busiest, edges) = want.out.iter().max_by_key(|(_, edges)| edges.len()).unwrap();
    let mut edges: Vec<(i64, i64)> = edges.iter().map(|(time, other)| (*time, object_of[other])).collect();
    edges.sort_unstable_by(|a, b| b.cmp(a));
    let range = AssocRangeRequest {
        id1: object_of[busiest],
        r#type: input.atype.to_owned(),
        limit: 50,
        options: strong.clone(),
        ..Default::default()
    };
    let got = graph.assoc_range(range).await.unwrap().into_inner().assocs;
    let got: Vec<_> = got.iter().map(|a| (a.time, a.id2)).collect();
    assert_eq!(got, edges[..edges.len().min(50)], "the newest 50 of {busiest}");

    let (low, high) = (edges[edges.len() * 3 / 4].0, edges[edges.len() / 4].0);
    let within: Vec<_> = edges.iter().copied().filter(|(time, _)| (low..=high).contains(time)).collect();
    let times = AssocTimeRangeRequest {
        id1: object_of[busiest],
        r#type: input.atype.to_owned(),
        low: Some(low),
        high: Some(high),
        limit: 6_000,
        options: strong,
        ..Default::default()
    };
    let got = graph.assoc_time_range(times).await.unwrap().into_inner().assocs;
    assert_eq!(got.iter().map(|a| (a.time, a.id2)).collect::<Vec<_>>(), within, "times {low} to {high} of {busiest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphs_load_into_sqlite() {
    let cluster = Cluster::dev().await;
    for input in inputs() {
        check(&cluster, &input).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphs_load_into_postgres() {
    let cluster = Cluster::processes().await;
    for input in inputs() {
        check(&cluster, &input).await;
    }
}
