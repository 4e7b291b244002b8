//! Writes of every kind, their retries, and what became of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng as _;
use tao_model::{AssocRef, Key, ObjectId, TypeId};
use tao_proto::v1;

use crate::check::{Asked, Done, Kind, Outcome, Step, Write, edge_hash, object_hash};
use crate::load::answer::Failure;
use crate::load::reads::now_seconds;
use crate::load::session::{Manner, Session, Trip};

/// How long a write with a key is repeated.
const GIVE_UP: Duration = Duration::from_secs(8);
/// Between two attempts.
const RETRY: std::ops::Range<u64> = 10..150;

/// A write.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Adds an object of this type.
    Add(&'static str),
    /// Changes an object.
    Update(ObjectId, Option<i64>),
    /// Adds an object, or replaces it.
    Upsert(ObjectId, &'static str),
    /// Deletes an object.
    Delete(ObjectId),
    /// Puts an edge.
    Link(AssocRef, Option<u32>),
    /// Removes an edge.
    Unlink(AssocRef),
    /// Moves an edge to another type.
    Retype(AssocRef, TypeId),
}

/// What an answer to a write says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Said {
    id: Option<ObjectId>,
    version: i64,
    applied: bool,
    hash: u64,
    count: u32,
    pending: bool,
}

fn int(n: i64) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::Int64Value(n)) }
}

/// What is written: the write's number, the sum, and some padding to fill the caches with.
fn data(w: u64, n: Option<i64>) -> BTreeMap<String, v1::Value> {
    let pad = "x".repeat((w % 61) as usize * 8);
    let pad = v1::Value { kind: Some(v1::value::Kind::StringValue(pad)) };
    let mut data = BTreeMap::from([("w".to_owned(), int(w as i64)), ("pad".to_owned(), pad)]);
    data.extend(n.map(|n| ("n".to_owned(), int(n))));
    data
}

fn of_object(object: Option<&v1::Object>, applied: bool) -> Said {
    let id = object.and_then(|o| ObjectId::new(o.id));
    let (version, hash) = object.map_or((0, 0), |o| (o.version, object_hash(o)));
    Said { id, version, applied, hash, ..Said::default() }
}

fn of_edge(edge: Option<&v1::Assoc>, applied: bool, count: i64, pending: bool) -> Said {
    Said { applied, hash: edge.map_or(0, edge_hash), count: count as u32, pending, ..Said::default() }
}

impl Change {
    fn asked(self, id: Option<ObjectId>) -> Asked {
        match self {
            Self::Add(_) => Asked::Put { id, adds: false, expected: None },
            Self::Update(id, expected) => Asked::Put { id: Some(id), adds: true, expected },
            Self::Upsert(id, _) => Asked::Put { id: Some(id), adds: false, expected: None },
            Self::Delete(id) => Asked::Delete(id),
            Self::Link(edge, _) => Asked::Link(edge),
            Self::Unlink(edge) => Asked::Unlink(edge),
            Self::Retype(edge, new) => Asked::Retype(edge, new),
        }
    }

    /// The ids whose shards it writes to.
    fn owners(self, said: Option<ObjectId>) -> [Option<ObjectId>; 2] {
        match self {
            Self::Add(_) => [said, None],
            Self::Update(id, _) | Self::Upsert(id, _) | Self::Delete(id) => [Some(id), None],
            Self::Link(edge, _) | Self::Unlink(edge) | Self::Retype(edge, _) => [Some(edge.id1), Some(edge.id2)],
        }
    }
}

impl Session {
    /// A write of any kind, and often a look at what it did.
    pub(crate) async fn any_write(&mut self) {
        let context = self.context.clone();
        let keys = &context.keys;
        let rng = &mut self.rng;
        let change = match rng.random_range(0..100) {
            0..6 => Change::Add(if rng.random_bool(0.7) { "user" } else { "post" }),
            6..28 => {
                let id = keys.object(rng).0;
                let expected = self.known_version(id);
                Change::Update(id, expected)
            }
            28..38 => {
                let (id, otype) = keys.object(rng);
                Change::Upsert(id, otype)
            }
            38..43 => Change::Delete(keys.object(rng).0),
            43..72 => {
                let time = rng.random_bool(0.7).then(|| now_seconds() - rng.random_range(0..2_000));
                Change::Link(keys.edge(rng), time)
            }
            72..90 => Change::Unlink(keys.edge(rng)),
            _ => {
                let (edge, new) = keys.move_of(rng);
                Change::Retype(edge, new)
            }
        };
        if self.rng.random_bool(0.3) {
            self.write(change).await;
            return;
        }
        // What is read before and after is likely to be cached where it is read: there it must not be the old state that shows.
        let key = self.key_of(change);
        let (writer, reader) = (self.hop(), self.hop());
        if let Some(key) = key {
            for follower in [writer, reader] {
                let manner = self.without_token(follower);
                self.read_again(manner, key).await;
            }
        }
        self.pinned = Some(writer);
        let Some((writer, added)) = self.write(change).await else { return };
        let Some(key) = key.or(added.map(Key::Object)) else { return };
        let manner = if self.rng.random_bool(0.5) { self.with_token(reader) } else { self.without_token(writer) };
        self.read_again(manner, key).await;
    }

