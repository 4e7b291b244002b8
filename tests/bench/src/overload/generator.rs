//! Open-loop load: calls are made when they are due, however many are under way.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use tao_client::ClientError;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout_at};
use tonic::{Code, Status};

use super::arrivals::Due;
use super::record::{Fate, Record};
use super::{DEADLINE, Options};
use crate::run::Requests;
use crate::target::Caller as _;
use crate::targets::tao::{Tao, TaoCaller};

/// How often it is looked whether something is due: the runtime's timers are no finer.
const TICK: Duration = Duration::from_millis(1);
/// For connections to be made before the first call is due.
const HEAD_START: Duration = Duration::from_millis(300);

/// Calls a second, over connections each of which comes from an address, or from any.
#[derive(Debug, Clone)]
pub struct Load {
    pub rate: f64,
    pub from: Vec<Option<IpAddr>>,
}

pub struct Generator<'a> {
    tao: &'a Tao,
    requests: &'a Arc<Requests>,
    threads: usize,
}

impl<'a> Generator<'a> {
    pub fn new(tao: &'a Tao, requests: &'a Arc<Requests>, options: &Options) -> Self {
        Self { tao, requests, threads: options.setup.threads }
    }

    /// Runs loads side by side, each spread over all threads; a record of each.
    pub fn run(&self, loads: &[Load], lasts: Duration) -> Result<Vec<Record>> {
        let (ready, begin) = (Barrier::new(self.threads), OnceLock::new());
        let parts = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|n| {
                    let (ready, begin) = (&ready, &begin);
                    scope.spawn(move || self.thread(n, loads, lasts, ready, begin))
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Record>>>| {
                thread.join().map_err(|_| anyhow!("a thread of the generator panicked"))?
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let mut parts = parts.into_iter();
        let mut all = parts.next().context("no threads")?;
        for part in parts {
            all.iter_mut().zip(&part).try_for_each(|(all, part)| all.merge(part))?;
        }
        Ok(all)
    }

    fn thread(
        &self,
        n: usize,
        loads: &[Load],
        lasts: Duration,
        ready: &Barrier,
        begin: &OnceLock<Instant>,
    ) -> Result<Vec<Record>> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let local = LocalSet::new();
        let made = runtime.context("no runtime").and_then(|runtime| {
            let callers = async {
                let mut callers = Vec::new();
                for load in loads {
                    // Its share of the connections; at least one.
                    let mine: Vec<_> = load.from.iter().skip(n).step_by(self.threads).copied().collect();
                    let mine = if mine.is_empty() { load.from[..1].to_vec() } else { mine };
                    callers.push(Rc::new(self.tao.caller_from(&mine).await?));
                }
                anyhow::Ok(callers)
            };
            let callers = local.block_on(&runtime, callers)?;
            Ok((runtime, callers))
        });
        ready.wait();
        let begin = *begin.get_or_init(|| Instant::now() + HEAD_START);
        let (runtime, callers) = made?;
        local.block_on(&runtime, async {
            let run = |(place, (load, caller)): (usize, (&Load, &Rc<TaoCaller>))| {
                let rate = load.rate / self.threads as f64;
                self.offer(n, place, rate, caller.clone(), begin, lasts)
            };
            let running = loads.iter().zip(&callers).enumerate().map(run);
            futures::future::join_all(running).await.into_iter().collect()
        })
    }

    async fn offer(
        &self,
        n: usize,
        place: usize,
        rate: f64,
        caller: Rc<TaoCaller>,
        begin: Instant,
        lasts: Duration,
    ) -> Result<Record> {
        let record = Rc::new(RefCell::new(Record::new(lasts)?));
        let end = begin + lasts;
        let mut due = Due::new(rate, begin, end, (n * 1_000 + place) as u64);
        let slots: Vec<_> = (n..self.requests.slots()).step_by(self.threads).collect();
        sleep_until(begin.into()).await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = 0;
        while !due.is_over() {
            ticks.tick().await;
            let now = Instant::now();
            while let Some(due) = due.by(now) {
                let (slot, place) = (slots[sent % slots.len()], place * 7_919 + sent / slots.len());
                sent += 1;
                let (requests, caller, record) = (self.requests.clone(), caller.clone(), record.clone());
                tokio::task::spawn_local(async move {
                    let begun = Instant::now();
                    let answered = timeout_at((due + DEADLINE).into(), caller.run(requests.at(slot, place))).await;
                    let fate = match answered {
                        Ok(Ok(_)) if due.elapsed() <= DEADLINE => Fate::Good,
                        Ok(Err(error)) => fate(&error),
                        Ok(Ok(_)) | Err(_) => Fate::Late,
                    };
                    record.borrow_mut().add(due - begin, begun.saturating_duration_since(due), due.elapsed(), fate);
                });
            }
        }
        // Whatever is still under way is late by then.
        sleep_until((Instant::now().max(end) + DEADLINE + HEAD_START).into()).await;
        let empty = Record::new(lasts)?;
        Ok(record.replace(empty))
    }
}

fn fate(error: &Error) -> Fate {
    if let Some(ClientError::Throttled { .. }) = error.downcast_ref() {
        return Fate::HeldBack;
    }
    let client = error.downcast_ref::<ClientError>().map(|error| (error.code(), error.reason().to_owned()));
    // What did not come from the follower has no code that says much.
    let said =
        |status: &Status| if status.code() == Code::Unknown { status.message().to_owned() } else { String::new() };
    let status = error.downcast_ref::<Status>().map(|status| (status.code(), said(status)));
    match client.or(status) {
        Some((Code::DeadlineExceeded | Code::Cancelled, _)) => Fate::Late,
        Some((code, reason)) => Fate::Refused(format!("{code:?} {reason}").trim_end().to_owned()),
        None => Fate::Refused(format!("{error:#}").chars().take(80).collect()),
    }
}
