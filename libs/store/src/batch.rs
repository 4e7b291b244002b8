//! Computes the outcomes of a batch of writes, in queue order, over the rows that it touches.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tao_model::graph::UpdateError;
use tao_model::id::NoId;
use tao_model::limits::{MAX_DATA, MAX_FIELDS, MAX_TIME_AHEAD, OUTCOME_TTL_MS};
use tao_model::{
    AssocRef, Change, ChangeKind, Data, Error, IdGenerator, IdLayout, Object, ObjectId, ObjectUpdate, Placement,
    Position, Result, Schema, ShardId, StableHash, TypeId, Violations, Write, WriteOutcome, WriteResult,
};
use tao_proto::{convert, data, internal};

use crate::backend::{AssocRow, ObjectRow, OutcomeRow, Rows, Wanted, WriteBack};
use crate::edges::encode;

/// How far ahead of its last id a shard's lease reaches, in milliseconds. Ids after a crash may be as far ahead of the clock.
const LEASE_MS: u64 = 3_000;
/// The version byte of stored answers.
const ANSWER_VERSION: u8 = 1;

/// What the lane keeps from batch to batch.
pub(crate) struct Lasting {
    pub schema: Arc<Schema>,
    pub layout: IdLayout,
    /// By shard: where its ids are, and the lease that is committed.
    pub generators: Vec<(IdGenerator, u64)>,
    /// Types of objects, which never change; bounded.
    pub types: HashMap<ObjectId, TypeId>,
    /// Where the next object that may go anywhere goes.
    pub turn: u32,
}

/// Types that are remembered at the most.
const MAX_TYPES: usize = 1 << 20;

/// What a write needs to be loaded before it can be computed.
pub(crate) fn want(write: &Write, key: Option<&String>, lasting: &Lasting, wanted: &mut Wanted) {
    wanted.outcomes.extend(key.cloned());
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
    }
}

fn want_edge(edge: AssocRef, lasting: &Lasting, wanted: &mut Wanted) {
    for at in [Some(edge), lasting.inverse(edge)].into_iter().flatten() {
        wanted.assocs.push(at);
        wanted.counts.push((at.id1, at.atype));
    }
}

fn want_ends(edge: AssocRef, atype: TypeId, lasting: &Lasting, wanted: &mut Wanted) {
    let Some(atype) = lasting.schema.assoc(atype) else { return };
    for (id, allowed) in [(edge.id1, &atype.from), (edge.id2, &atype.to)] {
        if !allowed.is_empty() && !lasting.types.contains_key(&id) {
            wanted.objects.push(id);
        }
    }
}

impl Lasting {
    /// The same edge seen from its other end; none when its type has no inverse, or when it is the edge itself.
    pub fn inverse(&self, edge: AssocRef) -> Option<AssocRef> {
        let atype = self.schema.assoc(edge.atype)?.inverse?;
        let inverse = AssocRef { id1: edge.id2, atype, id2: edge.id1 };
        (inverse != edge).then_some(inverse)
    }

    fn check_allocated(&self, field: &str, id: ObjectId, violations: &mut Violations) {
        let may_exist = match self.layout.checked_shard(id) {
            Ok(shard) => self.generators[shard.0 as usize].0.may_have_made(id),
            Err(problem) => return violations.add(field, problem),
        };
        if !may_exist {
            violations
                .add(field, format!("{id} was never allocated: use the id of an object, or one that AllocateIds gave"));
        }
    }

