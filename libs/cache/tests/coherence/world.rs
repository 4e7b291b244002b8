//! What happens, one step at a time, and what is checked.

mod checks;

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tao_cache::{Entry, Fresh, Mode};
use tao_model::{Change, Error, Key, ObjectId, Position};
use tao_proto::internal::{ListState, ObjectState, reply::Result as ReplyBody};

use crate::tiers::{Auditing, Cache, Reading, caches};
use crate::truth::{LOGS, Log, keys};
use crate::wire::{Node, Wire};

/// A step: what, and three choices.
pub type Step = [u8; 4];

/// Which promise was broken, and how.
pub type Check = std::result::Result<(), String>;

const LEADERS: usize = 2;
const FOLLOWERS: usize = 3;
/// Reads under way at once; before one more, the oldest is given up.
const READS: usize = 6;

/// A write's answer, on its way.
#[derive(Clone)]
struct Written {
    to: Node,
    /// Of a leader's, the follower that it passes the answer on to.
    then: usize,
    log: usize,
    changes: Vec<Change>,
    /// Of a write that found nothing to change: of what, and when.
    unchanged: Option<(Key, Position)>,
}

/// A session's read through a follower.
struct Pending {
    follower: usize,
    log: usize,
    key: Key,
    mode: Mode,
    /// What its answer must not be behind: P1, P3, P4, and STRONG.
    least: [(&'static str, Position); 4],
    reading: Reading,
}

/// A leader at work for a follower.
struct Work {
    leader: usize,
    ask: crate::wire::Ask,
    reading: Reading,
}

pub struct World {
    logs: Vec<Log>,
    leaders: Vec<Vec<Cache>>,
    followers: Vec<Vec<Cache>>,
    wire: Arc<Mutex<Wire>>,
    writes: Vec<Written>,
    work: Vec<Work>,
    reads: Vec<Pending>,
    /// With the follower whose cache is audited.
    audits: Vec<(usize, Auditing)>,
    /// Up to where each follower has acknowledged writes.
    acknowledged: Vec<HashMap<Key, Position>>,
    /// The newest of these writes: what most is at stake.
    newest: Vec<Option<(usize, Key)>>,
    /// What one session has seen, and its token: by object, since that is what a shard is here.
    seen: HashMap<Key, Position>,
    token: HashMap<ObjectId, Position>,
    /// How many reads were answered.
    pub answered: u64,
    /// How many audits found that all is well.
    pub consistent: u64,
}

impl World {
    pub fn new() -> Self {
        let wire = Arc::default();
        let mut world = Self {
            logs: (0..LOGS).map(Log::new).collect(),
            leaders: (0..LEADERS).map(|n| caches(Node::Leader(n), &wire)).collect(),
            followers: (0..FOLLOWERS).map(|n| caches(Node::Follower(n), &wire)).collect(),
            wire,
            writes: Vec::new(),
            work: Vec::new(),
            reads: Vec::new(),
            audits: Vec::new(),
            acknowledged: vec![HashMap::new(); FOLLOWERS],
            newest: vec![None; FOLLOWERS],
            seen: HashMap::new(),
            token: HashMap::new(),
            answered: 0,
            consistent: 0,
        };
        for log in 0..LOGS {
            (0..LEADERS).for_each(|l| world.connect_leader(l, log, 0));
            (0..FOLLOWERS).for_each(|f| world.connect_follower(f, log, f % LEADERS, 0));
        }
        world
    }

    pub fn step(&mut self, [op, a, b, c]: Step) -> Check {
        let (log, follower, leader) = (usize::from(a & 1), usize::from(b) % FOLLOWERS, usize::from(b / 4) % LEADERS);
        let key = keys(log)[usize::from(a / 2) % keys(log).len()];
        match op % 32 {
            0..=3 => self.write(log, follower, leader, [a, b, c]),
            4..=5 => self.stream_to_leader(leader, log, a, c),
            6..=8 => self.stream_to_follower(follower, log, a, b, c),
            9..=15 => return self.read(follower, leader, log, key, c),
            16..=24 => self.deliver(a, leader, c),
            25 => self.lose(a, c),
            26..=27 => self.evict(follower, leader, log, &key, a, c),
            28..=29 => self.disturb(follower, leader, log, b, c),
            30 => self.audit(follower, log, key),
            _ => self.tell_redis(),
        }
        self.progress()
    }

    /// A session writes through a follower and a leader.
    fn write(&mut self, log: usize, follower: usize, leader: usize, [a, b, c]: [u8; 3]) {
        let is_needless = c % 8 == 7;
        let key = keys(log)[usize::from(a / 2) % keys(log).len()];
        let changes = if is_needless { Vec::new() } else { self.logs[log].commit(log, a / 2, b / 8, c) };
        let unchanged = is_needless.then(|| (key, self.logs[log].head()));
        let written = Written { to: Node::Leader(leader), then: follower, log, changes, unchanged };
        if c & 16 == 16 {
            // Acknowledged at once.
            self.apply_written(written);
            self.deliver_written(u8::MAX, 0);
        } else {
            self.writes.push(written);
        }
    }

    /// Something arrives, if anything is on its way.
    fn deliver(&mut self, a: u8, l: usize, c: u8) {
        let wire = self.wire.lock();
        let waiting = [wire.asks.len(), wire.answers.len(), wire.found.len(), self.writes.len()];
        drop(wire);
        let Some(n) = (0..4).map(|n| (n + usize::from(c / 8)) % 4).find(|n| waiting[*n] > 0) else { return };
        match n {
            0 => self.answer_ask(a, l, c),
            1 => self.deliver_answer(a),
            2 => self.deliver_redis(a),
            _ => self.deliver_written(a, c),
        }
    }

    fn tell_redis(&self) {
        let mut wire = self.wire.lock();
        if let Some(told) = wire.told.pop() {
            wire.do_told(told);
        }
    }

    fn deliver_written(&mut self, a: u8, c: u8) {
        if self.writes.is_empty() {
            return;
        }
        let n = pick(a, self.writes.len());
        let written = self.writes.swap_remove(n);
        if c % 8 == 1 {
            self.writes.push(written.clone());
        }
        self.apply_written(written);
    }

    fn apply_written(&mut self, written: Written) {
        let Written { to, then, log, ref changes, unchanged } = written;
        if let (Node::Follower(f), Some((key, at))) = (to, unchanged) {
            self.followers[f][log].memory().outdate(&key, at);
        }
        match to {
            Node::Leader(l) => {
                self.leaders[l][log].reader.apply_write(changes);
                self.writes.push(Written { to: Node::Follower(then), ..written });
            }
            Node::Follower(f) => {
                self.followers[f][log].reader.apply_write(changes);
                let changed = changes.iter().map(|change| (change.key(), change.position));
                for (key, at) in changed.chain(unchanged) {
                    if !self.logs[log].holds(at) {
                        continue;
                    }
                    let known = self.acknowledged[f].entry(key).or_default();
                    *known = at.max(*known);
                    self.newest[f] = Some((log, key));
                    self.merge(key, at);
                }
            }
        }
    }

    /// What the session has seen.
    fn merge(&mut self, key: Key, at: Position) {
        let seen = self.seen.entry(key).or_default();
        *seen = at.max(*seen);
        let token = self.token.entry(key.owner()).or_default();
        *token = at.max(*token);
    }

    fn stream_to_leader(&mut self, l: usize, log: usize, a: u8, c: u8) {
        let Some(stream) = &self.leaders[l][log].stream else { return self.connect_leader(l, log, c) };
        let until = self.logs[log].head_of(stream.cursor.epoch);
        // What is undone may still come, until the stream ends.
        if until != self.logs[log].head() && (stream.cursor == until || c & 2 == 0) {
            return self.connect_leader(l, log, c);
        }
        if !self.leaders[l][log].carry(&self.logs[log], until, usize::from(a / 2 % 4) + 1, c.is_multiple_of(16)) {
            self.connect_leader(l, log, c);
        }
    }

    /// The store sends what a leader asks for as long as it is of this epoch, now and then from earlier on; else from where it stands.
    fn connect_leader(&mut self, l: usize, log: usize, back: u8) {
        let (head, base) = (self.logs[log].head(), self.logs[log].base_of(self.logs[log].head().epoch));
        let leader = &mut self.leaders[l][log];
        let wanted = leader.memory().resume_point();
        let at = match wanted {
            Some(at) if at.epoch == head.epoch && at <= head && back % 4 != 1 => at,
            _ => head,
        };
        // Older: what comes again does no harm.
        let at = Position::new(at.epoch, at.lsn.saturating_sub(u64::from(back / 8 % 4)).max(base.lsn));
        leader.subscribe(at, (0, 0));
    }

    fn stream_to_follower(&mut self, f: usize, log: usize, a: u8, b: u8, c: u8) {
        let other = usize::from(b / 16) % LEADERS;
        let Some(source) = self.followers[f][log].stream.as_ref().map(|stream| stream.source) else {
            return self.connect_follower(f, log, other, c);
        };
        let leader = &self.leaders[source.0][log];
        let is_over = source.1 != leader.resets();
        if is_over {
            return self.connect_follower(f, log, other, c);
        }
        let until = leader.kept.1;
        if !self.followers[f][log].carry(&self.logs[log], until, usize::from(a / 2 % 4) + 1, c.is_multiple_of(16)) {
            self.connect_follower(f, log, other, c);
        }
    }

    /// A leader sends what a follower asks for as long as it has it: from the smaller of what both have applied, now and then from
    /// earlier on. Else from a little before where it stands.
    fn connect_follower(&mut self, f: usize, log: usize, l: usize, back: u8) {
        let leader = &self.leaders[l][log];
        let ((from, to), resets) = (leader.kept, leader.resets());
        let follower = &mut self.followers[f][log];
        follower.end();
        if resets == 0 {
            return;
        }
        let wanted = follower.memory().resume_point().filter(|at| at.epoch == to.epoch && back % 4 != 1);
        let at = wanted.map_or(to, |at| at.min(to));
        let at = Position::new(to.epoch, at.lsn.saturating_sub(u64::from(back / 8 % 8))).clamp(from, to);
        follower.subscribe(at, (l, resets));
    }

    fn read(&mut self, f: usize, l: usize, log: usize, key: Key, c: u8) -> Check {
        if self.reads.len() >= READS {
            drop(self.reads.remove(0));
        }
        let (with_token, of_own, is_swift) = (c & 1 == 1, c >> 5 & 3 == 3, c & 16 == 16);
        let (log, key) = self.newest[f].filter(|_| of_own).unwrap_or((log, key));
        let mode = if c % 16 == 15 { Mode::Strong } else { Mode::Cached };
        self.begin_read(f, log, key, usize::from(c / 2 % 4), with_token, mode);
        self.progress()?;
        // Its messages arrive first: from Redis, and at this leader.
        for _ in 0..if is_swift { 6 } else { 0 } {
            let wire = self.wire.lock();
            let (found, answers, asks) = (wire.found.len(), wire.answers.len(), wire.asks.len());
            drop(wire);
            match (found, answers, asks) {
                (0, 0, 0) => break,
                (0, 0, _) => self.answer_ask(u8::MAX, l, c),
                (0, ..) => self.deliver_answer(u8::MAX),
                _ => self.deliver_redis(u8::MAX),
            }
            self.progress()?;
        }
        Ok(())
    }

    fn begin_read(&mut self, f: usize, log: usize, key: Key, newest: usize, with_token: bool, mode: Mode) {
        let of = |known: &HashMap<Key, Position>| known.get(&key).copied().unwrap_or_default();
        let floor = if with_token { self.token.get(&key.owner()).copied().unwrap_or_default() } else { Position::ZERO };
        let seen = if with_token { of(&self.seen) } else { Position::ZERO };
        let head = if mode == Mode::Strong { self.logs[log].head() } else { Position::ZERO };
        let least = [("P1", floor), ("P3", of(&self.acknowledged[f])), ("P4", seen), ("STRONG", head)];
        let reading = self.followers[f][log].read(key, newest, floor, mode);
        self.reads.push(Pending { follower: f, log, key, mode, least, reading });
    }

    fn audit(&mut self, f: usize, log: usize, key: Key) {
        if self.audits.len() >= READS {
            drop(self.audits.remove(0));
        }
        self.audits.push((f, self.followers[f][log].audit(key)));
    }

    /// A question arrives: at a leader, which reads through its own caches, or at the store.
    fn answer_ask(&mut self, a: u8, l: usize, c: u8) {
        let mut wire = self.wire.lock();
        if wire.asks.is_empty() {
            return;
        }
        let n = pick(a, wire.asks.len());
        let ask = wire.asks.swap_remove(n);
        match ask.from {
            Node::Follower(_) => {
                drop(wire);
                let reading = self.leaders[l][ask.log].read(ask.key, ask.newest, ask.floor, ask.mode);
                self.work.push(Work { leader: l, ask, reading });
            }
            Node::Leader(_) => {
                // Large edges: fewer come than were asked for.
                let newest = if c.is_multiple_of(4) { ask.newest.min(usize::from(c / 4 % 4) + 1) } else { ask.newest };
                let (as_of, value) = self.logs[ask.log].read(&ask.key, newest);
                let answer =
                    if as_of < ask.floor { Err(Error::unavailable("ahead")) } else { Ok(body(as_of, &value, newest)) };
                wire.answers.push((ask.from, ask.reply, answer));
            }
        }
    }

    fn deliver_answer(&mut self, a: u8) {
        let mut wire = self.wire.lock();
        if wire.answers.is_empty() {
            return;
        }
        let n = pick(a, wire.answers.len());
        let (_, reply, answer) = wire.answers.swap_remove(n);
        drop(wire);
        // Perhaps nobody waits any more.
        let _ = reply.send(answer);
    }

    fn deliver_redis(&mut self, a: u8) {
        let mut wire = self.wire.lock();
        if wire.found.is_empty() {
            return;
        }
        let n = pick(a, wire.found.len());
        let found = wire.found.swap_remove(n);
        drop(wire);
        let _ = found.reply.send(found.value);
    }

    fn lose(&mut self, a: u8, c: u8) {
        let mut wire = self.wire.lock();
        let n = usize::from(a);
        match c % 5 {
            0 if !wire.asks.is_empty() => drop({
                let n = n % wire.asks.len();
                wire.asks.swap_remove(n)
            }),
            1 if !wire.answers.is_empty() => drop({
                let n = n % wire.answers.len();
                wire.answers.swap_remove(n)
            }),
            2 => drop(wire.told.pop()),
            3 if !wire.found.is_empty() => drop({
                let n = n % wire.found.len();
                wire.found.swap_remove(n)
            }),
            _ if !self.writes.is_empty() => drop(self.writes.swap_remove(n % self.writes.len())),
            _ => {}
        }
    }

    fn evict(&self, f: usize, l: usize, log: usize, key: &Key, a: u8, c: u8) {
        let mut wire = self.wire.lock();
        match c % 4 {
            0 => self.leaders[l][log].memory().evict(key),
            1 => self.followers[f][log].memory().evict(key),
            2 => drop(wire.redis.remove(key)),
            _ if !wire.old.is_empty() => {
                let (key, as_of, entry) = wire.old[usize::from(a) % wire.old.len()].clone();
                wire.redis.insert(key, (as_of, entry));
            }
            _ => {}
        }
    }

    fn disturb(&mut self, f: usize, l: usize, log: usize, b: u8, c: u8) {
        match c % 8 {
            0 => self.restore(log, f, l, b),
            1 => self.leaders[l][log].end(),
            2 => self.followers[f][log].end(),
            3 => self.connect_leader(l, log, b),
            4 | 5 => self.connect_follower(f, log, l, b),
            6 => self.new_follower(f),
            _ => self.new_leader(l),
        }
    }

    /// Another process takes a follower's place, and knows of nothing.
    fn new_follower(&mut self, f: usize) {
        self.reads.retain(|read| read.follower != f);
        self.audits.retain(|(follower, _)| *follower != f);
        self.forget(Node::Follower(f));
        self.writes.retain(|written| written.to != Node::Follower(f) && written.then != f);
        self.acknowledged[f].clear();
        self.newest[f] = None;
        self.followers[f] = caches(Node::Follower(f), &self.wire);
    }

    fn new_leader(&mut self, l: usize) {
        self.work.retain(|work| work.leader != l);
        self.forget(Node::Leader(l));
        self.writes.retain(|written| written.to != Node::Leader(l));
        self.leaders[l] = caches(Node::Leader(l), &self.wire);
        for cache in self.followers.iter_mut().flatten() {
            if cache.stream.as_ref().is_some_and(|stream| stream.source.0 == l) {
                cache.end();
            }
        }
    }

    fn forget(&mut self, node: Node) {
        self.work.retain(|work| work.ask.from != node);
        let mut wire = self.wire.lock();
        wire.asks.retain(|ask| ask.from != node);
        wire.answers.retain(|(to, ..)| *to != node);
        wire.found.retain(|found| node != Node::Follower(found.to));
    }

    /// The caches hear of it when their streams end; until then they live in the undone history.
    fn restore(&mut self, log: usize, f: usize, l: usize, b: u8) {
        let Some((first, key)) = self.logs[log].restore(usize::from(b / 16 % 4)) else { return };
        // What was promised in the undone history is void: sessions that saw it are refused.
        let is_of = |key: &Key| keys(log).contains(key);
        let is_void = |at: &Position| *at >= first;
        self.token.retain(|id, at| !is_of(&Key::Object(*id)) || !is_void(at));
        self.seen.retain(|key, _| self.token.contains_key(&key.owner()));
        self.acknowledged.iter_mut().for_each(|known| known.retain(|key, at| !is_of(key) || !is_void(at)));
        self.reads.retain(|read| read.log != log || !read.least.iter().any(|(_, at)| is_void(at)));
        // What was undone is often done again at once.
        if b & 8 == 8 {
            let changes = self.logs[log].commit_to(key, b / 2, b);
            self.writes.push(Written { to: Node::Leader(l), then: f, log, changes, unchanged: None });
        }
    }

    /// Everybody who waits looks whether it has come.
    fn progress(&mut self) -> Check {
        loop {
            let mut moved = false;
            for n in (0..self.work.len()).rev() {
                if let Some(found) = (&mut self.work[n].reading).now_or_never() {
                    let Work { ask, .. } = self.work.swap_remove(n);
                    let answer = found.map(|found| body(found.as_of, &found.value, ask.newest));
                    self.wire.lock().answers.push((ask.from, ask.reply, answer));
                    moved = true;
                }
            }
            for n in (0..self.reads.len()).rev() {
                if let Some(found) = (&mut self.reads[n].reading).now_or_never() {
                    let read = self.reads.remove(n);
                    self.check(&read, found)?;
                    moved = true;
                }
            }
            for n in (0..self.audits.len()).rev() {
                if let Some(found) = (&mut self.audits[n].1).now_or_never() {
                    drop(self.audits.remove(n));
                    self.audited(found)?;
                    moved = true;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

/// One of so many; the last, which came last, for the largest number.
fn pick(a: u8, of: usize) -> usize {
    if a == u8::MAX { of - 1 } else { usize::from(a) % of }
}

/// As a tier answers: not more than was asked for, whatever else is cached.
fn body(as_of: Position, entry: &Entry, newest: usize) -> Fresh<ReplyBody> {
    let value = match entry {
        Entry::Object(object) => ReplyBody::Object(ObjectState { object: object.clone() }),
        Entry::List(list) => ReplyBody::List(ListState { count: list.count(), edges: list.newest_bytes(newest) }),
    };
    Fresh { as_of, value }
}
