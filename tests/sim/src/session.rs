//! A session: hops between followers, reads and writes, takes its token along, and notes everything.

use std::collections::BTreeMap;
use std::future::Future;

use rand::Rng as _;
use rand::rngs::StdRng;
use tao_model::{AssocRef, Key, LogId, ObjectId, Token, TypeId};
use tao_proto::v1::{self, value};
use tao_rig::check::{
    ABSENT, Asked, Done, Failed, Filter, Kind, Level, Lsn, Outcome, Page, Read, Seen, SessionHistory, Step, Time,
    Write, edge_hash, object_hash,
};
use tonic::{Response, Status};

use crate::calls::{Answered, Followers, Stub};
use crate::clock::now_us;
use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::plan::{Plan, randomness};
use crate::pool::Pool;

/// Association types that edges are made of: those of the social schema between users.
pub const EDGES: [(&str, TypeId); 5] = [
    ("follows", TypeId(1)),
    ("followed_by", TypeId(2)),
    ("friend", TypeId(5)),
    ("messaged", TypeId(10)),
    ("messaged_by", TypeId(11)),
];
/// Attempts at a write that may be repeated.
const ATTEMPTS: u16 = 4;
/// Edges of a page at the most.
const PAGE: u32 = 8;

/// See the module.
pub struct Session {
    cluster: Cluster,
    followers: Followers,
    pool: Pool,
    random: StdRng,
    token: Token,
    /// What it did and saw.
    pub history: SessionHistory,
}

/// How a read is made.
#[derive(Clone, Copy)]
pub struct Way {
    /// The promise that is asked for.
    pub level: Level,
    /// What the request says of it; `Unspecified`: nothing.
    pub consistency: v1::Consistency,
    /// Whether the request carries the token.
    pub with_token: bool,
}

impl Session {
    /// Number `id` of a run.
    pub fn new(id: u32, cluster: Cluster, followers: Followers, pool: Pool) -> Self {
        let random = randomness(cluster.plan.seed, 1_000 + u64::from(id));
        let token = Token::new(cluster.plan.info(0).cluster);
        Self { cluster, followers, pool, random, token, history: SessionHistory { id, ..Default::default() } }
    }

    /// Steps until the run's time is over.
    pub async fn run(&mut self) {
        let end = self.cluster.plan.time.as_micros() as u64;
        while now_us() < end {
            self.step().await;
            let pause = if self.random.random_bool(0.8) { 0..5 } else { 5..100 };
            let pause = self.random.random_range(pause);
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        }
    }

