//! `tao health`: what a container without a shell asks its server.

use std::process::{Command, Output};
use std::time::Duration;

use crate::cluster::{TAO, ready, tier};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

fn health(args: &[&str]) -> Output {
    Command::new(TAO).arg("health").args(args).output().expect("tao runs")
}

/// Runs a tier; gives its process, its own address and that of its admin port.
fn server(args: &[&str]) -> (tao_harness::Process, String, String) {
    let (mut process, address) = tier(args);
    let line = process.wait_line("listening for probes and metrics", WITHIN).expect("it says where its admin port is");
    let admin = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    (process, address, format!("http://{admin}"))
}

#[tokio::test]
async fn health_tells_a_ready_server_from_one_that_waits_and_from_none() {
    let (_shard, address, admin) = server(&["shard", "--store", "memory:"]);
    ready(&address).await;
    let output = health(&["--admin", &admin]);
    assert!(output.status.success() && output.stdout == b"ready\n", "{output:?}");

    // Nobody listens on the port of discards.
    let (_leader, _, admin) = server(&["leader", "--shard", "127.0.0.1:9"]);
    let output = health(&["--admin", &admin]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let reasons = String::from_utf8_lossy(&output.stderr);
    assert!(reasons.starts_with(&format!("error: {admin}: ")) && reasons.len() > admin.len() + 12, "{reasons}");

    for (args, code) in [
        (["--admin", "http://127.0.0.1:9"], 4),
        (["--admin", "https://127.0.0.1:9464"], 2),
        (["--admin", "127.0.0.1"], 2),
        (["--timeout", "0"], 2),
    ] {
        assert_eq!(health(&args).status.code(), Some(code), "{args:?}");
    }
}
