//! What is taken in (docs/overload.md): what is configured for an identity, fair shares while there is more than can be done, and so many
//! calls under way to the leaders as these can take.

mod account;
mod brake;
mod door;
mod gate;
mod governor;
mod lane;
mod limits;
mod refusals;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use foldhash::fast::FixedState;
use metrics::Counter;
use parking_lot::RwLock;
use tao_model::{Error, Result};
use tokio::time::Instant;

pub use account::Account;
pub use door::{Admitted, Taken};
pub use gate::Gate;
use lane::Lane;
pub use lane::Pass;
pub use limits::{LimitOptions, Limits};
use refusals::Refusals;

/// What calls compete with each other for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Read, Self::Write];

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Its identity's configured rate.
    Rate,
    /// Its identity's share of an overloaded follower.
    Share,
    /// There are as many calls to the leaders under way as may be.
    Leaders,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Rate, Self::Share, Self::Leaders];

    const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Share => "share",
            Self::Leaders => "leaders",
        }
    }
}

/// A call that is not taken in.
#[derive(Debug)]
pub struct Refusal {
    reason: Reason,
    /// Random, from 0 to 1.
    spread: f64,
    /// What its caller may know beside: the rate that is exceeded, and until when it is.
    rate: Option<(u32, Kind, Duration)>,
    /// Whether its connection is not to be read for a while: it is for others that there is an end of refusing.
    pub brake: bool,
}

impl Refusal {
    /// As its caller is told.
    pub fn error(&self) -> Error {
        match (self.rate, overloaded(self.reason, self.spread)) {
            (Some((rate, kind, after)), Error::Overloaded { retry_after, .. }) => {
                let what = format!("{rate} {}s a second, which is what this caller may make", kind.name());
                Error::Overloaded { what, retry_after: retry_after + after }
            }
            (_, error) => error,
        }
    }
}

/// What there is too much of, and when to come back: later or sooner, so that not all come back together.
fn overloaded(reason: Reason, spread: f64) -> Error {
    let what = match reason {
        Reason::Rate => "calls of this caller",
        Reason::Share => "this follower has more to do than it can, and this caller asks for more than its share",
        Reason::Leaders => "as many calls are under way as the leaders can take",
    };
    Error::Overloaded { what: what.to_owned(), retry_after: COME_BACK.mul_f64(1.0 + 4.0 * spread) }
}

/// What a call costs that takes the leaders, in units of one that memory answers.
const DEAR: u32 = 8;
/// Calls in one that make it weigh as much more as a call of its own among those that are under way.
const CALLS_A_WEIGHT: usize = 8;
/// Identities that are told apart; those past it count as one.
const MOST_ACCOUNTS: usize = 10_000;
/// Refusals of an identity between two steps of the governor, after which its connections are not read until the next.
const BRAKE_AFTER: u32 = 32;
/// When to come back: after so long, up to five times as long.
const COME_BACK: Duration = Duration::from_millis(100);

/// See the module. Shared by all connections.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    /// What times are counted from.
    began: Instant,
    accounts: RwLock<HashMap<String, Arc<Account>, FixedState>>,
    others: Arc<Account>,
    /// Whether shares are looked at.
    is_pressed: AtomicBool,
    /// Whether there are identities below their share, which those above it are to be kept from.
    protects: AtomicBool,
    /// What an identity that has just come may do until the next step.
    first_share: AtomicI64,
    /// Identities that ask for something.
    active: AtomicUsize,
    lanes: [Lane; 2],
    shed: [[Counter; 2]; 3],
    /// Refused before they were decoded, and so of no known kind.
    undecoded: Counter,
    refusals: Refusals,
}

