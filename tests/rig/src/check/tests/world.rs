//! Makes logs as the store does, and histories that fit them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use tao_model::{
    AssocRef, Change, ChangeKind, Edge, EdgeKey, Key, ListDelta, ObjectId, Position, Schema, ShardId, TypeId,
};
use tao_proto::{edges, v1};

use crate::check::{
    ABSENT, Arena, Asked, CommitRow, Done, Filter, History, Kind, Level, Lsn, Outcome, Page, Process, Read, Replay,
    Seen, SessionHistory, Shape, Step, Tables, Time, Truth, Verdict, Violation, Write, edge_hash, judge, object_hash,
};

pub const EPOCH: u64 = 7;
pub const FOLLOWS: TypeId = TypeId(1);
pub const FOLLOWED_BY: TypeId = TypeId(2);
pub const FRIEND: TypeId = TypeId(5);
pub const MESSAGED: TypeId = TypeId(10);
pub const A: Process = Process { follower: 0, life: 1 };
pub const B: Process = Process { follower: 1, life: 1 };

pub fn id(n: i64) -> ObjectId {
    ObjectId::new(n << 12).unwrap()
}

pub fn edge(a: i64, atype: TypeId, b: i64) -> AssocRef {
    AssocRef { id1: id(a), atype, id2: id(b) }
}

pub fn data(w: u64, n: i64) -> BTreeMap<String, v1::Value> {
    let int = |n| v1::Value { kind: Some(v1::value::Kind::Int64Value(n)) };
    [("w".to_owned(), int(w as i64)), ("n".to_owned(), int(n))].into()
}

