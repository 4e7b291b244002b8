//! Atomic batches: one database decides on all of a batch, and what lives in others follows.

use std::collections::{BTreeMap, HashSet};

use prost::Message as _;
use tao_model::limits::{MAX_ANSWER, MAX_BATCH, MAX_BATCH_DATA};
use tao_model::{Condition, Error, Key, LogId, Placement, ShardId, Violations, Write, WriteBatch};
use tao_proto::v1::{self, object_precondition::Must, precondition::About, write_batch_item::Write as Item};
use tao_proto::{Answer, internal};
use tao_rpc::CallContext;

use crate::answers::{self, BatchWritten, RESERVE};
use crate::execute::{Executed, Executor};
use crate::place;
use crate::session::Session;
use crate::validate::Door;
use crate::writes::{Covered, owner};

/// A batch, as validated.
#[derive(Debug)]
pub struct BatchCall {
    batch: WriteBatch,
    /// Of the log that decides on it.
    shard: ShardId,
}

impl BatchCall {
    /// How many writes it has.
    pub fn len(&self) -> usize {
        self.batch.writes.len()
    }
}

/// Checks one item: its violations are told with where it is.
fn item<T>(at: &str, violations: &mut Violations, check: impl FnOnce(&mut Violations) -> Option<T>) -> Option<T> {
    let mut own = Violations::default();
    let checked = check(&mut own);
    match own.check().map_err(|error| error.of_item(at)) {
        Err(Error::InvalidArgument { violations: own }) => {
            own.into_iter().for_each(|v| violations.add(v.field, v.description));
            None
        }
        Ok(()) | Err(_) => checked,
    }
}

fn no_options(options: Option<&v1::WriteOptions>, violations: &mut Violations) {
    if options.is_some() {
        violations.add("options", "not of a single write: set them for the batch");
    }
}

