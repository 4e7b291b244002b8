//! Reads of every kind, and what each of them saw.

use std::time::Duration;

use rand::Rng as _;
use tao_model::{Key, ObjectId, TypeId};
use tao_proto::v1;

use crate::check::{ABSENT, Among, Filter, Kind, Level, Page, Read, Seen, Step, edge_hash, object_hash};
use crate::load::answer::Failure;
use crate::load::session::{Manner, Session, Trip};

/// How long a read of the sweep may take: nothing is broken then.
const PATIENCE: Duration = Duration::from_secs(20);

impl Session {
    /// A read of any kind; some are followed by another of the same key elsewhere, which must not go back.
    pub(crate) async fn any_read(&mut self) {
        if self.rng.random_bool(0.15) {
            let edge = self.context.keys.edge(&mut self.rng);
            let either = self.rng.random_bool(0.5);
            let key = if either { Key::Object(edge.id1) } else { Key::List(edge.id1, edge.atype) };
            let (first, second) = (self.hop(), self.hop());
            for manner in [self.without_token(second), self.without_token(first), self.with_token(second)] {
                self.read_again(manner, key).await;
            }
            return;
        }
        let manner = self.any_manner();
        let context = self.context.clone();
        match self.rng.random_range(0..100) {
            0..25 => {
                let id = context.keys.to_read(&mut self.rng);
                self.get(manner, id).await;
            }
            25..34 => {
                let count = self.rng.random_range(2..6);
                let ids: Vec<_> = (0..count).map(|_| context.keys.to_read(&mut self.rng)).collect();
                self.multi_get(manner, ids).await;
            }
            _ => {
                let edge = context.keys.edge(&mut self.rng);
                self.any_list_read(manner, (edge.id1, edge.atype), edge.id2).await;
            }
        }
    }

    /// A read of any kind of a key that was written just now.
    pub(crate) async fn read_again(&mut self, manner: Manner, key: Key) {
        match key {
            Key::Object(id) => self.get(manner, id).await,
            Key::List(id1, atype) => self.any_list_read(manner, (id1, atype), id1).await,
        }
    }

