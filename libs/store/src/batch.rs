//! Computes the outcomes of a batch of writes, in queue order, over the rows that it touches.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tao_model::graph::UpdateError;
use tao_model::limits::{MAX_DATA, MAX_FIELDS, MAX_TIME_AHEAD, OUTCOME_TTL_MS};
use tao_model::{
    AssocRef, Change, ChangeKind, Data, Error, Object, ObjectId, ObjectUpdate, Placement, Position, Result, Schema,
    ShardId, StableHash, Step, TypeId, Violations, Write, WriteOutcome, WriteResult,
};
use tao_proto::{convert, data, internal};

use crate::backend::{AssocRow, CountRow, ListKey, ObjectRow, OutcomeRow, Rows, Wanted, WriteBack};
use crate::edges::encode;
use crate::intents::Left;
use crate::shards::Shards;
use crate::undo::Undo;

/// The version byte of stored answers.
const ANSWER_VERSION: u8 = 1;

/// What the lane keeps from batch to batch.
pub(crate) struct Lasting {
    pub schema: Arc<Schema>,
    pub shards: Shards,
    /// Types of objects, which never change; bounded.
    pub types: HashMap<ObjectId, TypeId>,
    /// Counts of lists as the last batch that was computed leaves them; bounded. Of the lists that are written to often, most are here.
    pub counts: HashMap<ListKey, CountRow>,
}

/// Types that are remembered at the most.
const MAX_TYPES: usize = 1 << 20;
/// Counts that are remembered at the most.
const MAX_COUNTS: usize = 1 << 18;

/// What a write needs to be loaded before it can be computed.
pub(crate) fn want(write: &Write, key: Option<&String>, lasting: &Lasting, wanted: &mut Wanted) {
    wanted.outcomes.extend(key.cloned());
    want_rows(write, lasting, wanted);
}

fn want_rows(write: &Write, lasting: &Lasting, wanted: &mut Wanted) {
    if let Write::ObjectAdd { placement: Placement::Allocated(id), .. } | Write::ObjectUpsert { id, .. } = write {
        wanted.shards.extend(lasting.shards.unknown(*id));
    }
    match write {
        Write::ObjectAdd { placement: Placement::Allocated(id), .. }
        | Write::ObjectUpdate { id, .. }
        | Write::ObjectUpsert { id, .. }
        | Write::ObjectDelete { id, .. } => wanted.objects.push(*id),
        Write::ObjectAdd { placement: Placement::Anywhere | Placement::Shard(_), .. } => {}
        Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } => {
            want_edge(*edge, lasting, wanted);
            want_ends(*edge, edge.atype, lasting, wanted);
        }
        Write::AssocChangeType { edge, new_atype } => {
            want_edge(*edge, lasting, wanted);
            want_edge(AssocRef { atype: *new_atype, ..*edge }, lasting, wanted);
            want_ends(*edge, *new_atype, lasting, wanted);
        }
        Write::Batch(batch) => {
            // It may be an object of another log that is deleted.
            wanted.intents = true;
            batch.writes.iter().for_each(|write| want_rows(write, lasting, wanted));
            for condition in &batch.conditions {
                match condition.about() {
                    Ok(edge) => want_edge(edge, lasting, wanted),
                    Err(id) => wanted.objects.push(id),
                }
            }
        }
        Write::Intents { source, intents } => {
            wanted.done.push(*source);
            for step in intents.iter().flat_map(|intent| &intent.steps) {
                match step {
                    Step::Put { edge, .. } | Step::Remove { edge, .. } => want_edge(*edge, lasting, wanted),
                    Step::DeleteObject(id) => wanted.objects.push(*id),
                }
            }
        }
    }
}

fn want_edge(edge: AssocRef, lasting: &Lasting, wanted: &mut Wanted) {
    wanted.shards.extend([edge.id1, edge.id2].into_iter().filter_map(|id| lasting.shards.unknown(id)));
    for at in [Some(edge), lasting.schema.inverse(edge)].into_iter().flatten() {
        if lasting.shards.check_served(at.id1).is_ok() {
            wanted.assocs.push(at);
            wanted.counts.push((at.id1, at.atype));
        } else {
            wanted.intents = true;
        }
    }
}