    /// Keeps the memory of types bounded; between batches, since a batch relies on what it did not load.
    pub fn forget_some_types(&mut self) {
        if self.types.len() >= MAX_TYPES {
            self.types.clear();
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
    head: Position,
    now_ms: u64,
}

impl<'a> Overlay<'a> {
    pub fn new(lasting: &'a mut Lasting, rows: Rows, head: Position, now_ms: u64) -> Self {
        lasting.types.extend(rows.objects.iter().map(|(id, row)| (*id, row.otype)));
        Self { lasting, rows, back: WriteBack::default(), changes: Vec::new(), head, now_ms }
    }

    pub fn next_position(&self) -> Position {
        self.head.plus(self.changes.len() as u64 + 1)
    }

    pub fn push(&mut self, position: Position, kind: ChangeKind) {
        let mut change = Change { position, shard: ShardId(0), kind };
        change.shard = self.lasting.layout.shard(change.key().owner());
        self.changes.push(change);
    }

    /// Ids of one shard, within its lease or a longer one.
    pub async fn allocate(&mut self, shard: Option<ShardId>, count: usize) -> Result<Vec<ObjectId>> {
        let shard = shard.unwrap_or_else(|| {
            self.lasting.turn = (self.lasting.turn + 1) % self.lasting.layout.shards();
            ShardId(self.lasting.turn)
        });
        let mut ids = Vec::with_capacity(count);
        let (generator, leased) =
            self.lasting.generators.get_mut(shard.0 as usize).ok_or(Error::WrongShard { shard: shard.0 })?;
        while ids.len() < count {
            match generator.next(self.now_ms) {
                Ok(id) => ids.push(id),
                Err(NoId::Wait(time)) => {
                    tokio::time::sleep(time).await;
                    generator.waited();
                }
                Err(end @ NoId::EndOfTime) => return Err(end.into()),
            }
        }
        // The lease covers whole milliseconds below it.
        if generator.millisecond() >= *leased {
            self.back.leases.insert(shard, generator.millisecond() + LEASE_MS);
        }
        Ok(ids)
    }

    /// One write; a write that fails changes nothing.
    pub async fn write(&mut self, write: &Write, key: Option<&String>) -> Result<WriteOutcome> {
        let Some(key) = key else { return self.apply(write).await };
        let fingerprint = fingerprint(write);
        if let Some(known) = self.rows.outcomes.get(key).filter(|known| known.expires_ms > self.now_ms) {
            if known.fingerprint != fingerprint {
                return Err(Error::IdempotencyKeyReused { key: key.clone() });
            }
            return decode_answer(&known.answer);
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
        let result = match write {
            Write::ObjectAdd { otype, data, placement } => self.object_add(*otype, data, *placement).await?,
            Write::ObjectUpdate { id, update, expected_version } => {
                self.object_update(*id, update, *expected_version)?
            }
            Write::ObjectUpsert { id, otype, data } => self.object_upsert(*id, *otype, data)?,
            Write::ObjectDelete { id, expected_version } => self.object_delete(*id, *expected_version)?,
            Write::AssocAdd { edge, time, data } => self.assoc_add(*edge, *time, data)?,
            Write::AssocDelete { edge } => self.assoc_delete(*edge)?,
            Write::AssocChangeType { edge, new_atype } => self.assoc_change_type(*edge, *new_atype)?,
        };
        let changes = self.changes[before..].to_vec();
        let position = self.head.plus(self.changes.len() as u64);
        Ok(WriteOutcome { result, position, changes })
    }

    async fn object_add(&mut self, otype: TypeId, data: &Data, placement: Placement) -> Result<WriteResult> {
        let id = match placement {
            Placement::Anywhere => self.allocate(None, 1).await?[0],
            Placement::Shard(shard) => self.allocate(Some(shard), 1).await?[0],
            Placement::Allocated(id) => {
                let mut violations = Violations::default();
                self.lasting.check_allocated("id", id, &mut violations);
                violations.check()?;
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
        let mut violations = Violations::default();
        self.lasting.check_allocated("id", id, &mut violations);
        violations.check()?;
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
        let Some(row) = self.rows.objects.get(&id) else { return Ok(WriteResult::default()) };
        check_version(id, row, expected)?;
        self.rows.objects.remove(&id);
        self.back.objects.insert(id, None);
        self.push(self.next_position(), ChangeKind::Object(id, None));
        Ok(WriteResult { applied: true, ..WriteResult::default() })
    }

    fn assoc_add(&mut self, edge: AssocRef, time: Option<u32>, data: &Data) -> Result<WriteResult> {
        let now = self.now_ms / 1000;
        let time = time.unwrap_or(u32::try_from(now).unwrap_or(u32::MAX));
        let mut violations = Violations::default();
        self.check_ends(edge, &mut violations);
        if u64::from(time) > now + MAX_TIME_AHEAD {
            violations.add("time", format!("{time} is more than a day ahead of the clock, which says {now}"));
        }
        violations.check()?;
        self.check_types(edge, edge.atype)?;
        let row = AssocRow { time, data: data::encode(data) };
        let applied = self.put_both(edge, &row);
        Ok(WriteResult { edge: Some(encode(edge, &row)), count: self.count(edge), applied, object: None })
    }

    fn assoc_delete(&mut self, edge: AssocRef) -> Result<WriteResult> {
        let mut violations = Violations::default();
        self.check_ends(edge, &mut violations);
        violations.check()?;
        let applied = self.remove_both(edge).is_some();
        Ok(WriteResult { count: self.count(edge), applied, ..WriteResult::default() })
    }

    fn assoc_change_type(&mut self, edge: AssocRef, new_atype: TypeId) -> Result<WriteResult> {
        let mut violations = Violations::default();
        self.check_ends(edge, &mut violations);
        violations.check()?;
        if !self.rows.assocs.contains_key(&edge) {
            let name = self.lasting.schema.assoc(edge.atype).map_or("unknown", |t| t.name.as_str());
            return Err(Error::NotFound { what: format!("edge {name} from {} to {}", edge.id1, edge.id2) });
        }
        self.check_types(edge, new_atype)?;
        let new = AssocRef { atype: new_atype, ..edge };
        let Some(row) = self.remove_both(edge) else {
            return Err(Error::Internal { what: "an edge vanished within a batch".to_owned() });
        };
        self.put_both(new, &row);
        Ok(WriteResult { edge: Some(encode(new, &row)), count: self.count(new), applied: true, object: None })
    }

    fn put_both(&mut self, edge: AssocRef, row: &AssocRow) -> bool {
        let is_new = self.put_edge(edge, row);
        if let Some(inverse) = self.lasting.inverse(edge) {
            self.put_edge(inverse, row);
        }
        is_new
    }

    fn remove_both(&mut self, edge: AssocRef) -> Option<AssocRow> {
        let old = self.remove_edge(edge);
        if let Some(inverse) = self.lasting.inverse(edge) {
            self.remove_edge(inverse);
        }
        old
    }

    fn count(&self, edge: AssocRef) -> u64 {
        self.rows.counts.get(&(edge.id1, edge.atype)).map_or(0, |row| row.count)
    }

    fn check_ends(&self, edge: AssocRef, violations: &mut Violations) {
        self.lasting.check_allocated("id1", edge.id1, violations);
        self.lasting.check_allocated("id2", edge.id2, violations);
    }

    /// An end's type is checked where it is known; an edge to an object that doesn't exist is allowed.
    fn check_types(&self, edge: AssocRef, atype: TypeId) -> Result<()> {
        let schema = &self.lasting.schema;
        let unknown =
            || Error::Internal { what: format!("association type {atype} is not in this storage shard's schema") };
        let atype = schema.assoc(atype).ok_or_else(unknown)?;
        for (end, id, allowed) in [("id1", edge.id1, &atype.from), ("id2", edge.id2, &atype.to)] {
            let known = self.rows.objects.get(&id).map(|row| &row.otype).or_else(|| self.lasting.types.get(&id));
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
    fn put_object(&mut self, id: ObjectId, row: ObjectRow) -> Result<Bytes> {
        let encoded = encode_object(&self.lasting.schema, id, &row)?;
        self.rows.objects.insert(id, row.clone());
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
