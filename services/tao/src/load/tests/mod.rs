//! Loads into a store in memory that fails, is stopped, and comes back: every edge once, every object once.

mod store;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tao_harness::TempDir;
use tokio::sync::watch;

use super::report::{Ended, Report};
use super::stop::Stop;
use super::writer::Patience;
use super::{LoadArgs, edge_list, input, run};
use crate::commands::Failure;
use store::{Fault, Store};

/// As patient as the program, and quicker to try again.
const PATIENCE: Patience = Patience { backoff: Duration::from_millis(1), ends: Duration::from_secs(120) };

fn impatient(ms: u64) -> Patience {
    Patience { ends: Duration::from_millis(ms), ..PATIENCE }
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: LoadArgs,
}

/// A file, and loads of it.
struct Load {
    folder: TempDir,
    text: String,
    flags: Vec<&'static str>,
}

impl Load {
    fn new(text: String, flags: &[&'static str]) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.join("edges"), &text).unwrap();
        Self { folder, text, flags: flags.to_vec() }
    }

    /// A graph of some hundred edges, some of them twice.
    fn random(seed: u64, flags: &[&'static str]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut text = String::new();
        for _ in 0..600 {
            let (a, b) = (random.random_range(0..90), random.random_range(0..90));
            writeln!(text, "{a} {b} {}", random.random_range(0..1_000_u32)).unwrap();
        }
        Self::new(text, flags)
    }

    fn args(&self, address: &str, more: &[&str]) -> LoadArgs {
        let file = self.folder.join("edges").display().to_string();
        let map = self.folder.join("map").display().to_string();
        let known = ["load", &file, "--type", "messaged", "--address", address, "--map", &map];
        Cli::parse_from(known.iter().chain(&self.flags).chain(more)).args
    }

    async fn run_with(&self, args: &LoadArgs, stop: Stop, patience: Patience) -> Result<Report, Failure> {
        let list = input::read(&args.file, args.undirected)?;
        run(args, &list, stop, patience).await
    }

    async fn run(&self, address: &str, more: &[&str]) -> Result<Report, Failure> {
        let (_ask, stop) = Stop::new();
        self.run_with(&self.args(address, more), stop, PATIENCE).await
    }

    /// That the store has what the file has: every object and edge once, with the newest time.
    fn check(&self, store: &Store) {
        let mut want = BTreeMap::new();
        for line in self.text.lines() {
            let fields: Vec<i64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
            if fields[0] != fields[1] {
                let time = want.entry((fields[0].to_string(), fields[1].to_string())).or_insert(fields[2]);
                *time = fields[2].max(*time);
            }
        }
        let graph = store.graph();
        let edges = graph.edges.iter().map(|((a, atype, b), time)| {
            assert_eq!(atype, "messaged");
            ((graph.objects[a].clone(), graph.objects[b].clone()), *time)
        });
        assert_eq!(edges.collect::<BTreeMap<_, _>>(), want);
        assert_eq!(graph.edges.len(), want.len(), "no pair twice through two objects");
        let mut users: Vec<_> = want.keys().flat_map(|(a, b)| [a, b]).collect();
        users.sort();
        users.dedup();
        assert_eq!(graph.objects.len(), users.len(), "no object twice");
        let map = std::fs::read_to_string(self.folder.join("map")).unwrap();
        let mapped: BTreeMap<i64, String> = map
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(a, b)| (b.parse().unwrap(), a.to_owned()))
            .collect();
        assert_eq!(mapped, graph.objects);
    }
}

#[tokio::test]
async fn a_graph_is_loaded_in_batches_side_by_side() {
    let store = Store::new(1, |_| Fault::None);
    let load = Load::random(1, &["--batch", "20", "--concurrency", "4"]);
    let report = load.run(&store.serve(), &[]).await.unwrap();
    load.check(&store);
    let graph = store.graph();
    assert_eq!((report.ended, report.edges.0, report.objects.0), (Ended::Complete, graph.edges.len(), 90));
    assert!(graph.largest_batch == 20 && (2..=4).contains(&graph.most_running), "{}", graph.most_running);
    assert_eq!(graph.allocated.len(), 90);
    assert!(graph.tokens.last().is_some_and(|token| !token.is_empty()), "it is one session");
}

#[tokio::test]
async fn edges_that_can_be_written_at_once_are_and_the_others_singly() {
    let store = Store::new(1, |_| Fault::None);
    store.graph().at_once = Some(0);
    let load = Load::random(2, &["--batch", "20", "--concurrency", "4"]);
    let report = load.run(&store.serve(), &[]).await.unwrap();
    load.check(&store);
    let graph = store.graph();
    let spans = report.edges.0.div_ceil(20);
    assert_eq!((report.ended, graph.at_once), (Ended::Complete, Some(spans)));
    // The ids, the objects, and every other batch of edges.
    assert_eq!(graph.calls, 90_usize.div_ceil(16) + 90_usize.div_ceil(20) + spans / 2);
}

#[tokio::test]
async fn pairs_are_one_edge_whatever_their_order_where_that_is_asked_for() {
    let store = Store::new(1, |_| Fault::None);
    let load = Load::new("1 2 5\n2 1 9\n2 3 1\n".to_owned(), &["--undirected"]);
    assert_eq!(load.run(&store.serve(), &[]).await.unwrap().edges.0, 2);
    let times: Vec<_> = store.graph().edges.values().copied().collect();
    assert_eq!(times, [9, 1]);
}

#[tokio::test]
async fn a_store_that_fails_now_and_then_has_everything_once_in_the_end() {
    for seed in 0..8 {
        let mut random = StdRng::seed_from_u64(seed);
        let store = Store::new(1, move |_| match random.random_range(0..6) {
            0 => Fault::Refused,
            1 => Fault::AnswerLost,
            2 => Fault::Half,
            _ => Fault::None,
        });
        let load = Load::random(seed, &["--batch", "30"]);
        let report = load.run(&store.serve(), &[]).await.unwrap();
        assert_eq!(report.ended, Ended::Complete, "seed {seed}");
        load.check(&store);
    }
}

/// Waits until so many calls have come. What `wait_for` gives is a lock, and must be gone before the store goes on.
async fn come(counter: &mut watch::Receiver<usize>, calls: usize) {
    counter.wait_for(|come| *come >= calls).await.unwrap();
}

/// Stops it (as Ctrl-C does) or cancels it (as a kill does) after some calls, over and over, and each time goes on.
async fn interrupted(seed: u64, kill: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut faults, mut batches) = (StdRng::seed_from_u64(!seed), ["7", "16", "40"].into_iter().cycle());
    let store = Store::new(1, move |_| if faults.random_bool(0.2) { Fault::AnswerLost } else { Fault::None });
    let address = store.serve();
    let load = Load::random(seed, &["--concurrency", "3"]);
    let mut interruptions = 0;
    loop {
        let (ask, stop) = Stop::new();
        // The size of batches may be another one in each run.
        let args = load.args(&address, &["--batch", batches.next().unwrap()]);
        let mut counter = store.counter();
        let until = *counter.borrow() + random.random_range(1..12);
        let mut running = std::pin::pin!(load.run_with(&args, stop, PATIENCE));
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = come(&mut counter, until) => {
                interruptions += 1;
                if kill {
                    continue;
                }
                ask.send_replace(true);
                running.await
            }
        };
        match ended.unwrap().ended {
            Ended::Complete => break,
            Ended::Interrupted => {}
            Ended::CompleteBefore => panic!("seed {seed}: it was not"),
        }
        assert!(interruptions < 500, "seed {seed}: it does not get on");
    }
    assert!(interruptions > 2, "seed {seed}");
    load.check(&store);
    let calls = store.graph().calls;
    assert_eq!(load.run(&address, &[]).await.unwrap().ended, Ended::CompleteBefore);
    assert_eq!(store.graph().calls, calls, "nothing is left to do");
}

