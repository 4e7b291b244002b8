//! Runs writes: at the leader, then into this follower's caches, then to the caller (COHERENCE rule 9). Where an edge and its
//! inverse live in different logs, the answer covers both, or says that it does not (rule 13).

use std::time::Duration;

use bytes::Bytes;
use tao_cache::{Mode, Read};
use tao_model::{AssocRef, Change, ChangeKind, Key, Position, Result, ShardId, TypeId, Write, WriteOutcome};
use tao_proto::{Answer, convert, edges};
use tao_rpc::{CallContext, Op, ReplyBody};
use tokio::time::Instant;

use crate::answers;
use crate::execute::{Executed, Executor};
use crate::place;
use crate::session::{Seen, Session};
use crate::upstream::unexpected;

/// For a look at the other log of a write that is done.
const FAR_WITHIN: Duration = Duration::from_millis(200);

/// What an outcome covers of the keys that its write is about.
pub struct Covered {
    /// For the session's token.
    pub seen: Vec<Seen>,
    /// Lists and objects in other logs of which it is not known that the write has reached them.
    pub unsure: Vec<Key>,
}

impl Executor {
    /// A write.
    pub async fn run_write(&self, write: Write, session: &Session, context: &CallContext) -> Executed {
        let write = place::placed(write, session);
        let mut added = None;
        let executed = match self.may_write(&write, session, context).await {
            Ok(()) => self.run_allowed(&write, session, context, &mut added).await,
            Err(error) => error.into(),
        };
        if self.logs_writes {
            self.log_write(&write, added.as_deref(), &executed.result, session, context);
        }
        executed
    }

    /// A write that its caller may do. An object that it changes is put where the log of writes finds its id.
    async fn run_allowed(
        &self,
        write: &Write,
        session: &Session,
        context: &CallContext,
        added: &mut Option<Bytes>,
    ) -> Executed {
        let shard = place::of_write(write, &self.schema, session.map()).unwrap_or_else(|| place::any_shard(session));
        let mut outcome = match self.write(write, shard, session, context).await {
            Ok(outcome) => outcome,
            Err(error) => return error.into(),
        };
        added.clone_from(&outcome.result.object);
        let named = named(write);
        let Covered { mut seen, unsure } = self.cover(&self.keys(write), shard, &outcome, session);
        let mut pending = !outcome.pending.is_empty();
        let mut count = named.and_then(|list| count_in(&outcome.changes, &list));
        if !pending && !unsure.is_empty() {
            match self.look(&unsure, session, context).await {
                Ok((far, first)) => {
                    seen.extend(far);
                    count = count.or(first.filter(|_| unsure.first() == named.as_ref()));
                }
                // It is done there, as far as the storage shard knows, but nobody can say at which position.
                Err(_) => pending = true,
            }
        }
        if let Some(list) = named.filter(|list| !session.is_together(owner(list, session), shard)) {
            // The caller named the other list than the one in whose log the write was decided on.
            outcome.result.count = match count {
                Some(count) => count,
                None => self.count_now(&list, session, context).await.unwrap_or_default(),
            };
        }
        Executed { result: self.write_answer(write, outcome, pending), seen }
    }

    /// Has a write done, and applies what it has changed.
    pub async fn write(
        &self,
        write: &Write,
        shard: ShardId,
        session: &Session,
        context: &CallContext,
    ) -> Result<WriteOutcome> {
        let idempotency_key = session.idempotency_key.clone();
        let context = CallContext { idempotency_key, shard, ..context.clone() };
        let reply = self.leaders.call(&context, Op::Write(write.into())).await?;
        let ReplyBody::Written(written) = reply.body else { return Err(unexpected()) };
        let outcome = convert::outcome(written, reply.as_of)?;
        for change in &outcome.changes {
            self.reader(change.shard).apply_write(std::slice::from_ref(change));
        }
        Ok(outcome)
    }

    /// Sees to it that caches show nothing older than a write that was decided on in the log of `shard`.
    pub fn cover(&self, keys: &[Key], shard: ShardId, outcome: &WriteOutcome, session: &Session) -> Covered {
        let mut seen: Vec<Seen> = outcome.changes.iter().map(|c| (c.shard, c.position)).collect();
        let mut unsure = Vec::new();
        for key in keys {
            if outcome.changes.iter().any(|change| change.key() == *key) {
                continue;
            }
            let at = owner(key, session);
            if session.is_together(at, shard) {
                self.reader(at).memory().outdate(key, outcome.position);
                seen.push((at, outcome.position));
            } else {
                unsure.push(*key);
            }
        }
        Covered { seen, unsure }
    }

