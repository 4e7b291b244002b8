//! Replays the logs over a plain model of the graph, and keeps every state of every key.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use tao_model::{AssocRef, Change, ChangeKind, Key, ListDelta, ObjectId, Position, TypeId};
use tao_proto::v1::{self, value};

use crate::check::list::{Entry, ListHistory, ListVersion, edge_hash};
use crate::check::object::{ABSENT, ObjectHistory, ObjectVersion, object_hash};
use crate::check::{Kind, Lsn, Shape, Violation};

/// How far apart, within a commit, the removals and puts of one move are at the most.
const MOVE_SPAN: usize = 3;

/// A row of `change_log`.
#[derive(Debug, Clone)]
pub struct CommitRow {
    /// The epoch of all its changes.
    pub epoch: u64,
    /// The first change's LSN.
    pub first: u64,
    /// The last change's LSN.
    pub last: u64,
    /// Its changes.
    pub changes: Vec<Change>,
}

/// What one change did, in few bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effect {
    pub key: Key,
    /// Of a list: the other end.
    pub id2: i64,
    /// Field `w` of what was put or removed.
    pub w: u64,
    pub put: bool,
    /// Whether it is a part of a move from one type to another.
    pub moved: bool,
}

/// One log as it was replayed.
#[derive(Debug, Default)]
pub(crate) struct LogTruth {
    /// By LSN, from 1.
    pub effects: Vec<Effect>,
    pub objects: HashMap<ObjectId, ObjectHistory>,
    pub lists: HashMap<(ObjectId, TypeId), ListHistory>,
    /// Where each epoch begins.
    pub epochs: Vec<(Lsn, u64)>,
}

/// Everything that the logs say.
#[derive(Debug)]
pub struct Truth {
    pub(crate) shape: Shape,
    pub(crate) logs: Vec<LogTruth>,
    /// By `w` and edge (none of an object): where it was written first, and by a write of its own. Of an edge that has an inverse,
    /// its canonical side.
    pub(crate) places: HashMap<(u64, Option<AssocRef>), Lsn>,
    /// The same of the other side.
    pub(crate) inverses: HashMap<(u64, Option<AssocRef>), Lsn>,
}

/// Takes the logs in, commit by commit, each from its beginning.
#[derive(Debug)]
pub struct Replay {
    truth: Truth,
    violations: Vec<Violation>,
}

/// The int64 field of this name.
fn number(data: &std::collections::BTreeMap<String, v1::Value>, name: &str) -> i64 {
    match data.get(name).and_then(|v| v.kind.as_ref()) {
        Some(value::Kind::Int64Value(n)) => *n,
        _ => 0,
    }
}

impl Replay {
    /// With nothing read yet.
    pub fn new(shape: Shape) -> Self {
        let logs = (0..shape.logs()).map(|_| LogTruth::default()).collect();
        let truth = Truth { shape, logs, places: HashMap::new(), inverses: HashMap::new() };
        Self { truth, violations: Vec::new() }
    }

    /// The next commit of a log.
    pub fn commit(&mut self, log: usize, row: &CommitRow) {
        let Self { truth, violations } = self;
        let at = &mut truth.logs[log];
        let bad = |kind, text: String| Violation::of_log(kind, format!("log {log}: {text}"));
        let head = at.effects.len() as u64;
        let epoch = at.epochs.last().map_or(0, |(_, epoch)| *epoch);
        let here = Position::new(row.epoch, row.first);
        if row.first != head + 1 {
            violations
                .push(bad(Kind::LogGap, format!("a commit begins at {here}, and the one before ended at {head}")));
        }
        if row.epoch < epoch {
            violations.push(bad(Kind::LogGap, format!("a commit at {here} comes after epoch {epoch}")));
        }
        if row.last + 1 != row.first + row.changes.len() as u64 {
            let text = format!("the commit at {here} ends at {}, and has {} changes", row.last, row.changes.len());
            violations.push(bad(Kind::LogGap, text));
        }
        if row.epoch > epoch {
            at.epochs.push((row.first as Lsn, row.epoch));
        }
        let begun = at.effects.len();
        for (n, change) in (0..).zip(&row.changes) {
            if change.position != here.plus(n) {
                let text = format!("change {n} of the commit at {here} says that it is at {}", change.position);
                violations.push(bad(Kind::LogGap, text));
            }
            if truth.shape.log(change.key().owner()) != log {
                violations.push(bad(Kind::BrokenChange, format!("{:?} does not belong here", change.key())));
            }
            if let Err(text) = at.take(change, begun) {
                let text = format!("the change of {:?} at {}: {text}", change.key(), change.position);
                violations.push(bad(Kind::BrokenChange, text));
            }
        }
        self.index(log, begun);
    }

