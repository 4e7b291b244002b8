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
    use std::io::{Read as _, Write as _};
    let address = admin.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
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