    /// The association types of this run.
    pub fn edges(&self) -> &'static [(&'static str, TypeId)] {
        &EDGES[..self.cluster.plan.edge_types]
    }

    async fn step(&mut self) {
        let random = self.random.random_range(0..20);
        if random < 3 {
            // Somebody tells it what all have seen.
            self.token = self.pool.share(&self.token);
        } else if random < 10 {
            self.pool.share(&self.token);
        }
        if !self.pool.is_full() && self.random.random_bool(0.3) {
            return self.add_object().await;
        }
        match self.random.random_range(0..100) {
            0..12 => self.update_object().await,
            12..16 => self.upsert_object().await,
            16..18 => self.delete_object().await,
            18..34 => self.link().await,
            34..40 => self.unlink().await,
            40..43 => self.retype().await,
            43..65 => {
                let (follower, way) = (self.hop(), self.way());
                if let Some(id) = self.pool.any(&mut self.random) {
                    self.read_object(follower, id, way).await;
                }
            }
            65..75 => {
                let (follower, way) = (self.hop(), self.way());
                if let Some((id, edge)) = self.list() {
                    self.read_count(follower, id, edge, way).await;
                }
            }
            _ => {
                let (follower, way) = (self.hop(), self.way());
                if let Some((id, edge)) = self.list() {
                    self.read_page(follower, id, edge, way).await;
                }
            }
        }
    }

    /// Any follower.
    fn hop(&mut self) -> usize {
        self.random.random_range(0..self.followers.len())
    }

    fn edge_type(&mut self) -> (&'static str, TypeId) {
        let edges = self.edges();
        edges[self.random.random_range(0..edges.len())]
    }

    fn list(&mut self) -> Option<(ObjectId, (&'static str, TypeId))> {
        Some((self.pool.any(&mut self.random)?, self.edge_type()))
    }

    fn way(&mut self) -> Way {
        use v1::Consistency::{AtLeastAsFresh, BoundedStaleness, MinimizeLatency, Strong, Unspecified};
        let way = |level, consistency, with_token| Way { level, consistency, with_token };
        let is_new = self.token == Token::new(self.token.cluster());
        match self.random.random_range(0..20) {
            0..9 if !is_new => way(Level::Cached, AtLeastAsFresh, true),
            9..12 => way(Level::Cached, Unspecified, true),
            12..14 => way(Level::Cached, MinimizeLatency, true),
            14..16 => {
                let ms = [50, 500, 2_000][self.random.random_range(0..3)];
                way(Level::Bounded(ms), BoundedStaleness, self.random.random_bool(0.5))
            }
            16..18 => way(Level::Strong, Strong, self.random.random_bool(0.5)),
            _ => way(Level::Cached, Unspecified, false),
        }
    }

    fn options(&self, way: Way) -> Option<v1::ReadOptions> {
        Some(v1::ReadOptions {
            consistency: way.consistency as i32,
            session_token: if way.with_token { self.token.encode() } else { String::new() },
            max_staleness_ms: if let Level::Bounded(ms) = way.level { i64::from(ms) } else { 0 },
        })
    }

    fn write_options(&self, key: &str) -> Option<v1::WriteOptions> {
        Some(v1::WriteOptions { session_token: self.token.encode(), idempotency_key: key.to_owned() })
    }

    fn lsn(&self, token: &Token, id: ObjectId) -> Lsn {
        let shard = self.cluster.plan.info(0).layout.shard(id);
        token.floor(shard, LogId(Plan::log_of(shard) as u32)).lsn as Lsn
    }

    fn see(&mut self, token: Option<&Token>) {
        if let Some(token) = token {
            self.token.merge(token);
        }
    }

    fn say(&self, text: &str) {
        tracing::info!("session {}: {text}", self.history.id);
    }

    /// Notes what is wrong by itself.
    pub fn odd(&mut self, kind: Kind, text: String) {
        self.history.steps.push(Step::Odd(Box::new((time(), kind, text))));
    }

    // Reads.

    /// Reads an object; says whether there was an answer.
    pub async fn reads_object(&mut self, follower: usize, id: ObjectId, way: Way) -> bool {
        self.read_object(follower, id, way).await;
        !matches!(self.history.steps.last(), Some(Step::Failed(_)))
    }

    /// Notes what became of a read.
    fn saw(&mut self, key: Key, way: Way, start: Time, before: &Token, answer: Answered<Seen>) {
        let Answered { result, token, process } = answer;
        let end = time();
        let (what, mode) = (name(key), format!("{:?}{}", way.level, if way.with_token { " token" } else { "" }));
        match result {
            Err(refusal) if refusal.is_outage() => {
                self.say(&format!("{what} {mode} at {}: {}", process.follower, refusal.message));
                self.history.steps.push(Step::Failed(Failed { start, end }));
            }
            Err(refusal) => self.odd(Kind::OddError, format!("{what} {mode}: {refusal:?}")),
            Ok(seen) => {
                let floored = way.with_token
                    && way.consistency != v1::Consistency::MinimizeLatency
                    && *before != Token::new(before.cluster());
                let sent = if way.with_token { self.lsn(before, key.owner()) } else { 0 };
                let got = token.as_ref().map_or(0, |token| self.lsn(token, key.owner()));
                if token.is_none() {
                    self.odd(Kind::TokenBehind, format!("{what}: the answer has no token"));
                }
                // Of an answer that is not above what was sent it can't be told what it claims; nor where shards were folded on the
                // way, and the positions of others hide this one's.
                let log = LogId(Plan::log_of(self.cluster.plan.info(0).layout.shard(key.owner())) as u32);
                let folded = token.as_ref().is_some_and(|token| token.base(log).lsn > before.base(log).lsn);
                let claim = if got > sent && !(way.with_token && folded) { got } else { 0 };
                let level = match way.level {
                    Level::Bounded(ms) => Level::Bounded(ms + Faults::max_clock_error_ms()),
                    other => other,
                };
                let floor = if floored { sent } else { 0 };
                self.say(&format!("{what} {mode} at {}: {seen:?} as of {got}", process.follower));
                let read = Read { start, end, process, level, floored, continued: false, key, floor, claim, seen };
                self.history.steps.push(Step::Read(read));
            }
        }
        self.see(token.as_ref());
    }

    /// Reads an object.
    pub async fn read_object(&mut self, follower: usize, id: ObjectId, way: Way) {
        let (start, before) = (time(), self.token.clone());
        let request = v1::ObjectGetRequest { id: id.get(), options: self.options(way) };
        let answer = self.followers.call(follower, |mut stub| async move { stub.object_get(request).await }).await;
        let result = match answer.result {
            Ok(found) => Ok(Seen::Object(found.object.as_ref().map_or(ABSENT, object_hash))),
            Err(refusal) if refusal.reason == "NOT_FOUND" => Ok(Seen::Object(ABSENT)),
            Err(refusal) => Err(refusal),
        };
        let answer = Answered { result, token: answer.token, process: answer.process };
        self.saw(Key::Object(id), way, start, &before, answer);
    }

    /// Counts a list.
    pub async fn read_count(&mut self, follower: usize, id1: ObjectId, (name, atype): (&str, TypeId), way: Way) {
        let (start, before) = (time(), self.token.clone());
        let request = v1::AssocCountRequest { id1: id1.get(), r#type: name.to_owned(), options: self.options(way) };
        let answer = self.followers.call(follower, |mut stub| async move { stub.assoc_count(request).await }).await;
        let result = answer.result.map(|found| Seen::Count(found.count as u32));
        let answer = Answered { result, token: answer.token, process: answer.process };
        self.saw(Key::List(id1, atype), way, start, &before, answer);
    }

    /// Reads the newest edges of a list.
    pub async fn read_page(&mut self, follower: usize, id1: ObjectId, (name, atype): (&str, TypeId), way: Way) {
        let (start, before) = (time(), self.token.clone());
        let limit = self.random.random_range(1..=PAGE);
        let offset = if self.random.random_bool(0.2) { self.random.random_range(0..4) } else { 0 };
        let request = v1::AssocRangeRequest {
            id1: id1.get(),
            r#type: name.to_owned(),
            offset: i64::from(offset),
            limit: i64::from(limit),
            options: self.options(way),
            ..Default::default()
        };
        let answer = self.followers.call(follower, |mut stub| async move { stub.assoc_range(request).await }).await;
        let result = answer.result.map(|found| {
            let edges = self.history.arena.keep(found.assocs.iter().map(edge_hash));
            let filter = Filter { after: None, offset, low: 0, high: u32::MAX, limit };
            Seen::Page(Page { filter, edges, ended: found.next_cursor.is_empty() })
        });
        let answer = Answered { result, token: answer.token, process: answer.process };
        self.saw(Key::List(id1, atype), way, start, &before, answer);
    }

    // Writes.

    /// Tries a write until it is known what became of it, or as often as it may be tried.
    async fn write<T: PartialEq + std::fmt::Debug, F>(
        &mut self,
        w: u64,
        asked: Asked,
        send: impl Fn(Stub, Option<v1::WriteOptions>) -> F,
        done: impl Fn(&T) -> (Asked, Done),
    ) where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let keyed = self.random.random_bool(0.7);
        let key = if keyed { format!("{}-{w}", self.cluster.plan.seed) } else { String::new() };
        let start = time();
        let mut in_doubt = false;
        let mut attempts = 0;
        let (process, end, asked, outcome) = loop {
            attempts += 1;
            let follower = self.hop();
            let options = self.write_options(&key);
            let answer = self.followers.call(follower, |stub| send(stub, options)).await;
            let end = time();
            self.see(answer.token.as_ref());
            let refusal = match answer.result {
                Ok(said) => {
                    let (asked, mut done) = done(&said);
                    done.covered = self.covered(&asked, answer.token.as_ref());
                    self.say(&format!("write {w} {asked:?} at {}: {done:?}", answer.process.follower));
                    if keyed && self.random.random_bool(0.1) {
                        self.repeat(w, &asked, &key, &send, &said).await;
                    }
                    break (answer.process, end, asked, Outcome::Done(done));
                }
                Err(refusal) => refusal,
            };
            self.say(&format!("write {w} {asked:?} at {follower}, attempt {attempts}: {refusal:?}"));
            if !refusal.is_outage() && !refusal.is_conflict() {
                self.odd(Kind::OddError, format!("write {w} {asked:?}: {refusal:?}"));
            }
            in_doubt |= !refusal.not_applied;
            // What the graph refuses, after an attempt in doubt, was perhaps done by that attempt: an unkeyed one can't tell.
            let may_repeat = keyed || refusal.not_applied && !in_doubt;
            if !refusal.is_outage() || !may_repeat || attempts == ATTEMPTS {
                let outcome = match (in_doubt, refusal.is_outage()) {
                    (true, _) => Outcome::InDoubt,
                    (false, true) => Outcome::NotApplied,
                    (false, false) => Outcome::Refused,
                };
                break (answer.process, end, asked, outcome);
            }
            let pause = self.random.random_range(1..300);
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        };
        let write = Write { w, start, end, process, attempts, keyed, asked, outcome };
        self.history.steps.push(Step::Write(Box::new(write)));
        if self.random.random_bool(0.5) {
            self.look_at(&asked, usize::from(process.follower)).await;
        }
    }

    /// Reads at once what a write was about: where it was written, or elsewhere.
    async fn look_at(&mut self, asked: &Asked, follower: usize) {
        let (follower, way) = if self.random.random_bool(0.4) {
            (follower, Way { level: Level::Cached, consistency: v1::Consistency::Unspecified, with_token: false })
        } else {
            (self.hop(), Way { level: Level::Cached, consistency: v1::Consistency::Unspecified, with_token: true })
        };
        match asked {
            Asked::Put { id: Some(id), .. } | Asked::Delete(id) => self.read_object(follower, *id, way).await,
            Asked::Put { id: None, .. } => {}
            Asked::Link(edge) | Asked::Unlink(edge) | Asked::Retype(edge, _) => {
                if let Some(list) = EDGES.iter().find(|(_, atype)| *atype == edge.atype) {
                    self.read_page(follower, edge.id1, *list, way).await;
                }
            }
        }
    }

    /// Repeats an acknowledged write with its key, elsewhere: its first answer must come again.
    async fn repeat<T: PartialEq + std::fmt::Debug, F>(
        &mut self,
        w: u64,
        asked: &Asked,
        key: &str,
        send: &impl Fn(Stub, Option<v1::WriteOptions>) -> F,
        first: &T,
    ) where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (follower, options) =
            (self.hop(), Some(v1::WriteOptions { session_token: String::new(), idempotency_key: key.to_owned() }));
        let answer = self.followers.call(follower, |stub| send(stub, options)).await;
        let crosses = match asked {
            Asked::Put { .. } | Asked::Delete(_) => false,
            Asked::Link(edge) | Asked::Unlink(edge) | Asked::Retype(edge, _) => self.crosses(*edge),
        };
        match answer.result {
            Ok(second) => {
                let (a, b) = (format!("{first:?}"), format!("{second:?}"));
                if lasting(&a, crosses) != lasting(&b, crosses) {
                    self.odd(Kind::RetryDiffers, format!("write {w}: first {a}, then {b}"));
                }
            }
            Err(refusal) if refusal.is_outage() => {}
            Err(refusal) => self.odd(Kind::RetryDiffers, format!("write {w}: first {first:?}, then {refusal:?}")),
        }
    }

    fn covered(&self, asked: &Asked, token: Option<&Token>) -> [Lsn; 2] {
        let at = |id: ObjectId| token.map_or(0, |token| self.lsn(token, id));
        match asked {
            Asked::Put { id: Some(id), .. } | Asked::Delete(id) => [at(*id), 0],
            Asked::Put { id: None, .. } => [0, 0],
            Asked::Link(edge) | Asked::Unlink(edge) | Asked::Retype(edge, _) => [at(edge.id1), at(edge.id2)],
        }
    }

    async fn add_object(&mut self) {
        let w = self.pool.write();
        // A write that may be repeated goes where its key says: everywhere, in the long run.
        let request = v1::ObjectAddRequest { r#type: "user".to_owned(), data: data(w), ..Default::default() };
        let pool = self.pool.clone();
        self.write(
            w,
            Asked::Put { id: None, adds: false, expected: None },
            move |mut stub, options| {
                let request = v1::ObjectAddRequest { options, ..request.clone() };
                async move { stub.object_add(request).await }
            },
            move |said: &v1::ObjectAddResponse| {
                let object = said.object.clone().unwrap_or_default();
                let id = ObjectId::new(object.id);
                id.into_iter().for_each(|id| pool.add(id));
                (Asked::Put { id, adds: false, expected: None }, put(Some(&object)))
            },
        )
        .await;
    }

    async fn update_object(&mut self) {
        let Some(id) = self.pool.any(&mut self.random) else { return };
        let w = self.pool.write();
        let expected = self.random.random_bool(0.1).then(|| self.random.random_range(1..6));
        let asked = Asked::Put { id: Some(id), adds: true, expected };
        let request = v1::ObjectUpdateRequest {
            id: id.get(),
            set: data(w),
            add: [("n".to_owned(), 1)].into(),
            expected_version: expected,
            ..Default::default()
        };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::ObjectUpdateRequest { options, ..request.clone() };
                async move { stub.object_update(request).await }
            },
            move |said: &v1::ObjectUpdateResponse| (asked, put(said.object.as_ref())),
        )
        .await;
    }

    async fn upsert_object(&mut self) {
        let Some(id) = self.pool.any(&mut self.random) else { return };
        let w = self.pool.write();
        let asked = Asked::Put { id: Some(id), adds: false, expected: None };
        let request =
            v1::ObjectUpsertRequest { id: id.get(), r#type: "user".to_owned(), data: data(w), ..Default::default() };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::ObjectUpsertRequest { options, ..request.clone() };
                async move { stub.object_upsert(request).await }
            },
            move |said: &v1::ObjectUpsertResponse| (asked, put(said.object.as_ref())),
        )
        .await;
    }

    async fn delete_object(&mut self) {
        let Some(id) = self.pool.any(&mut self.random) else { return };
        let w = self.pool.write();
        let asked = Asked::Delete(id);
        let request = v1::ObjectDeleteRequest { id: id.get(), ..Default::default() };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::ObjectDeleteRequest { options, ..request.clone() };
                async move { stub.object_delete(request).await }
            },
            move |said: &v1::ObjectDeleteResponse| (asked, Done { applied: said.deleted, ..Done::default() }),
        )
        .await;
    }

    /// Whether an edge and its inverse live in two logs.
    fn crosses(&self, edge: AssocRef) -> bool {
        let layout = self.cluster.plan.info(0).layout;
        Plan::log_of(layout.shard(edge.id1)) != Plan::log_of(layout.shard(edge.id2))
    }

    /// An edge that a write may be about.
    fn edge(&mut self) -> Option<(AssocRef, &'static str)> {
        let (id1, id2) = self.pool.pair(&mut self.random)?;
        let (name, atype) = self.edge_type();
        Some((AssocRef { id1, atype, id2 }, name))
    }

    async fn link(&mut self) {
        let Some((edge, name)) = self.edge() else { return };
        let w = self.pool.write();
        let asked = Asked::Link(edge);
        let request = v1::AssocAddRequest {
            id1: edge.id1.get(),
            r#type: name.to_owned(),
            id2: edge.id2.get(),
            time: Some(self.random.random_range(1_000..1_020)),
            data: data(w),
            ..Default::default()
        };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::AssocAddRequest { options, ..request.clone() };
                async move { stub.assoc_add(request).await }
            },
            move |said: &v1::AssocAddResponse| {
                let hash = said.assoc.as_ref().map_or(0, edge_hash);
                (
                    asked,
                    Done {
                        applied: said.created,
                        hash,
                        count: said.count as u32,
                        pending: said.inverse_pending,
                        ..Done::default()
                    },
                )
            },
        )
        .await;
    }

    async fn unlink(&mut self) {
        let Some((edge, name)) = self.edge() else { return };
        let w = self.pool.write();
        let asked = Asked::Unlink(edge);
        let request = v1::AssocDeleteRequest {
            id1: edge.id1.get(),
            r#type: name.to_owned(),
            id2: edge.id2.get(),
            ..Default::default()
        };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::AssocDeleteRequest { options, ..request.clone() };
                async move { stub.assoc_delete(request).await }
            },
            move |said: &v1::AssocDeleteResponse| {
                (
                    asked,
                    Done {
                        applied: said.deleted,
                        count: said.count as u32,
                        pending: said.inverse_pending,
                        ..Done::default()
                    },
                )
            },
        )
        .await;
    }

    async fn retype(&mut self) {
        let Some((edge, name)) = self.edge() else { return };
        let (new_name, new) = self.edge_type();
        let rank =
            |atype: TypeId| self.cluster.schema.assoc(atype).map_or(atype, |t| t.inverse.unwrap_or(atype).min(atype));
        // Between two logs a move is not told from a write by the log: what has moved must not come back to the same type.
        if new == edge.atype || (self.crosses(edge) && rank(new) <= rank(edge.atype)) {
            return;
        }
        let w = self.pool.write();
        let asked = Asked::Retype(edge, new);
        let request = v1::AssocChangeTypeRequest {
            id1: edge.id1.get(),
            r#type: name.to_owned(),
            id2: edge.id2.get(),
            new_type: new_name.to_owned(),
            ..Default::default()
        };
        self.write(
            w,
            asked,
            move |mut stub, options| {
                let request = v1::AssocChangeTypeRequest { options, ..request.clone() };
                async move { stub.assoc_change_type(request).await }
            },
            move |said: &v1::AssocChangeTypeResponse| {
                let hash = said.assoc.as_ref().map_or(0, edge_hash);
                (
                    asked,
                    Done {
                        applied: true,
                        hash,
                        count: said.count as u32,
                        pending: said.inverse_pending,
                        ..Done::default()
                    },
                )
            },
        )
        .await;
    }
}

fn time() -> Time {
    now_us() as Time
}

fn name(key: Key) -> String {
    match key {
        Key::Object(id) => format!("object {id}"),
        Key::List(id1, atype) => format!("list {id1} {}", atype.0),
    }
}

fn data(w: u64) -> BTreeMap<String, v1::Value> {
    let kind = Some(value::Kind::Int64Value(w as i64));
    [("w".to_owned(), v1::Value { kind })].into()
}

fn put(object: Option<&v1::Object>) -> Done {
    Done { applied: true, hash: object.map_or(ABSENT, object_hash), ..Done::default() }
}

/// What an answer's text says for ever: not its token, and not how far an edge between two logs has come, and how many there are.
fn lasting(text: &str, crosses: bool) -> Vec<&str> {
    let fields = text.split(", ").filter(|field| !field.starts_with("session_token"));
    fields.filter(|field| !crosses || !(field.starts_with("count") || field.starts_with("inverse_pending"))).collect()
}