impl Admission {
    /// Nothing is limited but what is configured, until there is need. Metrics go to the recorder that is installed now.
    pub fn new(limits: Limits) -> Self {
        let counter = |reason: Reason, kind: &'static str| {
            let counter = metrics::counter!("tao_follower_shed_total", "reason" => reason.name(), "kind" => kind);
            // Shown before there is any.
            counter.increment(0);
            counter
        };
        let shed = |reason: Reason| Kind::ALL.map(|kind| counter(reason, kind.name()));
        Self {
            others: Arc::new(Account::new(&limits, "")),
            limits,
            began: Instant::now(),
            accounts: RwLock::default(),
            is_pressed: AtomicBool::new(false),
            protects: AtomicBool::new(false),
            first_share: AtomicI64::new(0),
            active: AtomicUsize::new(1),
            lanes: Kind::ALL.map(|_| Lane::default()),
            shed: Reason::ALL.map(shed),
            undecoded: counter(Reason::Share, "undecoded"),
            refusals: Refusals::default(),
        }
    }

    /// What is counted of an identity.
    pub fn account(&self, name: &str) -> Arc<Account> {
        if let Some(known) = self.accounts.read().get(name) {
            return known.clone();
        }
        let mut accounts = self.accounts.write();
        if accounts.len() >= MOST_ACCOUNTS && !accounts.contains_key(name) {
            return self.others.clone();
        }
        let account = accounts.entry(name.to_owned()).or_insert_with(|| {
            let account = Account::new(&self.limits, name);
            account.refill(self.first_share.load(Relaxed));
            Arc::new(account)
        });
        account.clone()
    }

    /// Takes in so many calls of an identity, or none.
    pub fn admit(&self, account: &Account, kind: Kind, calls: u32) -> Result<(), Refusal> {
        self.take_in(account, kind, calls, false)
    }

    /// Takes in calls which its share may have been spent for.
    fn take_in(&self, account: &Account, kind: Kind, calls: u32, is_spent: bool) -> Result<(), Refusal> {
        if calls == 0 {
            return Ok(());
        }
        if let Some(bucket) = account.bucket(kind)
            && let Err(after) = bucket.take(calls, self.began.elapsed())
        {
            let rate = Some((account.rate(kind), kind, after));
            return Err(Refusal { rate, ..self.refuse(account, Reason::Rate, kind) });
        }
        account.ask(calls);
        if !is_spent && self.is_pressed.load(Relaxed) && !account.spend(calls) {
            account.refused_work(calls);
            return Err(self.refuse(account, Reason::Share, kind));
        }
        Ok(())
    }

    /// Lets a call go on to the leaders, for as long as what this returns is held: one that is so many calls, the first of which has been
    /// taken in. Whoever has more under way than its share is refused first.
    pub fn enter(self: &Arc<Self>, account: &Arc<Account>, kind: Kind, calls: usize) -> Result<Pass> {
        self.admit(account, kind, calls.saturating_sub(1) as u32).map_err(|refusal| refusal.error())?;
        let weight = (1 + calls / CALLS_A_WEIGHT).min(lane::HEAVIEST);
        let lane = &self.lanes[kind as usize];
        let mine = account.under_way(kind);
        if !lane.enter(mine, weight, self.active.load(Relaxed)) {
            return Err(self.refuse(account, Reason::Leaders, kind).error());
        }
        account.charge(DEAR * weight as u32, self.is_pressed.load(Relaxed));
        Ok(Pass::new(self.clone(), account.clone(), kind, weight))
    }

    fn refuse(&self, account: &Account, reason: Reason, kind: Kind) -> Refusal {
        self.shed[reason as usize][kind as usize].increment(1);
        let refused = account.refused();
        let brake = refused > BRAKE_AFTER && (reason == Reason::Rate || self.protects.load(Relaxed));
        Refusal { reason, spread: spread(refused), rate: None, brake }
    }
}

/// From 0 to 1, for one after the other: any sequence does that spreads.
fn spread(refused: u32) -> f64 {
    f64::from(refused.wrapping_mul(0x9E37_79B1) >> 8) / f64::from(1 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: LimitOptions) -> Arc<Admission> {
        Arc::new(Admission::new(limits.check().unwrap()))
    }

    #[test]
    fn rates_are_by_identity_and_say_when_to_come_back() {
        let named = limits::IdentityLimits {
            name: "cert:bulk".to_owned(),
            writes_per_second: Some(50),
            reads_per_second: None,
        };
        let options = LimitOptions { writes_per_second: Some(10), identity: vec![named], ..LimitOptions::default() };
        let admission = admission(options);
        let taken = |name: &str, kind| {
            let account = admission.account(name);
            (0..100).filter(|_| admission.admit(&account, kind, 1).is_ok()).count()
        };
        // Some may be due again by the time that the last is asked for.
        assert!((10..15).contains(&taken("address:10.0.0.1", Kind::Write)));
        assert!((10..15).contains(&taken("address:10.0.0.2", Kind::Write)));
        assert!((50..60).contains(&taken("cert:bulk", Kind::Write)));
        assert_eq!(taken("address:10.0.0.1", Kind::Read), 100);
        let refusal = admission.admit(&admission.account("address:10.0.0.1"), Kind::Write, 5).unwrap_err();
        assert!(refusal.error().retry_after() > Some(Duration::from_millis(400)), "{refusal:?}");
    }

    #[test]
    fn under_pressure_a_share_is_taken_in_and_the_rest_refused() {
        let admission = admission(LimitOptions::default());
        let (greedy, polite) = (admission.account("greedy"), admission.account("polite"));
        admission.is_pressed.store(true, Relaxed);
        admission.protects.store(true, Relaxed);
        greedy.refill(50);
        polite.refill(50);
        let took = (0..500).map(|_| admission.admit(&greedy, Kind::Read, 1)).collect::<Vec<_>>();
        assert_eq!(took.iter().filter(|took| took.is_ok()).count(), 50);
        assert!(took.last().unwrap().as_ref().is_err_and(|refusal| refusal.brake));
        assert!((0..50).all(|_| admission.admit(&polite, Kind::Read, 1).is_ok()));
    }

    #[test]
    fn a_full_lane_has_room_for_whoever_has_less_than_its_share() {
        let admission = admission(LimitOptions::default());
        admission.lanes[0].set_limit(100);
        admission.active.store(2, Relaxed);
        let (greedy, polite) = (admission.account("greedy"), admission.account("polite"));
        let passes: Vec<_> = (0..200).filter_map(|_| admission.enter(&greedy, Kind::Read, 1).ok()).collect();
        assert_eq!(passes.len(), 100);
        let polite_ones: Vec<_> = (0..200).filter_map(|_| admission.enter(&polite, Kind::Read, 1).ok()).collect();
        assert_eq!(polite_ones.len(), 50);
        assert!(admission.enter(&greedy, Kind::Write, 1).is_ok(), "reads and writes have lanes of their own");
        drop((passes, polite_ones));
        assert_eq!((admission.lanes[0].under_way(), greedy.under_way(Kind::Read).load(Relaxed)), (0, 0));
    }
}
