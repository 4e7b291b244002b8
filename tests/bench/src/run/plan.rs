//! What a round does, and the requests it sends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::graph::Graph;
use crate::op::Op;
use crate::workload::{Stream, Workload};

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// The next when the last is answered, so many at a time.
    Closed,
    /// So many a second, at random (Poisson) times, whatever is answered. Latency counts from the time at which a request was due.
    Open(f64),
    /// As `Closed`, but every request that was made ahead exactly once, without warm-up, however long it takes.
    Once,
}

/// One round of load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Threads of the client.
    pub threads: usize,
    /// Slots, spread over the threads; with open arrivals it only says how requests are made.
    pub in_flight: usize,
    /// Load before anything is measured.
    pub warm_up: Duration,
    /// What is measured.
    pub measured: Duration,
}

impl Plan {
    /// All bad values at once would be one: there is little to get wrong.
    pub fn check(&self) -> Result<()> {
        ensure!(self.threads > 0, "--threads: at least one");
        ensure!(
            self.in_flight >= self.threads,
            "--in-flight {}: at least as many as --threads {}",
            self.in_flight,
            self.threads
        );
        if let Arrivals::Open(rate) = self.arrivals {
            ensure!(rate.is_finite() && rate > 0.0, "--rate {rate}: more than 0 a second");
        }
        Ok(())
    }
}

/// Requests made ahead, so that making them is not measured: a ring a slot. A run that is quicker than its rings goes round again.
#[derive(Debug)]
pub struct Requests {
    rings: Vec<Vec<Op>>,
}

impl Requests {
    /// About `ahead` requests for all slots together; at least 16 each.
    pub fn new(graph: &Arc<Graph>, workload: Workload, round: u32, slots: usize, ahead: usize) -> Result<Arc<Self>> {
        let each = (ahead / slots).max(16);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let make = |slot| -> Result<Vec<Op>> {
            let mut stream = Stream::new(graph, workload, round, slot as u32)?;
            Ok((0..each).map(|_| stream.next()).collect())
        };
        let rings = std::thread::scope(|scope| {
            let share = slots.div_ceil(cores);
            let makers: Vec<_> = (0..slots)
                .step_by(share)
                .map(|first| {
                    scope.spawn(move || (first..slots.min(first + share)).map(make).collect::<Result<Vec<_>>>())
                })
                .collect();
            let made = makers
                .into_iter()
                .map(|maker| maker.join().map_err(|_| anyhow::anyhow!("a maker of requests panicked"))?);
            made.collect::<Result<Vec<_>>>()
        })?;
        Ok(Arc::new(Self { rings: rings.into_iter().flatten().collect() }))
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.rings.len()
    }

    /// How many requests are made for each slot.
    pub fn each(&self) -> usize {
        self.rings.first().map_or(0, Vec::len)
    }

    /// A slot's request at a place, however far: the ring goes round.
    pub fn at(&self, slot: usize, place: usize) -> &Op {
        let ring = &self.rings[slot];
        &ring[place % ring.len()]
    }

    /// All of them, about in the order in which they are sent.
    pub fn all(&self) -> impl Iterator<Item = &Op> {
        (0..self.each()).flat_map(|place| self.rings.iter().map(move |ring| &ring[place]))
    }
}
