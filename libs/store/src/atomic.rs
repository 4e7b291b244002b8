//! Atomic batches, and the intents of other logs, over the rows that a commit has loaded.

use tao_model::limits::MAX_BATCH_DATA;
use tao_model::mutation::{Rule, is_off};
use tao_model::{
    AssocRef, ChangeKind, Condition, Error, Intent, ItemOutcome, ListDelta, LogId, Pending, Position, Result, Step,
    Violations, Write, WriteBatch, WriteResult,
};
use tao_proto::intents;

use crate::backend::AssocRow;
use crate::batch::Overlay;
use crate::edges::encode;
use crate::intents::{IntentRow, Left};

impl Overlay<'_> {
    /// All writes of a batch, or none: the error names the item that stands in the way.
    pub async fn atomically(&mut self, batch: &WriteBatch) -> Result<Vec<ItemOutcome>> {
        let mark = self.begin_undo();
        let done = self.batch(batch).await;
        match done {
            Ok(_) => self.undo = None,
            Err(_) => self.undo(&mark),
        }
        done
    }

    async fn batch(&mut self, batch: &WriteBatch) -> Result<Vec<ItemOutcome>> {
        for (n, condition) in batch.conditions.iter().enumerate() {
            self.check_condition(condition).map_err(|error| error.of_item(&format!("preconditions[{n}]")))?;
        }
        let begun = self.changes.len();
        let mut items = Vec::with_capacity(batch.writes.len());
        for (n, write) in batch.writes.iter().enumerate() {
            let before = self.changes.len();
            let mut left = Left::default();
            let result = match self.elsewhere(write, &mut left) {
                Ok(None) => self.single(write, &mut left).await,
                Ok(Some(result)) => Ok(result),
                Err(error) => Err(error),
            };
            let result = result.map_err(|error| error.of_item(&format!("writes[{n}]")))?;
            let pending = self.leave(left);
            items.push(ItemOutcome { result, changes: self.changes.len() - before, pending, skipped: false });
        }
        let bytes: usize = self.changes[begun..].iter().map(|change| size(&change.kind)).sum();
        if bytes > MAX_BATCH_DATA {
            let rule = format!("write {bytes} bytes of objects and edges, and {MAX_BATCH_DATA} are allowed at once");
            return Err(Error::invalid("writes", rule));
        }
        Ok(items)
    }

    fn check_condition(&self, condition: &Condition) -> Result<()> {
        let shards = &self.lasting.shards;
        let missing = |what| Err(Error::NotFound { what });
        match *condition {
            Condition::Object { id, exists } => {
                shards.check_served(id)?;
                match (self.rows.objects.contains_key(&id), exists) {
                    (false, true) => missing(format!("object {id}")),
                    (true, false) => Err(Error::AlreadyExists { what: format!("object {id}") }),
                    (true, true) | (false, false) => Ok(()),
                }
            }
            Condition::Version { id, version } => {
                shards.check_served(id)?;
                match self.rows.objects.get(&id) {
                    None => missing(format!("object {id}")),
                    Some(row) if row.version != version => {
                        Err(Error::VersionMismatch { id: id.get(), expected: version, actual: row.version })
                    }
                    Some(_) => Ok(()),
                }
            }
            Condition::Edge { edge, exists } => {
                self.check_ordered_here(edge)?;
                match (self.rows.assocs.contains_key(&self.side_here(edge)), exists) {
                    (false, true) => missing(self.name(edge)),
                    (true, false) => Err(Error::AlreadyExists { what: self.name(edge) }),
                    (true, true) | (false, false) => Ok(()),
                }
            }
        }
    }

    /// A write of a batch that another log orders: left to it, when nothing there can stand in its way.
    fn elsewhere(&self, write: &Write, left: &mut Left) -> Result<Option<WriteResult>> {
        let result = self.left_whole(write, left)?;
        left.whole = result.is_some();
        Ok(result)
    }

    fn left_whole(&self, write: &Write, left: &mut Left) -> Result<Option<WriteResult>> {
        let layout = self.lasting.shards.layout();
        let home = |edge: AssocRef| layout.shard(self.lasting.schema.canonical(edge).id1);
        match write {
            Write::AssocAdd { edge, time, data } if self.check_ordered_here(*edge).is_err() => {
                let AssocRow { time, data } = self.edge_row(*edge, *time, data)?;
                let result = WriteResult {
                    edge: Some(encode(*edge, &AssocRow { time, data: data.clone() })),
                    ..WriteResult::default()
                };
                left.step(home(*edge), Step::Put { edge: *edge, time, data, both: true });
                Ok(Some(result))
            }
            Write::AssocDelete { edge } if self.check_ordered_here(*edge).is_err() => {
                self.check_ends(*edge, Violations::default())?;
                left.step(home(*edge), Step::Remove { edge: *edge, both: true });
                Ok(Some(WriteResult::default()))
            }
            Write::ObjectDelete { id, expected_version: None } if !self.is_here(*id) => {
                left.step(layout.shard(*id), Step::DeleteObject(*id));
                Ok(Some(WriteResult::default()))
            }
            _ => Ok(None),
        }
    }

    /// Makes the intents of one write.
    pub fn leave(&mut self, left: Left) -> Vec<Pending> {
        let mut pending = Vec::with_capacity(left.shards.len());
        for (shard, steps) in left.shards {
            let made = self.rows.intents + self.back.intents.len() as u64;
            let number = made + u64::from(!steps.is_empty());
            let position = Position::new(self.head.epoch, number);
            let more = steps.iter().any(Step::is_ordering);
            if !steps.is_empty() {
                let is_dropped = is_off(Rule::IntentsKept) && number.is_multiple_of(4);
                let payload = intents::encode(if is_dropped { &[] } else { &steps }).to_vec();
                self.back.intents.push(IntentRow { position, shard, created_ms: self.now_ms, payload });
            }
            if number > 0 {
                pending.push(Pending { shard, position, more, whole: left.whole });
            }
        }
        pending
    }

    /// What another log has left to do here. Refused as a whole where a part of it is not this log's.
    pub fn intents(&mut self, source: LogId, intents: &[Intent]) -> Result<Vec<ItemOutcome>> {
        for step in intents.iter().flat_map(|intent| &intent.steps) {
            match step {
                Step::Put { edge, both: true, .. } | Step::Remove { edge, both: true } => {
                    self.check_ordered_here(*edge)?;
                }
                Step::Put { edge, both: false, .. } | Step::Remove { edge, both: false } => {
                    self.lasting.shards.check_served(edge.id1)?;
                }
                Step::DeleteObject(id) => self.lasting.shards.check_served(*id)?,
            }
        }
        let mut done = self.rows.done.get(&source).copied().unwrap_or_default();
        let mut items = Vec::with_capacity(intents.len());
        for intent in intents {
            if intent.position <= done {
                // It came before.
                items.push(ItemOutcome { skipped: true, ..ItemOutcome::default() });
                continue;
            }
            let before = self.changes.len();
            let mut left = Left::default();
            let mut result = WriteResult::default();
            for step in &intent.steps {
                result = self.step(step, &mut left);
            }
            let pending = self.leave(left);
            items.push(ItemOutcome { result, changes: self.changes.len() - before, pending, skipped: false });
            done = intent.position;
        }
        self.rows.done.insert(source, done);
        self.back.done.insert(source, done);
        Ok(items)
    }

    fn step(&mut self, step: &Step, left: &mut Left) -> WriteResult {
        match step {
            Step::Put { edge, time, data, both } => {
                let row = AssocRow { time: *time, data: data.clone() };
                let applied = if *both { self.put_both(*edge, &row, left) } else { self.put_edge(*edge, &row) };
                WriteResult { edge: Some(encode(*edge, &row)), count: self.count(*edge), applied, object: None }
            }
            Step::Remove { edge, both } => {
                let old = if *both { self.remove_both(*edge, left) } else { self.remove_edge(*edge) };
                WriteResult { count: self.count(*edge), applied: old.is_some(), ..WriteResult::default() }
            }
            Step::DeleteObject(id) => self.remove_object(*id),
        }
    }
}

/// About how many bytes a change takes.
fn size(kind: &ChangeKind) -> usize {
    match kind {
        ChangeKind::Object(_, object) => object.as_ref().map_or(0, bytes::Bytes::len),
        ChangeKind::List { delta: ListDelta::Put(_, edge), .. } => edge.len(),
        ChangeKind::List { delta: ListDelta::Remove(_), .. } => 0,
    }
}
