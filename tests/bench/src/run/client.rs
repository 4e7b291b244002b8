//! One thread of the client.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::pace;
use super::plan::{Arrivals, Plan, Requests};
use super::round::Tally;
use crate::target::{Caller, Target};

/// Requests of a thread that can be under way at once with open arrivals. What is due beyond waits, and its waiting counts.
const MOST_OPEN: usize = 4096;
/// How long what is under way at the end may take.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// The times of a round, set when every thread has its caller.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Load begins.
    pub begin: Instant,
    /// Measuring begins.
    pub from: Instant,
    /// Measuring ends, and so does the load.
    pub to: Instant,
}

/// What threads and the one that watches them agree on.
pub struct Start {
    /// All threads and the watcher: passed once when callers are made, and once when the window is set.
    pub ready: Barrier,
    /// Set between the two.
    pub window: OnceLock<Window>,
}

/// Runs this thread's slots. A thread that fails to connect still keeps its appointments, so that nobody waits for it.
pub fn run<T: Target>(
    target: &T,
    plan: &Plan,
    requests: &Arc<Requests>,
    n: usize,
    start: &Start,
) -> Result<(Tally, bool)> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let local = LocalSet::new();
    let caller = runtime.context("no runtime").and_then(|runtime| {
        let caller =
            local.block_on(&runtime, target.caller(n)).with_context(|| format!("{}: no caller", target.name()))?;
        Ok((runtime, caller))
    });
    start.ready.wait();
    start.ready.wait();
    let (runtime, caller) = caller?;
    let window = *start.window.get().context("no window")?;
    let thread = Thread {
        caller: Rc::new(caller),
        plan: *plan,
        requests: Arc::clone(requests),
        n,
        window,
        tally: Rc::new(RefCell::new(Tally::new()?)),
    };
    let repeated = local.block_on(&runtime, thread.load())?;
    let tally = std::mem::replace(&mut *thread.tally.borrow_mut(), Tally::new()?);
    Ok((tally, repeated))
}

struct Thread<C> {
    caller: Rc<C>,
    plan: Plan,
    requests: Arc<Requests>,
    n: usize,
    window: Window,
    tally: Rc<RefCell<Tally>>,
}

impl<C: Caller> Thread<C> {
    /// Whether some request was sent more than once.
    async fn load(&self) -> Result<bool> {
        match self.plan.arrivals {
            Arrivals::Closed | Arrivals::Once => self.closed().await,
            Arrivals::Open(rate) => self.open(rate).await,
        }
    }

    fn slots(&self) -> Vec<usize> {
        (self.n..self.requests.slots()).step_by(self.plan.threads).collect()
    }

    async fn closed(&self) -> Result<bool> {
        let once = self.plan.arrivals == Arrivals::Once;
        let mut tasks = JoinSet::new();
        for slot in self.slots() {
            let (caller, requests, tally, window) =
                (Rc::clone(&self.caller), Arc::clone(&self.requests), Rc::clone(&self.tally), self.window);
            tasks.spawn_local(async move {
                let mut sent = 0;
                let mut begun = Instant::now();
                while if once { sent < requests.each() } else { begun < window.to } {
                    let op = requests.at(slot, sent);
                    sent += 1;
                    let answer = caller.run(op).await;
                    // One look at the clock a request: the end of one is the beginning of the next.
                    let ended = Instant::now();
                    if once || (ended >= window.from && ended < window.to) {
                        let mut tally = tally.borrow_mut();
                        match answer {
                            Ok(outcome) => {
                                tally.answered(op.is_write(), ended - begun);
                                tally.found += u64::from(outcome.found);
                                tally.items += u64::from(outcome.items);
                                tally.bytes += u64::from(outcome.bytes);
                            }
                            Err(error) => tally.failed(&format!("{error:#}")),
                        }
                    }
                    begun = ended;
                }
                sent > requests.each()
            });
        }
        self.drain(tasks, !once).await
    }

    async fn open(&self, rate: f64) -> Result<bool> {
        let share = rate / self.plan.threads as f64;
        let mut pacer = pace::pace(share, self.window.begin, self.window.to, self.n as u64);
        let (slots, room) = (self.slots(), Arc::new(Semaphore::new(MOST_OPEN)));
        let mut tasks = JoinSet::new();
        let mut sent = 0;
        while let Some(due) = pacer.due.recv().await {
            let permit = Arc::clone(&room).acquire_owned().await?;
            let (slot, place) = (slots[sent % slots.len()], sent / slots.len());
            sent += 1;
            let (caller, requests, tally, window) =
                (Rc::clone(&self.caller), Arc::clone(&self.requests), Rc::clone(&self.tally), self.window);
            tasks.spawn_local(async move {
                let op = requests.at(slot, place);
                let answer = caller.run(op).await;
                drop(permit);
                // Whatever was due in the window counts, however late: else an overloaded server would look well.
                if due >= window.from {
                    let mut tally = tally.borrow_mut();
                    match answer {
                        Ok(outcome) => {
                            tally.answered(op.is_write(), due.elapsed());
                            tally.found += u64::from(outcome.found);
                            tally.items += u64::from(outcome.items);
                            tally.bytes += u64::from(outcome.bytes);
                        }
                        Err(error) => tally.failed(&format!("{error:#}")),
                    }
                }
                false
            });
            // Answers are not kept.
            while tasks.try_join_next().is_some() {}
            if Instant::now() > self.window.to + LAST_ANSWERS {
                break;
            }
        }
        let mut unsent = 0;
        while pacer.due.try_recv().is_ok() {
            unsent += 1;
        }
        (0..unsent).for_each(|_| self.tally.borrow_mut().failed("not sent: too many under way"));
        self.drain(tasks, true).await?;
        Ok(sent > slots.len() * self.requests.each())
    }

    /// Waits for what is under way, not for ever where time is `bounded`.
    async fn drain(&self, mut tasks: JoinSet<bool>, bounded: bool) -> Result<bool> {
        let mut repeated = false;
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                repeated |= ended?;
            }
            anyhow::Ok(())
        };
        if !bounded {
            all.await?;
            return Ok(repeated);
        }
        let until = self.window.to + LAST_ANSWERS;
        if let Ok(ended) = tokio::time::timeout_at(until.into(), all).await {
            ended?;
        } else {
            (0..tasks.len()).for_each(|_| self.tally.borrow_mut().failed("not answered within ten seconds of the end"));
        }
        Ok(repeated)
    }
}
