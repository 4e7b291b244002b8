//! Judges reads: each must show a state that its key had, not older than what was promised.

use std::collections::HashMap;

use tao_model::Key;

use crate::check::bounds::{Bounds, KnownBy};
use crate::check::{
    Arena, History, Kind, Level, Lsn, Outcome, Process, Read, Seen, SessionHistory, Step, Time, Truth, Violation,
};

impl Truth {
    /// The first of the states that were current at some position within the bounds and give this answer: where it began.
    pub(crate) fn earliest(&self, key: Key, lo: Lsn, hi: Lsn, seen: &Seen, arena: &Arena) -> Option<Lsn> {
        let log = self.log_of(key);
        match (key, seen) {
            (Key::Object(id), Seen::Object(hash)) => match log.objects.get(&id) {
                Some(object) => object.earliest(lo, hi, *hash),
                None => (*hash == super::ABSENT && lo <= hi).then_some(0),
            },
            (Key::List(id1, atype), _) => match log.lists.get(&(id1, atype)) {
                Some(list) => list.earliest(lo, hi, seen, arena),
                None => super::list::ListHistory::default().earliest(lo, hi, seen, arena),
            },
            (Key::Object(_), _) => None,
        }
    }
}

/// A lower bound, and which promise makes it one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub lsn: Lsn,
    pub promise: Kind,
}

/// What became of judging all reads.
#[derive(Default)]
pub(crate) struct Reads {
    pub violations: Vec<Violation>,
    pub reads: u64,
}

/// What must be looked at again, when it is known who saw what when.
struct Later<'a> {
    session: &'a SessionHistory,
    step: usize,
    read: &'a Read,
    /// From when on what was seen counts.
    since: Time,
    matched: Lsn,
}

/// Judges all reads of a history.
pub(crate) fn examine(truth: &Truth, history: &History, bounds: &Bounds) -> Reads {
    let mut out = Reads::default();
    let mut observed: KnownBy<Key> = KnownBy::default();
    let mut later = Vec::new();
    for session in &history.sessions {
        let mut own: HashMap<Key, Lsn> = HashMap::new();
        for (step, what) in session.steps.iter().enumerate() {
            match what {
                Step::Read(read) => {
                    out.reads += u64::from(!read.continued && read.level != Level::Settled);
                    let bound = lower_bound(truth, read, own.get(&read.key).copied().unwrap_or(0), bounds);
                    match check(truth, read, bound, bounds, &session.arena) {
                        Ok(matched) => {
                            observed.add(read.key, read.end, matched);
                            // What was seen without the token is not in the token, unless the answer claims it.
                            let at = own.entry(read.key).or_default();
                            *at = matched.max(*at);
                            if let Some(since) = since(read) {
                                later.push(Later { session, step, read, since, matched });
                            }
                        }
                        Err((kind, text)) => {
                            let text = format!("{text}\n{}", truth.explain(session, step, read, bound.lsn));
                            let violation = Violation { kind, time: read.start, session: Some(session.id), text };
                            out.violations.push(violation);
                        }
                    }
                }
                Step::Write(write) => {
                    if let Outcome::Done(done) = &write.outcome {
                        for mark in truth.marks(write, done).unwrap_or_default() {
                            let at = own.entry(mark.key).or_default();
                            *at = mark.lsn.max(*at);
                        }
                    }
                }
                Step::Failed(_) => {}
                Step::Odd(odd) => {
                    let (time, kind, text) = odd.as_ref();
                    let violation =
                        Violation { kind: *kind, time: *time, session: Some(session.id), text: text.clone() };
                    out.violations.push(violation);
                }
            }
        }
    }
    observed.settle();
    for Later { session, step, read, since, matched } in later {
        let lsn = observed.before(&read.key, since);
        if lsn <= matched {
            continue;
        }
        let promise = if read.level == Level::Strong { Kind::NotStrong } else { Kind::TooStale };
        if let Err((kind, text)) = check(truth, read, Bound { lsn, promise }, bounds, &session.arena) {
            let text = format!("{text}; another session had seen it\n{}", truth.explain(session, step, read, lsn));
            out.violations.push(Violation { kind, time: read.start, session: Some(session.id), text });
        }
    }
    out
}

/// From when on what is known to be committed must be in the answer.
fn since(read: &Read) -> Option<Time> {
    match read.level {
        Level::Cached | Level::Settled => None,
        Level::Bounded(ms) => Some(read.start.saturating_sub(ms.saturating_mul(1_000))),
        Level::Strong => Some(read.start),
    }
}

/// The highest position that a promise holds the read to.
fn lower_bound(truth: &Truth, read: &Read, own: Lsn, bounds: &Bounds) -> Bound {
    let mut bound = Bound { lsn: read.claim, promise: Kind::FalseFreshness };
    let mut raise = |lsn, promise| {
        if lsn >= bound.lsn && lsn > 0 {
            bound = Bound { lsn, promise };
        }
    };
    if read.floored {
        raise(read.floor, Kind::BehindToken);
        raise(own, Kind::SessionWentBack);
    }
    if read.process != Process::UNKNOWN {
        raise(bounds.by_process.before(&(read.process, read.key), read.start), Kind::FollowerForgot);
    }
    if read.level == Level::Settled {
        raise(truth.head(truth.shape.log(read.key.owner())), Kind::StaleForEver);
    }
    if let Some(since) = since(read) {
        let promise = if read.level == Level::Strong { Kind::NotStrong } else { Kind::TooStale };
        raise(bounds.acknowledged.before(&read.key, since), promise);
    }
    bound
}

/// Where the state that was seen began.
fn check(truth: &Truth, read: &Read, bound: Bound, bounds: &Bounds, arena: &Arena) -> Result<Lsn, (Kind, String)> {
    let log = truth.shape.log(read.key.owner());
    let head = truth.head(log);
    let newest = bounds.first_after(log, read.end).saturating_sub(1).min(head);
    let earliest = |lo, hi| truth.earliest(read.key, lo, hi, &read.seen, arena);
    if read.claim > head {
        return Err((Kind::FromFuture, format!("it claims {}, and the log ends at {head}", read.claim)));
    }
    // What the answer claims is what it should show.
    if read.claim >= bound.lsn
        && let Some(at) = earliest(read.claim, read.claim.min(newest))
    {
        return Ok(at);
    }
    if let Some(at) = earliest(bound.lsn, newest) {
        return Ok(at);
    }
    let old = bound.lsn.checked_sub(1).and_then(|hi| earliest(0, hi));
    Err(match old {
        Some(at) => (bound.promise, format!("shows the state of {at}, and must show that of {} or later", bound.lsn)),
        None => match earliest(newest, head) {
            Some(at) => (Kind::FromFuture, format!("shows the state of {at}, which begins after {newest}")),
            None => {
                (Kind::NeverWas, format!("shows a state that never was, and must show one of {} or later", bound.lsn))
            }
        },
    })
}
