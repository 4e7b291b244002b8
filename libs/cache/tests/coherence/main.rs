//! The coherence rules under random interleavings, against a model: two logs, two leaders, and three followers that share a Redis. The
//! caches, their reading through with single flights, and the following of streams are the real ones; what is on its way between them
//! may be late, lost, doubled or out of order; entries are evicted, streams break and resume, at another leader or earlier on,
//! processes start anew, history is undone.
//!
//! A failure prints the steps, shrunk, and the seed; `TAO_SEED` runs that seed again, and `TAO_CASES` multiplies how many histories are
//! run.

mod tiers;
mod truth;
mod wire;
mod world;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tao_model::mutation::{Rule, without};

use world::{Check, Step, World};

/// How much a run has checked.
#[derive(Default)]
struct Ran {
    histories: Cell<u64>,
    steps: Cell<u64>,
    reads: Cell<u64>,
    audits: Cell<u64>,
}

fn add(to: &Cell<u64>, n: u64) {
    to.set(to.get() + n);
}

fn history(steps: &[Step], ran: &Ran) -> Check {
    add(&ran.histories, 1);
    let mut world = World::new();
    for step in steps {
        add(&ran.steps, 1);
        world.step(*step)?;
    }
    world.drain(steps.len().is_multiple_of(2))?;
    add(&ran.reads, world.answered);
    add(&ran.audits, world.consistent);
    Ok(())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..150)
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// Another one every time.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

fn run(cases: u32, seed: u64, max_shrink_iters: u32, ran: &Ran) -> Result<(), String> {
    // Timers are made and never come due.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let _entered = runtime.enter();
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&steps(), |steps| history(&steps, ran).map_err(TestCaseError::fail))
        .map_err(|error| error.to_string())
}

#[test]
fn promises_hold_in_every_history() {
    let cases = 1_500u32.saturating_mul(from_env("TAO_CASES").unwrap_or(1) as u32);
    let seed = from_env("TAO_SEED").unwrap_or_else(any_seed);
    let (ran, begun) = (Ran::default(), std::time::Instant::now());
    if let Err(error) = run(cases, seed, 50_000, &ran) {
        panic!("TAO_SEED={seed}: {error}");
    }
    let rate = ran.histories.get() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{cases} histories, {} steps, {} reads answered, {} audits done, {rate:.0} histories a second",
        ran.steps.get(),
        ran.reads.get(),
        ran.audits.get()
    );
}

/// Rules of which this program has no part, and one that needs threads: tests/threads.rs.
const ELSEWHERE: [Rule; 3] = [Rule::AppliedLoadedFirst, Rule::IntentsKept, Rule::AnsweredOnceCommitted];

/// The checks would notice if a rule were missing: each, switched off alone, is caught.
#[test]
fn every_rule_that_is_switched_off_is_caught() {
    let mut missed = Vec::new();
    println!("{:28} {:>9} {:>9}  what was noticed", "rule switched off", "histories", "steps");
    for rule in Rule::ALL.iter().filter(|rule| !ELSEWHERE.contains(rule)) {
        let ran = Ran::default();
        match without(Some(*rule), || run(20_000, 1, 0, &ran)) {
            Ok(()) => missed.push(rule),
            Err(error) => {
                let noticed = error.trim_start_matches("Test failed: ").lines().next().unwrap_or_default();
                println!("{:28} {:>9} {:>9}  {noticed}", rule.name(), ran.histories.get(), ran.steps.get());
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
