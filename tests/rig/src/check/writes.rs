//! Finds every write in the log: acknowledged ones exactly once, refused ones never, those in doubt at most once.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use tao_model::{AssocRef, Key, ObjectId};

use crate::check::bounds::Bounds;
use crate::check::{Asked, Done, History, Kind, Lsn, Outcome, Process, Step, Truth, Violation, Write};

/// How far before the position that an answer names a change of the same write may be: it has at most four.
const WRITE_SPAN: Lsn = 3;

/// Where a write changed a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub key: Key,
    pub log: usize,
    pub lsn: Lsn,
}

type Wrong = (Kind, String);

fn lost(what: String) -> Wrong {
    (Kind::LostWrite, what)
}

/// An edge to be found in the log.
#[derive(Clone, Copy)]
struct Wanted {
    edge: AssocRef,
    put: bool,
    moved: bool,
}

impl Truth {
    /// Where an acknowledged write is in the log. Empty when it changed nothing, and the log agrees.
    pub(crate) fn marks(&self, write: &Write, done: &Done) -> Result<Vec<Mark>, Wrong> {
        match write.asked {
            Asked::Put { id, .. } => {
                let place = self.places.get(&(write.w, None));
                let lsn = *place.ok_or_else(|| lost("it is not in the log".to_owned()))?;
                let key = id.map(Key::Object).ok_or_else(|| (Kind::WrongAnswer, "it names no id".to_owned()))?;
                self.expect_key(key, lsn)?;
                Ok(vec![self.mark(key, lsn)])
            }
            Asked::Delete(id) => {
                let (key, lsn) = (Key::Object(id), done.covered[0]);
                if !done.applied {
                    return if self.log_of(key).objects.get(&id).is_none_or(|o| o.hash_at(lsn) == super::ABSENT) {
                        Ok(Vec::new())
                    } else {
                        Err((Kind::WrongAnswer, format!("the answer says that there was none, and at {lsn} there was")))
                    };
                }
                let effect = self.effect(self.shape.log(id), lsn);
                if effect.is_some_and(|e| e.key == key && !e.put) {
                    Ok(vec![self.mark(key, lsn)])
                } else {
                    Err(lost(format!("its token says {lsn}, where the log does not delete it")))
                }
            }
            Asked::Link(edge) => {
                let canonical = self.shape.canonical(edge);
                let place = self.places.get(&(write.w, Some(canonical)));
                let lsn = *place.ok_or_else(|| lost("it is not in the log".to_owned()))?;
                self.expect_key(Key::List(canonical.id1, canonical.atype), lsn)?;
                let mut marks = vec![self.edge_mark(canonical, lsn)];
                if let Some(other) = self.shape.inverse(canonical).filter(|other| self.is_covered(other, done)) {
                    let lsn = self
                        .inverses
                        .get(&(write.w, Some(other)))
                        .ok_or_else(|| lost("its inverse is not in the log".to_owned()))?;
                    marks.push(self.edge_mark(other, *lsn));
                }
                Ok(marks)
            }
            Asked::Unlink(edge) if done.applied => self.find(edge, edge, false, false, done),
            // Which side said so, and when, can't be told.
            Asked::Unlink(edge) if self.shape.crosses(edge) => Ok(Vec::new()),
            Asked::Unlink(edge) => {
                let lsn = done.covered[0];
                let list = self.log_of(Key::List(edge.id1, edge.atype)).lists.get(&(edge.id1, edge.atype));
                if list.is_some_and(|l| l.state_at(lsn).iter().any(|e| e.id2 == edge.id2.get())) {
                    return Err((
                        Kind::WrongAnswer,
                        format!("the answer says that there was none, and at {lsn} there was"),
                    ));
                }
                Ok(Vec::new())
            }
            Asked::Retype(edge, new) => {
                let mut marks = self.find(edge, AssocRef { atype: new, ..edge }, true, true, done)?;
                marks.extend(self.find(edge, edge, false, true, done)?);
                Ok(marks)
            }
        }
    }

    /// Whether an answer vouches for the other side of an edge, too.
    fn is_covered(&self, other: &AssocRef, done: &Done) -> bool {
        self.shape.log(other.id1) == self.shape.log(other.id2) || !done.pending
    }

