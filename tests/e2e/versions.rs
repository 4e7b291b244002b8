//! This version beside the one before (docs/upgrades.md). Most of it needs a program of that one: `TAO_PREVIOUS=$(tests/tools/previous.sh FOLDER)`.

use std::time::Duration;

use tao_harness::{Postgres, Process};

use crate::cluster::{Graph, TAO, connect, ready};
use crate::faults::{add_user, get_until_done, set_until_done};

/// Until a server listens.
const WITHIN: Duration = Duration::from_secs(60);

/// The program of the version before; none, and a line that says so, where nobody has built it.
fn previous() -> Option<String> {
    let program = std::env::var("TAO_PREVIOUS").ok().filter(|program| !program.is_empty());
    if program.is_none() {
        println!("skipped: TAO_PREVIOUS names no program of the version before (tests/tools/previous.sh builds it)");
    }
    program
}

/// A place for a server: its address stays while programs come and go.
struct Place {
    args: Vec<String>,
    address: String,
    process: Option<Process>,
}

impl Place {
    fn new(args: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", tao_harness::free_port().unwrap());
        let more = ["--listen", &address, "--admin-listen", "127.0.0.1:0"];
        let args = args.iter().chain(&more).map(ToString::to_string).collect();
        Self { args, address, process: None }
    }

    /// Runs this program here, after the one that did has ended politely.
    async fn run(&mut self, program: &str) {
        if let Some(mut process) = self.process.take() {
            assert!(process.terminate().unwrap().success(), "{}", process.log_tail());
        }
        let mut process = Process::spawn(program, &self.args, &[]).unwrap();
        process.wait_line("listening for gRPC", WITHIN).unwrap();
        self.process = Some(process);
        ready(&self.address).await;
    }
}

fn shard(store: &str) -> Place {
    Place::new(&["shard", "--store", store])
}

fn leader(shards: &[&Place]) -> Place {
    Place::new(&["leader", "--shard", &addresses(shards)])
}

fn follower(leaders: &[&Place]) -> Place {
    Place::new(&["follower", "--leader", &addresses(leaders)])
}

fn addresses(places: &[&Place]) -> String {
    places.iter().map(|place| place.address.as_str()).collect::<Vec<_>>().join(",")
}

/// What the database knows of versions: its schema version, and how many storage shards have said that they have it open.
fn database(postgres: &Postgres) -> (i64, i64) {
    let number = |sql| postgres.execute("tao", sql).unwrap().parse().unwrap();
    (number("SELECT max(version) FROM _sqlx_migrations"), number("SELECT count(*) FROM servers"))
}

/// One session that writes through each of them in turn and reads through the next, with its token.
async fn round_trips(graphs: &mut [Graph], id: i64, rounds: std::ops::RangeInclusive<i64>) {
    for n in rounds {
        let writer = n as usize % graphs.len();
        let reader = (writer + 1) % graphs.len();
        let token = set_until_done(&mut graphs[writer], id, n).await;
        assert_eq!(get_until_done(&mut graphs[reader], id, &token).await, n);
    }
}

/// Every chain of old and new tiers, all on one database at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_of_both_versions_work_together() {
    let Some(previous) = previous() else { return };
    let programs = [previous.as_str(), TAO];
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let mut shards = [shard(&url), shard(&url)];
    // The old one makes the database, the new one migrates it beside the old.
    for (place, program) in shards.iter_mut().zip(programs) {
        place.run(program).await;
    }
    let (schema, _) = database(&postgres);
    let (mut leaders, mut followers) = (Vec::new(), Vec::new());
    for shard in &shards {
        for leader_program in programs {
            let mut behind = leader(&[shard]);
            behind.run(leader_program).await;
            for follower_program in programs {
                let mut front = follower(&[&behind]);
                front.run(follower_program).await;
                followers.push(front);
            }
            leaders.push(behind);
        }
    }
    let mut graphs = Vec::new();
    for place in &followers {
        graphs.push(connect(&place.address).await);
    }
    assert_eq!(graphs.len(), 8);
    let id = add_user(&mut graphs[0]).await;
    round_trips(&mut graphs, id, 1..=40).await;

    // Rolled back: the old one starts again on the database that the new one has migrated, and nothing of the new one is left.
    shards[1].run(&previous).await;
    shards[0].run(&previous).await;
    assert_eq!(database(&postgres).0, schema, "nothing was undone");
    round_trips(&mut graphs, id, 41..=60).await;
    // And forward again.
    for place in &mut shards {
        place.run(TAO).await;
    }
    round_trips(&mut graphs, id, 61..=80).await;
}

/// Process by process, in the usual order, and back in the opposite one, while a session writes and reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_and_rolled_back_under_load() {
    let Some(previous) = previous() else { return };
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let shards = [shard(&url), shard(&url)];
    let leaders = [leader(&[&shards[0], &shards[1]]), leader(&[&shards[0], &shards[1]])];
    let followers = [follower(&[&leaders[0], &leaders[1]]), follower(&[&leaders[0], &leaders[1]])];
    let addresses = followers.each_ref().map(|place| place.address.clone());
    let mut places: Vec<Place> = shards.into_iter().chain(leaders).chain(followers).collect();
    for place in &mut places {
        place.run(&previous).await;
    }
    let [mut one, mut other] = [connect(&addresses[0]).await, connect(&addresses[1]).await];
    let id = add_user(&mut one).await;
    let done = tokio::sync::watch::Sender::new(false);
    let load = tokio::spawn({
        let done = done.subscribe();
        async move {
            let mut n = 0;
            while !*done.borrow() {
                n += 1;
                let token = set_until_done(&mut one, id, n).await;
                assert_eq!(get_until_done(&mut other, id, &token).await, n);
                std::mem::swap(&mut one, &mut other);
            }
            n
        }
    });
    for place in &mut places {
        place.run(TAO).await;
    }
    let (schema, servers) = database(&postgres);
    assert_eq!(servers, 2, "both storage shards are of this version");
    for place in places.iter_mut().rev() {
        place.run(&previous).await;
    }
    assert_eq!(database(&postgres).0, schema);
    for place in &mut places {
        place.run(TAO).await;
    }
    done.send_replace(true);
    let rounds = load.await.unwrap();
    println!("{rounds} writes, each read back through the other follower");
    assert!(rounds > 18, "there was load all the time: {rounds} rounds for 18 restarts");
}

/// It was left behind: what it needs was taken away while it could not show that it lives.
#[tokio::test]
async fn a_storage_shard_that_is_too_old_for_its_database_says_so_and_ends() {
    let postgres = Postgres::start().unwrap();
    let mut place = shard(&postgres.create_database("tao").unwrap());
    place.run(TAO).await;
    postgres.execute("tao", "UPDATE schema_compat SET minimum = 9999").unwrap();
    let mut process = place.process.take().unwrap();
    assert_eq!(process.wait(WITHIN).unwrap().code(), Some(1));
    let log = process.log_tail();
    let said = "the database serves schema version 9999 and newer";
    assert!(log.contains(said) && log.contains("this storage shard may not go on"), "{log}");
    assert_eq!(database(&postgres).1, 0, "it is closed, and nobody waits for it");
}
