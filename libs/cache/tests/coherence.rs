//! The coherence rules under random interleavings, against a model: one log, a leader, two followers and a Redis that they share.
//! Every message may be late, lost, doubled or out of order; entries are evicted, streams break, history is undone. A failure
//! prints the steps, shrunk; `TAO_CASES` multiplies how many histories are run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use tao_cache::{CacheOptions, CachedList, Entry, Lookup, MemoryCache};
use tao_model::{Change, ChangeKind, Edge, EdgeKey, Key, ListDelta, ObjectId, Position, ShardId, SystemClock, TypeId};
use tao_proto::edges::{encode_edge, encode_list};

/// A step: what, and three choices.
type Step = (u8, u8, u8, u8);

/// A rule that is switched off, to show that the checks would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    /// Rule 4: a fill that arrives late is taken as if it were of now.
    LateFillBelieved,
    /// Rule 5: a list change is applied without its predecessor.
    DeltaWithoutPredecessor,
    /// Rule 6: a change is skipped and the stream goes on.
    GapIgnored,
    /// Rule 7: the memory is cleared at a reset.
    MemoryCleared,
    /// Rule 8: a value of Redis is believed without the test.
    RedisTrusted,
    /// Rule 2: a miss asks the next tier without its floor.
    NoFloor,
    /// Rule 9: a write's answer is not applied.
    AnswerNotApplied,
    /// Positions: all changes of a commit get the same one.
    OnePositionACommit,
}

/// What a key is, in plain terms.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Object(Option<u64>),
    List(Vec<(u32, i64)>),
}

/// The truth.
struct Model {
    head: Position,
    log: Vec<Change>,
    /// Each key's states, by the position from which they hold.
    states: HashMap<Key, Vec<(Position, State)>>,
    next: u64,
}

fn id(n: i64) -> ObjectId {
    ObjectId::new(n).expect("positive")
}

fn keys() -> [Key; 4] {
    [Key::Object(id(1)), Key::Object(id(2)), Key::List(id(1), TypeId(1)), Key::List(id(2), TypeId(1))]
}

impl Model {
    fn new() -> Self {
        let states = keys().into_iter().map(|key| {
            let state = if let Key::Object(_) = key { State::Object(None) } else { State::List(Vec::new()) };
            (key, vec![(Position::ZERO, state)])
        });
        Self { head: Position::new(1, 0), log: Vec::new(), states: states.collect(), next: 0 }
    }

    fn state_at(&self, key: &Key, at: Position) -> &State {
        let all = &self.states[key];
        &all[all.partition_point(|(from, _)| *from <= at) - 1].1
    }

    /// Commits one or two changes, the second perhaps of the same list.
    fn commit(&mut self, (_, a, b, c): Step) -> Vec<Change> {
        let first = self.log.len();
        self.change(keys()[usize::from(a % 4)], b, c);
        if a & 64 != 0 {
            self.change(keys()[usize::from(a / 4 % 4)], c, b);
        }
        self.log[first..].to_vec()
    }

    fn change(&mut self, key: Key, b: u8, c: u8) {
        self.next += 1;
        self.head = self.head.plus(1);
        let states = self.states.get_mut(&key).expect("a key");
        let (prev, state) = states.last().cloned().expect("a state");
        let (state, kind) = match (key, state) {
            (Key::List(id1, atype), State::List(mut edges)) => {
                let id2 = i64::from(b % 5) + 10;
                let had = edges.len();
                edges.retain(|(_, other)| *other != id2);
                let delta = if c.is_multiple_of(4) && edges.len() < had {
                    ListDelta::Remove(id(id2))
                } else {
                    let time = u32::from(c % 7);
                    edges.push((time, id2));
                    edges.sort_unstable_by(|x, y| y.cmp(x));
                    let edge = Edge { id2: id(id2), time, data: Bytes::new() };
                    ListDelta::Put(EdgeKey { time, id2: id(id2) }, encode_edge(&edge))
                };
                let count = edges.len() as u64;
                (State::List(edges), ChangeKind::List { id1, atype, prev, count, delta })
            }
            (Key::Object(object), _) => {
                let version = (!c.is_multiple_of(5)).then_some(self.next);
                let encoded = version.map(|v| Bytes::copy_from_slice(&v.to_be_bytes()));
                (State::Object(version), ChangeKind::Object(object, encoded))
            }
            (Key::List(..), State::Object(_)) => unreachable!("lists have lists' states"),
        };
        states.push((self.head, state));
        self.log.push(Change { position: self.head, shard: ShardId(0), kind });
    }