    /// Finds both sides of an edge that a write put or removed, by the positions that its answer names.
    fn find(&self, named: AssocRef, edge: AssocRef, put: bool, moved: bool, done: &Done) -> Result<Vec<Mark>, Wrong> {
        let canonical = self.shape.canonical(edge);
        let mut marks = Vec::with_capacity(2);
        for side in [Some(canonical), self.shape.inverse(canonical)].into_iter().flatten() {
            // Which side of a move is the first depends on both types.
            if (side != canonical || moved) && !self.is_covered(&side, done) {
                continue;
            }
            let last = done.covered[usize::from(side.id1 != named.id1)];
            let Some(lsn) = self.near(Wanted { edge: side, put, moved }, last) else {
                let what = if put { "put" } else { "removed" };
                let text = format!("its token says {last}, where {} is not {what}", self.shape.name(side));
                return Err(lost(text));
            };
            marks.push(self.edge_mark(side, lsn));
        }
        Ok(marks)
    }

    /// The newest change up to a position that did what is wanted: no further back than one write reaches. In a database that it
    /// reached by an intent, others' changes may lie between, and the parts of a move apart.
    fn near(&self, wanted: Wanted, last: Lsn) -> Option<Lsn> {
        let log = self.shape.log(wanted.edge.id1);
        let crosses = self.shape.crosses(wanted.edge);
        let first = if crosses { 1 } else { last.saturating_sub(WRITE_SPAN) };
        (first..=last).rev().find(|lsn| {
            let effect = self.effect(log, *lsn);
            effect.is_some_and(|e| {
                e.edge() == Some(wanted.edge) && e.put == wanted.put && (crosses || e.moved == wanted.moved)
            })
        })
    }

    /// Where what a write puts is.
    fn place_of(&self, write: &Write) -> Option<Lsn> {
        let edge = match write.asked {
            Asked::Put { .. } => None,
            Asked::Link(edge) => Some(self.shape.canonical(edge)),
            Asked::Delete(_) | Asked::Unlink(_) | Asked::Retype(..) => return None,
        };
        self.places.get(&(write.w, edge)).copied()
    }

    fn expect_key(&self, key: Key, lsn: Lsn) -> Result<(), Wrong> {
        match self.effect(self.shape.log(key.owner()), lsn) {
            Some(effect) if effect.key == key => Ok(()),
            other => Err((Kind::WrongAnswer, format!("{key:?} was to be written, and {lsn} has {other:?}"))),
        }
    }

    fn mark(&self, key: Key, lsn: Lsn) -> Mark {
        Mark { key, log: self.shape.log(key.owner()), lsn }
    }

    fn edge_mark(&self, edge: AssocRef, lsn: Lsn) -> Mark {
        self.mark(Key::List(edge.id1, edge.atype), lsn)
    }

    /// Whether an answer to a write says what the log says, its token included.
    fn check_answer(&self, write: &Write, done: &Done, marks: &[Mark]) -> Result<(), Wrong> {
        let owner = match write.asked {
            Asked::Put { id, .. } => id,
            Asked::Delete(id) => Some(id),
            Asked::Link(edge) | Asked::Unlink(edge) | Asked::Retype(edge, _) => Some(edge.id1),
        };
        for mark in marks {
            let covered = done.covered[usize::from(Some(mark.key.owner()) != owner)];
            if covered < mark.lsn {
                return Err((
                    Kind::TokenBehind,
                    format!("{:?} is at {}, and the token says {covered}", mark.key, mark.lsn),
                ));
            }
        }
        let differs = |what: &str| Err((Kind::WrongAnswer, format!("the {what} in the answer is not that of the log")));
        let named = match write.asked {
            Asked::Put { id: Some(id), .. } => {
                let lsn = marks.first().map_or(0, |m| m.lsn);
                let object = self.log_of(Key::Object(id)).objects.get(&id).and_then(|o| o.at(lsn));
                return if object.is_some_and(|o| o.hash == done.hash) { Ok(()) } else { differs("object") };
            }
            Asked::Put { id: None, .. } | Asked::Delete(_) => return Ok(()),
            Asked::Link(edge) | Asked::Unlink(edge) => edge,
            Asked::Retype(edge, new) => AssocRef { atype: new, ..edge },
        };
        // Its two directions were not seen at one time.
        if self.shape.crosses(named) {
            return Ok(());
        }
        let key = Key::List(named.id1, named.atype);
        let Some(mark) = marks.iter().find(|m| m.key == key) else { return Ok(()) };
        let Some(list) = self.log_of(key).lists.get(&(named.id1, named.atype)) else { return Ok(()) };
        if list.count_at(mark.lsn) != done.count {
            let count = list.count_at(mark.lsn);
            return Err((
                Kind::WrongAnswer,
                format!("it counts {} edges, and at {} there are {count}", done.count, mark.lsn),
            ));
        }
        let put = list.state_at(mark.lsn).into_iter().find(|e| e.id2 == named.id2.get());
        if put.map_or(0, |e| e.hash) != done.hash {
            return differs("edge");
        }
        let was_there = list.state_at(mark.lsn - 1).iter().any(|e| e.id2 == named.id2.get());
        if matches!(write.asked, Asked::Link(_)) && done.applied == was_there {
            return differs("news whether the edge was added");
        }
        Ok(())
    }

