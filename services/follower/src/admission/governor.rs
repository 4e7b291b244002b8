//! What adapts limits: ten times a second it looks at how long calls wait for the event loops and for the leaders, and who asks for how
//! much.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::fast::FixedState;
use metrics::{Gauge, gauge};
use tao_admission::{Concurrency, ConcurrencyOptions, Lag, WorkLimit, WorkOptions, fair_level, mean_wait};
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{Admission, Kind};

const STEP: Duration = Duration::from_millis(100);
/// How often event loops are looked at.
const BEAT: Duration = Duration::from_millis(20);
/// The share of its time that a loop is at work, up to which others make it wait, and from which on it does so itself.
const IDLE: f64 = 0.6;
const BUSY: f64 = 0.85;
/// Over which that share is smoothed: the weight of the last step.
const BUSY_LAST: f64 = 0.3;
/// Seconds of its share that an identity may save up.
const SAVED: f64 = 0.25;
/// Over which an identity's demand is smoothed: the weight of the last step.
const LAST: f64 = 0.3;
/// Steps without a call after which an identity that nobody holds is forgotten; by then its buckets are full.
const FORGET_AFTER: u32 = 50;
/// An identity that asks for less than this, a second, does not ask.
const NOTHING: f64 = 0.5;
/// For whoever is below its share.
const PLENTY: i64 = i64::MAX / 4;

/// What is remembered of an identity from step to step.
#[derive(Debug, Default)]
struct Known {
    asked: u64,
    refused: u64,
    /// Smoothed, a second.
    demand: f64,
    idle: u32,
}

struct Shown {
    wait: Gauge,
    work: Gauge,
    identities: Gauge,
    lanes: [(Gauge, Gauge); 2],
}

struct Governor {
    work: WorkLimit,
    lanes: [Concurrency; 2],
    known: HashMap<String, Known, FixedState>,
    shown: Shown,
}

impl Admission {
    /// Adapts limits for as long as it is polled. The event loops are those of these runtimes; this one where there are none.
    pub async fn keep_governing(&self, runtimes: Vec<Handle>) -> Infallible {
        let began = self.began;
        let runtimes = if runtimes.is_empty() { vec![Handle::current()] } else { runtimes };
        let mut loops: Vec<_> = runtimes.into_iter().map(|runtime| EventLoop::watch(runtime, began)).collect();
        let mut governor = Governor::new();
        let mut at = began.elapsed();
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = began.elapsed();
            let elapsed = now.saturating_sub(at);
            if elapsed.is_zero() {
                continue;
            }
            at = now;
            // The worst of them: its callers wait that long.
            let wait = loops.iter_mut().map(|event_loop| event_loop.wait(now, elapsed)).max();
            governor.step(self, elapsed, wait.unwrap_or_default());
        }
    }
}

/// One event loop, as it is seen from step to step.
struct EventLoop {
    runtime: Handle,
    lag: Arc<Lag>,
    waited: u64,
    busy: Duration,
    /// Smoothed: the share of its time that it is at work, or would be if it were let.
    busy_share: f64,
    _watch: AbortOnDropHandle<()>,
}

impl EventLoop {
    fn watch(runtime: Handle, began: Instant) -> Self {
        let lag = Arc::new(Lag::default());
        lag.record(began.elapsed(), Duration::ZERO);
        let watch = AbortOnDropHandle::new(runtime.spawn(watch(lag.clone(), began)));
        let busy = runtime.metrics().worker_total_busy_duration(0);
        Self { runtime, lag, waited: 0, busy, busy_share: 0.0, _watch: watch }
    }

    /// How long its callers waited for it because of what it has to do.
    fn wait(&mut self, now: Duration, elapsed: Duration) -> Duration {
        let waited = self.lag.waited(now, BEAT);
        let since = waited.saturating_sub(std::mem::replace(&mut self.waited, waited));
        let busy = self.runtime.metrics().worker_total_busy_duration(0);
        let worked = busy.saturating_sub(std::mem::replace(&mut self.busy, busy));
        let share = worked.as_secs_f64() / elapsed.as_secs_f64();
        self.busy_share += BUSY_LAST * (share.min(2.0) - self.busy_share);
        mean_wait(since, elapsed).mul_f64(own_share(self.busy_share))
    }
}

/// How much of the waiting for a loop is of its own making: a neighbour makes one wait that is idle, and to do less would not help.
fn own_share(busy: f64) -> f64 {
    ((busy - IDLE) / (BUSY - IDLE)).clamp(0.0, 1.0)
}

/// Notes how late timers fire.
async fn watch(lag: Arc<Lag>, began: Instant) {
    loop {
        let due = Instant::now() + BEAT;
        sleep_until(due).await;
        let now = Instant::now();
        // A timer is good to a millisecond.
        let late = now.saturating_duration_since(due).saturating_sub(Duration::from_millis(1));
        lag.record(now.saturating_duration_since(began), late);
    }
}

impl Governor {
    fn new() -> Self {
        let lane = |kind: Kind| {
            let limit = gauge!("tao_follower_leader_calls_limit", "kind" => kind.name());
            (limit, gauge!("tao_follower_leader_calls_under_way", "kind" => kind.name()))
        };
        Self {
            work: WorkLimit::new(WorkOptions::default()),
            lanes: Kind::ALL.map(|_| Concurrency::new(ConcurrencyOptions::default())),
            known: HashMap::default(),
            shown: Shown {
                wait: gauge!("tao_follower_loop_wait_seconds"),
                work: gauge!("tao_follower_work_limit"),
                identities: gauge!("tao_follower_identities"),
                lanes: Kind::ALL.map(lane),
            },
        }
    }