    /// Remembers where what was put in the last commit is, and looks for inverses in it.
    fn index(&mut self, log: usize, begun: usize) {
        let Self { truth, violations } = self;
        let effects = &truth.logs[log].effects;
        let commit = &effects[begun..];
        for (n, effect) in commit.iter().enumerate() {
            let lsn = (begun + n + 1) as Lsn;
            let edge = effect.edge();
            if let Some(edge) = edge
                && let Some(inverse) = truth.shape.inverse(edge)
                && truth.shape.log(inverse.id1) == log
                && !commit.iter().any(|e| e.edge() == Some(inverse) && (e.put, e.w) == (effect.put, effect.w))
            {
                let text = format!("log {log}: {lsn} changes {} alone", truth.shape.name(edge));
                violations.push(Violation::of_log(Kind::InverseMissing, text));
            }
            if !effect.put || effect.moved {
                continue;
            }
            let places = match edge {
                Some(edge) if !truth.shape.is_canonical(edge) => &mut truth.inverses,
                _ => &mut truth.places,
            };
            let before = *places.entry((effect.w, edge)).or_insert(lsn);
            // In two databases the parts of a move lie apart, and a move back looks like a second write.
            if before != lsn && !edge.is_some_and(|e| truth.shape.crosses(e)) {
                let text = format!("log {log}: write {} is at {before} and again at {lsn}: {:?}", effect.w, effect.key);
                violations.push(Violation::of_log(Kind::Duplicate, text));
            }
        }
    }

    /// All that was taken in, and what was wrong with it.
    pub fn finish(self) -> (Truth, Vec<Violation>) {
        (self.truth, self.violations)
    }
}

impl Effect {
    /// The edge that was put or removed.
    pub fn edge(&self) -> Option<AssocRef> {
        match self.key {
            Key::Object(_) => None,
            Key::List(id1, atype) => ObjectId::new(self.id2).map(|id2| AssocRef { id1, atype, id2 }),
        }
    }
}

impl LogTruth {
    fn take(&mut self, change: &Change, begun: usize) -> Result<(), String> {
        let lsn = self.effects.len() as Lsn + 1;
        match &change.kind {
            ChangeKind::Object(id, object) => self.take_object(lsn, *id, object.as_ref()),
            ChangeKind::List { id1, atype, prev, count, delta } => {
                let key = Key::List(*id1, *atype);
                let list = self.lists.entry((*id1, *atype)).or_default();
                let last = list.last();
                let (id2, put) = match delta {
                    ListDelta::Put(key, edge) => {
                        let edge = v1::Assoc::decode(edge.clone()).map_err(|e| format!("the edge: {e}"))?;
                        let w = number(&edge.data, "w") as u64;
                        let entry = Entry { time: key.time, id2: key.id2.get(), hash: edge_hash(&edge), w };
                        (key.id2.get(), Some(entry))
                    }
                    ListDelta::Remove(id2) => (id2.get(), None),
                };
                let old = list.push(ListVersion { lsn, count: *count as u32, id2, put });
                let now = list.now.len();
                let w = put.or(old).map_or(0, |e| e.w);
                let mut effect = Effect { key, id2, w, put: put.is_some(), moved: false };
                effect.moved = put.is_some() && self.is_move(&effect, begun);
                self.effects.push(effect);
                if prev.lsn != u64::from(last) {
                    return Err(format!("it names {prev} as the list's change before it, which is {last}"));
                }
                if *count != now as u64 {
                    return Err(format!("it says that the list has {count} edges, which are {now}"));
                }
                if put.is_none() && old.is_none() {
                    return Err(format!("it removes the edge to {id2}, which is not there"));
                }
                Ok(())
            }
        }
    }

    fn take_object(&mut self, lsn: Lsn, id: ObjectId, object: Option<&Bytes>) -> Result<(), String> {
        let history = self.objects.entry(id).or_default();
        let before = history.versions.last().copied().filter(|v| v.hash != ABSENT);
        let Some(object) = object else {
            history.versions.push(ObjectVersion { lsn, hash: ABSENT, version: 0, n: 0 });
            self.effects.push(Effect { key: Key::Object(id), id2: 0, w: 0, put: false, moved: false });
            return if before.is_some() { Ok(()) } else { Err("it deletes what is not there".to_owned()) };
        };
        let object = v1::Object::decode(object.clone()).map_err(|e| format!("the object: {e}"))?;
        let (w, n) = (number(&object.data, "w") as u64, number(&object.data, "n"));
        history.versions.push(ObjectVersion { lsn, hash: object_hash(&object), version: object.version, n });
        self.effects.push(Effect { key: Key::Object(id), id2: 0, w, put: true, moved: false });
        let expected = before.map_or(1, |v| v.version + 1);
        if object.version == expected {
            Ok(())
        } else {
            Err(format!("version {} comes, not {expected}", object.version))
        }
    }

    /// Whether a put takes an edge over that was removed just before, from the list of another type; the removal is marked, too.
    fn is_move(&mut self, put: &Effect, begun: usize) -> bool {
        let owner = put.key.owner();
        let recent = self.effects[begun..].iter_mut().rev().take(MOVE_SPAN);
        let mut removals = recent.filter(|e| {
            !e.put && !e.moved && e.key != put.key && e.key.owner() == owner && (e.id2, e.w) == (put.id2, put.w)
        });
        removals.next().map(|e| e.moved = true).is_some()
    }
}

impl Truth {
    /// The log that has a key.
    pub(crate) fn log_of(&self, key: Key) -> &LogTruth {
        &self.logs[self.shape.log(key.owner())]
    }

    /// The change at a position.
    pub(crate) fn effect(&self, log: usize, lsn: Lsn) -> Option<&Effect> {
        self.logs[log].effects.get((lsn as usize).checked_sub(1)?)
    }

    /// The end of a log.
    pub(crate) fn head(&self, log: usize) -> Lsn {
        self.logs[log].effects.len() as Lsn
    }

    /// How many changes the logs have.
    pub fn changes(&self) -> u64 {
        self.logs.iter().map(|log| log.effects.len() as u64).sum()
    }
}