    /// Whether what was put into an object follows from what was asked and what was there.
    fn check_content(&self, write: &Write, lsn: Lsn) -> Result<(), Wrong> {
        let Asked::Put { adds, expected, .. } = write.asked else { return Ok(()) };
        let Some(key) = self.logs.iter().find_map(|log| {
            let effect = log.effects.get(lsn as usize - 1)?;
            (effect.w == write.w).then_some(effect.key)
        }) else {
            return Ok(());
        };
        let Some(object) = self.log_of(key).objects.get(&key.owner()) else { return Ok(()) };
        let before = object.at(lsn - 1).filter(|v| v.hash != super::ABSENT);
        let Some(after) = object.at(lsn) else { return Ok(()) };
        let n = if adds { before.map_or(0, |v| v.n) + 1 } else { 0 };
        if after.n != n {
            return Err((
                Kind::BrokenChange,
                format!("the sum of {:?} is {} at {lsn}, and was to be {n}", key, after.n),
            ));
        }
        if expected.is_some_and(|e| e + 1 != after.version) {
            let text = format!("{key:?} got version {} at {lsn}, and was to have {expected:?} before", after.version);
            return Err((Kind::BrokenChange, text));
        }
        Ok(())
    }
}

/// What is known of all writes.
pub(crate) struct Writes {
    pub bounds: Bounds,
    pub violations: Vec<Violation>,
    /// Acknowledged writes that are not in the log.
    pub lost: u64,
    pub acknowledged: u64,
    pub in_doubt: u64,
}

/// Looks every write up in the log.
pub(crate) fn examine(truth: &Truth, history: &History) -> Writes {
    let mut out = Writes { bounds: Bounds::default(), violations: Vec::new(), lost: 0, acknowledged: 0, in_doubt: 0 };
    out.bounds.begun = vec![Vec::new(); truth.logs.len()];
    let mut known: HashSet<u64> = HashSet::new();
    let mut explained: HashSet<(usize, Lsn)> = HashSet::new();
    let mut doubtful: HashMap<Removal, u64> = HashMap::new();
    let mut acknowledged: Vec<(u32, &Write, Vec<Mark>)> = Vec::new();
    for session in &history.sessions {
        for write in session.steps.iter().filter_map(|s| if let Step::Write(w) = s { Some(w) } else { None }) {
            known.insert(write.w);
            let bad = |(kind, text): Wrong| Violation {
                kind,
                time: write.end,
                session: Some(session.id),
                text: format!("write {} ({:?}): {text}", write.w, write.asked),
            };
            let place = truth.place_of(write);
            if let Some(lsn) = place
                && let Err(wrong) = truth.check_content(write, lsn)
            {
                out.violations.push(bad(wrong));
            }
            match &write.outcome {
                Outcome::Done(done) => {
                    out.acknowledged += 1;
                    match truth.marks(write, done) {
                        Ok(marks) => {
                            if done.pending {
                                doubt(truth, &write.asked, &mut doubtful);
                            }
                            if let Err((kind, text)) = truth.check_answer(write, done, &marks) {
                                out.violations.push(bad((kind, format!("{text}{}", truth.story(&write.asked)))));
                            }
                            for mark in &marks {
                                explained.insert((mark.log, mark.lsn));
                                out.bounds.begun[mark.log].push((write.start, mark.lsn));
                            }
                            acknowledged.push((session.id, write, marks));
                        }
                        Err((kind, text)) => {
                            out.lost += u64::from(kind == Kind::LostWrite);
                            out.violations.push(bad((kind, format!("{text}{}", truth.story(&write.asked)))));
                        }
                    }
                }
                Outcome::InDoubt => {
                    out.in_doubt += 1;
                    doubt(truth, &write.asked, &mut doubtful);
                    if let Some(lsn) = place
                        && let Some(log) = truth.log_of_w(write.w, lsn)
                    {
                        out.bounds.begun[log].push((write.start, lsn));
                    }
                }
                Outcome::NotApplied | Outcome::Refused => {
                    if let Some(lsn) = place {
                        out.violations.push(bad((Kind::SaidNotApplied, format!("it is in the log at {lsn}"))));
                    }
                }
            }
        }
    }
    out.bounds.settle();
    for (session, write, marks) in acknowledged {
        out.acknowledge(session, write, &marks);
    }
    out.bounds.settle();
    out.violations.extend(unexplained(truth, &known, &explained, doubtful));
    out
}

