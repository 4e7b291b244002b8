//! Between the model and the messages that tiers exchange. Peers are trusted to have validated, not to be of the same version:
//! what can't be read is an error, never a panic.

use bytes::Bytes;
use prost::Message as _;
use tao_model::{
    AssocRef, Change, ChangeKind, Error, ItemOutcome, ListDelta, LogId, ObjectId, ObjectUpdate, Placement, Position,
    Result, ShardId, TypeId, Write, WriteOutcome, WriteResult,
};

use crate::{data, edges, internal};

/// The version byte of log payloads.
const LOG_VERSION: u8 = 1;

/// A message that a peer sent and this version can't read.
pub(crate) fn unreadable(what: &str) -> Error {
    Error::Internal { what: format!("a peer sent a message that this version can't read: {what}") }
}

impl From<Position> for internal::Position {
    fn from(p: Position) -> Self {
        Self { epoch: p.epoch, lsn: p.lsn }
    }
}

impl From<internal::Position> for Position {
    fn from(p: internal::Position) -> Self {
        Self::new(p.epoch, p.lsn)
    }
}

/// An id that a peer sent.
pub fn id(raw: i64) -> Result<ObjectId> {
    ObjectId::new(raw).ok_or_else(|| unreadable("an id that is not positive"))
}

impl From<&Change> for internal::Change {
    fn from(change: &Change) -> Self {
        let key = match &change.kind {
            ChangeKind::Object(id, object) => {
                internal::change::Key::Object(internal::ObjectChange { id: id.get(), object: object.clone() })
            }
            ChangeKind::List { id1, atype, prev, count, delta } => {
                let (id2, edge) = match delta {
                    ListDelta::Put(key, edge) => (key.id2, Some(edge.clone())),
                    ListDelta::Remove(id2) => (*id2, None),
                };
                internal::change::Key::List(internal::ListChange {
                    id1: id1.get(),
                    atype: atype.0,
                    prev: (*prev != Position::ZERO).then(|| (*prev).into()),
                    count: *count,
                    id2: id2.get(),
                    edge,
                })
            }
        };
        Self { position: Some(change.position.into()), shard: change.shard.0, key: Some(key) }
    }
}

impl TryFrom<internal::Change> for Change {
    type Error = Error;

    fn try_from(change: internal::Change) -> Result<Self> {
        let kind = match change.key.ok_or_else(|| unreadable("a change without a key"))? {
            internal::change::Key::Object(o) => ChangeKind::Object(id(o.id)?, o.object),
            internal::change::Key::List(l) => {
                let delta = match l.edge {
                    Some(edge) => {
                        let key = edges::edge_key(&edge).ok_or_else(|| unreadable("an edge"))?;
                        ListDelta::Put(key, edge)
                    }
                    None => ListDelta::Remove(id(l.id2)?),
                };
                ChangeKind::List {
                    id1: id(l.id1)?,
                    atype: TypeId(l.atype),
                    prev: l.prev.map(Into::into).unwrap_or_default(),
                    count: l.count,
                    delta,
                }
            }
        };
        let position = change.position.ok_or_else(|| unreadable("a change without a position"))?.into();
        Ok(Self { position, shard: ShardId(change.shard), kind })
    }
}

/// Changes that a peer sent.
pub fn changes(raw: Vec<internal::Change>) -> Result<Vec<Change>> {
    raw.into_iter().map(Change::try_from).collect()
}

/// One commit's changes as `change_log` keeps them.
pub fn encode_log(changes: &[Change]) -> Vec<u8> {
    let payload = internal::LogPayload { changes: changes.iter().map(Into::into).collect() };
    let mut out = Vec::with_capacity(payload.encoded_len() + 1);
    out.push(LOG_VERSION);
    payload.encode_raw(&mut out);
    out
}

/// Reads [`encode_log`]'s result.
pub fn decode_log(raw: &[u8]) -> Result<Vec<Change>> {
    changes(decode_log_raw(Bytes::copy_from_slice(raw))?)
}

/// The same, as streams carry it; objects and edges stay where they are in `raw`.
pub fn decode_log_raw(mut raw: Bytes) -> Result<Vec<internal::Change>> {
    if raw.first() != Some(&LOG_VERSION) {
        return Err(unreadable("a log payload of another version"));
    }
    let payload = internal::LogPayload::decode(raw.split_off(1)).map_err(|_| unreadable("a log payload"))?;
    Ok(payload.changes)
}