    fn step(&mut self, admission: &Admission, elapsed: Duration, wait: Duration) {
        let seconds = elapsed.as_secs_f64();
        let (mut asked, mut refused, mut demands) = (0, 0, Vec::new());
        let accounts = admission.accounts.read();
        for (name, account) in accounts.iter() {
            let known = match self.known.get_mut(name) {
                Some(known) => known,
                None => self.known.entry(name.clone()).or_default(),
            };
            let (now_asked, now_refused) = account.totals();
            let (more, less) = (now_asked - known.asked, now_refused.saturating_sub(known.refused));
            (known.asked, known.refused) = (now_asked, now_refused);
            known.demand += LAST * (more as f64 / seconds - known.demand);
            known.idle = if more == 0 { known.idle + 1 } else { 0 };
            asked += more;
            refused += less;
            if known.demand > NOTHING {
                demands.push(known.demand);
            }
        }
        let taken = asked.saturating_sub(refused) as f64 / seconds;
        let adapted = self.work.step(elapsed, wait, asked as f64 / seconds, taken);
        let limit = adapted.filter(|_| admission.limits.is_adaptive());
        admission.active.store(demands.len().max(1), Relaxed);
        share(admission, &accounts, limit, &mut demands, seconds);
        drop(accounts);
        self.forget(admission);
        for (n, lane) in admission.lanes.iter().enumerate() {
            let under_way = lane.under_way();
            let limit = self.lanes[n].step(elapsed, lane.take_ended(), under_way);
            if admission.limits.is_adaptive() {
                lane.set_limit(limit);
            }
            self.shown.lanes[n].0.set(limit as f64);
            self.shown.lanes[n].1.set(under_way as f64);
        }
        self.shown.wait.set(self.work.wait().as_secs_f64());
        self.shown.work.set(limit.unwrap_or(0.0));
        self.shown.identities.set(self.known.len() as f64);
    }

    /// Drops identities that have not asked for anything for a while and that no stream belongs to.
    fn forget(&mut self, admission: &Admission) {
        let idle = |known: &Known| known.idle >= FORGET_AFTER;
        if !self.known.values().any(idle) {
            return;
        }
        let mut accounts = admission.accounts.write();
        self.known.retain(|name, known| {
            if !idle(known) {
                return true;
            }
            known.idle = 0;
            let is_held = accounts.get(name).is_some_and(|account| Arc::strong_count(account) > 1);
            if !is_held {
                accounts.remove(name);
            }
            is_held
        });
    }
}

/// Gives shares of the limit, or all that anybody wants.
fn share(
    admission: &Admission,
    accounts: &HashMap<String, Arc<super::Account>, FixedState>,
    limit: Option<f64>,
    demands: &mut [f64],
    seconds: f64,
) {
    let level = limit.map_or(f64::INFINITY, |limit| fair_level(limit, demands));
    let is_below = demands.iter().any(|demand| *demand < 0.9 * level);
    // One that has just come may ask for as much as anybody.
    let share = if level.is_finite() { (level * seconds).ceil() as i64 } else { PLENTY };
    let most = if level.is_finite() { ((level * SAVED).ceil() as i64).max(share) } else { PLENTY };
    admission.first_share.store(share, Relaxed);
    for account in accounts.values().chain([&admission.others]) {
        // What was overdrawn is paid back, but not for ever.
        let left = account.left().clamp(-most, most);
        account.refill(left.saturating_add(share).min(most));
    }
    admission.protects.store(is_below && level.is_finite(), Relaxed);
    admission.is_pressed.store(level.is_finite(), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::LimitOptions;

    #[test]
    fn who_asks_for_little_is_not_limited_by_who_asks_for_much() {
        let admission =
            Admission::new(LimitOptions { adaptive: Some(true), ..LimitOptions::default() }.check().unwrap());
        let mut governor = Governor::new();
        let (greedy, polite) = (admission.account("greedy"), admission.account("polite"));
        let mut took = [0; 2];
        for step in 0..100 {
            let admit = |account: &super::super::Account, calls| {
                (0..calls).filter(|_| admission.admit(account, Kind::Read, 1).is_ok()).count()
            };
            let now = [admit(&polite, 50), admit(&greedy, 5_000)];
            if step >= 50 {
                took = [took[0] + now[0], took[1] + now[1]];
            }
            // It gets through 1,000 a step.
            let is_late = now[0] + now[1] > 1_000;
            governor.step(&admission, STEP, if is_late { Duration::from_millis(40) } else { Duration::ZERO });
        }
        assert_eq!(took[0], 50 * 50);
        assert!((25_000..60_000).contains(&took[1]), "{took:?}");
        assert!(admission.protects.load(Relaxed));
    }

    #[test]
    fn an_idle_loop_that_has_to_wait_is_not_overloaded() {
        assert_eq!((own_share(0.3), own_share(0.6), own_share(0.85), own_share(1.4)), (0.0, 0.0, 1.0, 1.0));
    }

    #[test]
    fn who_is_gone_is_forgotten_unless_something_is_under_way() {
        let admission =
            Arc::new(Admission::new(LimitOptions { adaptive: Some(true), ..LimitOptions::default() }.check().unwrap()));
        let mut governor = Governor::new();
        let _ = admission.account("gone");
        let held = admission.account("held");
        assert!(admission.admit(&held, Kind::Read, 1).is_ok());
        (0..2 * FORGET_AFTER).for_each(|_| governor.step(&admission, STEP, Duration::ZERO));
        let left: Vec<_> = admission.accounts.read().keys().cloned().collect();
        assert_eq!((left, governor.known.len()), (vec!["held".to_owned()], 1));
    }
}