#[tokio::test]
async fn a_load_that_is_stopped_goes_on_where_it_was() {
    for seed in 0..5 {
        interrupted(seed, false).await;
    }
}

#[tokio::test]
async fn a_load_that_is_killed_goes_on_where_it_was() {
    for seed in 0..5 {
        interrupted(seed, true).await;
    }
}

#[tokio::test]
async fn a_load_gives_up_on_a_store_that_is_gone_and_can_be_resumed() {
    let store = Store::new(1, |call| if call > 9 { Fault::Refused } else { Fault::None });
    let address = store.serve();
    let load = Load::random(3, &["--batch", "40"]);
    let (_ask, stop) = Stop::new();
    let error = load.run_with(&load.args(&address, &[]), stop, impatient(150)).await.unwrap_err();
    assert!(error.number() == 4 && error.to_string().starts_with("gave up after"), "{error}");
    store.heal();
    assert_eq!(load.run(&address, &[]).await.unwrap().ended, Ended::Complete);
    load.check(&store);
}

#[tokio::test]
async fn a_stop_while_the_store_is_gone_does_not_wait_for_it() {
    let store = Store::new(1, |call| if call > 9 { Fault::Refused } else { Fault::None });
    let load = Load::random(3, &["--batch", "40"]);
    let args = load.args(&store.serve(), &[]);
    let (ask, stop) = Stop::new();
    let mut counter = store.counter();
    let running = load.run_with(&args, stop, PATIENCE);
    let stopping = async {
        come(&mut counter, 21).await;
        ask.send_replace(true);
    };
    let (report, ()) =
        tokio::time::timeout(PATIENCE.ends / 2, async { tokio::join!(running, stopping) }).await.unwrap();
    assert_eq!(report.unwrap().ended, Ended::Interrupted);
}

