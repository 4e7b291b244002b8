//! Rounds against a target that is made of memory.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::{Arrivals, Plan, Requests, Round, Side};
use crate::graph::{Graph, Shape};
use crate::op::{Op, Outcome};
use crate::target::{Caller, Hits, Progress, Role, Target};
use crate::workload::Workload;

/// Answers after a yield; every tenth request of a thread fails if that is wanted.
#[derive(Default)]
struct Memory {
    fails: bool,
    asked: Arc<Mutex<HashMap<Op, u32>>>,
    hits: Arc<AtomicU64>,
}

struct MemoryCaller {
    fails: bool,
    asked: Arc<Mutex<HashMap<Op, u32>>>,
    hits: Arc<AtomicU64>,
    n: Cell<u64>,
}

impl Target for Memory {
    type Caller = MemoryCaller;

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(&self, _: &Arc<Graph>, _: Progress<'_>) -> Result<()> {
        Ok(())
    }

    async fn caller(&self, _: usize) -> Result<MemoryCaller> {
        let (asked, hits) = (Arc::clone(&self.asked), Arc::clone(&self.hits));
        Ok(MemoryCaller { fails: self.fails, asked, hits, n: Cell::new(0) })
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        Vec::new()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(Some(Hits { l1_hits: self.hits.load(Ordering::Relaxed), ..Default::default() }))
    }
}

impl Caller for MemoryCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        tokio::task::yield_now().await;
        *self.asked.lock().entry(op.clone()).or_default() += 1;
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.n.set(self.n.get() + 1);
        if self.fails && self.n.get().is_multiple_of(10) {
            bail!("refused: request {}", self.n.get());
        }
        Ok(Outcome { found: true, items: 2, bytes: 3 })
    }
}

fn round(target: &Memory, arrivals: Arrivals, ahead: usize) -> (Round, Arc<Requests>) {
    let control: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let graph = Graph::new(Shape::Tao, 5_000, 1).unwrap();
    let requests = Requests::new(&graph, Workload::Tao, 0, 6, ahead).unwrap();
    let (warm_up, measured) = (Duration::from_millis(50), Duration::from_millis(200));
    let plan = Plan { arrivals, threads: 2, in_flight: 6, warm_up, measured };
    (target.round(&control, &plan, &requests).unwrap(), requests)
}

#[test]
fn each_request_is_sent_once_where_that_is_wanted() {
    let target = Memory::default();
    let (round, requests) = round(&target, Arrivals::Once, 3_000);
    let mut expected = HashMap::new();
    requests.all().for_each(|op| *expected.entry(op.clone()).or_default() += 1);
    assert_eq!(*target.asked.lock(), expected);
    assert_eq!((round.answers(), round.errors(), round.repeated), (3_000, 0, false));
    assert_eq!((round.tally.found, round.tally.items, round.tally.bytes), (3_000, 6_000, 9_000));
    assert_eq!(round.hits.unwrap().l1_hits, 3_000);
    assert!(round.memory[&Role::Client] > 0 && round.tally.writes.len() < 100);
}

#[test]
fn a_closed_loop_goes_round_and_counts_errors_by_kind() {
    let target = Memory { fails: true, ..Default::default() };
    let (round, _) = round(&target, Arrivals::Closed, 96);
    let errors = round.tally.errors["refused: request #"];
    assert_eq!(round.errors(), errors);
    let share = errors as f64 / (errors + round.answers()) as f64;
    assert!((share - 0.1).abs() < 0.01, "{share}");
    assert!(round.repeated && round.rate() > 0.0);
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let target = Memory::default();
    let (round, _) = round(&target, Arrivals::Open(5_000.0), 10_000);
    // 200 ms of them, by chance.
    assert!((800..1_200).contains(&round.answers()), "{}", round.answers());
    assert_eq!((round.errors(), round.repeated), (0, false));
}
