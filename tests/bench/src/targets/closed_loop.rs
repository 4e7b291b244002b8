//! A closed loop with as little around it as there can be, for comparisons that need no report of their own.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::op::Op;
use crate::target::{Caller, Target};

/// With a target that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a loop is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Of the client.
    pub threads: usize,
    /// Requests, of all threads together.
    pub in_flight: usize,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// What is counted.
    pub measured: Duration,
}

/// Requests a second. `op` makes the `n`th request of a slot. The first error ends it.
pub(super) fn rate<T: Target>(
    target: &T,
    pace: Pace,
    op: impl Fn(usize, u64) -> Op + Copy + Send + 'static,
) -> Result<f64> {
    let (stop, done, ready) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let (stop, done, ready) = (&stop, &done, &ready);
        let threads: Vec<_> =
            (0..pace.threads).map(|n| scope.spawn(move || client(target, n, pace, op, (stop, done, ready)))).collect();
        let all_ready = || ready.load(Ordering::Relaxed) as usize == pace.threads;
        while !all_ready() && !threads.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
        let goes_on = |time: Duration| {
            let end = Instant::now() + time;
            while Instant::now() < end && !threads.iter().any(thread::ScopedJoinHandle::is_finished) {
                thread::sleep(Duration::from_millis(5));
            }
        };
        goes_on(pace.warm_up);
        let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
        goes_on(pace.measured);
        // A rate of nothing is none: on a busy machine the first answer may take longer than that.
        while done.load(Ordering::Relaxed) == before && begun.elapsed() < PATIENCE {
            goes_on(pace.measured);
        }
        let counted = done.load(Ordering::Relaxed) - before;
        let rate = counted as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().ok().context("a client's thread panicked")??;
        }
        ensure!(counted > 0, "{}: nothing was answered within {PATIENCE:?}", target.name());
        Ok(rate)
    })
}

/// What the threads share: when to stop, what is done, and how many are ready.
type Shared<'a> = (&'a AtomicBool, &'a AtomicU64, &'a AtomicU64);

fn client<T: Target>(
    target: &T,
    n: usize,
    pace: Pace,
    op: impl Fn(usize, u64) -> Op + Copy + 'static,
    (stop, done, ready): Shared<'_>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let caller = Rc::new(target.caller(n).await?);
        ready.fetch_add(1, Ordering::Relaxed);
        // A task of this scope can't be spawned, so tasks count for themselves and this one adds up.
        let counts = Rc::new(std::cell::Cell::new(0_u64));
        let ended = Rc::new(std::cell::Cell::new(false));
        let slots = (n..pace.in_flight).step_by(pace.threads);
        let mut tasks: FuturesUnordered<JoinHandle<Result<()>>> = slots
            .map(|slot| {
                let (caller, counts, ended) = (caller.clone(), counts.clone(), ended.clone());
                spawn_local(async move {
                    for turn in 0.. {
                        if ended.get() {
                            break;
                        }
                        caller.run(&op(slot, turn)).await?;
                        counts.set(counts.get() + 1);
                    }
                    Ok(())
                })
            })
            .collect();
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(5)), if !ended.get() => {
                    done.fetch_add(counts.take(), Ordering::Relaxed);
                    ended.set(stop.load(Ordering::Relaxed));
                }
                task = tasks.next() => match task {
                    Some(task) => task??,
                    None => return Ok(()),
                },
            }
        }
    })
}

/// The middle one, or the mean of the two in the middle; of none, not a number.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }
}