    /// Undoes the last changes and begins a new epoch.
    fn restore(&mut self, undone: usize) {
        let kept = self.log.len().saturating_sub(undone);
        self.log.truncate(kept);
        let last = self.log.last().map_or(Position::ZERO, |c| c.position);
        for states in self.states.values_mut() {
            states.retain(|(from, _)| *from <= last);
        }
        self.head = Position::new(self.head.epoch + 1, last.lsn);
    }

    /// A read of the store: with its newest `newest` edges, as of now.
    fn read(&self, key: &Key, newest: usize) -> (Position, Entry) {
        (self.head, entry(self.state_at(key, self.head), newest))
    }
}

fn entry(state: &State, newest: usize) -> Entry {
    match state {
        State::Object(version) => Entry::Object(version.map(|v| Bytes::copy_from_slice(&v.to_be_bytes()))),
        State::List(edges) => {
            let edge = |(time, id2): &(u32, i64)| Edge { id2: id(*id2), time: *time, data: Bytes::new() };
            let newest: Vec<_> = edges.iter().take(newest).map(edge).collect();
            let list = CachedList::from_encoded(edges.len() as u64, encode_list(&newest, usize::MAX).0);
            Entry::List(Arc::new(list.expect("a list")))
        }
    }
}

/// Whether a cached value is a true view of a state.
fn is_view(entry: &Entry, state: &State) -> bool {
    match (entry, state) {
        (Entry::Object(object), State::Object(version)) => {
            object.as_deref() == version.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice)
        }
        (Entry::List(list), State::List(edges)) => {
            let here: Vec<_> = list.index().iter().map(|e| (e.key.time, e.key.id2.get())).collect();
            list.count() == edges.len() as u64 && here.len() <= edges.len() && here == edges[..here.len()]
        }
        _ => false,
    }
}

/// A cache at the end of a stream.
struct Tier {
    cache: MemoryCache,
    /// The position up to which the stream has sent.
    sent: Position,
}

fn cache() -> MemoryCache {
    MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock: Arc::new(SystemClock), tier: "test" })
}

impl Tier {
    fn start(&mut self, at: Position, mutation: Option<Mutation>) {
        if mutation == Some(Mutation::MemoryCleared) {
            self.cache = cache();
        }
        self.cache.start(at);
        self.sent = at;
    }
}

/// On its way to a follower.
enum Message {
    Fill { to: usize, key: Key, as_of: Position, entry: Entry },
    FromRedis { to: usize, key: Key, as_of: Position, entry: Entry },
    Answer { to: usize, changes: Vec<Change> },
}

struct World {
    model: Model,
    leader: Tier,
    followers: Vec<Tier>,
    redis: HashMap<Key, (Position, Entry)>,
    /// What Redis once held, and may bring back.
    old_redis: Vec<(Key, Position, Entry)>,
    messages: Vec<Message>,
    /// Up to where each follower has acknowledged writes, by key.
    acknowledged: Vec<HashMap<Key, Position>>,
    /// What one session has seen, by key.
    token: BTreeMap<Key, Position>,
    mutation: Option<Mutation>,
}

type Check = Result<(), String>;

impl World {
    fn new(mutation: Option<Mutation>) -> Self {
        let model = Model::new();
        let tier = || {
            let mut tier = Tier { cache: cache(), sent: Position::ZERO };
            tier.start(model.head, None);
            tier
        };
        let (leader, followers) = (tier(), vec![tier(), tier()]);
        Self {
            model,
            leader,
            followers,
            redis: HashMap::new(),
            old_redis: Vec::new(),
            messages: Vec::new(),
            acknowledged: vec![HashMap::new(); 2],
            token: BTreeMap::new(),
            mutation,
        }
    }

