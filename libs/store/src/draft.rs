//! A batch under computation: on the log's end as it is, or as it will be once the commit that is under way is done.

use std::sync::Arc;

use tao_model::mutation::{Rule, is_off};
use tao_model::{Change, Placement, ShardId, ShardSet, Write};
use tao_proto::convert;

use crate::backend::{Base, LogRow, Rows, Session, Wanted, WriteBack};
use crate::batch::{Lasting, Overlay, want};
use crate::intents::Delivered;
use crate::jobs::{Done, Job, Queued};
use crate::shards::Demand;

/// Writes in one commit, those of atomic batches each: one that takes long holds the others up.
pub(crate) const MAX_BATCH: usize = 1_024;
/// About how many bytes of data one commit takes, so that its message stays well below what a stream carries.
pub(crate) const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// The commit that a draft follows, before it is known to have happened.
#[derive(Clone)]
pub(crate) struct Before {
    /// Where the log stood before it.
    pub base: Base,
    pub back: Arc<WriteBack>,
}

/// See the module. Every [`Part`] of it is looked up and computed before the next is.
#[derive(Default)]
pub(crate) struct Draft {
    pub jobs: Vec<Queued>,
    pub done: Vec<Done>,
    /// Where the log stands when this is written.
    pub base: Option<Base>,
    pub before: Option<Before>,
    /// The connection on which its rows were looked up.
    pub session: Option<Box<dyn Session>>,
    pub back: WriteBack,
    pub changes: Vec<Change>,
    rows: Rows,
    now_ms: u64,
}

/// Jobs that join a draft, and what they need.
pub(crate) struct Part {
    pub jobs: Vec<Queued>,
    pub wanted: Wanted,
    /// Rows that need no looking up.
    known: Rows,
    /// Shards whose leases are to be renewed, and for how many ids.
    short: Vec<(ShardId, usize)>,
    now_ms: u64,
}