fn want_ends(edge: AssocRef, atype: TypeId, lasting: &Lasting, wanted: &mut Wanted) {
    let Some(atype) = lasting.schema.assoc(atype) else { return };
    for (id, allowed) in [(edge.id1, &atype.from), (edge.id2, &atype.to)] {
        if !allowed.is_empty() && !lasting.types.contains_key(&id) {
            wanted.types.push(id);
        }
    }
}

impl Lasting {
    /// Nothing is as it was, or may not be: others have written, or what was computed last is not written.
    pub fn forget(&mut self) {
        self.types.clear();
        self.counts.clear();
    }

    /// Keeps the memory bounded; before it is said what jobs want, since they rely on what is not looked up for them.
    pub fn forget_some(&mut self) {
        if self.types.len() >= MAX_TYPES {
            self.types.clear();
        }
        if self.counts.len() >= MAX_COUNTS {
            self.counts.clear();
        }
    }

    /// What rows say that were looked up.
    pub fn learn(&mut self, found: &Rows) {
        self.shards.learn(&found.shards);
        self.types.extend(found.objects.iter().map(|(id, row)| (*id, row.otype)));
        self.types.extend(&found.types);
        self.counts.extend(&found.counts);
    }

    /// What a batch does, which the next one may rely on before it is committed.
    pub fn remember(&mut self, back: &WriteBack) {
        self.counts.extend(&back.counts);
        for (id, row) in &back.objects {
            match row {
                Some(row) => self.types.insert(*id, row.otype),
                None => self.types.remove(id),
            };
        }
    }
}

/// A batch under computation.
pub(crate) struct Overlay<'a> {
    pub lasting: &'a mut Lasting,
    /// As they are after the writes so far.
    pub rows: Rows,
    /// What is to be written.
    pub back: WriteBack,
    /// All changes so far.
    pub changes: Vec<Change>,
    pub head: Position,
    pub now_ms: u64,
    /// What an atomic batch must undo when one of its writes fails.
    pub undo: Option<Vec<Undo>>,
}

impl<'a> Overlay<'a> {
    /// Over no rows yet.
    pub fn new(lasting: &'a mut Lasting, head: Position, now_ms: u64) -> Self {
        let (rows, back) = (Rows::default(), WriteBack::default());
        Self { lasting, rows, back, changes: Vec::new(), head, now_ms, undo: None }
    }

    pub fn next_position(&self) -> Position {
        self.head.plus(self.changes.len() as u64 + 1)
    }

    pub fn push(&mut self, position: Position, kind: ChangeKind) {
        let mut change = Change { position, shard: ShardId(0), kind };
        change.shard = self.lasting.shards.layout().shard(change.key().owner());
        self.changes.push(change);
    }

    /// Ids of one shard, of its lease.
    pub async fn allocate(&mut self, shard: Option<ShardId>, count: usize) -> Result<Vec<ObjectId>> {
        self.lasting.shards.allocate(shard, count, self.now_ms).await
    }

    /// An outcome of an epoch that is over is answered as of now: what it did is here still, since its record is, but positions of
    /// that epoch are no floors any more.
    fn of_this_epoch(&self, mut outcome: WriteOutcome) -> WriteOutcome {
        if outcome.position.epoch < self.head.epoch {
            outcome.position = self.head;
            outcome.changes.clear();
            outcome.items.iter_mut().for_each(|item| item.changes = 0);
        }
        outcome
    }

    /// One write; a write that fails changes nothing.
    pub async fn write(&mut self, write: &Write, key: Option<&String>) -> Result<WriteOutcome> {
        let Some(key) = key else { return self.apply(write).await };
        let fingerprint = fingerprint(write);
        if let Some(known) = self.rows.outcomes.get(key).filter(|known| known.expires_ms > self.now_ms) {
            if known.fingerprint != fingerprint {
                return Err(Error::IdempotencyKeyReused { key: key.clone() });
            }
            return decode_answer(&known.answer).map(|outcome| self.of_this_epoch(outcome));
        }
        let outcome = self.apply(write).await?;
        let expires_ms = self.now_ms + OUTCOME_TTL_MS;
        let row = OutcomeRow { fingerprint, answer: encode_answer(&outcome), expires_ms };
        self.rows.outcomes.insert(key.clone(), row.clone());
        self.back.outcomes.insert(key.clone(), row);
        Ok(outcome)
    }