impl From<&Write> for internal::Write {
    fn from(write: &Write) -> Self {
        use internal::write::Kind;
        let kind = match write {
            Write::ObjectAdd { otype, data, placement } => Kind::ObjectAdd(internal::ObjectAdd {
                otype: otype.0,
                data: data::to_proto(data),
                r#where: match placement {
                    Placement::Anywhere => None,
                    Placement::Shard(shard) => {
                        Some(internal::Where { kind: Some(internal::r#where::Kind::Shard(shard.0)) })
                    }
                    Placement::Allocated(id) => {
                        Some(internal::Where { kind: Some(internal::r#where::Kind::Id(id.get())) })
                    }
                },
            }),
            Write::ObjectUpdate { id, update, expected_version } => Kind::ObjectUpdate(internal::ObjectUpdate {
                id: id.get(),
                set: data::to_proto(&update.set),
                unset: update.unset.clone(),
                add: update.add.clone(),
                expected_version: *expected_version,
            }),
            Write::ObjectUpsert { id, otype, data } => {
                Kind::ObjectUpsert(internal::ObjectUpsert { id: id.get(), otype: otype.0, data: data::to_proto(data) })
            }
            Write::ObjectDelete { id, expected_version } => {
                Kind::ObjectDelete(internal::ObjectDelete { id: id.get(), expected_version: *expected_version })
            }
            Write::AssocAdd { edge, time, data } => Kind::AssocAdd(internal::AssocAdd {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
                time: *time,
                data: data::to_proto(data),
            }),
            Write::AssocDelete { edge } => Kind::AssocDelete(internal::AssocDelete {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
            }),
            Write::AssocChangeType { edge, new_atype } => Kind::AssocChangeType(internal::AssocChangeType {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
                new_atype: new_atype.0,
            }),
            Write::Batch(batch) => Kind::Batch(internal::WriteBatch {
                conditions: batch.conditions.iter().map(Into::into).collect(),
                writes: batch.writes.iter().map(Into::into).collect(),
            }),
            Write::Intents { source, intents } => {
                Kind::Intents(internal::Intents { source: source.0, intents: intents.iter().map(Into::into).collect() })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<internal::Write> for Write {
    type Error = Error;

    fn try_from(write: internal::Write) -> Result<Self> {
        use internal::write::Kind;
        let fields = |map| data::from_peer(map).ok_or_else(|| unreadable("a value"));
        let edge = |id1, atype, id2| Ok::<_, Error>(AssocRef { id1: id(id1)?, atype: TypeId(atype), id2: id(id2)? });
        Ok(match write.kind.ok_or_else(|| unreadable("a write of an unknown kind"))? {
            Kind::ObjectAdd(w) => Self::ObjectAdd {
                otype: TypeId(w.otype),
                data: fields(w.data)?,
                placement: match w.r#where.and_then(|w| w.kind) {
                    None => Placement::Anywhere,
                    Some(internal::r#where::Kind::Shard(shard)) => Placement::Shard(ShardId(shard)),
                    Some(internal::r#where::Kind::Id(raw)) => Placement::Allocated(id(raw)?),
                },
            },
            Kind::ObjectUpdate(w) => Self::ObjectUpdate {
                id: id(w.id)?,
                update: ObjectUpdate { set: fields(w.set)?, unset: w.unset, add: w.add },
                expected_version: w.expected_version,
            },
            Kind::ObjectUpsert(w) => {
                Self::ObjectUpsert { id: id(w.id)?, otype: TypeId(w.otype), data: fields(w.data)? }
            }
            Kind::ObjectDelete(w) => Self::ObjectDelete { id: id(w.id)?, expected_version: w.expected_version },
            Kind::AssocAdd(w) => {
                Self::AssocAdd { edge: edge(w.id1, w.atype, w.id2)?, time: w.time, data: fields(w.data)? }
            }
            Kind::AssocDelete(w) => Self::AssocDelete { edge: edge(w.id1, w.atype, w.id2)? },
            Kind::AssocChangeType(w) => {
                Self::AssocChangeType { edge: edge(w.id1, w.atype, w.id2)?, new_atype: TypeId(w.new_atype) }
            }
            Kind::Batch(batch) => Self::Batch(batch.try_into()?),
            Kind::Intents(w) => Self::Intents {
                source: LogId(w.source),
                intents: w.intents.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            },
        })
    }
}

impl From<&WriteOutcome> for internal::Written {
    fn from(outcome: &WriteOutcome) -> Self {
        let item = |item: &ItemOutcome| internal::ItemWritten {
            object: item.result.object.clone(),
            edge: item.result.edge.clone(),
            count: item.result.count,
            applied: item.result.applied,
            changes: item.changes as u32,
            pending: item.pending.iter().map(Into::into).collect(),
            skipped: item.skipped,
        };
        Self {
            object: outcome.result.object.clone(),
            edge: outcome.result.edge.clone(),
            count: outcome.result.count,
            applied: outcome.result.applied,
            changes: outcome.changes.iter().map(Into::into).collect(),
            pending: outcome.pending.iter().map(Into::into).collect(),
            items: outcome.items.iter().map(item).collect(),
        }
    }
}

/// A write's outcome that a peer sent, at the reply's `as_of`.
pub fn outcome(written: internal::Written, position: Position) -> Result<WriteOutcome> {
    let item = |item: internal::ItemWritten| {
        let result = WriteResult { object: item.object, edge: item.edge, count: item.count, applied: item.applied };
        let pending = item.pending.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(ItemOutcome { result, changes: item.changes as usize, pending, skipped: item.skipped })
    };
    Ok(WriteOutcome {
        result: WriteResult {
            object: written.object,
            edge: written.edge,
            count: written.count,
            applied: written.applied,
        },
        position,
        changes: changes(written.changes)?,
        pending: written.pending.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        items: written.items.into_iter().map(item).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tao_model::{Edge, EdgeKey};

    #[test]
    fn changes_survive_the_log() {
        let id = |n| ObjectId::new(n).unwrap();
        let edge = Edge { id2: id(5), time: 8, data: Bytes::new() };
        let list = |prev, delta| ChangeKind::List { id1: id(1), atype: TypeId(2), prev, count: 3, delta };
        let kinds = [
            ChangeKind::Object(id(1), None),
            ChangeKind::Object(id(1), Some(Bytes::from_static(b"x"))),
            list(Position::ZERO, ListDelta::Put(EdgeKey { time: 8, id2: id(5) }, edges::encode_edge(&edge))),
            list(Position::new(1, 1), ListDelta::Remove(id(5))),
        ];
        let changes: Vec<_> = (1..)
            .zip(kinds)
            .map(|(lsn, kind)| Change { position: Position::new(1, lsn), shard: ShardId(0), kind })
            .collect();
        let log = encode_log(&changes);
        assert_eq!(decode_log(&log).unwrap(), changes);
        assert!(decode_log(&[]).is_err() && decode_log(&[9, 1]).is_err());
    }
}