#[tokio::test]
async fn what_the_store_refuses_for_good_is_named_and_ends_the_load() {
    // The first is for ids, the second for objects, the third for edges.
    let store = Store::new(1, |call| if call > 2 { Fault::Invalid } else { Fault::None });
    let load = Load::new("5 6 7\n".to_owned(), &[]);
    let error = load.run(&store.serve(), &[]).await.unwrap_err();
    assert_eq!(error.number(), 2);
    let text = error.to_string();
    assert!(text.starts_with("the edge 5 6 7: ") && text.contains("time: too far ahead"), "{text}");
}

#[tokio::test]
async fn a_mistaken_type_makes_nothing_and_leaves_nothing_in_the_way() {
    let store = Store::new(1, |_| Fault::None);
    let address = store.serve();
    let load = Load::random(6, &[]);
    let state = load.folder.join("edges.tao-load");
    for mistake in [["--type", "mesaged"], ["--object-type", "usr"]] {
        let file = load.folder.join("edges").display().to_string();
        let mut args = vec!["load", &file, "--address", &address];
        args.extend(mistake);
        if mistake[0] != "--type" {
            args.extend(["--type", "messaged"]);
        }
        let (_ask, stop) = Stop::new();
        let error = load.run_with(&Cli::parse_from(args).args, stop, PATIENCE).await.unwrap_err();
        assert!(error.is_bad_input() && error.to_string().contains("is no"), "{error}");
        assert!(store.graph().objects.is_empty() && !state.exists());
    }
    assert_eq!(load.run(&address, &[]).await.unwrap().ended, Ended::Complete);
    assert!(state.exists());
}

#[tokio::test]
async fn a_load_is_done_again_only_when_asked_and_to_the_same_objects() {
    let store = Store::new(1, |_| Fault::None);
    let address = store.serve();
    let load = Load::random(4, &[]);
    load.run(&address, &[]).await.unwrap();
    store.graph().edges.clear();
    assert_eq!(load.run(&address, &[]).await.unwrap().ended, Ended::CompleteBefore);
    assert!(store.graph().edges.is_empty());
    let allocated = store.graph().allocated.len();
    assert_eq!(load.run(&address, &["--again"]).await.unwrap().ended, Ended::Complete);
    load.check(&store);
    assert_eq!(store.graph().allocated.len(), allocated);
}

#[tokio::test]
async fn a_state_is_not_used_for_another_store() {
    let store = Store::new(1, |call| if call > 4 { Fault::Refused } else { Fault::None });
    let load = Load::random(5, &["--batch", "10"]);
    let (_ask, stop) = Stop::new();
    load.run_with(&load.args(&store.serve(), &[]), stop, impatient(50)).await.unwrap_err();
    let other = Store::new(2, |_| Fault::None);
    let error = load.run(&other.serve(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
    assert!(other.graph().objects.is_empty());
}

#[tokio::test]
async fn the_rate_is_kept() {
    let store = Store::new(1, |_| Fault::None);
    let text: String = (0..100).map(|n| format!("{n} {} 1\n", n + 1)).collect();
    let load = Load::new(text, &["--batch", "10", "--rate", "500"]);
    let report = load.run(&store.serve(), &[]).await.unwrap();
    // The first batch waits for nobody.
    assert!(report.edges.1 >= Duration::from_millis(180), "{:?}", report.edges.1);
    load.check(&store);
}

#[test]
fn only_files_have_a_state() {
    let args = Cli::parse_from(["load", "-", "--type", "follows"]).args;
    assert!(input::default_state(&args.file).is_none());
    assert!(Cli::try_parse_from(["load", "x", "--type", "follows", "--batch", "1001"]).is_err());
    assert!(Cli::try_parse_from(["load", "x"]).is_err());
    assert!(edge_list::read(&b""[..], false).unwrap().edges.is_empty());
}