    /// Covers keys of one other log, in which a write is done, by a look at the newest state of the first: every position of the log
    /// from there on has the write. Answers with the first's count, when it is a list.
    pub async fn look(
        &self,
        keys: &[Key],
        session: &Session,
        context: &CallContext,
    ) -> Result<(Vec<Seen>, Option<u64>)> {
        let Some(first) = keys.first() else { return Ok((Vec::new(), None)) };
        let (as_of, count) = self.far(first, Mode::Strong, session, context).await?;
        let mut seen = Vec::with_capacity(keys.len());
        for key in keys {
            let shard = owner(key, session);
            self.reader(shard).memory().outdate(key, as_of);
            seen.push((shard, as_of));
        }
        Ok((seen, count))
    }

    async fn count_now(&self, key: &Key, session: &Session, context: &CallContext) -> Option<u64> {
        self.far(key, Mode::Cached, session, context).await.ok()?.1
    }

    async fn far(
        &self,
        key: &Key,
        mode: Mode,
        session: &Session,
        context: &CallContext,
    ) -> Result<(Position, Option<u64>)> {
        let shard = owner(key, session);
        let deadline = context.deadline.min(Instant::now() + FAR_WITHIN);
        let read = Read { floor: Position::ZERO, mode, context: CallContext { shard, deadline, ..context.clone() } };
        match key {
            Key::Object(id) => {
                let found = self.reader(shard).object(*id, read).await?;
                Ok((found.as_of, None))
            }
            Key::List(id1, atype) => {
                let found = self.reader(shard).list(*id1, *atype, 0, read).await?;
                Ok((found.as_of, Some(found.value.count())))
            }
        }
    }

    /// What a write of something that exists is about; first what it names.
    pub fn keys(&self, write: &Write) -> Vec<Key> {
        match write {
            Write::ObjectAdd { .. } | Write::Batch(_) | Write::Intents { .. } => Vec::new(),
            Write::ObjectUpdate { id, .. } | Write::ObjectUpsert { id, .. } | Write::ObjectDelete { id, .. } => {
                vec![Key::Object(*id)]
            }
            Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } => self.lists(edge).collect(),
            Write::AssocChangeType { edge, new_atype } => {
                self.lists(&AssocRef { atype: *new_atype, ..*edge }).chain(self.lists(edge)).collect()
            }
        }
    }

    fn lists(&self, edge: &AssocRef) -> impl Iterator<Item = Key> {
        let inverse = self.schema.inverse(*edge).map(|inverse| Key::List(inverse.id1, inverse.atype));
        [Some(Key::List(edge.id1, edge.atype)), inverse].into_iter().flatten()
    }

    /// An encoded edge, with its list.
    pub fn assoc(&self, edge: AssocRef, atype: TypeId, encoded: &Bytes) -> Result<Bytes> {
        let name = &self.schema.assoc(atype).ok_or_else(unexpected)?.name;
        Ok(edges::full_assoc(edge.id1, name, encoded))
    }

    fn write_answer(&self, write: &Write, outcome: WriteOutcome, pending: bool) -> Result<Answer> {
        let result = outcome.result;
        let assoc =
            |edge: &AssocRef, atype, encoded: Option<Bytes>| self.assoc(*edge, atype, &encoded.ok_or_else(unexpected)?);
        Ok(match write {
            Write::ObjectAdd { .. } | Write::ObjectUpdate { .. } => {
                answers::object(result.object.ok_or_else(unexpected)?)
            }
            Write::ObjectUpsert { .. } => answers::upserted(result.object.ok_or_else(unexpected)?, result.applied),
            Write::ObjectDelete { .. } => answers::object_deleted(result.applied),
            Write::AssocAdd { edge, .. } => {
                let assoc = assoc(edge, edge.atype, result.edge)?;
                answers::assoc_added(assoc, result.applied, result.count, pending)
            }
            Write::AssocDelete { .. } => answers::assoc_deleted(result.applied, result.count, pending),
            Write::AssocChangeType { edge, new_atype } => {
                answers::assoc_changed(assoc(edge, *new_atype, result.edge)?, result.count, pending)
            }
            Write::Batch(_) | Write::Intents { .. } => return Err(unexpected()),
        })
    }
}

/// The list whose count an answer gives.
fn named(write: &Write) -> Option<Key> {
    match write {
        Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } => Some(Key::List(edge.id1, edge.atype)),
        Write::AssocChangeType { edge, new_atype } => Some(Key::List(edge.id1, *new_atype)),
        Write::ObjectAdd { .. }
        | Write::ObjectUpdate { .. }
        | Write::ObjectUpsert { .. }
        | Write::ObjectDelete { .. }
        | Write::Batch(_)
        | Write::Intents { .. } => None,
    }
}

/// A list's count after the last of these changes.
fn count_in(changes: &[Change], list: &Key) -> Option<u64> {
    changes.iter().rev().find(|change| change.key() == *list).and_then(|change| match &change.kind {
        ChangeKind::List { count, .. } => Some(*count),
        ChangeKind::Object(..) => None,
    })
}

/// The shard that a key lives on.
pub const fn owner(key: &Key, session: &Session) -> ShardId {
    session.map().shard(key.owner())
}