impl Draft {
    /// What is computed while a commit is under way.
    pub fn following(before: Before) -> Self {
        Self { base: Some(before.base.after(&before.back)), before: Some(before), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What may still join.
    pub fn room(&self) -> Room {
        let mut room = Room::default();
        for queued in &self.jobs {
            room.add(queued);
        }
        room
    }

    /// What jobs need that are to join.
    pub fn part(&self, jobs: Vec<Queued>, lasting: &mut Lasting, now_ms: u64) -> Part {
        lasting.forget_some();
        let (mut wanted, mut demand) = (Wanted::default(), Demand::default());
        for (job, _) in &jobs {
            match job {
                Job::Write(write, staged, _) => {
                    want(write, staged.idempotency_key.as_ref(), lasting, &mut wanted);
                    for part in write.parts() {
                        let Write::ObjectAdd { placement, .. } = part else { continue };
                        match placement {
                            Placement::Anywhere => demand.add(None, 1),
                            Placement::Shard(shard) => demand.add(Some(*shard), 1),
                            Placement::Allocated(_) => {}
                        }
                    }
                }
                Job::Delivered(..) => {}
                Job::Allocate(shard, count, _) => demand.add(*shard, *count),
            }
        }
        let short = lasting.shards.to_renew(demand, now_ms);
        wanted.shards.extend(short.iter().map(|(shard, _)| *shard));
        wanted.dedup();
        let mut known = Rows::default();
        // The draft's own rows are the newest, and are there already.
        wanted.take_written(&self.back, &mut Rows::default());
        if let Some(before) = &self.before {
            wanted.take_written(&before.back, &mut known);
        }
        wanted.counts.retain(|list| match lasting.counts.get(list) {
            None => true,
            Some(row) => known.counts.insert(*list, *row).is_some(),
        });
        Part { jobs, wanted, known, short, now_ms }
    }

    /// Whether rows of this snapshot are those that the draft is about: what the commit before it wrote wins in any case.
    pub fn is_of(&self, looked: Base) -> bool {
        self.base == Some(looked) || self.before.as_ref().is_some_and(|before| before.base == looked)
    }

    /// Computes what jobs do, in order, on top of all before them.
    pub async fn join(&mut self, part: Part, found: Rows, lasting: &mut Lasting) {
        let Part { jobs, known, short, now_ms, .. } = part;
        // Those of the draft are counted from what was there before its first: what was found later may not say.
        if self.back.intents.is_empty() {
            self.rows.intents = self.before.as_ref().and_then(|b| b.back.intents_made()).unwrap_or(found.intents);
        }
        for rows in [found, known] {
            lasting.learn(&rows);
            self.rows.take_in(rows);
        }
        let leases = lasting.shards.renew(&short, now_ms);
        let head = self.base.unwrap_or_default().head;
        let mut overlay = Overlay {
            rows: std::mem::take(&mut self.rows),
            back: std::mem::take(&mut self.back),
            changes: std::mem::take(&mut self.changes),
            ..Overlay::new(lasting, head, now_ms)
        };
        overlay.back.leases.extend(leases);
        for (job, _) in &jobs {
            self.done.push(match job {
                Job::Write(write, staged, _) => {
                    Done::Written(overlay.write(write, staged.idempotency_key.as_ref()).await)
                }
                Job::Allocate(shard, count, _) => Done::Allocated(overlay.allocate(*shard, *count).await),
                Job::Delivered(delivered, _) => {
                    let up_to =
                        overlay.back.delivered.as_ref().map_or(delivered.up_to, |d| d.up_to.max(delivered.up_to));
                    overlay.back.delivered = Some(Delivered { up_to, ..delivered.clone() });
                    Done::Deleted
                }
            });
        }
        let Overlay { rows, back, changes, .. } = overlay;
        (self.rows, self.back, self.changes) = (rows, back, changes);
        lasting.remember(&self.back);
        self.now_ms = now_ms;
        self.jobs.extend(jobs);
    }

    /// Tells the callers.
    pub fn answer(&mut self) {
        self.jobs.drain(..).zip(self.done.drain(..)).for_each(|((job, _), done)| job.answer(done));
    }

    /// Nothing joins any more: its row in the log is made.
    pub fn close(&mut self) {
        let Some(last) = self.changes.last().map(|change| change.position) else { return };
        let payload = convert::encode_log(&self.changes).into();
        self.back.log = Some(LogRow { first: self.changes[0].position, last, committed_ms: self.now_ms, payload });
        if is_off(Rule::ChangePositions) {
            for change in self.done.iter_mut().flat_map(Done::changes) {
                change.position = last;
            }
        }
    }
}

/// How much of a commit is taken.
#[derive(Default)]
pub(crate) struct Room {
    writes: usize,
    bytes: usize,
    /// Whose intents it deletes: one statement deletes those of one neighbour.
    delivered: Option<ShardSet>,
}

impl Room {
    /// Takes a job in, if it fits; the first always does.
    pub fn admits(&mut self, queued: &Queued) -> bool {
        let fits = self.writes == 0
            || (self.writes + queued.0.writes() <= MAX_BATCH && self.bytes + queued.1 <= MAX_BATCH_BYTES);
        let is_others = match (&queued.0, &self.delivered) {
            (Job::Delivered(delivered, _), Some(shards)) => *shards != delivered.shards,
            (Job::Delivered(..), None) | (Job::Write(..) | Job::Allocate(..), _) => false,
        };
        if fits && !is_others {
            self.add(queued);
        }
        fits && !is_others
    }

    fn add(&mut self, (job, size): &Queued) {
        self.writes += job.writes();
        self.bytes += size;
        if let Job::Delivered(delivered, _) = job {
            self.delivered = Some(delivered.shards.clone());
        }
    }
}

impl Rows {
    /// Rows that were found later, of what nothing has been written to since.
    fn take_in(&mut self, found: Self) {
        let Self { objects, types: _, assocs, counts, outcomes, shards: _, intents: _, done } = found;
        self.objects.extend(objects);
        self.assocs.extend(assocs);
        self.counts.extend(counts);
        self.outcomes.extend(outcomes);
        self.done.extend(done);
    }
}

impl WriteBack {
    /// How many intents the log has made with these, if they make any.
    pub fn intents_made(&self) -> Option<u64> {
        self.intents.last().map(|last| last.position.lsn)
    }
}

impl Wanted {
    /// Takes out what this has written, which needs no looking up, and gives what is there of it.
    fn take_written(&mut self, back: &WriteBack, known: &mut Rows) {
        self.objects.retain(|id| match back.objects.get(id) {
            None => true,
            Some(row) => {
                known.objects.extend(row.clone().map(|row| (*id, row)));
                false
            }
        });
        self.types.retain(|id| match back.objects.get(id) {
            None => true,
            Some(row) => {
                known.types.extend(row.as_ref().map(|row| (*id, row.otype)));
                false
            }
        });
        self.assocs.retain(|at| match back.assocs.get(at) {
            None => true,
            Some(row) => {
                known.assocs.extend(row.clone().map(|row| (*at, row)));
                false
            }
        });
        self.counts.retain(|list| match back.counts.get(list) {
            None => true,
            Some(row) => known.counts.insert(*list, *row).is_some(),
        });
        self.outcomes.retain(|key| match back.outcomes.get(key) {
            None => true,
            Some(row) => known.outcomes.insert(key.clone(), row.clone()).is_some(),
        });
        self.shards.retain(|shard| match back.leases.get(shard) {
            None => true,
            Some(until) => known.shards.insert(*shard, *until).is_some(),
        });
        self.done.retain(|log| match back.done.get(log) {
            None => true,
            Some(position) => known.done.insert(*log, *position).is_some(),
        });
        self.intents &= back.intents.is_empty();
    }

    fn dedup(&mut self) {
        fn unique<T: Ord>(all: &mut Vec<T>) {
            all.sort_unstable();
            all.dedup();
        }
        unique(&mut self.objects);
        unique(&mut self.types);
        unique(&mut self.assocs);
        unique(&mut self.counts);
        unique(&mut self.outcomes);
        unique(&mut self.shards);
        unique(&mut self.done);
    }
}