    fn step(&mut self, step: Step) -> Check {
        let (op, a, b, c) = step;
        let (f, key) = (usize::from(b % 2), keys()[usize::from(a % 4)]);
        match op % 16 {
            0..=2 => self.write(step, f),
            3 => self.stream_to_leader(a, c),
            4 | 5 => return self.stream_to_follower(f, a, c),
            6 | 7 => self.ask(f, key, usize::from(c % 4) * 2),
            8 | 9 => self.deliver(usize::from(a), c & 1 == 1),
            10 => self.ask_redis(f, key),
            11 => drop(
                (!self.messages.is_empty()).then(|| self.messages.swap_remove(usize::from(a) % self.messages.len())),
            ),
            12 => match c % 4 {
                0 => self.leader.cache.evict(&key),
                1 => self.followers[f].cache.evict(&key),
                2 => drop(self.redis.remove(&key)),
                _ => {
                    if let Some((key, as_of, entry)) =
                        self.old_redis.get(usize::from(a) % self.old_redis.len().max(1)).cloned()
                    {
                        self.redis.insert(key, (as_of, entry));
                    }
                }
            },
            13 if c.is_multiple_of(8) => self.restore(usize::from(a % 4)),
            13 if c % 8 == 1 => self.break_leader(),
            13 if c % 8 < 4 => self.break_follower(f),
            _ => return self.read(f, key, c),
        }
        Ok(())
    }

    fn write(&mut self, step: Step, f: usize) {
        let mut changes = self.model.commit(step);
        if self.mutation == Some(Mutation::OnePositionACommit)
            && let Some(last) = changes.last().map(|c| c.position)
        {
            changes.iter_mut().for_each(|c| c.position = last);
        }
        if self.mutation == Some(Mutation::DeltaWithoutPredecessor) {
            changes.iter_mut().for_each(forge);
        }
        // The leader hears first, unless the write went through another one; the follower's answer is under way.
        let is_through_another = step.3 & 128 != 0;
        if self.leader.sent.epoch == self.model.head.epoch && !is_through_another {
            changes.iter().for_each(|c| self.leader.cache.apply(c));
        }
        self.messages.push(Message::Answer { to: f, changes });
    }

    /// Changes of the log after a position, at most `n`.
    fn after(&self, at: Position, n: usize, until: Position) -> Vec<Change> {
        let mut found: Vec<_> =
            self.model.log.iter().filter(|c| c.position > at && c.position <= until).take(n).cloned().collect();
        if self.mutation == Some(Mutation::DeltaWithoutPredecessor) {
            found.iter_mut().for_each(forge);
        }
        found
    }

    fn stream_to_leader(&mut self, a: u8, c: u8) {
        if self.leader.sent.epoch != self.model.head.epoch {
            return self.break_leader();
        }
        let changes = self.after(self.leader.sent, usize::from(a % 4) + 1, self.model.head);
        send(&mut self.leader, changes, self.mutation == Some(Mutation::GapIgnored) && c.is_multiple_of(4))
            .expect("gapless");
    }

    fn stream_to_follower(&mut self, f: usize, a: u8, c: u8) -> Check {
        if self.followers[f].sent.epoch != self.leader.sent.epoch {
            self.break_follower(f);
            return Ok(());
        }
        let changes = self.after(self.followers[f].sent, usize::from(a % 4) + 1, self.leader.sent);
        // A message that got lost must be noticed at the next one.
        if c % 8 == 7 && changes.len() > 1 && self.mutation.is_none() {
            let follower = &self.followers[f].cache;
            if follower.apply_stream(changes[0].position, &changes[1..]).is_ok() {
                return Err("a gap was not noticed".to_owned());
            }
            self.break_follower(f);
            return Ok(());
        }
        let skips = self.mutation == Some(Mutation::GapIgnored) && c.is_multiple_of(4);
        send(&mut self.followers[f], changes, skips).map_err(|gap| gap.to_string())
    }

