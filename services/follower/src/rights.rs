//! What a call takes of its caller's grants. The type of an association is named by the call; that of an object may be known only when
//! the object is read.

use std::collections::HashMap;

use bytes::Bytes;
use tao_access::Caller;
use tao_cache::{Fresh, Mode, Read};
use tao_model::{Condition, Error, ObjectId, Placement, Position, Result, TypeId, Write, WriteBatch};
use tao_proto::data;
use tao_rpc::CallContext;

use crate::execute::Executor;
use crate::session::Session;
use crate::upstream::unexpected;
use crate::validate::ReadCall;

impl Executor {
    /// Fails unless the list that a read is of may be read. Of an object nothing is known yet.
    pub fn may_read(&self, call: &ReadCall, caller: &Caller) -> Result<()> {
        match call {
            ReadCall::Object(_) => Ok(()),
            ReadCall::Edges { list, .. } | ReadCall::Count(list) => caller.may_read_assoc(&self.schema, list.atype),
            ReadCall::Range(range) => caller.may_read_assoc(&self.schema, range.list.atype),
        }
    }

    /// An object's encoded state, if its reader may have it.
    pub async fn readable_object(
        &self,
        id: ObjectId,
        session: &Session,
        context: &CallContext,
    ) -> Result<Fresh<Option<Bytes>>> {
        let found = self.object_state(id, session, context).await?;
        if let Some(object) = &found.value
            && !session.caller().reads_all_objects()
        {
            session.caller().may_read_object(&self.schema, data::object_type(object).ok_or_else(unexpected)?)?;
        }
        Ok(found)
    }

    /// Fails unless a write may be done.
    pub async fn may_write(&self, write: &Write, session: &Session, context: &CallContext) -> Result<()> {
        if session.caller().may_all() {
            return Ok(());
        }
        match write {
            Write::ObjectUpdate { id, .. } | Write::ObjectDelete { id, .. } => {
                if session.caller().writes_all_objects() {
                    return Ok(());
                }
                match self.type_of(*id, session, context).await? {
                    Some(otype) => session.caller().may_write_object(&self.schema, otype),
                    // There is nothing to keep from anybody; whose it would be is known when it is there.
                    None => session.caller().may_write_something(),
                }
            }
            named => self.may_write_named(named, session.caller()),
        }
    }

    /// Of a write that names its types.
    fn may_write_named(&self, write: &Write, caller: &Caller) -> Result<()> {
        match write {
            Write::ObjectAdd { otype, .. } | Write::ObjectUpsert { otype, .. } => {
                caller.may_write_object(&self.schema, *otype)
            }
            Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } => {
                caller.may_write_assoc(&self.schema, edge.atype)
            }
            Write::AssocChangeType { edge, new_atype } => {
                caller.may_write_assoc(&self.schema, edge.atype)?;
                caller.may_write_assoc(&self.schema, *new_atype)
            }
            Write::ObjectUpdate { .. } | Write::ObjectDelete { .. } | Write::Batch(_) | Write::Intents { .. } => {
                Err(unexpected())
            }
        }
    }

    /// Fails unless all of a batch may be done; the error names the first item that may not. A precondition is a read of what it is about.
    pub async fn may_write_batch(&self, batch: &WriteBatch, session: &Session, context: &CallContext) -> Result<()> {
        let caller = session.caller();
        if caller.may_all() {
            return Ok(());
        }
        for (n, condition) in batch.conditions.iter().enumerate() {
            let may = match condition {
                Condition::Edge { edge, .. } => caller.may_read_assoc(&self.schema, edge.atype),
                Condition::Object { id, .. } | Condition::Version { id, .. } => {
                    self.readable_object(*id, session, context).await.map(drop)
                }
            };
            may.map_err(|error| error.of_item(&format!("preconditions[{n}]")))?;
        }
        // Objects that the batch itself makes are changed as what it makes them.
        let mut made: HashMap<ObjectId, TypeId> = HashMap::new();
        for (n, write) in batch.writes.iter().enumerate() {
            let may = match write {
                Write::ObjectUpdate { id, .. } | Write::ObjectDelete { id, .. } if made.contains_key(id) => {
                    caller.may_write_object(&self.schema, made[id])
                }
                Write::ObjectUpdate { .. } | Write::ObjectDelete { .. } => {
                    self.may_write(write, session, context).await
                }
                named => self.may_write_named(named, caller),
            };
            may.map_err(|error| error.of_item(&format!("writes[{n}]")))?;
            match write {
                Write::ObjectAdd { otype, placement: Placement::Allocated(id), .. }
                | Write::ObjectUpsert { id, otype, .. } => drop(made.insert(*id, *otype)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The type of an object as the log's owner has it: caches may show one that is gone.
    async fn type_of(&self, id: ObjectId, session: &Session, context: &CallContext) -> Result<Option<TypeId>> {
        let shard = Self::shard(session, id);
        let context = CallContext { shard, ..context.clone() };
        let read = Read { floor: Position::ZERO, mode: Mode::Strong, context };
        let Some(object) = self.reader(shard).object(id, read).await?.value else { return Ok(None) };
        let name = data::object_type(&object).ok_or_else(unexpected)?;
        let known = self.schema.object_named(name).map(|found| Some(found.number));
        known.map_err(|_| Error::Internal { what: format!("this follower's schema has no object type {name}") })
    }
}