    async fn apply(&mut self, write: &Write) -> Result<WriteOutcome> {
        let before = self.changes.len();
        let mut outcome = WriteOutcome::default();
        match write {
            Write::Batch(batch) => outcome.items = self.atomically(batch).await?,
            Write::Intents { source, intents } => outcome.items = self.intents(*source, intents)?,
            single => {
                let mut left = Left::default();
                outcome.result = self.single(single, &mut left).await?;
                outcome.pending = self.leave(left);
            }
        }
        outcome.pending.extend(outcome.items.iter().flat_map(|item| item.pending.iter().copied()));
        outcome.changes = self.changes[before..].to_vec();
        outcome.position = self.head.plus(self.changes.len() as u64);
        Ok(outcome)
    }

    /// A write by itself; what it has to do in other logs is left.
    pub async fn single(&mut self, write: &Write, left: &mut Left) -> Result<WriteResult> {
        match write {
            Write::ObjectAdd { otype, data, placement } => self.object_add(*otype, data, *placement).await,
            Write::ObjectUpdate { id, update, expected_version } => self.object_update(*id, update, *expected_version),
            Write::ObjectUpsert { id, otype, data } => self.object_upsert(*id, *otype, data),
            Write::ObjectDelete { id, expected_version } => self.object_delete(*id, *expected_version),
            Write::AssocAdd { edge, time, data } => self.assoc_add(*edge, *time, data, left),
            Write::AssocDelete { edge } => self.assoc_delete(*edge, left),
            Write::AssocChangeType { edge, new_atype } => self.assoc_change_type(*edge, *new_atype, left),
            Write::Batch(_) | Write::Intents { .. } => {
                Err(Error::Internal { what: "a batch within a batch".to_owned() })
            }
        }
    }

    async fn object_add(&mut self, otype: TypeId, data: &Data, placement: Placement) -> Result<WriteResult> {
        let id = match placement {
            Placement::Anywhere => self.allocate(None, 1).await?[0],
            Placement::Shard(shard) => self.allocate(Some(shard), 1).await?[0],
            Placement::Allocated(id) => {
                self.check_id(id)?;
                if self.rows.objects.contains_key(&id) {
                    return Err(Error::AlreadyExists { what: format!("object {id}") });
                }
                id
            }
        };
        let now = self.now_ms;
        let row = ObjectRow { otype, version: 1, created_ms: now, updated_ms: now, data: data::encode(data) };
        self.put_object(id, row).map(|object| WriteResult {
            object: Some(object),
            applied: true,
            ..WriteResult::default()
        })
    }

    fn object_update(&mut self, id: ObjectId, update: &ObjectUpdate, expected: Option<i64>) -> Result<WriteResult> {
        self.lasting.shards.check_served(id)?;
        let row = self.existing(id)?;
        check_version(id, row, expected)?;
        let corrupt = || Error::Internal { what: format!("the data of object {id} can't be read") };
        let mut fields = data::decode(&row.data).ok_or_else(corrupt)?;
        update.apply(&mut fields).map_err(|error| match error {
            UpdateError::NotANumber(field) => Error::NotANumber { field },
            UpdateError::Overflow(field) => Error::NumberOverflow { field },
        })?;
        let encoded = data::encode(&fields);
        if encoded.len() > MAX_DATA {
            return Err(Error::DataTooLarge { what: data::too_large(encoded.len()) });
        }
        if fields.len() > MAX_FIELDS {
            return Err(Error::DataTooLarge {
                what: format!("{} fields large, and {MAX_FIELDS} are allowed", fields.len()),
            });
        }
        let row = ObjectRow {
            version: row.version + 1,
            updated_ms: self.now_ms.max(row.updated_ms),
            data: encoded,
            ..row.clone()
        };
        self.put_object(id, row).map(|object| WriteResult {
            object: Some(object),
            applied: true,
            ..WriteResult::default()
        })
    }

