//! `tao verify` on two databases of a running cluster: it finds what was changed behind tao's back, and puts it right.

use std::time::Duration;

use tao_client::Session;
use tao_proto::v1::*;

use super::json;
use crate::cluster::{Cluster, TwoLogs};

const WITHIN: Duration = Duration::from_secs(60);

/// A user in each log.
pub async fn users(graph: &Session) -> [i64; 2] {
    let mut found = [None; 2];
    for n in 0.. {
        let placement = Some(Placement { r#where: Some(placement::Where::ShardKey(n.to_string())) });
        let request = ObjectAddRequest { r#type: "user".to_owned(), placement, ..Default::default() };
        let id = graph.object_add(request).await.unwrap().object.unwrap().id;
        found[((id >> 12 & 1023) / 512) as usize].get_or_insert(id);
        if let [Some(one), Some(other)] = found {
            return [one, other];
        }
    }
    unreachable!("half of all keys are of each log")
}

async fn follow(graph: &Session, id1: i64, id2: i64, time: i64) {
    let request = AssocAddRequest { id1, r#type: "follows".to_owned(), id2, time: Some(time), ..Default::default() };
    graph.assoc_add(request).await.unwrap();
}

async fn list(graph: &Session, id1: i64, atype: &str) -> (i64, Vec<(i64, i64)>) {
    let count = AssocCountRequest { id1, r#type: atype.to_owned(), options: None };
    let count = graph.assoc_count(count).await.unwrap().count;
    let range = AssocRangeRequest { id1, r#type: atype.to_owned(), limit: 100, ..Default::default() };
    let edges = graph.assoc_range(range).await.unwrap().assocs;
    (count, edges.iter().map(|edge| (edge.time, edge.id2)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_behind_taos_back_is_found_and_put_right() {
    let cluster = TwoLogs::start().await;
    let graph = cluster.session();
    let [one, other] = users(&graph).await;
    let [third, _] = users(&graph).await;
    for (n, (a, b)) in [(one, other), (other, one), (one, third), (third, one), (third, other)].into_iter().enumerate()
    {
        follow(&graph, a, b, n as i64).await;
    }
    let stores = cluster.urls().join(",");
    let verify = |more: &[&str]| json(&[&["verify", "--store", &stores], more].concat());
    tao_harness::eventually(WITHIN, || {
        let (found, code) = verify(&[]);
        anyhow::ensure!(code == Some(0) && found["pending"] == 0, "{found}");
        anyhow::ensure!(found["edges"] == 10, "{found}");
        Ok(())
    })
    .unwrap();
    let before = list(&graph, one, "followed_by").await;
    assert_eq!(before.0, 2);

    // A count, an edge of either direction, and a time; all of them in lists that the followers have cached.
    cluster.execute(0, &format!("UPDATE assoc_counts SET count = 7 WHERE id1 = {third} AND atype = 1"));
    cluster.execute(1, &format!("DELETE FROM assocs WHERE id1 = {other} AND id2 = {third} AND atype = 2"));
    cluster.execute(1, &format!("DELETE FROM assocs WHERE id1 = {other} AND id2 = {one} AND atype = 1"));
    cluster.execute(0, &format!("UPDATE assocs SET time = 99 WHERE id1 = {one} AND id2 = {third} AND atype = 2"));
    cluster.execute(0, &format!("INSERT INTO assoc_counts VALUES ({one}, 3, 4, 1, 1)"));
    let (found, code) = verify(&[]);
    let of = |kind: &str| found["findings"][kind]["count"].as_u64().unwrap();
    assert_eq!(code, Some(1));
    // The two that lost an edge have a count that is wrong, too; the time differs from both sides.
    assert_eq!((of("count"), of("inverse_missing"), of("inverse_differs")), (4, 2, 2), "{found}");
    assert_eq!(found["problems"], 8);
    let refused = super::tao(&["verify", "--store", &stores, "--repair"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    let (mended, code) = verify(&["--repair", "--yes"]);
    assert_eq!((code, &mended["left"]), (Some(0), &0.into()), "{mended}");
    assert_eq!(list(&graph, one, "followed_by").await, before);
    tao_harness::eventually_async(WITHIN, async || {
        let lists = (list(&graph, third, "follows").await, list(&graph, other, "followed_by").await);
        anyhow::ensure!(lists.0.0 == 2 && lists.0.1.len() == 2, "{lists:?}");
        anyhow::ensure!(lists.1 == (2, vec![(4, third), (0, one)]), "{lists:?}");
        anyhow::ensure!(list(&graph, one, "likes").await == (0, vec![]), "not yet");
        Ok(())
    })
    .await
    .unwrap();

    // What can't be repaired is told.
    cluster.execute(0, &format!("INSERT INTO assocs VALUES ({one}, 999, {third}, 1, '\\x01')"));
    cluster.execute(0, &format!("INSERT INTO assocs VALUES ({other}, 1, {third}, 1, '\\x07')"));
    cluster.execute(1, &format!("UPDATE objects SET data = '\\x01ff' WHERE id = {other}"));
    cluster.execute(0, "DELETE FROM change_log WHERE first_lsn = (SELECT max(first_lsn) FROM change_log)");
    cluster.execute(
        1,
        "UPDATE change_log SET payload = '\\x09' WHERE first_lsn = (SELECT max(first_lsn) FROM change_log)",
    );
    let (found, code) = verify(&[]);
    let of = |kind: &str| found["findings"][kind]["count"].as_u64().unwrap();
    assert_eq!(code, Some(1));
    assert_eq!((of("unknown_edge_type"), of("misplaced"), of("unreadable"), of("log")), (1, 1, 2, 2), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_are_not_a_whole_cluster_are_refused() {
    let cluster = TwoLogs::start().await;
    let [zero, _] = cluster.urls();
    let other = Cluster::dev().await;
    let sqlite = other.store();
    for (stores, says) in [
        (zero.clone(), "no database has shards 512-1023"),
        (format!("{zero},{sqlite}"), "different clusters"),
        (format!("{zero},{zero}"), "two of the databases are log 0"),
        ("sqlite:/no/such/file".to_owned(), "database 1"),
        ("mysql://x".to_owned(), "no store"),
    ] {
        let output = super::tao(&["verify", "--store", &stores]);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(says), "{says:?} is not in {said}");
    }
    let (found, code) = json(&["verify", "--store", &sqlite]);
    assert_eq!((code, &found["problems"]), (Some(0), &0.into()), "{found}");
}
