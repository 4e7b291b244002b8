//! A short run of everything that can break, with real processes.

use std::time::Duration;

use tao_rig::cluster::Plan;
use tao_rig::load::Options;
use tao_rig::report::Report;
use tao_rig::run::Run;

/// `make test-faults` runs for as long as one likes.
const TIME: Duration = Duration::from_secs(60);

#[test]
fn no_promise_is_broken_while_everything_breaks() {
    let seed = rand::random();
    println!("seed {seed}");
    let options = Options { seed, ..Options::default() };
    let outcome = Run { time: TIME, plan: Plan::default(), options }.run().unwrap_or_else(|e| panic!("{e:#}"));
    let report = Report::new(seed, &outcome);
    println!("{}{}", report.table(), report.json());
    assert!(report.is_clean(), "again: make test-faults SEED={seed}");
    assert!(outcome.verdict.acknowledged > 0 && outcome.verdict.reads > 0 && !outcome.injections.is_empty());
}
