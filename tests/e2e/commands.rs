//! The data commands, and loads that are interrupted, on the real program.

use std::fmt::Write as _;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tao_harness::{Process, TempDir};

use crate::cluster::{Cluster, TAO};

fn tao(args: &[&str]) -> Output {
    Command::new(TAO).args(args).output().expect("tao runs")
}

fn json(address: &str, args: &[&str]) -> Value {
    let output = tao(&[args, &["--address", address, "--output", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_commands_read_and_write() {
    let cluster = Cluster::dev().await;
    let address = cluster.address(0);
    let add = |name: &str| json(address, &["add", "user", name])["objects"][0]["id"].as_str().unwrap().to_owned();
    let (ann, bob) = (add("name=Ann"), add("name=Bob"));
    assert_eq!(json(address, &["link", &ann, "follows", &bob, "--time", "7", "note=hi"])["count"], 1);
    let range = json(address, &["range", &bob, "followed_by", "--objects", "--consistency", "strong", "--show-token"]);
    assert_eq!((&range["edges"][0]["id2"], &range["edges"][0]["time"]), (&ann.clone().into(), &7.into()));
    assert_eq!(range["objects"][0]["data"]["name"], "Ann");
    let token = range["session_token"].as_str().unwrap();
    assert_eq!(json(address, &["count", &ann, "follows", "--token", token])["count"], 1);
    assert_eq!(json(address, &["edges", &ann, "follows", &bob, &ann])["edges"].as_array().unwrap().len(), 1);
    assert_eq!(json(address, &["time-range", &ann, "follows", "--low", "8"])["edges"].as_array().unwrap().len(), 0);
    let updated = json(address, &["update", &ann, "--set", "name=Anna", "--add", "visits=2"]);
    assert_eq!((&updated["objects"][0]["data"]["visits"], &updated["objects"][0]["version"]), (&2.into(), &2.into()));
    assert_eq!(json(address, &["change-type", &ann, "follows", &bob, "messaged"])["count"], 1);
    assert_eq!(json(address, &["unlink", &ann, "messaged", &bob])["deleted"], true);
    assert_eq!(json(address, &["delete", &ann])["deleted"], true);

    let text = tao(&["get", &bob, "--address", address]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("user version 1"), "{text:?}");
    for (args, code) in
        [(vec!["get", &ann], 3), (vec!["range", &bob, "loathes", "--limit", "9000"], 2), (vec!["link", "x"], 2)]
    {
        let output = tao(&[&args[..], &["--address", address]].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let decoded = tao(&["id", &bob, "--output", "json"]);
    assert!(decoded.status.success() && String::from_utf8_lossy(&decoded.stdout).contains("\"shard\":"));
    assert!(String::from_utf8_lossy(&tao(&["completions", "bash"]).stdout).contains("time-range"));
    for role in ["dev", "shard", "leader", "follower", "load", "range"] {
        assert!(tao(&[role, "--help"]).status.success());
    }
}

/// A load that is killed goes on where it was: every edge is there, once, and no object is made twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_killed_goes_on() {
    let cluster = Cluster::dev().await;
    let address = cluster.address(0);
    let folder = TempDir::new().unwrap();
    let (file, map) = (folder.join("edges.txt"), folder.join("map"));
    let mut text = String::new();
    for n in 0..4_000u32 {
        writeln!(text, "{} {} {n}", n % 61, 100 + n % 67).unwrap();
    }
    std::fs::write(&file, text).unwrap();
    let (file, map) = (file.to_string_lossy().into_owned(), map.to_string_lossy().into_owned());
    let args = ["load", &file, "--type", "follows", "--address", address, "--map", &map, "--batch", "50"];
    let state = format!("{file}.tao-load");
    for kill in 1..=3 {
        let mut load = Process::spawn(TAO, [&args[..], &["--rate", "4000"]].concat(), &[]).unwrap();
        // Once it has written a few batches more than the last time.
        tao_harness::eventually(Duration::from_secs(60), || {
            let text = std::fs::read_to_string(&state)?;
            anyhow::ensure!(text.matches("Edges").count() >= kill * 5, "not yet");
            Ok(())
        })
        .unwrap();
        load.kill9().unwrap();
    }
    let mut load = Process::spawn(TAO, args, &[]).unwrap();
    let status = load.wait(Duration::from_secs(120)).unwrap();
    assert!(status.success() && load.log().unwrap().contains("going on"), "{}", load.log_tail());
    let map = std::fs::read_to_string(&map).unwrap();
    assert_eq!(map.lines().count(), 61 + 67);
    let mut edges = 0;
    for line in map.lines() {
        let (name, id) = line.split_once(' ').unwrap();
        let count = json(address, &["count", id, "follows"])["count"].as_u64().unwrap();
        assert_eq!(count == 0, name.len() == 3, "{name} has {count}");
        edges += count;
    }
    assert_eq!(edges, 4_000);
    let mut again = Process::spawn(TAO, args, &[]).unwrap();
    assert!(again.wait(Duration::from_secs(60)).unwrap().success());
    assert!(again.log().unwrap().contains("loaded completely before"));
}