    fn break_leader(&mut self) {
        self.leader.cache.disconnected();
        self.leader.start(self.model.head, self.mutation);
        (0..2).for_each(|f| self.break_follower(f));
    }

    fn break_follower(&mut self, f: usize) {
        self.followers[f].cache.disconnected();
        // Its new stream begins where the leader is.
        self.followers[f].start(self.leader.sent, self.mutation);
    }

    fn restore(&mut self, undone: usize) {
        self.model.restore(undone);
        // What was promised in the undone history is void: sessions that saw it are refused.
        self.token.clear();
        self.acknowledged.iter_mut().for_each(HashMap::clear);
        self.break_leader();
    }

    /// The next tier's answer for a follower that misses; at or above the floor.
    fn upstream(&mut self, key: Key, newest: usize, floor: Position) -> (Position, Entry) {
        let floor = if self.mutation == Some(Mutation::NoFloor) { Position::ZERO } else { floor };
        match self.leader.cache.lookup(&key, newest, floor) {
            Lookup::Hit(entry, as_of) => (as_of, entry),
            Lookup::Miss(_) => {
                let (as_of, entry) = self.model.read(&key, newest.max(2));
                self.leader.cache.fill(key, as_of, entry.clone());
                (as_of, entry)
            }
        }
    }

    fn ask(&mut self, f: usize, key: Key, newest: usize) {
        if let Lookup::Miss(floor) = self.followers[f].cache.lookup(&key, newest, Position::ZERO) {
            let (as_of, entry) = self.upstream(key, newest, floor);
            self.messages.push(Message::Fill { to: f, key, as_of, entry });
        }
    }

    fn ask_redis(&mut self, f: usize, key: Key) {
        if let Some((as_of, entry)) = self.redis.get(&key).cloned() {
            self.messages.push(Message::FromRedis { to: f, key, as_of, entry });
        }
    }

    fn deliver(&mut self, n: usize, twice: bool) {
        if self.messages.is_empty() {
            return;
        }
        let message = self.messages.swap_remove(n % self.messages.len());
        match &message {
            Message::Fill { to, key, as_of, entry } => {
                let cache = &self.followers[*to].cache;
                let is_late = self.mutation == Some(Mutation::LateFillBelieved);
                let claimed =
                    if is_late { (*as_of).max(cache.floor(key, cache.applied().unwrap_or_default())) } else { *as_of };
                if cache.fill(*key, claimed, entry.clone()) {
                    self.set_redis(*key, claimed, entry.clone());
                }
            }
            Message::FromRedis { to, key, as_of, entry } => {
                let cache = &self.followers[*to].cache;
                if self.mutation == Some(Mutation::RedisTrusted) {
                    let claimed = cache.floor(key, (*as_of).max(cache.applied().unwrap_or_default()));
                    cache.fill(*key, claimed, entry.clone());
                } else if cache.is_believable(key, *as_of) {
                    cache.fill(*key, *as_of, entry.clone());
                }
            }
            Message::Answer { to, changes } => {
                let is_undone = changes.iter().any(|c| c.position.epoch != self.model.head.epoch);
                if is_undone {
                    return;
                }
                for change in changes {
                    if self.mutation != Some(Mutation::AnswerNotApplied) {
                        self.followers[*to].cache.apply(change);
                    }
                    let seen = self.acknowledged[*to].entry(change.key()).or_default();
                    *seen = change.position.max(*seen);
                }
            }
        }
        if twice {
            self.messages.push(message);
        }
    }

    /// The script of rule 8.
    fn set_redis(&mut self, key: Key, as_of: Position, entry: Entry) {
        if self.redis.get(&key).is_none_or(|(there, _)| *there < as_of)
            && let Some((there, old)) = self.redis.insert(key, (as_of, entry))
        {
            self.old_redis.push((key, there, old));
        }
    }

