//! The auditor on the real program: it finds a database that was changed behind tao's back, and nothing else.

use std::process::{Command, Output};
use std::time::Duration;

use crate::cluster::{Graph, TAO, connect, ready};
use serde_json::Value as Json;
use tao_harness::{Postgres, Process};
use tao_proto::v1::*;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

fn audit(admin: &str, more: &[&str]) -> Output {
    Command::new(TAO).args([&["audit", "--admin", admin][..], more].concat()).output().expect("tao runs")
}

fn report(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// A follower, and the address of its admin port.
fn follower(leader: &str) -> (Process, String, String) {
    let (mut process, address) = crate::cluster::tier(&["follower", "--leader", leader, "--audit-per-second", "20"]);
    let line = process.wait_line("listening for probes and metrics", WITHIN).unwrap();
    let admin = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    (process, address, format!("http://{admin}"))
}

async fn add_user(graph: &mut Graph) -> i64 {
    let request = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    graph.object_add(request).await.unwrap().into_inner().object.unwrap().id
}

/// A metric's sum over its labels.
fn metric(admin: &str, name: &str) -> f64 {
    let text = tao_harness::http_get(admin.strip_prefix("http://").unwrap(), "/metrics").unwrap();
    let of_name =
        text.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_not_the_databases_is_found_and_nothing_else_is() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let (_shard, shard) = crate::cluster::tier(&["shard", "--store", &url]);
    let (_leader, leader) = crate::cluster::tier(&["leader", "--shard", &shard]);
    let (_one, address, admin) = follower(&leader);
    let (_other, other_address, other_admin) = follower(&leader);
    ready(&address).await;
    ready(&other_address).await;
    let (mut graph, other) = (connect(&address).await, connect(&other_address).await);

    // Objects and lists, read and written at both followers while the audits run.
    let mut users = Vec::new();
    for _ in 0..30 {
        users.push(add_user(&mut graph).await);
    }
    let both = format!("{admin},{other_admin}");
    let busy = users.clone();
    let (mut writes, mut reads) = (graph.clone(), other.clone());
    let busy = tokio::spawn(async move {
        for n in 0..120 {
            let (id1, id2) = (busy[n % 30], busy[(n * 7 + 1) % 30]);
            let follow = AssocAddRequest { id1, r#type: "follows".to_owned(), id2, ..Default::default() };
            let unfollow = AssocDeleteRequest { id1, r#type: "follows".to_owned(), id2, ..Default::default() };
            if n % 3 == 2 {
                writes.assoc_delete(unfollow).await.unwrap();
            } else {
                writes.assoc_add(follow).await.unwrap();
            }
            let set = [("n".to_owned(), Value { kind: Some(value::Kind::Int64Value(n as i64)) })].into();
            writes.object_update(ObjectUpdateRequest { id: id2, set, ..Default::default() }).await.unwrap();
            for graph in [&mut writes, &mut reads] {
                for atype in ["follows", "followed_by"] {
                    let range = AssocRangeRequest { id1: id2, r#type: atype.to_owned(), ..Default::default() };
                    graph.assoc_range(range).await.unwrap();
                }
                graph.object_get(ObjectGetRequest { id: id2, options: None }).await.unwrap();
            }
        }
    });
    while !busy.is_finished() {
        let output = audit(&both, &["--output", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    busy.await.unwrap();
    let quiet = audit(&both, &["--output", "json"]);
    let found = report(&quiet);
    assert!(quiet.status.success() && found["checked"].as_u64().unwrap() >= 150, "{found}");
    assert_eq!((&found["inconclusive"], &found["inconsistent"]), (&0.into(), &0.into()), "{found}");

    // The fault: a row that changes without tao.
    let victim = users[3];
    postgres.execute("tao", &format!("UPDATE objects SET version = version + 5 WHERE id = {victim}")).unwrap();
    let output = audit(&both, &["--output", "json"]);
    let found = report(&output);
    assert_eq!((output.status.code(), &found["inconsistent"]), (Some(1), &2.into()), "{found}");
    for example in found["examples"].as_array().unwrap() {
        assert_eq!(example["key"], format!("object {victim}"));
        assert!(example["cached"].as_str().unwrap().contains("version"), "{example}");
        assert_ne!(example["cached"], example["stored"]);
    }
    let text = audit(&admin, &[]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("inconsistent: 1"), "{text:?}");

    // The follower finds it by itself, too.
    tao_harness::eventually(WITHIN, || {
        // Beside the two times that it was asked.
        anyhow::ensure!(metric(&admin, "tao_audit_inconsistent_total") >= 3.0, "not yet");
        Ok(())
    })
    .unwrap();
    assert!(metric(&admin, "tao_audit_inconsistency_ratio") > 0.0);
    assert!(metric(&admin, "tao_audit_checked_total") > metric(&admin, "tao_audit_inconsistent_total"));

    for (args, code) in [
        (vec!["--samples", "0"], 2),
        (vec!["--admin", "127.0.0.1:9464"], 2),
        (vec!["--admin", "http://127.0.0.1:1", "--timeout", "5"], 4),
    ] {
        let output = Command::new(TAO).arg("audit").args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

/// A follower that goes on with what it had when its stream begins anew is found; the same follower with all rules in force has
/// nothing to be found. Runs with `cargo test -p tao --test e2e --features mutations audit::`.
#[cfg(feature = "mutations")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_breaks_a_rule_is_found() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let port = || format!("127.0.0.1:{}", tao_harness::free_port().unwrap());
    let (shard_address, leader_address) = (port(), port());
    let run = |args: &[&str], mutation: &str| {
        let args = [args, &["--admin-listen", "127.0.0.1:0"]].concat();
        Process::spawn(TAO, &args, &[("TAO_MUTATION", mutation)]).unwrap()
    };
    let mut shard = run(&["shard", "--listen", &shard_address, "--store", &url], "");
    let mut leader = run(&["leader", "--listen", &leader_address, "--shard", &shard_address], "");
    let (_other_leader, other_leader) = crate::cluster::tier(&["leader", "--shard", &shard_address]);
    let (_writer, writer) = crate::cluster::tier(&["follower", "--leader", &other_leader]);
    let mut followers = Vec::new();
    for mutation in ["", "reset-drops-entries"] {
        let address = port();
        let mut follower = run(&["follower", "--listen", &address, "--leader", &leader_address], mutation);
        follower.wait_line("listening for gRPC", WITHIN).unwrap();
        let line = follower.wait_line("listening for probes and metrics", WITHIN).unwrap();
        let admin = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        ready(&address).await;
        followers.push((follower, connect(&address).await, format!("http://{admin}")));
    }
    ready(&writer).await;
    let mut writer = connect(&writer).await;
    let id = add_user(&mut writer).await;
    for (_, graph, admin) in &mut followers {
        graph.object_get(ObjectGetRequest { id, options: None }).await.unwrap();
        assert!(audit(admin, &[]).status.success());
    }
    // What the followers miss is not kept: their streams must begin anew.
    leader.kill9().unwrap();
    let set = [("n".to_owned(), Value { kind: Some(value::Kind::Int64Value(1)) })].into();
    writer.object_update(ObjectUpdateRequest { id, set, ..Default::default() }).await.unwrap();
    shard.kill9().unwrap();
    postgres.execute("tao", "DELETE FROM change_log").unwrap();
    shard.start_again().unwrap();
    leader.start_again().unwrap();
    let mut found = Vec::new();
    for (_, graph, admin) in &mut followers {
        tao_harness::eventually_async(WITHIN, async || {
            let token = {
                let mut writer = writer.clone();
                let add = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
                writer.object_add(add).await?.into_inner().session_token
            };
            // Its stream goes on.
            let options = Some(ReadOptions { session_token: token, ..Default::default() });
            graph.clone().object_get(ObjectGetRequest { id, options }).await?;
            anyhow::ensure!(metric(admin, "tao_cache_resets_total") >= 2.0, "not yet");
            Ok(())
        })
        .await
        .unwrap();
        let output = audit(admin, &["--output", "json"]);
        found.push((output.status.code(), report(&output)["inconsistent"].as_u64()));
    }
    assert_eq!(found, [(Some(0), Some(0)), (Some(1), Some(1))]);
}