pub fn object(at: i64, version: i64, w: u64, n: i64) -> v1::Object {
    v1::Object { id: id(at).get(), r#type: "user".to_owned(), version, data: data(w, n), ..Default::default() }
}

pub fn assoc(to: i64, time: u32, w: u64) -> v1::Assoc {
    v1::Assoc { id2: id(to).get(), time: i64::from(time), data: data(w, 0), ..Default::default() }
}

/// A log under way, and what sessions did.
pub struct World {
    pub shape: Shape,
    pub rows: Vec<CommitRow>,
    pub history: History,
    pub tables: Option<Tables>,
    head: u64,
    counts: HashMap<(ObjectId, TypeId), (u64, Position)>,
}

impl Default for World {
    fn default() -> Self {
        let sessions = (0..4).map(|id| SessionHistory { id, ..Default::default() }).collect();
        Self {
            shape: Shape::one_log(Schema::social()),
            rows: Vec::new(),
            history: History { sessions },
            tables: None,
            head: 0,
            counts: HashMap::new(),
        }
    }
}

impl World {
    /// Commits changes, and answers with the position of the last.
    pub fn commit(&mut self, kinds: Vec<ChangeKind>) -> Lsn {
        let first = self.head + 1;
        let changes: Vec<_> = (first..)
            .zip(kinds)
            .map(|(lsn, kind)| Change { position: Position::new(EPOCH, lsn), shard: ShardId(0), kind })
            .collect();
        self.head += changes.len() as u64;
        self.rows.push(CommitRow { epoch: EPOCH, first, last: self.head, changes });
        self.head as Lsn
    }

    pub fn put(&mut self, at: i64, version: i64, w: u64, n: i64) -> Lsn {
        let bytes = object(at, version, w, n).encode_to_vec().into();
        self.commit(vec![ChangeKind::Object(id(at), Some(bytes))])
    }

    pub fn list(&mut self, edge: AssocRef, step: i64, put: Option<(u32, u64)>, ahead: u64) -> ChangeKind {
        let at = Position::new(EPOCH, self.head + ahead);
        let row = self.counts.entry((edge.id1, edge.atype)).or_default();
        let prev = std::mem::replace(&mut row.1, at);
        row.0 = row.0.strict_add_signed(step);
        let delta = match put {
            None => ListDelta::Remove(edge.id2),
            Some((time, w)) => {
                let data = Bytes::from(v1::Object { data: data(w, 0), ..Default::default() }.encode_to_vec());
                let encoded = edges::encode_edge(&Edge { id2: edge.id2, time, data });
                ListDelta::Put(EdgeKey { time, id2: edge.id2 }, encoded)
            }
        };
        ChangeKind::List { id1: edge.id1, atype: edge.atype, prev, count: row.0, delta }
    }

    /// Puts or removes an edge and its inverse; `step` is what it adds to the counts.
    pub fn both(&mut self, edge: AssocRef, step: i64, put: Option<(u32, u64)>) -> Lsn {
        let inverse = self.shape.inverse(edge).unwrap();
        let kinds = vec![self.list(edge, step, put, 1), self.list(inverse, step, put, 2)];
        self.commit(kinds) - 1
    }

    pub fn wrote(
        &mut self,
        session: usize,
        times: (Time, Time),
        process: Process,
        w: u64,
        asked: Asked,
        outcome: Outcome,
    ) {
        let (start, end) = times;
        let write = Write { w, start, end, process, attempts: 1, keyed: false, asked, outcome };
        self.history.sessions[session].steps.push(Step::Write(Box::new(write)));
    }

    /// An object that was written and acknowledged by follower A, in session 0, over these times.
    pub fn wrote_object(&mut self, times: (Time, Time), version: i64, w: u64) -> Lsn {
        let n = version - 1;
        let lsn = self.put(1, version, w, n);
        let hash = object_hash(&object(1, version, w, n));
        let done = Done { applied: true, hash, covered: [lsn, 0], ..Default::default() };
        let asked = Asked::Put { id: Some(id(1)), adds: version > 1, expected: None };
        self.wrote(0, times, A, w, asked, Outcome::Done(done));
        lsn
    }

    /// The edge 1 follows 2 (or its like), written and acknowledged by follower A in session 0.
    pub fn linked(&mut self, times: (Time, Time), edge: AssocRef, time: u32, w: u64, count: u32) -> Lsn {
        let lsn = self.both(edge, 1, Some((time, w)));
        let hash = edge_hash(&assoc(edge.id2.get() >> 12, time, w));
        let done = Done { applied: true, hash, count, covered: [lsn, lsn + 1], pending: false };
        self.wrote(0, times, A, w, Asked::Link(edge), Outcome::Done(done));
        lsn
    }

    pub fn unlinked(&mut self, times: (Time, Time), edge: AssocRef, count: u32) -> Lsn {
        let lsn = self.both(edge, -1, None);
        let done = Done { applied: true, count, covered: [lsn, lsn + 1], ..Default::default() };
        self.wrote(0, times, A, 900 + u64::from(lsn), Asked::Unlink(edge), Outcome::Done(done));
        lsn
    }

    pub fn read(
        &mut self,
        session: usize,
        start: Time,
        process: Process,
        level: Level,
        key: Key,
        seen: Seen,
    ) -> &mut Read {
        let read = Read {
            start,
            end: start + 1,
            process,
            level,
            floored: false,
            continued: false,
            key,
            floor: 0,
            claim: 0,
            seen,
        };
        let steps = &mut self.history.sessions[session].steps;
        steps.push(Step::Read(read));
        match steps.last_mut() {
            Some(Step::Read(read)) => read,
            _ => unreachable!("it was pushed just now"),
        }
    }

    /// A read of object 1 that shows a version, or none (0).
    pub fn read_object(
        &mut self,
        session: usize,
        start: Time,
        process: Process,
        level: Level,
        version: i64,
        w: u64,
    ) -> &mut Read {
        let hash = if version == 0 { ABSENT } else { object_hash(&object(1, version, w, version - 1)) };
        self.read(session, start, process, level, Key::Object(id(1)), Seen::Object(hash))
    }

    /// A read of a whole list.
    pub fn read_list(&mut self, session: usize, start: Time, list: (i64, TypeId), edges: &[v1::Assoc]) -> &mut Read {
        let arena: &mut Arena = &mut self.history.sessions[session].arena;
        let edges = arena.keep(edges.iter().map(edge_hash));
        let filter = Filter { after: None, offset: 0, low: 0, high: u32::MAX, limit: 50 };
        let seen = Seen::Page(Page { filter, edges, ended: true });
        self.read(session, start, B, Level::Cached, Key::List(id(list.0), list.1), seen)
    }

    pub fn replay(&self) -> (Truth, Vec<Violation>) {
        let mut replay = Replay::new(self.shape.clone());
        self.rows.iter().for_each(|row| replay.commit(0, row));
        replay.finish()
    }

    pub fn verdict(&self) -> Verdict {
        let (truth, mut violations) = self.replay();
        if let Some(tables) = &self.tables {
            violations.extend(truth.compare(0, tables));
        }
        violations.extend(truth.missing_inverses());
        let mut verdict = judge(&truth, &self.history);
        verdict.violations.extend(violations);
        verdict
    }

    #[track_caller]
    pub fn passes(&self) {
        let verdict = self.verdict();
        assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    }

    /// Something is wrong, and nothing but this.
    #[track_caller]
    pub fn fails_with(&self, kind: Kind) {
        let verdict = self.verdict();
        let kinds: Vec<_> = verdict.by_kind().into_keys().collect();
        assert_eq!(kinds, [kind], "{:#?}", verdict.violations);
    }
}