    fn object_upsert(&mut self, id: ObjectId, otype: TypeId, data: &Data) -> Result<WriteResult> {
        self.check_id(id)?;
        let encoded = data::encode(data);
        let (row, applied) = match self.rows.objects.get(&id) {
            Some(old) if old.otype != otype => {
                let name = |t| self.lasting.schema.object(t).map_or("of an unknown type", |t| t.name.as_str());
                return Err(Error::TypeMismatch {
                    what: format!("object {id} is a {}, not a {}", name(old.otype), name(otype)),
                });
            }
            Some(old) => {
                let updated_ms = self.now_ms.max(old.updated_ms);
                (ObjectRow { version: old.version + 1, updated_ms, data: encoded, ..old.clone() }, false)
            }
            None => {
                let now = self.now_ms;
                (ObjectRow { otype, version: 1, created_ms: now, updated_ms: now, data: encoded }, true)
            }
        };
        self.put_object(id, row).map(|object| WriteResult { object: Some(object), applied, ..WriteResult::default() })
    }

    fn object_delete(&mut self, id: ObjectId, expected: Option<i64>) -> Result<WriteResult> {
        self.lasting.shards.check_served(id)?;
        let Some(row) = self.rows.objects.get(&id) else { return Ok(WriteResult::default()) };
        check_version(id, row, expected)?;
        Ok(self.remove_object(id))
    }

    /// Deletes an object, if it is there.
    pub fn remove_object(&mut self, id: ObjectId) -> WriteResult {
        if !self.rows.objects.contains_key(&id) {
            return WriteResult::default();
        }
        self.remember_object(id);
        self.rows.objects.remove(&id);
        self.back.objects.insert(id, None);
        self.push(self.next_position(), ChangeKind::Object(id, None));
        WriteResult { applied: true, ..WriteResult::default() }
    }

    /// The row of an edge that is to be added, if it may be.
    pub fn edge_row(&self, edge: AssocRef, time: Option<u32>, data: &Data) -> Result<AssocRow> {
        let now = self.now_ms / 1000;
        let time = time.unwrap_or(u32::try_from(now).unwrap_or(u32::MAX));
        let mut violations = Violations::default();
        if u64::from(time) > now + MAX_TIME_AHEAD {
            violations.add("time", format!("{time} is more than a day ahead of the clock, which says {now}"));
        }
        self.check_ends(edge, violations)?;
        self.check_types(edge, edge.atype)?;
        Ok(AssocRow { time, data: data::encode(data) })
    }

    fn assoc_add(&mut self, edge: AssocRef, time: Option<u32>, data: &Data, left: &mut Left) -> Result<WriteResult> {
        let row = self.edge_row(edge, time, data)?;
        self.check_ordered_here(edge)?;
        let applied = self.put_both(edge, &row, left);
        Ok(WriteResult { edge: Some(encode(edge, &row)), count: self.count(edge), applied, object: None })
    }

    fn assoc_delete(&mut self, edge: AssocRef, left: &mut Left) -> Result<WriteResult> {
        self.check_ends(edge, Violations::default())?;
        self.check_ordered_here(edge)?;
        let applied = self.remove_both(edge, left).is_some();
        Ok(WriteResult { count: self.count(edge), applied, ..WriteResult::default() })
    }

    fn assoc_change_type(&mut self, edge: AssocRef, new_atype: TypeId, left: &mut Left) -> Result<WriteResult> {
        self.check_ends(edge, Violations::default())?;
        self.check_ordered_here(edge)?;
        let Some(row) = self.rows.assocs.get(&self.side_here(edge)) else {
            return Err(Error::NotFound { what: self.name(edge) });
        };
        if new_atype == edge.atype {
            let edge = (Some(encode(edge, row)), self.count(edge));
            return Ok(WriteResult { edge: edge.0, count: edge.1, applied: true, object: None });
        }
        self.check_types(edge, new_atype)?;
        let new = AssocRef { atype: new_atype, ..edge };
        let Some(row) = self.remove_both(edge, left) else {
            return Err(Error::Internal { what: "an edge vanished within a batch".to_owned() });
        };
        self.put_both(new, &row, left);
        Ok(WriteResult { edge: Some(encode(new, &row)), count: self.count(new), applied: true, object: None })
    }

    pub fn count(&self, edge: AssocRef) -> u64 {
        self.rows.counts.get(&(edge.id1, edge.atype)).map_or(0, |row| row.count)
    }

    pub fn name(&self, edge: AssocRef) -> String {
        let name = self.lasting.schema.assoc(edge.atype).map_or("unknown", |t| t.name.as_str());
        format!("edge {name} from {} to {}", edge.id1, edge.id2)
    }

    fn check_id(&self, id: ObjectId) -> Result<()> {
        let mut violations = Violations::default();
        self.lasting.shards.check_allocated("id", id, &mut violations);
        violations.check()?;
        self.lasting.shards.check_served(id)
    }