impl Writes {
    fn acknowledge(&mut self, session: u32, write: &Write, marks: &[Mark]) {
        for mark in marks {
            let later = self.bounds.first_after(mark.log, write.end);
            if later <= mark.lsn {
                let text = format!(
                    "write {} ({:?}) is at {}, after {later}, which began when it was acknowledged",
                    write.w, write.asked, mark.lsn
                );
                let violation = Violation { kind: Kind::OrderReversed, time: write.end, session: Some(session), text };
                self.violations.push(violation);
            }
            self.bounds.acknowledged.add(mark.key, write.end, mark.lsn);
            if write.process != Process::UNKNOWN {
                self.bounds.by_process.add((write.process, mark.key), write.end, mark.lsn);
            }
        }
    }
}

impl Process {
    /// It is not certain which life it was.
    pub const UNKNOWN: Self = Self { follower: 0, life: 0 };
}

impl Truth {
    /// All that the logs say of the edges that a write is about, for a report.
    fn story(&self, asked: &Asked) -> String {
        let edges = match *asked {
            Asked::Put { .. } | Asked::Delete(_) => return String::new(),
            Asked::Link(edge) | Asked::Unlink(edge) => vec![edge],
            Asked::Retype(edge, new) => vec![edge, AssocRef { atype: new, ..edge }],
        };
        let sides = edges.iter().flat_map(|edge| [Some(*edge), self.shape.inverse(*edge)]).flatten();
        let mut text = String::new();
        for side in sides {
            let log = self.shape.log(side.id1);
            let _ = write!(text, "\n    log {log}, {}:", self.shape.name(side));
            for (lsn, effect) in (1..).zip(&self.logs[log].effects).filter(|(_, e)| e.edge() == Some(side)) {
                let what = if effect.put { "put" } else { "removed" };
                let moved = if effect.moved { ", moved" } else { "" };
                let _ = write!(text, " {lsn} {what} w {}{moved};", effect.w);
            }
        }
        text
    }

    fn log_of_w(&self, w: u64, lsn: Lsn) -> Option<usize> {
        (0..self.logs.len()).find(|log| self.effect(*log, lsn).is_some_and(|e| e.w == w))
    }
}

/// A change that bears no mark of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Removal {
    Object(ObjectId),
    Edge(AssocRef),
    /// The edge that a move has put.
    Move(AssocRef),
}

impl Removal {
    fn of(truth: &Truth, asked: &Asked) -> Option<Self> {
        match *asked {
            Asked::Put { .. } | Asked::Link(_) => None,
            Asked::Delete(id) => Some(Self::Object(id)),
            Asked::Unlink(edge) => Some(Self::Edge(truth.shape.canonical(edge))),
            Asked::Retype(edge, new) => Some(Self::Move(truth.shape.canonical(AssocRef { atype: new, ..edge }))),
        }
    }
}

/// Counts the changes that a write explains of which nobody knows where they are.
fn doubt(truth: &Truth, asked: &Asked, doubtful: &mut HashMap<Removal, u64>) {
    let mut add = |removal| *doubtful.entry(removal).or_default() += 1;
    if let Some(removal) = Removal::of(truth, asked) {
        add(removal);
    }
    // Between two databases the removal of a move is one of its own.
    if let Asked::Retype(edge, _) = *asked
        && truth.shape.crosses(edge)
    {
        add(Removal::Edge(truth.shape.canonical(edge)));
    }
}

/// Changes that no acknowledged write and no write in doubt explains.
fn unexplained(
    truth: &Truth,
    known: &HashSet<u64>,
    explained: &HashSet<(usize, Lsn)>,
    mut doubtful: HashMap<Removal, u64>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (log, at) in truth.logs.iter().enumerate() {
        for (lsn, effect) in (1..).zip(&at.effects) {
            let removal = match (effect.edge(), effect.put, effect.moved) {
                (_, true, false) => {
                    if !known.contains(&effect.w) {
                        let text =
                            format!("log {log}: {lsn} puts {:?} with w {}, which nobody wrote", effect.key, effect.w);
                        found.push(Violation::of_log(Kind::FromNowhere, text));
                    }
                    continue;
                }
                // The removals of a move are explained by what it put.
                (_, false, true) => continue,
                (None, _, _) => Removal::Object(effect.key.owner()),
                (Some(edge), ..) if !truth.shape.is_canonical(edge) => continue,
                (Some(edge), true, true) => Removal::Move(edge),
                (Some(edge), false, false) => Removal::Edge(edge),
            };
            if explained.contains(&(log, lsn)) {
                continue;
            }
            match doubtful.get_mut(&removal).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => {
                    let text = format!("log {log}: {lsn} ({removal:?}) was asked for by nobody, or done twice");
                    found.push(Violation::of_log(Kind::FromNowhere, text));
                }
            }
        }
    }
    found
}