    async fn any_list_read(&mut self, manner: Manner, list: (ObjectId, TypeId), near: ObjectId) {
        let whole = Filter { after: None, offset: 0, low: 0, high: u32::MAX, limit: 50 };
        match self.rng.random_range(0..66) {
            0..16 => self.count(manner, list).await,
            16..32 => self.range(manner, list, whole, false).await,
            32..38 => self.range(manner, list, whole, true).await,
            38..44 => {
                let limit = self.rng.random_range(1..5);
                let offset = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..4) };
                self.range(manner, list, Filter { offset, limit, ..whole }, false).await;
            }
            44..54 => {
                let now = now_seconds();
                let low = now - self.rng.random_range(0..2_000);
                let high = if self.rng.random_bool(0.5) { u32::MAX } else { low + self.rng.random_range(0..2_000) };
                self.range(manner, list, Filter { low, high, ..whole }, false).await;
            }
            _ => {
                let mut ids = vec![near];
                for _ in 0..self.rng.random_range(0..4) {
                    ids.push(self.context.keys.user(&mut self.rng));
                }
                ids.sort_unstable();
                ids.dedup();
                self.among(manner, list, ids).await;
            }
        }
    }

    pub(crate) async fn get(&mut self, manner: Manner, id: ObjectId) {
        let request = v1::ObjectGetRequest { id: id.get(), options: self.read_options(&manner) };
        let call = self.call(manner, request, async |mut g, r| g.object_get(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        let hash = match result {
            Ok(answer) => answer.object.as_ref().map_or(ABSENT, object_hash),
            Err(Failure::Refused(reason)) if reason == "NOT_FOUND" => ABSENT,
            Err(failure) => return self.read_failed(failure, &trip, "ObjectGet"),
        };
        self.saw(&trip, &[(Key::Object(id), Seen::Object(hash))]);
    }

    async fn multi_get(&mut self, manner: Manner, ids: Vec<ObjectId>) {
        let raw = ids.iter().map(|id| id.get()).collect();
        let request = v1::ObjectMultiGetRequest { ids: raw, options: self.read_options(&manner) };
        let call = self.call(manner, request, async |mut g, r| g.object_multi_get(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return self.read_failed(failure, &trip, "ObjectMultiGet"),
        };
        if answer.results.len() != ids.len() {
            return self.odd(
                trip.end,
                Kind::OddError,
                &format!("{} results to {} ids", answer.results.len(), ids.len()),
            );
        }
        let mut seen = Vec::new();
        for (id, result) in ids.iter().zip(answer.results) {
            match result.result {
                Some(v1::object_result::Result::Object(object)) => {
                    seen.push((Key::Object(*id), Seen::Object(object_hash(&object))));
                }
                Some(v1::object_result::Result::Error(error)) if error.reason == "NOT_FOUND" => {
                    seen.push((Key::Object(*id), Seen::Object(ABSENT)));
                }
                Some(v1::object_result::Result::Error(error)) if error.retryable => {}
                other => self.odd(trip.end, Kind::OddError, &format!("ObjectMultiGet of {id}: {other:?}")),
            }
        }
        self.saw(&trip, &seen);
    }

    async fn count(&mut self, manner: Manner, (id1, atype): (ObjectId, TypeId)) {
        let r#type = self.context.shape.type_name(atype).to_owned();
        let request = v1::AssocCountRequest { id1: id1.get(), r#type, options: self.read_options(&manner) };
        let call = self.call(manner, request, async |mut g, r| g.assoc_count(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        match result {
            Ok(answer) => self.saw(&trip, &[(Key::List(id1, atype), Seen::Count(answer.count as u32))]),
            Err(failure) => self.read_failed(failure, &trip, "AssocCount"),
        }
    }

    /// A range or a time range; goes on to the next page now and then.
    pub(crate) async fn range(&mut self, manner: Manner, list: (ObjectId, TypeId), filter: Filter, objects: bool) {
        let (mut manner, mut filter, mut cursor) = (manner, filter, String::new());
        loop {
            let by_time = filter.low > 0 || filter.high < u32::MAX;
            let (result, trip) = if by_time {
                self.time_range(manner, list, filter, cursor).await
            } else {
                self.offset_range(manner, list, filter, cursor, objects).await
            };
            let (assocs, with, next) = match result {
                Ok(answer) => answer,
                Err(failure) => return self.read_failed(failure, &trip, "AssocRange"),
            };
            let edges = self.history.arena.keep(assocs.iter().map(edge_hash));
            let page = Page { filter, edges, ended: next.is_empty() };
            let mut seen = vec![(Key::List(list.0, list.1), Seen::Page(page))];
            for object in &with {
                if let Some(id) = ObjectId::new(object.id) {
                    seen.push((Key::Object(id), Seen::Object(object_hash(object))));
                }
            }
            self.saw(&trip, &seen);
            let Some(last) = assocs.last().filter(|_| !next.is_empty() && self.rng.random_bool(0.5)) else { return };
            filter = Filter { after: Some((last.time as u32, last.id2)), offset: 0, ..filter };
            cursor = next;
            manner.follower = self.hop();
        }
    }

    async fn offset_range(
        &mut self,
        manner: Manner,
        (id1, atype): (ObjectId, TypeId),
        filter: Filter,
        cursor: String,
        with_objects: bool,
    ) -> (Result<Listed, Failure>, Trip) {
        let request = v1::AssocRangeRequest {
            id1: id1.get(),
            r#type: self.context.shape.type_name(atype).to_owned(),
            offset: i64::from(filter.offset),
            limit: i64::from(filter.limit),
            cursor,
            with_objects,
            options: self.read_options(&manner),
        };
        let call = self.call(manner, request, async |mut g, r| g.assoc_range(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        (result.map(|a| (a.assocs, a.objects, a.next_cursor)), trip)
    }

    async fn time_range(
        &mut self,
        manner: Manner,
        (id1, atype): (ObjectId, TypeId),
        filter: Filter,
        cursor: String,
    ) -> (Result<Listed, Failure>, Trip) {
        let request = v1::AssocTimeRangeRequest {
            id1: id1.get(),
            r#type: self.context.shape.type_name(atype).to_owned(),
            low: Some(i64::from(filter.low)),
            high: Some(i64::from(filter.high)),
            limit: i64::from(filter.limit),
            cursor,
            with_objects: false,
            options: self.read_options(&manner),
        };
        let call = self.call(manner, request, async |mut g, r| g.assoc_time_range(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        (result.map(|a| (a.assocs, a.objects, a.next_cursor)), trip)
    }

    async fn among(&mut self, manner: Manner, (id1, atype): (ObjectId, TypeId), ids: Vec<ObjectId>) {
        let (low, high) = (0, u32::MAX);
        let request = v1::AssocGetRequest {
            id1: id1.get(),
            r#type: self.context.shape.type_name(atype).to_owned(),
            id2s: ids.iter().map(|id| id.get()).collect(),
            low: None,
            high: None,
            options: self.read_options(&manner),
        };
        let call = self.call(manner, request, async |mut g, r| g.assoc_get(r).await, |a| &a.session_token);
        let (result, trip) = call.await;
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return self.read_failed(failure, &trip, "AssocGet"),
        };
        let ids = self.history.arena.keep(ids.iter().map(|id| id.get() as u64));
        let edges = self.history.arena.keep(answer.assocs.iter().map(edge_hash));
        self.saw(&trip, &[(Key::List(id1, atype), Seen::Among(Among { ids, low, high, edges }))]);
    }

    /// Records what a call saw.
    fn saw(&mut self, trip: &Trip, seen: &[(Key, Seen)]) {
        let context = self.context.clone();
        let shape = &context.shape;
        for (n, (key, what)) in seen.iter().enumerate() {
            let owner = key.owner();
            let alone = seen.iter().filter(|(other, _)| shape.shard(other.owner()) == shape.shard(owner)).count() == 1;
            if trip.forgot(shape, owner) {
                self.odd(trip.end, Kind::TokenBehind, &format!("a read of {key:?} gave an older token back"));
            }
            if trip.is_silent(shape, owner) {
                self.odd(
                    trip.end,
                    Kind::TokenBehind,
                    &format!("a read of {key:?} gave no token back that speaks of it"),
                );
            }
            self.history.steps.push(Step::Read(Read {
                start: trip.start,
                end: trip.end,
                process: trip.process,
                level: trip.manner.level,
                floored: trip.manner.floored,
                continued: n > 0,
                key: *key,
                floor: trip.floor(shape, owner),
                claim: if alone { trip.claim(shape, owner) } else { 0 },
                seen: *what,
            }));
        }
    }

    /// Reads every key that there is from one follower, as it is in its caches.
    pub(crate) async fn read_everything(&mut self, follower: usize) {
        let manner = Manner { level: Level::Settled, deadline: PATIENCE, ..self.without_token(follower) };
        let context = self.context.clone();
        let (objects, lists) = context.keys.all();
        for id in objects {
            self.get(manner, id).await;
        }
        let whole = Filter { after: None, offset: 0, low: 0, high: u32::MAX, limit: 50 };
        for list in lists {
            self.range(manner, list, whole, false).await;
            self.count(manner, list).await;
        }
    }
}

/// Edges, objects, and the cursor.
type Listed = (Vec<v1::Assoc>, Vec<v1::Object>, String);

/// Seconds since 1970, by this machine's clock.
pub(crate) fn now_seconds() -> u32 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs() as u32)
}
