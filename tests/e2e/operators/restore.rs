//! `tao backup` and `tao restore`: what came after is undone, and tokens of it are refused.

use std::time::Duration;

use tao_harness::{Postgres, Process, TempDir};
use tao_proto::v1::*;
use tonic_types::StatusExt as _;

use super::{json, rows, tao};
use crate::cluster::{Graph, TAO, connect, ready, tier};

const WITHIN: Duration = Duration::from_secs(60);

async fn add(graph: &mut Graph) -> (i64, String) {
    let request = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    let answer = graph.object_add(request).await.unwrap().into_inner();
    (answer.object.unwrap().id, answer.session_token)
}

/// A leader and a follower over a storage shard.
async fn front(shard: &str) -> (Vec<Process>, Graph) {
    let (leader, leader_address) = tier(&["leader", "--shard", shard]);
    let (follower, address) = tier(&["follower", "--leader", &leader_address]);
    ready(&address).await;
    (vec![follower, leader], connect(&address).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_put_back_and_tokens_of_the_undone_future_are_refused() {
    let (postgres, folder) = (Postgres::start().unwrap(), TempDir::new().unwrap());
    let store = postgres.create_database("tao").unwrap();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (backup, before) = (path("backup"), path("before"));
    let (mut shard, address) = tier(&["shard", "--store", &store]);
    let (tiers, mut graph) = front(&address).await;
    let (one, kept) = add(&mut graph).await;
    let (other, _) = add(&mut graph).await;
    let request = AssocAddRequest { id1: one, r#type: "friend".to_owned(), id2: other, ..Default::default() };
    graph.assoc_add(request.clone()).await.unwrap();
    let (printed, code) = json(&["backup", &backup, "--store", &store]);
    assert_eq!((code, &printed["objects"], &printed["edges"]), (Some(0), &2.into(), &2.into()), "{printed}");
    assert_eq!(json(&["export", &before, "--store", &store]).1, Some(0));
    // The future that is undone: an edge and an object less, and one more of each.
    graph.object_delete(ObjectDeleteRequest { id: other, ..Default::default() }).await.unwrap();
    let (third, _) = add(&mut graph).await;
    let undone = AssocAddRequest { id2: third, ..request };
    let undone = graph.assoc_add(undone).await.unwrap().into_inner().session_token;

    let restore = ["restore", &backup, "--store", &store];
    let refused = tao(&[&restore[..], &["--yes"]].concat());
    assert_eq!(refused.status.code(), Some(4), "a storage shard runs: {refused:?}");
    drop(tiers);
    assert!(shard.terminate().unwrap().success());
    let asked = tao(&restore);
    assert_eq!(asked.status.code(), Some(2), "nobody has said --yes: {asked:?}");
    assert_eq!(json(&["verify", "--store", &store]).0["objects"], 2, "nothing was deleted");
    let (restored, code) = json(&[&restore[..], &["--yes"]].concat());
    assert_eq!((code, &restored["equal"], &restored["different"]), (Some(0), &4.into(), &0.into()), "{restored}");
    let after = path("after");
    assert_eq!(json(&["export", &after, "--store", &store]).1, Some(0));
    assert_eq!(rows(after.as_ref()), rows(before.as_ref()));

    let (_shard, address) = tier(&["shard", "--store", &store]);
    let (_tiers, mut graph) = front(&address).await;
    for token in [undone, kept] {
        let options = Some(ReadOptions { session_token: token, ..Default::default() });
        let error = graph.object_get(ObjectGetRequest { id: one, options }).await.unwrap_err();
        let info = error.get_error_details().error_info().cloned().expect("a reason");
        assert_eq!(info.reason, "HISTORY_UNDONE", "{error:?}");
    }
    let range = AssocRangeRequest { id1: one, r#type: "friend".to_owned(), ..Default::default() };
    let edges = graph.assoc_range(range).await.unwrap().into_inner().assocs;
    assert_eq!(edges.iter().map(|edge| edge.id2).collect::<Vec<_>>(), [other]);
    let (new, _) = add(&mut graph).await;
    assert!(![one, other, third].contains(&new), "ids of the undone future are not made again");
    let second = json(&["restore", &backup, "--store", &store, "--yes", "--live"]);
    assert_eq!(second.1, Some(0), "once more, beside running tiers: {}", second.0);
    tao_harness::eventually_async(WITHIN, async || {
        let found = graph.clone().object_get(ObjectGetRequest { id: new, options: None }).await;
        anyhow::ensure!(found.is_err(), "what was added meanwhile is gone, from caches too");
        Ok(())
    })
    .await
    .unwrap();
}

/// A database that is new becomes a log of the backup's cluster; one of another cluster is not touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_put_into_new_databases_and_into_no_others() {
    let (postgres, folder) = (Postgres::start().unwrap(), TempDir::new().unwrap());
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let urls = ["one", "other"].map(|name| postgres.create_database(name).unwrap());
    let (_shard, address) = tier(&["shard", "--store", &urls[0]]);
    let (_tiers, mut graph) = front(&address).await;
    let (id, _) = add(&mut graph).await;
    for _ in 0..2 {
        add(&mut graph).await;
    }
    let (_other, _) = tier(&["shard", "--store", &urls[1]]);
    let backup = path("backup");
    assert_eq!(json(&["backup", &backup, "--store", &urls[0]]).1, Some(0));
    let new = [postgres.create_database("new").unwrap(), format!("sqlite:{}", path("new.db"))];
    for (n, store) in new.iter().enumerate() {
        let state = path(&format!("state-{n}"));
        let (restored, code) = json(&["restore", &backup, "--store", store, "--state", &state]);
        assert_eq!((code, &restored["equal"]), (Some(0), &3.into()), "{restored}");
    }
    // Killed when it has begun, it goes on; what it says it has compared is all of it.
    let again = path("again");
    let again = ["restore", &backup, "--store", &new[0], "--yes", "--state", &again];
    let mut process = Process::spawn(TAO, [&again[..], &["--rate", "1"]].concat(), &[]).unwrap();
    tao_harness::eventually(WITHIN, || {
        anyhow::ensure!(std::fs::read_to_string(again[6])?.contains("Begun"), "not yet");
        Ok(())
    })
    .unwrap();
    process.kill9().unwrap();
    let output = tao(&[&again[..], &["--output", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("going on"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"equal\":3,"), "{output:?}");
    let refused = tao(&["restore", &backup, "--store", &urls[1], "--yes", "--live"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("of cluster"), "{said}");
    let (_shard, address) = tier(&["shard", "--store", &new[1]]);
    let (_tiers, mut graph) = front(&address).await;
    assert!(graph.object_get(ObjectGetRequest { id, options: None }).await.is_ok());
}
