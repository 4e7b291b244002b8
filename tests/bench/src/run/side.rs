//! A target among others: what the runs see of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Runtime;

use super::client::{self, Start, Window};
use super::plan::{Arrivals, Plan, Requests};
use super::processes::Watched;
use super::round::{Round, Tally};
use crate::graph::Graph;
use crate::target::{Hits, Progress, Target};

/// A round has no end of its own when each request is sent once; no target is that slow.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A [`Target`] of any kind. `control` is the main thread's current-thread runtime.
pub trait Side {
    /// For reports.
    fn name(&self) -> &str;

    /// See [`Target::load`].
    fn load(&self, control: &Runtime, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()>;

    /// Runs a round on threads of its own.
    fn round(&self, control: &Runtime, plan: &Plan, requests: &Arc<Requests>) -> Result<Round>;
}

impl<T: Target> Side for T {
    fn name(&self) -> &str {
        Target::name(self)
    }

    fn load(&self, control: &Runtime, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        control
            .block_on(Target::load(self, graph, progress))
            .with_context(|| format!("{} can't be loaded", Side::name(self)))
    }

    fn round(&self, control: &Runtime, plan: &Plan, requests: &Arc<Requests>) -> Result<Round> {
        plan.check()?;
        let watched = Watched::new(self.processes());
        let start = Start { ready: Barrier::new(plan.threads + 1), window: OnceLock::new() };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..plan.threads)
                .map(|n| {
                    scope.spawn({
                        let start = &start;
                        move || client::run(self, plan, requests, n, start)
                    })
                })
                .collect();
            start.ready.wait();
            // Where each request counts, nothing may be answered before the first look.
            let early = (plan.arrivals == Arrivals::Once).then(|| look(self, control, &watched));
            let begin = Instant::now();
            let window = match plan.arrivals {
                Arrivals::Once => Window { begin, from: begin, to: begin + NEVER },
                Arrivals::Closed | Arrivals::Open(_) => {
                    Window { begin, from: begin + plan.warm_up, to: begin + plan.warm_up + plan.measured }
                }
            };
            let _ = start.window.set(window);
            start.ready.wait();

            // What fails here must not leave threads behind, so it is looked at when they have ended.
            thread::sleep(window.from.saturating_duration_since(Instant::now()));
            let before = early.unwrap_or_else(|| look(self, control, &watched));
            if plan.arrivals != Arrivals::Once {
                thread::sleep(window.to.saturating_duration_since(Instant::now()));
            }
            let at_end = (plan.arrivals != Arrivals::Once).then(|| look(self, control, &watched));
            let (mut tally, mut repeated) = (Tally::new()?, false);
            for thread in threads {
                let (part, again) = thread.join().map_err(|_| anyhow!("a thread of the client panicked"))??;
                tally.merge(&part)?;
                repeated |= again;
            }
            let before = before?;
            let after = at_end.unwrap_or_else(|| look(self, control, &watched))?;
            let looked = (after.at - before.at).as_secs_f64();
            let seconds = match plan.arrivals {
                Arrivals::Once => looked,
                Arrivals::Closed | Arrivals::Open(_) => plan.measured.as_secs_f64(),
            };
            // On a busy machine a look may come late; what was used is then scaled to the time that answers were counted in.
            let used =
                |role, us: u64| us.saturating_sub(before.cpu.get(role).copied().unwrap_or(0)) as f64 * seconds / looked;
            let cpu_us = after.cpu.iter().map(|(role, us)| (*role, used(role, *us) as u64));
            Ok(Round {
                seconds,
                tally,
                cpu_us: cpu_us.collect(),
                memory: watched.memory()?,
                hits: after.hits.zip(before.hits).map(|(after, before)| since(after, before)),
                repeated,
            })
        })
    }
}

struct Look {
    at: Instant,
    cpu: BTreeMap<crate::target::Role, u64>,
    hits: Option<Hits>,
}

fn look<T: Target>(target: &T, control: &Runtime, watched: &Watched) -> Result<Look> {
    let (at, cpu) = (Instant::now(), watched.cpu()?);
    Ok(Look { at, cpu, hits: control.block_on(target.hits())? })
}

fn since(after: Hits, before: Hits) -> Hits {
    Hits {
        l1_hits: after.l1_hits.saturating_sub(before.l1_hits),
        l1_misses: after.l1_misses.saturating_sub(before.l1_misses),
        l2_hits: after.l2_hits.saturating_sub(before.l2_hits),
        l2_misses: after.l2_misses.saturating_sub(before.l2_misses),
    }
}