    /// Both ends may exist, as far as that is known here.
    pub fn check_ends(&self, edge: AssocRef, mut violations: Violations) -> Result<()> {
        let shards = &self.lasting.shards;
        shards.check_allocated("id1", edge.id1, &mut violations);
        shards.check_allocated("id2", edge.id2, &mut violations);
        violations.check()
    }

    /// An end's type is checked where it is known; an edge to an object that doesn't exist is allowed.
    fn check_types(&self, edge: AssocRef, atype: TypeId) -> Result<()> {
        let schema = &self.lasting.schema;
        let unknown =
            || Error::Internal { what: format!("association type {atype} is not in this storage shard's schema") };
        let atype = schema.assoc(atype).ok_or_else(unknown)?;
        for (end, id, allowed) in [("id1", edge.id1, &atype.from), ("id2", edge.id2, &atype.to)] {
            let known = match self.back.objects.get(&id) {
                Some(row) => row.as_ref().map(|row| &row.otype),
                None => self.lasting.types.get(&id),
            };
            let Some(otype) = known.filter(|_| !allowed.is_empty()) else { continue };
            if !allowed.contains(otype) {
                let name = |t: &TypeId| schema.object(*t).map_or("unknown", |t| t.name.as_str());
                let allowed: Vec<_> = allowed.iter().map(name).collect();
                let what = format!("{end}: {id} is a {}, and {} takes {}", name(otype), atype.name, allowed.join(", "));
                return Err(Error::TypeMismatch { what });
            }
        }
        Ok(())
    }

    fn existing(&self, id: ObjectId) -> Result<&ObjectRow> {
        self.rows.objects.get(&id).ok_or_else(|| Error::NotFound { what: format!("object {id}") })
    }

    /// Puts an object and gives it back encoded.
    pub fn put_object(&mut self, id: ObjectId, row: ObjectRow) -> Result<Bytes> {
        let encoded = encode_object(&self.lasting.schema, id, &row)?;
        self.remember_object(id);
        if self.rows.objects.insert(id, row.clone()).is_none() && !self.back.objects.contains_key(&id) {
            self.back.new.objects.insert(id);
        }
        self.back.objects.insert(id, Some(row));
        self.push(self.next_position(), ChangeKind::Object(id, Some(encoded.clone())));
        Ok(encoded)
    }
}

/// An object as answers and caches have it.
pub(crate) fn encode_object(schema: &Schema, id: ObjectId, row: &ObjectRow) -> Result<Bytes> {
    let unknown =
        || Error::Internal { what: format!("object type {} is not in this storage shard's schema", row.otype) };
    let name = &schema.object(row.otype).ok_or_else(unknown)?.name;
    let object = Object {
        id,
        otype: row.otype,
        version: row.version,
        created_ms: row.created_ms,
        updated_ms: row.updated_ms,
        data: row.data.clone(),
    };
    Ok(data::encode_object(&object, name))
}

fn check_version(id: ObjectId, row: &ObjectRow, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(expected) if expected != row.version => {
            Err(Error::VersionMismatch { id: id.get(), expected, actual: row.version })
        }
        _ => Ok(()),
    }
}

/// Tells writes apart.
fn fingerprint(write: &Write) -> i64 {
    StableHash::of(&internal::Write::from(write).encode_to_vec()) as i64
}

fn encode_answer(outcome: &WriteOutcome) -> Vec<u8> {
    let written = internal::reply::Result::Written(outcome.into());
    let reply = internal::Reply { seq: 0, as_of: Some(outcome.position.into()), result: Some(written) };
    let mut out = vec![ANSWER_VERSION];
    reply.encode_raw(&mut out);
    out
}

fn decode_answer(raw: &[u8]) -> Result<WriteOutcome> {
    let corrupt = || Error::Internal { what: "a stored answer can't be read".to_owned() };
    let Some((&ANSWER_VERSION, raw)) = raw.split_first() else { return Err(corrupt()) };
    let reply = internal::Reply::decode(raw).map_err(|_| corrupt())?;
    match (reply.as_of, reply.result) {
        (Some(position), Some(internal::reply::Result::Written(written))) => convert::outcome(written, position.into()),
        _ => Err(corrupt()),
    }
}
