//! Intents and atomic batches, between the model and the messages that tiers exchange and databases keep.

use bytes::Bytes;
use prost::Message as _;
use tao_model::{AssocRef, Condition, Error, Intent, Pending, Result, ShardId, Step, TypeId, Write, WriteBatch};

use crate::convert::{id, unreadable};
use crate::internal;

/// The version byte of stored intents.
const INTENT_VERSION: u8 = 1;

fn edge(id1: i64, atype: u32, id2: i64) -> Result<AssocRef> {
    Ok(AssocRef { id1: id(id1)?, atype: TypeId(atype), id2: id(id2)? })
}

/// An intent's steps as databases keep them.
pub fn encode(steps: &[Step]) -> Bytes {
    let intent = internal::Intent { steps: steps.iter().map(Into::into).collect() };
    let mut out = Vec::with_capacity(intent.encoded_len() + 1);
    out.push(INTENT_VERSION);
    intent.encode_raw(&mut out);
    out.into()
}

/// Reads [`encode`]'s result.
pub fn decode(raw: &[u8]) -> Result<Vec<Step>> {
    match raw.split_first() {
        Some((&INTENT_VERSION, raw)) => {
            let intent = internal::Intent::decode(raw).map_err(|_| unreadable("an intent"))?;
            intent.steps.into_iter().map(Step::try_from).collect()
        }
        _ => Err(unreadable("an intent of another version")),
    }
}

impl From<&Intent> for internal::StoredIntent {
    fn from(intent: &Intent) -> Self {
        Self { position: Some(intent.position.into()), payload: encode(&intent.steps) }
    }
}

impl TryFrom<internal::StoredIntent> for Intent {
    type Error = Error;

    fn try_from(intent: internal::StoredIntent) -> Result<Self> {
        let position = intent.position.ok_or_else(|| unreadable("an intent without a position"))?.into();
        Ok(Self { position, steps: decode(&intent.payload)? })
    }
}

impl From<&Step> for internal::Step {
    fn from(step: &Step) -> Self {
        use internal::step::Kind;
        let kind = match step {
            Step::Put { edge, time, data, both } => Kind::Put(internal::EdgePut {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
                time: *time,
                data: data.clone(),
                both: *both,
            }),
            Step::Remove { edge, both } => Kind::Remove(internal::EdgeRemove {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
                both: *both,
            }),
            Step::DeleteObject(id) => Kind::DeleteObject(id.get()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<internal::Step> for Step {
    type Error = Error;

    fn try_from(step: internal::Step) -> Result<Self> {
        use internal::step::Kind;
        Ok(match step.kind.ok_or_else(|| unreadable("a step of an unknown kind"))? {
            Kind::Put(put) => {
                Self::Put { edge: edge(put.id1, put.atype, put.id2)?, time: put.time, data: put.data, both: put.both }
            }
            Kind::Remove(gone) => Self::Remove { edge: edge(gone.id1, gone.atype, gone.id2)?, both: gone.both },
            Kind::DeleteObject(raw) => Self::DeleteObject(id(raw)?),
        })
    }
}

impl From<&Pending> for internal::Pending {
    fn from(pending: &Pending) -> Self {
        Self {
            shard: pending.shard.0,
            position: Some(pending.position.into()),
            more: pending.more,
            whole: pending.whole,
        }
    }
}

impl TryFrom<internal::Pending> for Pending {
    type Error = Error;

    fn try_from(pending: internal::Pending) -> Result<Self> {
        let position = pending.position.ok_or_else(|| unreadable("a pending intent without a position"))?;
        Ok(Self { shard: ShardId(pending.shard), position: position.into(), more: pending.more, whole: pending.whole })
    }
}

impl From<&Condition> for internal::Condition {
    fn from(condition: &Condition) -> Self {
        use internal::condition::Kind;
        let kind = match condition {
            Condition::Object { id, exists } => {
                Kind::ObjectExists(internal::ObjectExists { id: id.get(), exists: *exists })
            }
            Condition::Version { id, version } => {
                Kind::ObjectVersion(internal::ObjectVersion { id: id.get(), version: *version })
            }
            Condition::Edge { edge, exists } => Kind::EdgeExists(internal::EdgeExists {
                id1: edge.id1.get(),
                atype: edge.atype.0,
                id2: edge.id2.get(),
                exists: *exists,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<internal::Condition> for Condition {
    type Error = Error;

    fn try_from(condition: internal::Condition) -> Result<Self> {
        use internal::condition::Kind;
        Ok(match condition.kind.ok_or_else(|| unreadable("a condition of an unknown kind"))? {
            Kind::ObjectExists(is) => Self::Object { id: id(is.id)?, exists: is.exists },
            Kind::ObjectVersion(is) => Self::Version { id: id(is.id)?, version: is.version },
            Kind::EdgeExists(is) => Self::Edge { edge: edge(is.id1, is.atype, is.id2)?, exists: is.exists },
        })
    }
}

impl TryFrom<internal::WriteBatch> for WriteBatch {
    type Error = Error;

    fn try_from(batch: internal::WriteBatch) -> Result<Self> {
        let single = |write: internal::Write| match Write::try_from(write)? {
            Write::Batch(_) | Write::Intents { .. } => Err(unreadable("a batch within a batch")),
            single => Ok(single),
        };
        Ok(Self {
            conditions: batch.conditions.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            writes: batch.writes.into_iter().map(single).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{LogId, ObjectId, Position};

    #[test]
    fn intents_and_batches_survive_the_way_between_logs() {
        let id = |n| ObjectId::new(n).unwrap();
        let edge = AssocRef { id1: id(1), atype: TypeId(2), id2: id(3) };
        let steps = vec![
            Step::Put { edge, time: 7, data: Bytes::from_static(b"x"), both: false },
            Step::Remove { edge, both: true },
            Step::DeleteObject(id(9)),
        ];
        assert_eq!(decode(&encode(&steps)).unwrap(), steps);
        assert!(decode(&[]).is_err() && decode(&[9, 1]).is_err());
        let intents = vec![Intent { position: Position::new(1, 2), steps }];
        let batch = WriteBatch {
            conditions: vec![
                Condition::Object { id: id(1), exists: false },
                Condition::Version { id: id(1), version: 2 },
                Condition::Edge { edge, exists: true },
            ],
            writes: vec![Write::AssocDelete { edge }],
        };
        for write in [Write::Intents { source: LogId(4), intents }, Write::Batch(batch)] {
            assert_eq!(Write::try_from(internal::Write::from(&write)).unwrap(), write);
            let nested = Write::Batch(WriteBatch { conditions: Vec::new(), writes: vec![write] });
            assert!(Write::try_from(internal::Write::from(&nested)).is_err());
        }
    }
}