    /// A key that a write changes, if it changes what is there.
    fn key_of(&mut self, change: Change) -> Option<Key> {
        let either = self.rng.random_bool(0.5);
        match change {
            Change::Add(_) => None,
            Change::Update(id, _) | Change::Upsert(id, _) | Change::Delete(id) => Some(Key::Object(id)),
            Change::Link(edge, _) | Change::Unlink(edge) => {
                let side = self.context.shape.inverse(edge).filter(|_| either).unwrap_or(edge);
                Some(Key::List(side.id1, side.atype))
            }
            Change::Retype(edge, new) => Some(Key::List(edge.id1, if either { new } else { edge.atype })),
        }
    }

    /// Ids for objects to come.
    pub async fn allocate(&mut self, count: usize) -> anyhow::Result<Vec<ObjectId>> {
        let manner = self.write_manner();
        let mut ids = Vec::new();
        // One by one: all ids of a call are on one shard.
        for _ in 0..count {
            let request = v1::AllocateIdsRequest { count: 1, ..Default::default() };
            let call = self.call(manner, request, async |mut g, r| g.allocate_ids(r).await, |a| &a.session_token);
            let (result, _) = call.await;
            let answer = result.map_err(|failure| anyhow::anyhow!("ids can't be allocated: {failure:?}"))?;
            ids.extend(answer.ids.into_iter().filter_map(ObjectId::new));
        }
        Ok(ids)
    }

    /// A version that the session has seen of an object, some of the time.
    fn known_version(&mut self, id: ObjectId) -> Option<i64> {
        let known = self.versions.get(&id).copied();
        known.filter(|_| self.rng.random_bool(0.3))
    }

    /// Makes a write, and repeats it where that is safe, until something is known of it. Answers with the follower that acknowledged it
    /// and the id of an object that was added.
    pub async fn write(&mut self, change: Change) -> Option<(usize, Option<ObjectId>)> {
        let context = self.context.clone();
        let w = context.take_w();
        let key = if self.rng.random_bool(0.7) { format!("rig-{w}") } else { String::new() };
        let begun = Instant::now();
        let start = context.now();
        let (mut attempts, mut doubtful) = (0, false);
        let (outcome, said, last) = loop {
            let mut manner = self.write_manner();
            // An answer that is lost on purpose.
            if attempts == 0 && !key.is_empty() && self.rng.random_ratio(1, 30) {
                manner.deadline = Duration::from_micros(self.rng.random_range(200..8_000));
            }
            attempts += 1;
            let (result, trip) = self.attempt(change, w, &key, manner).await;
            match result {
                Ok(said) => break (self.done(change, said, &trip), Some(said), trip),
                Err(Failure::Refused(_)) if doubtful => break (Outcome::InDoubt, None, trip),
                Err(Failure::Refused(_)) => break (Outcome::Refused, None, trip),
                Err(Failure::Odd(text)) => {
                    self.odd(trip.end, Kind::OddError, &format!("{change:?} by {:?}: {text}", trip.process));
                    break (Outcome::InDoubt, None, trip);
                }
                Err(Failure::Unavailable { not_applied }) => {
                    doubtful |= !not_applied;
                    let may_repeat = !key.is_empty() || !doubtful;
                    if !may_repeat || begun.elapsed() > GIVE_UP || context.is_stopped() {
                        break (if doubtful { Outcome::InDoubt } else { Outcome::NotApplied }, None, trip);
                    }
                    tokio::time::sleep(Duration::from_millis(self.rng.random_range(RETRY))).await;
                }
            }
        };
        let id = said.and_then(|s| s.id);
        self.history.steps.push(Step::Write(Box::new(Write {
            w,
            start,
            end: last.end,
            process: last.process,
            attempts,
            keyed: !key.is_empty(),
            asked: change.asked(id),
            outcome,
        })));
        let said = said?;
        if let Some(id) = id {
            self.versions.insert(id, said.version);
            if matches!(change, Change::Add(_)) {
                context.keys.added(id, w as usize);
            }
        }
        if !key.is_empty() && self.rng.random_ratio(1, 10) {
            self.repeat(change, w, &key, said).await;
        }
        Some((last.manner.follower, id))
    }

    /// A repeated write gets the first one's answer, whoever is asked.
    async fn repeat(&mut self, change: Change, w: u64, key: &str, first: Said) {
        let manner = self.write_manner();
        let (result, trip) = self.attempt(change, w, key, manner).await;
        match result {
            Ok(again) if again == first || self.differs_by_time_only(change, again, first) => {}
            Ok(again) => {
                let text = format!("write {w} ({change:?}) was answered {first:?}, and then {again:?}");
                self.odd(trip.end, Kind::RetryDiffers, &text);
            }
            Err(Failure::Unavailable { .. }) => {}
            Err(Failure::Refused(text) | Failure::Odd(text)) => {
                let text = format!("write {w} ({change:?}) was answered {first:?}, and then failed: {text}");
                self.odd(trip.end, Kind::RetryDiffers, &text);
            }
        }
    }

