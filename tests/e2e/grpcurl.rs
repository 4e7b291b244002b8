//! What a newcomer does with grpcurl, on the real program: list, add, follow, look from the other side, restart, look again.

use crate::cluster::tier;
use serde_json::{Value, json};
use tao_harness::{TempDir, grpcurl};

fn call(address: &str, method: &str, request: &Value) -> Value {
    let body = request.to_string();
    let answer = grpcurl(["-plaintext", "-d", &body, address, &format!("tao.v1.GraphService/{method}")]).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_session_survives_a_restart() {
    let data = TempDir::new().unwrap();
    let folder = data.path().to_string_lossy().into_owned();
    let (mut process, address) = tier(&["dev", "--data", &folder]);
    crate::cluster::ready(&address).await;
    process.wait_line("A small sample graph", std::time::Duration::from_secs(30)).unwrap();

    let services = grpcurl(["-plaintext", &address, "list"]).unwrap();
    for service in ["tao.v1.GraphService", "grpc.health.v1.Health"] {
        assert!(services.contains(service), "{services}");
    }
    assert!(!services.contains("tao.internal"), "{services}");
    assert!(
        grpcurl(["-plaintext", &address, "describe", "tao.v1.AssocRangeRequest"]).unwrap().contains("with_objects")
    );
    let health = grpcurl(["-plaintext", &address, "grpc.health.v1.Health/Check"]).unwrap();
    assert!(health.contains("SERVING"), "{health}");

    let add = |name: &str| {
        let answer = call(&address, "ObjectAdd", &json!({"type": "user", "data": {"name": {"stringValue": name}}}));
        answer["object"]["id"].as_str().unwrap().to_owned()
    };
    let (ann, bob) = (add("Ann"), add("Bob"));
    let follow = call(&address, "AssocAdd", &json!({"id1": ann, "type": "follows", "id2": bob, "time": 1_700_000_000}));
    assert_eq!(follow["count"], "1");
    let token = follow["sessionToken"].as_str().unwrap();
    let range = json!({"id1": bob, "type": "followed_by", "withObjects": true, "options": {"sessionToken": token}});
    let count = json!({"id1": ann, "type": "follows"});
    let seen = call(&address, "AssocRange", &range);
    assert_eq!(seen["assocs"], json!([{"id2": ann, "time": "1700000000"}]));
    assert_eq!(seen["objects"][0]["data"]["name"]["stringValue"], "Ann");
    assert_eq!(call(&address, "AssocCount", &count)["count"], "1");

    assert!(process.terminate().unwrap().success(), "{}", process.log_tail());
    let (mut process, address) = tier(&["dev", "--data", &folder]);
    crate::cluster::ready(&address).await;
    let again = call(&address, "AssocRange", &range);
    assert_eq!((&again["assocs"], &again["objects"]), (&seen["assocs"], &seen["objects"]), "the token holds, too");
    assert_eq!(call(&address, "AssocCount", &count)["count"], "1");
    assert!(process.terminate().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tier_is_described_and_healthy() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    for address in [&shard, &leader] {
        crate::cluster::ready(address).await;
        let services = grpcurl(["-plaintext", address, "list"]).unwrap();
        assert!(
            services.contains("tao.internal.v1.TierService") && services.contains("grpc.health.v1.Health"),
            "{services}"
        );
    }
}

/// The lines of docs/consistency.md, as they stand there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_the_documentation_do_what_it_says() {
    let cluster = crate::cluster::Cluster::processes().await;
    let user = || {
        let answer = call(cluster.address(0), "ObjectAdd", &json!({"type": "user"}));
        answer["object"]["id"].as_str().unwrap().to_owned()
    };
    let (ann, bob) = (user(), user());
    let text = std::fs::read_to_string(tao_harness::repository().join("docs/consistency.md")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let mut lines: Vec<&str> = lines.filter(|l| l.starts_with("grpcurl ") || l.starts_with("TOKEN=")).collect();
    let watch = lines.pop().unwrap();
    assert!(lines.len() == 7 && watch.contains("Watch"), "{lines:?} {watch}");
    let tools = tao_harness::repository().join(".tools/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    // The watch is ended by its time.
    let script = format!("set -e\n{}\necho ---\n{watch} || true\n", lines.join("\n"));
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("PATH", path)
        .envs([("ANN", &ann), ("BOB", &bob)])
        .envs([("FOLLOWER_1", cluster.address(0)), ("FOLLOWER_2", cluster.address(1))])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let (answers, watched) = printed.split_once("---").unwrap();
    let parse = |text| serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect::<Vec<Value>>();
    let (answers, watched) = (parse(answers), parse(watched));
    assert_eq!(answers[0]["assocs"][0]["id2"], ann);
    assert!(answers.len() == 6 && answers[1..5].iter().all(|answer| answer["count"] == "1"), "{printed}");
    let results = answers[5]["results"].as_array().unwrap();
    assert!(results.len() == 2 && results.iter().all(|result| result["applied"] == true), "{printed}");
    assert!(watched.len() > 1 && watched.iter().all(|answer| answer["sessionToken"].is_string()), "{printed}");
}
