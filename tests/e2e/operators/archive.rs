//! `tao export` and `tao import`: between clusters of one and of two databases, while others write, and of files that are not whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tao_client::{Client, ClientOptions, Session};
use tao_harness::{Process, TempDir};
use tao_proto::v1::value::Kind;
use tao_proto::v1::*;

use super::{json, rows, tao};
use crate::cluster::{Cluster, TAO, TwoLogs};

async fn user(graph: &Session, data: BTreeMap<String, Value>) -> i64 {
    let request = ObjectAddRequest { r#type: "user".to_owned(), data, ..Default::default() };
    graph.object_add(request).await.unwrap().object.unwrap().id
}

async fn follow(graph: &Session, id1: i64, id2: i64) {
    let request = AssocAddRequest { id1, r#type: "follows".to_owned(), id2, ..Default::default() };
    graph.assoc_add(request).await.unwrap();
}

/// What a cluster of one database is called with; it has seen nothing yet.
fn session(cluster: &Cluster) -> Session {
    Client::connect(cluster.address(0), ClientOptions::default()).unwrap().session()
}

fn all_kinds() -> BTreeMap<String, Value> {
    let kinds = [
        Kind::BoolValue(true),
        Kind::Int64Value(i64::MIN),
        Kind::DoubleValue(0.1 + 0.2),
        Kind::DoubleValue(f64::NEG_INFINITY),
        Kind::StringValue("Grüße\n\"".to_owned()),
        Kind::BytesValue(vec![0, 255].into()),
        Kind::TimestampValue(prost_types::Timestamp { seconds: -1, nanos: 999_999_999 }),
    ];
    (0..).zip(kinds).map(|(n, kind)| (format!("field{n}"), Value { kind: Some(kind) })).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Writes an export and gives its rows.
fn exported(folder: &Path, store: &str) -> Vec<String> {
    let (printed, code) = json(&["export", &text(folder), "--store", store, "--part-rows", "7"]);
    assert_eq!(code, Some(0), "{printed}");
    let rows = rows(folder);
    assert_eq!(printed["objects"].as_u64().unwrap() + printed["edges"].as_u64().unwrap(), rows.len() as u64);
    rows
}

/// From two databases into one that runs, and on into two others, in both formats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_is_the_same_in_a_cluster_of_other_databases() {
    let (source, target, folder) = (TwoLogs::start().await, Cluster::dev().await, TempDir::new().unwrap());
    let graph = source.session();
    let mut users = Vec::new();
    for n in 0..20 {
        users.push(user(&graph, if n % 5 == 0 { all_kinds() } else { BTreeMap::new() }).await);
    }
    for (n, id1) in users.iter().enumerate() {
        for id2 in &users[..n] {
            follow(&graph, *id1, *id2).await;
        }
    }
    let set = all_kinds();
    graph.object_update(ObjectUpdateRequest { id: users[1], set, ..Default::default() }).await.unwrap();
    graph.object_delete(ObjectDeleteRequest { id: users[2], ..Default::default() }).await.unwrap();
    let stores = source.urls().join(",");
    let written = exported(&folder.join("one"), &stores);
    assert!(written.iter().any(|row| row.contains("0.30000000000000004") && row.contains("\"version\":2")));

    // What the target has answered before is not what it answers after.
    let mut reader = target.connect(0).await;
    let get = |id| ObjectGetRequest { id, options: None };
    assert!(reader.object_get(get(users[1])).await.is_err());
    let packed = folder.join("two");
    assert_eq!(json(&["export", &text(&packed), "--store", &stores, "--gzip"]).1, Some(0));
    let import = ["import", &text(&packed), "--store", &target.store()];
    let (printed, code) = json(&import);
    assert_eq!((code, &printed["objects"]), (Some(0), &19.into()), "{printed}");
    let (printed, code) = json(&import);
    assert_eq!((code, &printed["rows_read"]), (Some(0), &0.into()), "it was there: {printed}");
    assert_eq!(exported(&folder.join("three"), &target.store()), written);
    let strong = Some(ReadOptions { consistency: Consistency::Strong as i32, ..Default::default() });
    // As soon as the follower has heard of the log's new epoch.
    let object = tao_harness::eventually_async(Duration::from_secs(60), async || {
        let request = ObjectGetRequest { id: users[1], options: strong.clone() };
        Ok(reader.clone().object_get(request).await?.into_inner().object)
    });
    let object = object.await.unwrap().unwrap();
    assert_eq!((object.version, object.data), (2, all_kinds()));
    for id1 in [users[0], users[7], users[19]] {
        for atype in ["follows", "followed_by"] {
            let request = AssocRangeRequest {
                id1,
                r#type: atype.to_owned(),
                limit: 100,
                options: strong.clone(),
                ..Default::default()
            };
            let (one, other) = (graph.assoc_range(request.clone()).await, reader.assoc_range(request).await);
            let edges = one.unwrap().assocs;
            assert_eq!(edges, other.unwrap().into_inner().assocs);
            let count = AssocCountRequest { id1, r#type: atype.to_owned(), options: strong.clone() };
            assert_eq!(reader.assoc_count(count).await.unwrap().into_inner().count, edges.len() as i64);
        }
    }
    // New ids are none of those that came, and writes go on.
    let writer = session(&target);
    let new = user(&writer, BTreeMap::new()).await;
    assert!(!users.contains(&new));
    follow(&writer, new, users[3]).await;
    assert_eq!(json(&["verify", "--store", &target.store()]).1, Some(0));

    let back = TwoLogs::start().await;
    let compact = text(&folder.join("four"));
    assert_eq!(json(&["export", &compact, "--store", &target.store(), "--format", "compact"]).1, Some(0));
    assert_eq!(json(&["import", &compact, "--store", &back.urls().join(",")]).1, Some(0));
    assert_eq!(exported(&folder.join("five"), &back.urls().join(",")), exported(&folder.join("six"), &target.store()));
}

/// An export is of one moment: no edge is without its inverse, and counts are right, while edges come and go in both databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_of_one_moment_while_others_write() {
    let (source, folder) = (TwoLogs::start().await, TempDir::new().unwrap());
    let graph = source.session();
    let mut users = Vec::new();
    for _ in 0..12 {
        users.push(user(&graph, BTreeMap::new()).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (users, stop, graph) = (users.clone(), stop.clone(), source.session());
        tokio::spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return n;
                }
                let (id1, id2) = (users[n % 12], users[(n * 5 + 1) % 12]);
                follow(&graph, id1, id2).await;
                let request =
                    AssocDeleteRequest { id1: id2, r#type: "follows".to_owned(), id2: id1, ..Default::default() };
                graph.assoc_delete(request).await.unwrap();
            }
            unreachable!("numbers don't end")
        })
    };
    let stores = source.urls().join(",");
    for n in 0..3 {
        let target = Cluster::dev().await;
        let graph = text(&folder.join(n.to_string()));
        let (printed, code) =
            tokio::task::block_in_place(|| json(&["export", &graph, "--store", &stores, "--part-rows", "5"]));
        assert_eq!(code, Some(0), "{printed}");
        assert_eq!(json(&["import", &graph, "--store", &target.store()]).1, Some(0));
        let (verified, code) = json(&["verify", "--store", &target.store()]);
        assert_eq!(code, Some(0), "{verified}");
        let (verified, code) = json(&["verify", "--store", &stores]);
        assert_eq!(code, Some(0), "also of the source itself, while it is written to: {verified}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_whole_or_does_not_fit_is_refused() {
    let (source, target, folder) = (Cluster::dev().await, Cluster::dev().await, TempDir::new().unwrap());
    let graph = session(&source);
    let one = user(&graph, BTreeMap::new()).await;
    let (from, to, export) = (source.store(), target.store(), folder.join("export"));
    exported(&export, &from);
    let said = |args: &[&str], code: i32, says: &str| {
        let output = tao(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{says:?} is not in {stderr}");
    };
    let name = text(&export);
    said(&["import", &text(folder.path()), "--store", &to], 2, "no complete export");
    said(&["export", &text(folder.path()), "--store", &from], 2, "is not empty");
    said(&["import", &name, "--store", &from], 2, "the cluster is not empty");
    said(&["export", &name, "--store", &from], 0, "written completely before");
    let schema = folder.join("schema.toml");
    std::fs::write(&schema, "version = 1\n[[object]]\nname = \"page\"\nnumber = 1\n").unwrap();
    said(&["import", &name, "--store", &to, "--schema", &text(&schema)], 2, "no object type");
    let lost = text(&folder.join("lost"));
    std::fs::write(&schema, "version = 1\n[[object]]\nname = \"page\"\nnumber = 9\n").unwrap();
    said(&["export", &lost, "--store", &from, "--schema", &text(&schema)], 1, "which the schema has not");
    assert!(!folder.join("lost/manifest.json").exists());

    let part = export.join("objects-0-00000.jsonl");
    let whole = std::fs::read_to_string(&part).unwrap();
    std::fs::write(&part, whole.replace(&one.to_string(), &(one + 1).to_string())).unwrap();
    said(&["import", &name, "--store", &to], 1, "is damaged");
    std::fs::write(&part, whole).unwrap();
    assert_eq!(json(&["import", &name, "--store", &to]).1, Some(0));
}

/// What one database has left to do in the other, which nobody serves, is exported, too, and done where it is imported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_between_databases_arrives_too() {
    let (mut source, target, folder) = (TwoLogs::start().await, Cluster::dev().await, TempDir::new().unwrap());
    let graph = source.session();
    let [one, other] = super::verify::users(&graph).await;
    follow(&graph, one, other).await;
    tao_harness::eventually(Duration::from_secs(60), || {
        anyhow::ensure!(source.intents() == [0, 0], "not yet");
        Ok(())
    })
    .unwrap();
    source.shards[2].kill9().unwrap();
    let request = AssocAddRequest { id1: one, r#type: "likes".to_owned(), id2: other, ..Default::default() };
    let gone = AssocDeleteRequest { id1: one, r#type: "follows".to_owned(), id2: other, ..Default::default() };
    // No page: where the other end is, nobody can say what it is.
    graph.assoc_add(request).await.unwrap();
    graph.assoc_delete(gone).await.unwrap();
    assert_eq!(source.intents(), [2, 0]);
    let (stores, export) = (source.urls().join(","), text(&folder.join("export")));
    let (found, code) = json(&["verify", "--store", &stores]);
    assert_eq!((code, &found["pending"]), (Some(0), &4.into()), "two edges and their inverses: {found}");
    assert_eq!(json(&["export", &export, "--store", &stores, "--format", "compact"]).1, Some(0));
    assert_eq!(json(&["import", &export, "--store", &target.store()]).1, Some(0));
    let (found, code) = json(&["verify", "--store", &target.store()]);
    assert_eq!((code, &found["edges"]), (Some(0), &2.into()), "both directions of the one that is: {found}");
    let new = text(&folder.join("restored.db"));
    let stores = ["0", "1"].map(|n| format!("sqlite:{new}-{n}")).join(",");
    let (restored, code) = json(&["restore", &export, "--store", &stores]);
    assert_eq!((code, &restored["different"], &restored["problems"]), (Some(0), &0.into(), &0.into()), "{restored}");
}

/// Interrupted, asked to stop, and gone on with after the graph has changed: it holds what the graph is then, and parts that nobody
/// has touched were not written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_goes_on_holds_what_has_changed_meanwhile() {
    let (source, folder) = (Cluster::processes().await, TempDir::new().unwrap());
    let graph = session(&source);
    let mut users = Vec::new();
    for _ in 0..120 {
        users.push(user(&graph, BTreeMap::new()).await);
    }
    users.sort_unstable();
    for pair in users.windows(2) {
        follow(&graph, pair[0], pair[1]).await;
    }
    let (store, export) = (source.store(), folder.join("export"));
    let name = text(&export);
    let args = ["export", &name, "--store", &store, "--part-rows", "10", "--parallel", "1"];
    let slowly = [&args[..], &["--rate", "60"]].concat();
    let within = Duration::from_secs(60);
    let parts = |at_least: usize| {
        let text = std::fs::read_to_string(export.join("export.state"))?;
        anyhow::ensure!(text.matches("Done").count() >= at_least, "not yet");
        Ok(text.matches("Done").count())
    };
    let mut process = Process::spawn(TAO, &slowly, &[]).unwrap();
    tao_harness::eventually(within, || parts(3)).unwrap();
    assert_eq!(process.terminate().unwrap().code(), Some(130), "{}", process.log_tail());
    let mut process = Process::spawn(TAO, &slowly, &[]).unwrap();
    tao_harness::eventually(within, || parts(14)).unwrap();
    process.kill9().unwrap();
    assert!(!export.join("manifest.json").exists());
    let written = |file: &str| export.join(file).metadata().unwrap().modified().unwrap();
    let before = ["objects-0-00000.jsonl", "objects-0-00005.jsonl", "edges-0-00000.jsonl"].map(written);

    // The first part of both kinds: an object and an edge of it. And new ones, at the end.
    let set = all_kinds();
    graph.object_update(ObjectUpdateRequest { id: users[0], set, ..Default::default() }).await.unwrap();
    let gone = AssocDeleteRequest { id1: users[0], r#type: "follows".to_owned(), id2: users[1], ..Default::default() };
    graph.assoc_delete(gone).await.unwrap();
    let new = user(&graph, BTreeMap::new()).await;
    follow(&graph, new, users[60]).await;
    let mut process = Process::spawn(TAO, args, &[]).unwrap();
    let status = process.wait(within).unwrap();
    assert!(status.success() && process.log().unwrap().contains("going on"), "{}", process.log_tail());
    let after = ["objects-0-00000.jsonl", "objects-0-00005.jsonl", "edges-0-00000.jsonl"].map(written);
    assert!(before[0] < after[0] && before[1] == after[1] && before[2] < after[2], "{before:?} {after:?}");
    let rows = rows(&export);
    assert_eq!(rows, exported(&folder.join("fresh"), &store));
    assert!(rows.iter().any(|row| row.contains(&new.to_string())));
}