    /// A session's read through one of the followers, with or without its token.
    fn read(&mut self, f: usize, key: Key, c: u8) -> Check {
        let floor = if c & 1 == 1 { self.token.get(&key).copied().unwrap_or_default() } else { Position::ZERO };
        let newest = usize::from(c / 2 % 4);
        let (as_of, entry) = match self.followers[f].cache.lookup(&key, newest, floor) {
            Lookup::Hit(entry, as_of) => (as_of, entry),
            Lookup::Miss(asked) => self.upstream(key, newest, asked),
        };
        if as_of.epoch != self.model.head.epoch {
            // Frozen in a history that is over, by a cache whose stream has not told it yet.
            return Ok(());
        }
        if as_of < floor {
            return Err(format!("P1: {key:?} at {as_of}, below the floor {floor}"));
        }
        let truth = self.model.state_at(&key, as_of);
        if !is_view(&entry, truth) {
            return Err(format!("P2: {key:?} at {as_of} is {truth:?}, shown as {entry:?}"));
        }
        let acknowledged = self.acknowledged[f].get(&key).copied().unwrap_or_default();
        if as_of < acknowledged {
            return Err(format!("P3: follower {f} acknowledged {key:?} at {acknowledged} and shows {as_of}"));
        }
        if floor != Position::ZERO || c & 1 == 1 {
            let seen = self.token.entry(key).or_default();
            if as_of < *seen {
                return Err(format!("P4: {key:?} went back from {seen} to {as_of}"));
            }
            *seen = as_of;
        }
        Ok(())
    }

    /// P5: the streams drain, and what was on its way arrives.
    fn drain(&mut self) -> Check {
        while !self.messages.is_empty() {
            self.deliver(0, false);
        }
        while self.leader.sent != self.model.head {
            self.stream_to_leader(3, 1);
        }
        for f in 0..2 {
            while self.followers[f].sent != self.leader.sent {
                self.stream_to_follower(f, 3, 1)?;
            }
        }
        for key in keys() {
            for (name, tier) in
                [("leader", &self.leader), ("follower 0", &self.followers[0]), ("follower 1", &self.followers[1])]
            {
                let Lookup::Hit(entry, _) = tier.cache.lookup(&key, 0, Position::ZERO) else { continue };
                let truth = self.model.state_at(&key, self.model.head);
                if !is_view(&entry, truth) {
                    return Err(format!("P5: {name} keeps {entry:?} of {key:?}, which is {truth:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The stream carries changes; a mutation may lose the first of them and go on as if nothing had been.
fn send(tier: &mut Tier, mut changes: Vec<Change>, skips: bool) -> Result<(), tao_cache::Gap> {
    let Some(last) = changes.last().map(|c| c.position) else {
        return tier.cache.heartbeat(tier.sent, 1);
    };
    if skips && changes.len() > 1 {
        changes.remove(0);
    }
    tier.cache.apply_stream(tier.sent, &changes)?;
    tier.sent = last;
    Ok(())
}

/// Forgets a list change's predecessor.
fn forge(change: &mut Change) {
    if let ChangeKind::List { prev, .. } = &mut change.kind {
        *prev = Position::ZERO;
    }
}

fn history(steps: &[Step], mutation: Option<Mutation>) -> Check {
    let mut world = World::new(mutation);
    for step in steps {
        world.step(*step)?;
    }
    world.drain()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..120)
}

fn cases(of: u32) -> u32 {
    let times = std::env::var("TAO_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    of.saturating_mul(times)
}

#[test]
fn promises_hold_in_every_history() {
    let config = Config { cases: cases(4_000), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| history(&steps, None).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The checks would notice if a rule were missing: each, switched off alone, is caught.
#[test]
fn every_rule_that_is_switched_off_is_caught() {
    for mutation in [
        Mutation::LateFillBelieved,
        Mutation::DeltaWithoutPredecessor,
        Mutation::GapIgnored,
        Mutation::MemoryCleared,
        Mutation::RedisTrusted,
        Mutation::NoFloor,
        Mutation::AnswerNotApplied,
        Mutation::OnePositionACommit,
    ] {
        let config = Config {
            cases: 20_000,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            max_shrink_iters: 0,
            ..Config::default()
        };
        let outcome =
            TestRunner::new(config).run(&steps(), |steps| history(&steps, Some(mutation)).map_err(TestCaseError::fail));
        assert!(outcome.is_err(), "{mutation:?} was not caught");
    }
}
