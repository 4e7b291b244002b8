//! Several servers of a tier: leaders that come and go, storage shards that share a database, a database that goes back in time.

use std::path::Path;
use std::time::{Duration, Instant};

use tao_harness::{Postgres, Process, TempDir};
use tao_proto::v1::*;
use tonic_types::StatusExt as _;

use crate::cluster::{Graph, TAO, connect, ready, tier};
use crate::faults::{add_user, get, get_until_done, set, set_until_done};

/// Until something that must happen by itself has happened.
const WITHIN: Duration = Duration::from_secs(30);

fn port() -> String {
    format!("127.0.0.1:{}", tao_harness::free_port().unwrap())
}

/// A server on an address of its own, so that it can be started again.
fn fixed(args: &[&str], listen: &str) -> Process {
    let args = [args, &["--listen", listen, "--admin-listen", "127.0.0.1:0"]].concat();
    Process::spawn(TAO, &args, &[]).unwrap()
}

/// Sessions write through one follower and read at once through the other, with the token, while `disturb` goes on. Every read
/// that is answered must show the write; answers with how many did.
async fn hop(mut a: Graph, mut b: Graph, rounds: i64, mut disturb: impl FnMut(i64)) -> i64 {
    let id = add_user(&mut a).await;
    let mut shown = 0;
    for n in 1..=rounds {
        disturb(n);
        let token = set_until_done(&mut a, id, n).await;
        assert_eq!(get_until_done(&mut b, id, &token).await, n);
        shown += 1;
        std::mem::swap(&mut a, &mut b);
    }
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_come_and_go_and_sessions_notice_nothing() {
    let data = TempDir::new().unwrap();
    let store = format!("sqlite:{}", data.join("tao.db").display());
    let (_shard, shard) = tier(&["shard", "--store", &store]);
    let addresses = [port(), port()];
    let mut leaders = addresses.each_ref().map(|address| fixed(&["leader", "--shard", &shard], address));
    let both = addresses.join(",");
    let (_a, a) = tier(&["follower", "--leader", &both]);
    let (_b, b) = tier(&["follower", "--leader", &both]);
    ready(&a).await;
    ready(&b).await;
    let disturb = |n| match n {
        20 => leaders[0].kill9().unwrap(),
        60 => leaders[0].start_again().unwrap(),
        90 => leaders[1].kill9().unwrap(),
        130 => leaders[1].start_again().unwrap(),
        // Alive, and deaf: its shards are served by the other until it answers again.
        160 => leaders[0].pause().unwrap(),
        180 => leaders[0].resume().unwrap(),
        _ => {}
    };
    assert_eq!(hop(connect(&a).await, connect(&b).await, 200, disturb).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_storage_shards_share_one_database() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let (mut shard_a, address_a) = tier(&["shard", "--store", &url]);
    let (_shard_b, address_b) = tier(&["shard", "--store", &url]);
    // Each half knows one of them only, so that both commit.
    let (_leader_a, leader_a) = tier(&["leader", "--shard", &address_a]);
    let (_leader_b, leader_b) = tier(&["leader", "--shard", &address_b]);
    let (_follower_a, a) = tier(&["follower", "--leader", &leader_a]);
    let (_follower_b, b) = tier(&["follower", "--leader", &leader_b]);
    ready(&a).await;
    ready(&b).await;
    let hops = (0..4).map(|_| async { hop(connect(&a).await, connect(&b).await, 50, |_| {}).await });
    assert_eq!(futures::future::join_all(hops).await, [50; 4]);

    // Without a token, what the other half has written shows by itself.
    let (mut a, mut b) = (connect(&a).await, connect(&b).await);
    let id = add_user(&mut a).await;
    assert_eq!(get_until_done(&mut b, id, "").await, 0);
    set_until_done(&mut a, id, 7).await;
    let begun = Instant::now();
    while get(&mut b, id, "").await.unwrap() != 7 {
        assert!(begun.elapsed() < WITHIN, "the other's write does not show");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One of them dies: the other half goes on, and has lost nothing.
    let token = set_until_done(&mut a, id, 8).await;
    shard_a.kill9().unwrap();
    assert_eq!(get_until_done(&mut b, id, &token).await, 8);
    set_until_done(&mut b, id, 9).await;
    assert!(set(&mut a, id, 10).await.is_err());
}

fn copy_database(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |folder: &Path| folder.join(format!("tao.db{suffix}"));
        let _ = std::fs::remove_file(name(to));
        if name(from).exists() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
    let _ = std::fs::remove_file(to.join("tao.db-shm"));
}

/// An older copy of the database is put back. Its leader has seen more: a new epoch begins by itself, tokens of what was undone are
/// refused, and no cache shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_was_undone_is_noticed() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = format!("sqlite:{}", data.join("tao.db").display());
    let address = port();
    let mut shard = fixed(&["shard", "--store", &store], &address);
    let (_leader, leader) = tier(&["leader", "--shard", &address]);
    let (_follower, follower) = tier(&["follower", "--leader", &leader]);
    ready(&follower).await;
    let mut graph = connect(&follower).await;
    let id = add_user(&mut graph).await;
    let before = set_until_done(&mut graph, id, 1).await;
    for round in 0..2 {
        assert!(shard.terminate().unwrap().success());
        copy_database(data.path(), backup.path());
        shard.start_again().unwrap();
        let undone = set_until_done(&mut graph, id, 2).await;
        assert_eq!(get_until_done(&mut graph, id, &undone).await, 2);
        shard.kill9().unwrap();
        copy_database(backup.path(), data.path());
        if round == 0 {
            shard.start_again().unwrap();
        } else {
            // Nobody has to have seen it: the operator says so.
            shard = fixed(&["shard", "--store", &store, "--new-epoch"], &address);
        }
        let begun = Instant::now();
        let reason = loop {
            match get(&mut graph, id, &undone).await {
                // Nobody has told the follower yet.
                Ok(n) => assert!(n == 2 && begun.elapsed() < WITHIN, "{n}"),
                Err(status) => match status.get_details_error_info().map(|info| info.reason) {
                    Some(reason) if reason != "UNAVAILABLE" && reason != "DEADLINE_EXCEEDED" => break reason,
                    _ => assert!(begun.elapsed() < WITHIN, "{status:?}"),
                },
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(reason, "HISTORY_UNDONE");
        // A new session sees what is left, and goes on.
        assert_eq!(get_until_done(&mut graph, id, "").await, 1);
        let options = Some(ReadOptions { consistency: Consistency::Strong.into(), ..Default::default() });
        let strong = graph.object_get(ObjectGetRequest { id, options }).await.unwrap().into_inner();
        assert_eq!(get(&mut graph, id, &strong.session_token).await.unwrap(), 1);
        set_until_done(&mut graph, id, 1).await;
    }
    let old = get(&mut graph, id, &before).await.unwrap_err().get_details_error_info().unwrap();
    assert_eq!(old.reason, "HISTORY_UNDONE");
}