impl Door<'_> {
    /// See [`v1::WriteBatchRequest`].
    pub fn write_batch(
        &self,
        request: v1::WriteBatchRequest,
        session: &Session,
        violations: &mut Violations,
    ) -> Option<BatchCall> {
        if request.writes.is_empty() || request.writes.len() > MAX_BATCH {
            violations.add("writes", format!("1 to {MAX_BATCH} writes, not {}", request.writes.len()));
            return None;
        }
        if request.preconditions.len() > MAX_BATCH {
            let rule = format!("at most {MAX_BATCH} preconditions, not {}", request.preconditions.len());
            violations.add("preconditions", rule);
            return None;
        }
        let writes = request.writes.into_iter().enumerate();
        let writes: Vec<_> = writes
            .map(|(n, write)| item(&format!("writes[{n}]"), violations, |v| self.batch_write(write, v)))
            .collect();
        let conditions = request.preconditions.iter().enumerate();
        let conditions: Vec<_> = conditions
            .map(|(n, about)| item(&format!("preconditions[{n}]"), violations, |v| self.precondition(about, v)))
            .collect();
        let writes = writes.into_iter().collect::<Option<Vec<_>>>()?;
        let conditions = conditions.into_iter().collect::<Option<Vec<_>>>()?;
        let call = self.decided_on(WriteBatch { conditions, writes }, session, violations);
        let bytes: usize = call.batch.writes.iter().map(|w| internal::Write::from(w).encoded_len()).sum();
        if bytes > MAX_BATCH_DATA {
            let rule = format!("{bytes} bytes, and {MAX_BATCH_DATA} are allowed at once: send several batches");
            violations.add("writes", rule);
        }
        Some(call)
    }

    fn batch_write(&self, write: v1::WriteBatchItem, violations: &mut Violations) -> Option<Write> {
        let v = violations;
        match write.write {
            Some(Item::ObjectAdd(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.object_add(r, v)
            }
            Some(Item::ObjectUpdate(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.object_update(r, v)
            }
            Some(Item::ObjectUpsert(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.object_upsert(r, v)
            }
            Some(Item::ObjectDelete(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.object_delete(&r, v)
            }
            Some(Item::AssocAdd(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.assoc_add(r, v)
            }
            Some(Item::AssocDelete(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.assoc_delete(&r, v)
            }
            Some(Item::AssocChangeType(mut r)) => {
                no_options(r.options.take().as_ref(), v);
                self.assoc_change_type(&r, v)
            }
            None => {
                v.add("", "required: one write");
                None
            }
        }
    }

    fn precondition(&self, precondition: &v1::Precondition, v: &mut Violations) -> Option<Condition> {
        match &precondition.about {
            Some(About::Object(object)) => {
                let id = self.id("object.id", object.id, v);
                match object.must {
                    Some(Must::Exist(exists)) => Some(Condition::Object { id: id?, exists }),
                    Some(Must::HaveVersion(version)) => {
                        if version < 1 {
                            let rule = format!("{version} is no version: they count from 1");
                            v.add("object.have_version", rule);
                        }
                        Some(Condition::Version { id: id?, version })
                    }
                    None => {
                        v.add("object", "required: `exist` or `have_version`");
                        None
                    }
                }
            }
            Some(About::Assoc(assoc)) => {
                let edge = self.edge(assoc.id1, &assoc.r#type, assoc.id2, v)?;
                Some(Condition::Edge { edge, exists: assoc.exists })
            }
            None => {
                v.add("", "required: `object` or `assoc`");
                None
            }
        }
    }

    /// Finds the log that decides on a batch, gives places to the objects that may go anywhere, and tells what can't be decided on
    /// there.
    fn decided_on(&self, mut batch: WriteBatch, session: &Session, violations: &mut Violations) -> BatchCall {
        let map = session.map();
        let shard = place::of_batch(&batch, self.schema, map).unwrap_or_else(|| place::any_shard(session));
        let elsewhere = |at: ShardId| {
            let (there, here) = (map.log_of(at).0, map.log_of(shard).0);
            format!(
                "lives in database {there}, and this batch is decided on in database {here}: of others it takes only AssocAdd, AssocDelete, and ObjectDelete without expected_version"
            )
        };
        for (n, condition) in batch.conditions.iter().enumerate() {
            let at = place::of_condition(condition, self.schema, map);
            if !session.is_together(at, shard) {
                violations.add(format!("preconditions[{n}]"), elsewhere(at));
            }
        }
        for (n, write) in batch.writes.iter_mut().enumerate() {
            if let Write::ObjectAdd { placement: placement @ Placement::Anywhere, .. } = write {
                *placement = Placement::Shard(place::shard_beside(shard, n, session));
            }
            let may_follow = matches!(
                write,
                Write::AssocAdd { .. } | Write::AssocDelete { .. } | Write::ObjectDelete { expected_version: None, .. }
            );
            let at = place::of_write(write, self.schema, map).unwrap_or(shard);
            if !may_follow && !session.is_together(at, shard) {
                violations.add(format!("writes[{n}]"), elsewhere(at));
            }
        }
        BatchCall { batch, shard }
    }
}

impl Executor {
    /// An atomic batch.
    pub async fn write_batch(&self, call: BatchCall, session: &Session, context: &CallContext) -> Executed {
        let BatchCall { batch, shard } = call;
        if let Err(error) = self.may_write_batch(&batch, session, context).await {
            if self.logs_writes {
                self.log_batch(&batch.writes, &[], Some(&error), session, context);
            }
            return error.into();
        }
        let whole = Write::Batch(batch);
        let done = self.write(&whole, shard, session, context).await;
        if self.logs_writes {
            let items = done.as_ref().map_or(&[][..], |outcome| &outcome.items);
            self.log_batch(whole.parts(), items, done.as_ref().err(), session, context);
        }
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(error) => return error.into(),
        };
        let keys: Vec<_> = whole.parts().iter().map(|write| self.keys(write)).collect();
        let all: Vec<Key> = keys.iter().flatten().copied().collect();
        let Covered { mut seen, unsure } = self.cover(&all, shard, &outcome, session);
        // One look at each other log covers all that is done there.
        let mut far: BTreeMap<LogId, Vec<Key>> = BTreeMap::new();
        let parts = || whole.parts().iter().zip(&keys).zip(&outcome.items);
        let still_coming: HashSet<Key> = parts()
            .filter(|(_, item)| !item.pending.is_empty())
            .flat_map(|((_, keys), _)| keys.iter().copied())
            .collect();
        for key in unsure.into_iter().filter(|key| !still_coming.contains(key)) {
            far.entry(session.map().log_of(owner(&key, session))).or_default().push(key);
        }
        let mut unknown = Vec::new();
        for keys in far.values() {
            match self.look(keys, session, context).await {
                Ok((looked, _)) => seen.extend(looked),
                Err(_) => unknown.extend(keys.iter().copied()),
            }
        }
        let mut results = Vec::with_capacity(keys.len());
        for ((write, keys), item) in parts() {
            let is_unknown = keys.iter().any(|key| unknown.contains(key));
            let assoc = match (write, &item.result.edge) {
                (Write::AssocAdd { edge, .. }, Some(encoded)) => self.assoc(*edge, edge.atype, encoded).map(Some),
                (Write::AssocChangeType { edge, new_atype }, Some(encoded)) => {
                    self.assoc(*edge, *new_atype, encoded).map(Some)
                }
                _ => Ok(None),
            };
            let assoc = match assoc {
                Ok(assoc) => assoc,
                Err(error) => return Executed { result: Err(error), seen },
            };
            results.push(BatchWritten {
                applied: item.result.applied,
                object: item.result.object.clone(),
                assoc,
                pending: is_unknown || !item.pending.is_empty(),
            });
        }
        let answer: Answer = answers::batch_written(results, MAX_ANSWER - RESERVE);
        Executed { result: Ok(answer), seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::{id, session};
    use tao_model::{IdLayout, ObjectId, Schema};

    fn check(request: v1::WriteBatchRequest) -> Result<BatchCall, Vec<String>> {
        let schema = Schema::social();
        let door = Door { schema: &schema, layout: IdLayout::new(42, 10, 12, 16).unwrap() };
        let mut violations = Violations::default();
        let call = door.write_batch(request, &session("key"), &mut violations);
        match violations.check() {
            Ok(()) => Ok(call.expect("no violation")),
            Err(Error::InvalidArgument { violations }) => Err(violations.into_iter().map(|v| v.field).collect()),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn batch(items: Vec<Item>) -> v1::WriteBatchRequest {
        let writes = items.into_iter().map(|item| v1::WriteBatchItem { write: Some(item) }).collect();
        v1::WriteBatchRequest { writes, ..Default::default() }
    }

    fn update(id: ObjectId) -> Item {
        let add = [("n".to_owned(), 1)].into();
        Item::ObjectUpdate(v1::ObjectUpdateRequest { id: id.get(), add, ..Default::default() })
    }

    fn follow(id1: ObjectId, id2: ObjectId) -> Item {
        let (id1, id2, r#type) = (id1.get(), id2.get(), "follows".to_owned());
        Item::AssocAdd(v1::AssocAddRequest { id1, r#type, id2, ..Default::default() })
    }

    fn add_anywhere() -> Item {
        Item::ObjectAdd(v1::ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() })
    }

    fn delete(id: ObjectId, expected_version: Option<i64>) -> Item {
        Item::ObjectDelete(v1::ObjectDeleteRequest { id: id.get(), expected_version, options: None })
    }

    #[test]
    fn the_first_write_with_a_place_decides_where() {
        let (here, far) = (id(9, 1), id(1, 1));
        let call = check(batch(vec![add_anywhere(), update(here), follow(far, here), delete(far, None)])).unwrap();
        assert_eq!(call.shard, ShardId(9));
        let Write::ObjectAdd { placement: Placement::Shard(beside), .. } = call.batch.writes[0] else {
            panic!("{call:?}")
        };
        assert!((8..16).contains(&beside.0), "the object that may go anywhere goes there too");
        // The same again, since the key is the same.
        let again = check(batch(vec![add_anywhere(), update(here), follow(far, here), delete(far, None)])).unwrap();
        assert_eq!(again.batch, call.batch);
        assert!(check(batch(vec![add_anywhere()])).is_ok());
    }

    #[test]
    fn what_can_fail_elsewhere_is_refused() {
        let (here, far) = (id(9, 1), id(1, 1));
        let about = |about| v1::Precondition { about: Some(about) };
        let exists =
            |id: ObjectId| about(About::Object(v1::ObjectPrecondition { id: id.get(), must: Some(Must::Exist(true)) }));
        let request = v1::WriteBatchRequest {
            preconditions: vec![exists(here), exists(far)],
            ..batch(vec![update(here), update(far), delete(far, Some(1)), delete(here, Some(1)), follow(far, here)])
        };
        assert_eq!(check(request).unwrap_err(), ["preconditions[1]", "writes[1]", "writes[2]"]);
    }

    #[test]
    fn every_violation_says_of_which_item() {
        let here = id(9, 1);
        let unset = v1::ObjectPrecondition { id: 0, must: None };
        let keyed = Some(v1::WriteOptions::default());
        let request = v1::WriteBatchRequest {
            preconditions: vec![
                v1::Precondition { about: None },
                v1::Precondition { about: Some(About::Object(unset)) },
                v1::Precondition { about: Some(About::Assoc(v1::AssocPrecondition::default())) },
            ],
            writes: vec![
                v1::WriteBatchItem { write: Some(update(here)) },
                v1::WriteBatchItem { write: None },
                v1::WriteBatchItem { write: Some(follow(here, here)) },
                v1::WriteBatchItem {
                    write: Some(Item::ObjectDelete(v1::ObjectDeleteRequest {
                        id: 0,
                        options: keyed,
                        ..Default::default()
                    })),
                },
            ],
            options: None,
        };
        let want = [
            "writes[1]",
            "writes[3].options",
            "writes[3].id",
            "preconditions[0]",
            "preconditions[1].object.id",
            "preconditions[1].object",
            "preconditions[2].id1",
            "preconditions[2].type",
            "preconditions[2].id2",
        ];
        assert_eq!(check(request).unwrap_err(), want);
        assert_eq!(check(v1::WriteBatchRequest::default()).unwrap_err(), ["writes"]);
        assert_eq!(check(batch(vec![update(here); MAX_BATCH + 1])).unwrap_err(), ["writes"]);
        let large = || {
            let value = v1::Value { kind: Some(v1::value::Kind::BytesValue(vec![0; 60_000].into())) };
            let data = [("x".to_owned(), value)].into();
            Item::ObjectAdd(v1::ObjectAddRequest { r#type: "user".to_owned(), data, ..Default::default() })
        };
        assert_eq!(check(batch((0..36).map(|_| large()).collect())).unwrap_err(), ["writes"]);
        assert!(check(batch((0..30).map(|_| large()).collect())).is_ok());
    }
}
