//! What is checked: every answer as it comes (P1 to P4), and at the end that everything is new everywhere (P5).

use tao_cache::{Audit, Entry, Fresh, Lookup, Mode};
use tao_model::mutation::{Rule, is_off};
use tao_model::{Key, Position, Result};

use super::{Check, FOLLOWERS, LEADERS, Pending, World};
use crate::tiers::Cache;
use crate::truth::{LOGS, is_view, keys};

impl World {
    pub(super) fn check(&mut self, read: &Pending, found: Result<Fresh<Entry>>) -> Check {
        // Whether it may fail is checked at the end.
        let Ok(Fresh { as_of, value }) = found else { return Ok(()) };
        self.answered += 1;
        let Pending { follower, log, key, mode, least, .. } = read;
        for (promise, at) in least {
            if as_of < *at {
                return Err(format!("{promise}: follower {follower} shows {key:?} at {as_of}, below {at} ({mode:?})"));
            }
        }
        let truth = self.logs[*log].state_at(key, as_of);
        if !is_view(&value, truth) {
            return Err(format!("P2: follower {follower} shows {key:?} at {as_of} as {value:?}, and it is {truth:?}"));
        }
        if self.logs[*log].holds(as_of) {
            let seen = self.seen.entry(*key).or_default();
            *seen = as_of.max(*seen);
            if !is_off(Rule::ReadTokens) {
                let token = self.token.entry(key.owner()).or_default();
                *token = as_of.max(*token);
            }
        }
        Ok(())
    }

    /// No audit may find anything.
    pub(super) fn audited(&mut self, found: Result<Audit>) -> Check {
        match found {
            Ok(Audit::Inconsistent(found)) => Err(format!("AUDIT: {found:?}")),
            Ok(Audit::Consistent) => {
                self.consistent += 1;
                Ok(())
            }
            Ok(Audit::Inconclusive) | Err(_) => Ok(()),
        }
    }

    /// P5: what was on its way arrives, and the streams drain. Then every read finds the newest state.
    pub fn drain(&mut self, messages_first: bool) -> Check {
        if messages_first {
            self.deliver_all()?;
        }
        for log in 0..LOGS {
            let head = self.logs[log].head();
            let is_behind = |cache: &Cache| {
                cache.stream.as_ref().is_none_or(|s| s.cursor != head) || cache.memory().applied() != Some(head)
            };
            for _ in 0..2_000 {
                let Some(l) = self.leaders.iter().position(|leader| is_behind(&leader[log])) else { break };
                self.stream_to_leader(l, log, 6, 2);
            }
            let led = !self.leaders.iter().any(|leader| is_behind(&leader[log]));
            let resets: Vec<_> = self.leaders.iter().map(|leader| leader[log].resets()).collect();
            let is_behind = |cache: &Cache| {
                is_behind(cache) || cache.stream.as_ref().is_none_or(|s| s.source.1 != resets[s.source.0])
            };
            for _ in 0..2_000 {
                let Some(f) = self.followers.iter().position(|follower| is_behind(&follower[log])) else { break };
                self.stream_to_follower(f, log, 6, 0, 2);
            }
            if !led || self.followers.iter().any(|follower| is_behind(&follower[log])) {
                return Err(format!("P5: the streams of log {log} don't reach {head}"));
            }
        }
        self.deliver_all()?;
        for log in 0..LOGS {
            let head = self.logs[log].head();
            for key in keys(log) {
                self.is_newest(log, key, head)?;
            }
        }
        Ok(())
    }

    fn deliver_all(&mut self) -> Check {
        loop {
            self.progress()?;
            let mut wire = self.wire.lock();
            if let Some(told) = wire.told.pop() {
                wire.do_told(told);
                continue;
            }
            let (asks, answers, found) = (wire.asks.len(), wire.answers.len(), wire.found.len());
            drop(wire);
            match (asks, answers, found, self.writes.len()) {
                (0, 0, 0, 0) => return Ok(()),
                (0, 0, 0, _) => self.deliver_written(0, 0),
                (0, 0, ..) => self.deliver_redis(0),
                (0, ..) => self.deliver_answer(0),
                _ => self.answer_ask(0, asks % LEADERS, 3),
            }
        }
    }

    fn is_newest(&mut self, log: usize, key: &Key, head: Position) -> Check {
        for (n, tier) in self.leaders.iter().chain(&self.followers).enumerate() {
            let memory = tier[log].memory();
            let truth = self.logs[log].state_at(key, head);
            if let Lookup::Hit(entry, as_of) = memory.lookup(key, 0, Position::ZERO)
                && (!is_view(&entry, truth) || as_of < head && !is_off(Rule::FreshnessSent))
            {
                return Err(format!("P5: cache {n} keeps {entry:?} of {key:?} at {as_of}, which is {truth:?}"));
            }
        }
        for f in 0..FOLLOWERS {
            self.begin_read(f, log, *key, 3, true, Mode::Cached);
            let before = self.answered;
            self.deliver_all()?;
            if self.answered == before {
                return Err(format!("P5: follower {f} has no answer for {key:?}"));
            }
            self.audit(f, log, *key);
            self.deliver_all()?;
            let truth = self.logs[log].state_at(key, head);
            let stored = self.wire.lock().redis.get(key).cloned();
            if let Some((as_of, entry)) = stored
                && self.followers[f][log].memory().fill_stored(*key, as_of, &entry).is_some()
                && !is_view(&entry, truth)
            {
                return Err(format!("P5: Redis keeps {entry:?} of {key:?} at {as_of}, which is {truth:?}"));
            }
        }
        Ok(())
    }
}