    /// Of an edge between two databases, each answer says how far it has come and how many edges there are by now.
    fn differs_by_time_only(&self, change: Change, again: Said, first: Said) -> bool {
        let edge = match change {
            Change::Add(_) | Change::Update(..) | Change::Upsert(..) | Change::Delete(_) => return false,
            Change::Link(edge, _) | Change::Unlink(edge) | Change::Retype(edge, _) => edge,
        };
        let same = Said { count: first.count, pending: first.pending, ..again } == first;
        same && self.context.shape.crosses(edge)
    }

    fn write_manner(&mut self) -> Manner {
        let follower = self.hop();
        let token = self.rng.random_bool(0.7);
        Manner { token, ..self.with_token(follower) }
    }

    fn done(&mut self, change: Change, said: Said, trip: &Trip) -> Outcome {
        let context = self.context.clone();
        let owners = change.owners(said.id);
        for owner in owners.into_iter().flatten() {
            if trip.forgot(&context.shape, owner) {
                self.odd(trip.end, Kind::TokenBehind, &format!("{change:?} gave an older token back"));
            }
        }
        let covered = owners.map(|owner| owner.map_or(0, |owner| trip.covered(&context.shape, owner)));
        let Said { applied, hash, count, pending, .. } = said;
        Outcome::Done(Done { applied, hash, count, pending, covered })
    }

    async fn attempt(&mut self, change: Change, w: u64, key: &str, manner: Manner) -> (Result<Said, Failure>, Trip) {
        let session_token = self.token_text(&manner);
        let options = Some(v1::WriteOptions { session_token, idempotency_key: key.to_owned() });
        let type_name = |t: TypeId| self.context.shape.type_name(t).to_owned();
        match change {
            Change::Add(otype) => {
                let r#type = otype.to_owned();
                let request = v1::ObjectAddRequest { r#type, data: data(w, Some(0)), options, ..Default::default() };
                let call = self.call(manner, request, async |mut g, r| g.object_add(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| of_object(a.object.as_ref(), true)), trip)
            }
            Change::Update(id, expected_version) => {
                let request = v1::ObjectUpdateRequest {
                    id: id.get(),
                    set: data(w, None),
                    add: [("n".to_owned(), 1)].into(),
                    expected_version,
                    options,
                    ..Default::default()
                };
                let call = self.call(manner, request, async |mut g, r| g.object_update(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| of_object(a.object.as_ref(), true)), trip)
            }
            Change::Upsert(id, otype) => {
                let (id, r#type, data) = (id.get(), otype.to_owned(), data(w, Some(0)));
                let request = v1::ObjectUpsertRequest { id, r#type, data, options };
                let call = self.call(manner, request, async |mut g, r| g.object_upsert(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| of_object(a.object.as_ref(), a.created)), trip)
            }
            Change::Delete(id) => {
                let request = v1::ObjectDeleteRequest { id: id.get(), expected_version: None, options };
                let call = self.call(manner, request, async |mut g, r| g.object_delete(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| Said { applied: a.deleted, ..Said::default() }), trip)
            }
            Change::Link(edge, time) => {
                let request = v1::AssocAddRequest {
                    id1: edge.id1.get(),
                    r#type: type_name(edge.atype),
                    id2: edge.id2.get(),
                    time: time.map(i64::from),
                    data: data(w, None),
                    options,
                };
                let call = self.call(manner, request, async |mut g, r| g.assoc_add(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| of_edge(a.assoc.as_ref(), a.created, a.count, a.inverse_pending)), trip)
            }
            Change::Unlink(edge) => {
                let (id1, r#type, id2) = (edge.id1.get(), type_name(edge.atype), edge.id2.get());
                let request = v1::AssocDeleteRequest { id1, r#type, id2, options };
                let call = self.call(manner, request, async |mut g, r| g.assoc_delete(r).await, |a| &a.session_token);
                let (result, trip) = call.await;
                (result.map(|a| of_edge(None, a.deleted, a.count, a.inverse_pending)), trip)
            }
            Change::Retype(edge, new) => {
                let request = v1::AssocChangeTypeRequest {
                    id1: edge.id1.get(),
                    r#type: type_name(edge.atype),
                    id2: edge.id2.get(),
                    new_type: type_name(new),
                    options,
                };
                let make = async |mut g: crate::load::context::Graph, r| g.assoc_change_type(r).await;
                let (result, trip) = self.call(manner, request, make, |a| &a.session_token).await;
                (result.map(|a| of_edge(a.assoc.as_ref(), true, a.count, a.inverse_pending)), trip)
            }
        }
    }
}
