//! Batches: many calls in one round trip, in parallel, each with its own result or error.

use futures::StreamExt as _;
use tao_model::limits::{MAX_ANSWER, MAX_BATCH};
use tao_model::{Error, Result, Violations, Write};
use tao_proto::v1::{self, batch_item::Call};
use tao_proto::{Answer, v1::BatchItem};
use tao_rpc::CallContext;

use crate::admission::Kind;
use crate::answers;
use crate::execute::{Executed, Executor};
use crate::session::Session;
use crate::validate::{Door, ReadCall, taken};

/// Items that run at once in a batch that reads lists: each answer may take 3 MiB before it is known whether it fits.
const LISTS_AT_ONCE: usize = 16;

/// One item, as validated.
pub(crate) enum Item {
    Read(ReadCall, Session),
    Write(Write, Session),
}

impl Executor {
    /// Runs the items; an item that is invalid fails by itself. The session that comes back has seen what the items' own have.
    pub async fn batch(&self, items: Vec<BatchItem>, session: Session, context: &CallContext) -> (Executed, Session) {
        let door = self.door(session.map());
        let checked: Vec<_> = items.into_iter().map(|item| (field(&item), check(&door, item, &session))).collect();
        let mut merged = session;
        let mut at_once = MAX_BATCH;
        for (_, item) in &checked {
            if let Ok(Item::Read(_, own) | Item::Write(_, own)) = item {
                merged.absorb(own);
            }
            if let Ok(Item::Read(ReadCall::Range(_) | ReadCall::Edges { .. }, _)) = item {
                at_once = LISTS_AT_ONCE;
            }
        }
        let running = checked.into_iter().map(|(field, item)| async move {
            let executed = match item {
                Ok(Item::Read(call, session)) => self.run_read(call, &session, context).await,
                Ok(Item::Write(write, session)) => self.run_write(write, &session, context).await,
                Err(error) => error.into(),
            };
            (field, executed)
        });
        let mut answer = Answer::new();
        let mut seen = Vec::new();
        // Each answer is taken in, or dropped where it doesn't fit, as soon as it is its turn.
        let mut results = futures::stream::iter(running).buffered(at_once);
        while let Some((field, executed)) = results.next().await {
            seen.extend(executed.seen);
            answers::push_batch_result(&mut answer, field, executed.result, MAX_ANSWER);
        }
        (Executed { result: Ok(answer), seen }, merged)
    }
}

/// What a batch competes with: writes, as soon as it has one.
pub fn kind_of(items: &[BatchItem]) -> Kind {
    // The numbers of writes' fields.
    let is_write = |item: &BatchItem| matches!(field(item), 1 | 3..=8);
    if items.iter().any(is_write) { Kind::Write } else { Kind::Read }
}

/// The number of the call's field in BatchItem, which is also that of its answer in BatchResult.
fn field(item: &BatchItem) -> u32 {
    match &item.call {
        Some(Call::ObjectAdd(_)) => 1,
        Some(Call::ObjectGet(_)) => 2,
        Some(Call::ObjectUpdate(_)) => 3,
        Some(Call::ObjectUpsert(_)) => 4,
        Some(Call::ObjectDelete(_)) => 5,
        Some(Call::AssocAdd(_)) => 6,
        Some(Call::AssocDelete(_)) => 7,
        Some(Call::AssocChangeType(_)) => 8,
        Some(Call::AssocGet(_)) => 9,
        Some(Call::AssocCount(_)) => 10,
        Some(Call::AssocRange(_)) => 11,
        Some(Call::AssocTimeRange(_)) => 12,
        None => 15,
    }
}

pub(crate) fn check(door: &Door<'_>, item: BatchItem, session: &Session) -> Result<Item> {
    let mut violations = Violations::default();
    let v = &mut violations;
    let call = item.call.ok_or_else(|| Error::invalid("call", "required: one call"))?;
    let read = |call: Option<ReadCall>, own: Option<&v1::ReadOptions>, v: &mut Violations| {
        Ok::<_, Error>(call.zip(Some(session.for_read(own, v)?)).map(|(call, session)| Item::Read(call, session)))
    };
    let write = |write: Option<Write>, own: Option<&v1::WriteOptions>, v: &mut Violations| {
        Ok::<_, Error>(write.zip(Some(session.for_write(own, v)?)).map(|(write, session)| Item::Write(write, session)))
    };
    let item = match call {
        Call::ObjectAdd(mut r) => {
            let own = r.options.take();
            write(door.object_add(r, v), own.as_ref(), v)
        }
        Call::ObjectUpdate(mut r) => {
            let own = r.options.take();
            write(door.object_update(r, v), own.as_ref(), v)
        }
        Call::ObjectUpsert(mut r) => {
            let own = r.options.take();
            write(door.object_upsert(r, v), own.as_ref(), v)
        }
        Call::AssocAdd(mut r) => {
            let own = r.options.take();
            write(door.assoc_add(r, v), own.as_ref(), v)
        }
        Call::ObjectDelete(r) => write(door.object_delete(&r, v), r.options.as_ref(), v),
        Call::AssocDelete(r) => write(door.assoc_delete(&r, v), r.options.as_ref(), v),
        Call::AssocChangeType(r) => write(door.assoc_change_type(&r, v), r.options.as_ref(), v),
        Call::ObjectGet(r) => read(door.object_get(&r, v), r.options.as_ref(), v),
        Call::AssocGet(r) => read(door.assoc_get(&r, v), r.options.as_ref(), v),
        Call::AssocCount(r) => read(door.assoc_count(&r, v), r.options.as_ref(), v),
        Call::AssocRange(r) => read(door.assoc_range(&r, v), r.options.as_ref(), v),
        Call::AssocTimeRange(r) => read(door.assoc_time_range(&r, v), r.options.as_ref(), v),
    }?;
    taken(item, violations)
}
