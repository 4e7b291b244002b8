//! The truth: a log, and every state that each of its keys ever had.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tao_cache::{CachedList, Entry};
use tao_model::mutation::{Rule, is_off};
use tao_model::{Change, ChangeKind, Edge, EdgeKey, Key, ListDelta, ObjectId, Position, ShardId, TypeId};
use tao_proto::edges::{encode_edge, encode_list};

pub const LOGS: usize = 2;

/// What a key is, in plain terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Object(Option<u64>),
    /// Newest first.
    List(Vec<(u32, i64)>),
}

/// One epoch of a log: what was true until it ended.
#[derive(Clone)]
struct Epoch {
    /// Where it began, and where it ends, or stands.
    base: Position,
    head: Position,
    changes: Vec<Change>,
    /// Each key's states, by the position from which they hold.
    states: HashMap<Key, Vec<(Position, State)>>,
}

/// The newest epoch is the last.
pub struct Log {
    epochs: Vec<Epoch>,
    next: u64,
}

pub fn id(n: i64) -> ObjectId {
    ObjectId::new(n).expect("positive")
}

/// The first log has two objects, the second one, each with a list.
pub fn keys(log: usize) -> &'static [Key] {
    const fn object(n: i64) -> ObjectId {
        match ObjectId::new(n) {
            Some(id) => id,
            None => unreachable!(),
        }
    }
    const KEYS: [Key; 6] = [
        Key::Object(object(1)),
        Key::List(object(1), TypeId(1)),
        Key::Object(object(2)),
        Key::List(object(2), TypeId(1)),
        Key::Object(object(3)),
        Key::List(object(3), TypeId(1)),
    ];
    if log == 0 { &KEYS[..4] } else { &KEYS[4..] }
}

impl Log {
    pub fn new(log: usize) -> Self {
        let state = |key: &Key| match key {
            Key::Object(_) => State::Object(None),
            Key::List(..) => State::List(Vec::new()),
        };
        let states = keys(log).iter().map(|key| (*key, vec![(Position::ZERO, state(key))])).collect();
        let base = Position::new(1, 0);
        Self { epochs: vec![Epoch { base, head: base, changes: Vec::new(), states }], next: 0 }
    }

    fn now(&self) -> &Epoch {
        self.epochs.last().expect("never without")
    }

    /// Epochs count from 1 here.
    fn epoch(&self, epoch: u64) -> &Epoch {
        &self.epochs[epoch as usize - 1]
    }

    pub fn head(&self) -> Position {
        self.now().head
    }

    /// Where an epoch ended, or stands.
    pub fn head_of(&self, epoch: u64) -> Position {
        self.epoch(epoch).head
    }

    /// Where an epoch began.
    pub fn base_of(&self, epoch: u64) -> Position {
        self.epoch(epoch).base
    }

    /// In the history that the position belongs to, which may be over.
    pub fn state_at(&self, key: &Key, at: Position) -> &State {
        let all = &self.epoch(at.epoch).states[key];
        &all[all.partition_point(|(from, _)| *from <= at) - 1].1
    }

    /// The changes of an epoch after a position, up to another.
    pub fn between(&self, after: Position, until: Position) -> &[Change] {
        let changes = &self.epoch(after.epoch).changes;
        let from = changes.partition_point(|change| change.position <= after);
        let to = changes.partition_point(|change| change.position <= until);
        &changes[from..to.max(from)]
    }

    /// Commits one to three changes, some perhaps of the same key.
    pub fn commit(&mut self, log: usize, a: u8, b: u8, c: u8) -> Vec<Change> {
        let keys = keys(log);
        let first = self.now().changes.len();
        for n in 0..=a / 16 % 3 {
            self.change(keys[usize::from(a / 4 * n + a) % keys.len()], b.wrapping_add(n), c.wrapping_add(3 * n));
        }
        let mut changes = self.now().changes[first..].to_vec();
        if is_off(Rule::ChangePositions) {
            let last = self.head();
            changes.iter_mut().for_each(|change| change.position = last);
            self.epochs.last_mut().expect("never without").changes[first..].clone_from_slice(&changes);
        }
        changes
    }

    /// Commits a change of this key.
    pub fn commit_to(&mut self, key: Key, b: u8, c: u8) -> Vec<Change> {
        self.change(key, b, c);
        self.now().changes.last().cloned().into_iter().collect()
    }

    fn change(&mut self, key: Key, b: u8, c: u8) {
        self.next += 1;
        let next = self.next;
        let now = self.epochs.last_mut().expect("never without");
        now.head = now.head.plus(1);
        let states = now.states.get_mut(&key).expect("a key");
        let (prev, state) = states.last().cloned().expect("a state");
        let (state, kind) = match (key, state) {
            (Key::List(id1, atype), State::List(mut edges)) => {
                let id2 = i64::from(b % 5) + 10;
                let had = edges.len();
                edges.retain(|(_, other)| *other != id2);
                let delta = if c.is_multiple_of(3) && edges.len() < had {
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
                let version = (!c.is_multiple_of(5)).then_some(next);
                let encoded = version.map(|v| Bytes::copy_from_slice(&v.to_be_bytes()));
                (State::Object(version), ChangeKind::Object(object, encoded))
            }
            (Key::List(..), State::Object(_)) => unreachable!("lists have lists' states"),
        };
        states.push((now.head, state));
        now.changes.push(Change { position: now.head, shard: ShardId(0), kind });
    }

    /// Undoes the last changes and begins a new epoch. Says which was the first that is undone, if any was.
    pub fn restore(&mut self, undone: usize) -> Option<(Position, Key)> {
        let mut next = self.now().clone();
        let kept = next.changes.len().saturating_sub(undone);
        let undone = next.changes.get(kept).map(|change| (change.position, change.key()));
        let first_undone = undone.map(|(at, _)| at);
        let last = first_undone.map_or(next.head.lsn, |first| first.lsn - 1);
        for states in next.states.values_mut() {
            states.retain(|(from, _)| first_undone.is_none_or(|first| *from < first));
        }
        next.base = Position::new(next.head.epoch + 1, last);
        next.head = next.base;
        next.changes.clear();
        self.epochs.push(next);
        undone
    }

    /// Whether a position is part of the present history.
    pub fn holds(&self, at: Position) -> bool {
        self.epochs[at.epoch as usize - 1..].iter().skip(1).all(|later| at.lsn <= later.base.lsn)
    }

    /// A read of the store as of now, with the newest edges of a list, perhaps fewer than asked for when they are large.
    pub fn read(&self, key: &Key, newest: usize) -> (Position, Entry) {
        (self.head(), entry(self.state_at(key, self.head()), newest))
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
pub fn is_view(entry: &Entry, state: &State) -> bool {
    match (entry, state) {
        (Entry::Object(object), State::Object(version)) => {
            object.as_deref() == version.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice)
        }
        (Entry::List(list), State::List(edges)) => {
            let here = list.keys().map(|key| (key.time, key.id2.get()));
            list.count() == edges.len() as u64
                && list.len() <= edges.len()
                && here.eq(edges[..list.len()].iter().copied())
        }
        _ => false,
    }
}
