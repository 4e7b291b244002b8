//! How callers find servers: what a tier says while it waits for another, and connections that are ended for their age.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use tao_client::{Client, ClientOptions};
use tao_harness::{Process, eventually, eventually_async, tcp_ends};
use tao_proto::v1::*;

use crate::cluster::{TAO, connect, ready, tier};
use crate::faults::add_user;

/// Until something that must happen by itself has happened.
const WITHIN: Duration = Duration::from_secs(60);

/// What `/readyz` says of a process: its status line, and the body.
fn readiness(process: &mut Process) -> impl Fn() -> Result<String> + use<> {
    let line = process.wait_line("listening for probes and metrics", WITHIN).unwrap();
    let admin = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    move || {
        let mut stream = std::net::TcpStream::connect(&admin)?;
        write!(stream, "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

/// Waits until it has said all of this.
fn says(readyz: &impl Fn() -> Result<String>, parts: &[&str]) {
    let said = eventually(WITHIN, || {
        let text = readyz()?;
        ensure!(parts.iter().all(|part| text.contains(part)), "{text}");
        Ok(())
    });
    said.unwrap_or_else(|e| panic!("{parts:?}: {e:#}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_waits_says_for_whom_and_why_and_goes_on_by_itself() {
    let port = || format!("127.0.0.1:{}", tao_harness::free_port().unwrap());
    let (shard_at, leader_at) = (port(), port());
    let (mut follower, follower_at) = tier(&["follower", "--leader", &leader_at]);
    let follower_readyz = readiness(&mut follower);
    says(&follower_readyz, &["503", &format!("waiting for a leader at {leader_at}: "), "refused"]);
    // A name that does not exist yet is no mistake: the tier behind may come later.
    let (mut lost, _) = tier(&["follower", "--leader", "leader-0.nowhere.invalid:50052"]);
    says(&readiness(&mut lost), &["503", "at leader-0.nowhere.invalid:50052: ", "its name has no address: "]);

    let args = ["leader", "--shard", &shard_at, "--listen", &leader_at, "--admin-listen", "127.0.0.1:0"];
    let mut leader = Process::spawn(TAO, args, &[]).unwrap();
    let leader_readyz = readiness(&mut leader);
    says(&leader_readyz, &["503", &format!("waiting for a storage shard of log 0 at {shard_at}: "), "refused"]);
    let args = ["shard", "--store", "memory:", "--listen", &shard_at, "--admin-listen", "127.0.0.1:0"];
    let _shard = Process::spawn(TAO, args, &[]).unwrap();
    says(&leader_readyz, &["200 OK"]);
    says(&follower_readyz, &["200 OK"]);
    add_user(&mut connect(&follower_at).await).await;
    assert!(lost.terminate().unwrap().success(), "what waits ends when it is told to");
}

/// This process's connections to an address.
fn connections(to: SocketAddr) -> Result<BTreeSet<SocketAddr>> {
    let ends = tcp_ends(std::process::id()).context("own sockets")?;
    Ok(ends.into_iter().filter(|end| end.peer == to).map(|end| end.local).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_ended_for_their_age_cost_no_call() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let (_follower, follower) = tier(&["follower", "--leader", &leader, "--max-connection-age", "1"]);
    ready(&follower).await;
    let id = add_user(&mut connect(&follower).await).await;
    let at: SocketAddr = follower.parse().unwrap();
    for pipeline in [true, false] {
        // By a name, as the system resolves it.
        let options = ClientOptions { pipeline, ..Default::default() };
        let client = Client::connect(&format!("localhost:{}", at.port()), options).unwrap();
        let calling = join_all((0..8).map(|n| {
            let session = client.session();
            tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                let field = format!("{pipeline}-{n}");
                let mut times = 0;
                // Several connections long.
                while seen.len() < 4 {
                    let update = ObjectUpdateRequest { id, add: [(field.clone(), 1)].into(), ..Default::default() };
                    session.object_update(update).await.unwrap();
                    times += 1;
                    let got = session.object_get(ObjectGetRequest { id, options: None }).await.unwrap().object.unwrap();
                    assert_eq!(got.data[&field].kind, Some(value::Kind::Int64Value(times)), "its own write, once");
                    seen.extend(connections(at).unwrap());
                }
            })
        }));
        tokio::time::timeout(WITHIN, calling).await.unwrap().into_iter().for_each(Result::unwrap);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_ended_and_made_anew() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let (_follower, follower) = tier(&["follower", "--leader", &leader, "--max-connection-idle", "1"]);
    ready(&follower).await;
    let id = add_user(&mut connect(&follower).await).await;
    let options = ClientOptions { pipeline: false, ..Default::default() };
    let session = Client::connect(&follower, options).unwrap().session();
    let get = || session.object_get(ObjectGetRequest { id, options: None });
    get().await.unwrap();
    let at: SocketAddr = follower.parse().unwrap();
    let ended = eventually_async(WITHIN, async || {
        let left = connections(at)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    });
    ended.await.unwrap();
    get().await.unwrap();
}
