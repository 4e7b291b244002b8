//! Changes of lists, over the rows that a batch has loaded: of single ones, and of both lists of a pair of inverse edges. Where
//! the two live in different logs, the log of the canonical side orders the pair's writes, and leaves an intent for the other.

use bytes::Bytes;
use tao_model::{AssocRef, ChangeKind, Edge, EdgeKey, ListDelta, ObjectId, Result, ShardId, Step};
use tao_proto::edges::encode_edge;

use crate::backend::{AssocRow, CountRow};
use crate::batch::Overlay;
use crate::intents::Left;

impl Overlay<'_> {
    pub fn is_here(&self, id: ObjectId) -> bool {
        self.lasting.shards.check_served(id).is_ok()
    }

    fn shard(&self, id: ObjectId) -> ShardId {
        self.lasting.shards.layout().shard(id)
    }

    /// Whether this log orders the writes of an edge and its inverse: both lists are here, or the canonical side's is.
    pub fn check_ordered_here(&self, edge: AssocRef) -> Result<()> {
        let has_both = self.is_here(edge.id1) && self.is_here(edge.id2);
        if has_both { Ok(()) } else { self.lasting.shards.check_served(self.lasting.schema.canonical(edge).id1) }
    }

    /// The side of a pair that is here: the edge itself, if it is.
    pub fn side_here(&self, edge: AssocRef) -> AssocRef {
        if self.is_here(edge.id1) { edge } else { self.lasting.schema.canonical(edge) }
    }

    /// Puts an edge and its inverse; says whether they were not there. What is not here is left, and of a pair that another log
    /// orders everything.
    pub fn put_both(&mut self, edge: AssocRef, row: &AssocRow, left: &mut Left) -> bool {
        let put = |edge, both| Step::Put { edge, time: row.time, data: row.data.clone(), both };
        if self.check_ordered_here(edge).is_err() {
            let canonical = self.lasting.schema.canonical(edge);
            left.step(self.shard(canonical.id1), put(edge, true));
            return false;
        }
        let here = self.side_here(edge);
        let before = self.changes.len();
        let is_new = self.put_edge(here, row);
        if let Some(other) = self.lasting.schema.inverse(here) {
            if self.is_here(other.id1) {
                self.put_edge(other, row);
            } else {
                let is_changed = self.changes.len() > before;
                left.touch(self.shard(other.id1)).extend(is_changed.then(|| put(other, false)));
            }
        }
        is_new
    }

    /// Removes an edge and its inverse; says what was there. Otherwise as [`Self::put_both`].
    pub fn remove_both(&mut self, edge: AssocRef, left: &mut Left) -> Option<AssocRow> {
        if self.check_ordered_here(edge).is_err() {
            let canonical = self.lasting.schema.canonical(edge);
            left.step(self.shard(canonical.id1), Step::Remove { edge, both: true });
            return None;
        }
        let here = self.side_here(edge);
        let old = self.remove_edge(here);
        if let Some(other) = self.lasting.schema.inverse(here) {
            if self.is_here(other.id1) {
                self.remove_edge(other);
            } else {
                let step = old.is_some().then_some(Step::Remove { edge: other, both: false });
                left.touch(self.shard(other.id1)).extend(step);
            }
        }
        old
    }

    /// Puts an edge; says whether it was not there. One that is there and equal is not changed.
    pub fn put_edge(&mut self, at: AssocRef, row: &AssocRow) -> bool {
        let old = self.rows.assocs.get(&at);
        let is_new = old.is_none();
        if old == Some(row) {
            return false;
        }
        let edge = encode(at, row);
        let key = EdgeKey { time: row.time, id2: at.id2 };
        self.remember_edge(at);
        if is_new && !self.back.assocs.contains_key(&at) {
            self.back.new.assocs.insert(at);
        }
        self.rows.assocs.insert(at, row.clone());
        self.back.assocs.insert(at, Some(row.clone()));
        self.change_list(at, i64::from(is_new), ListDelta::Put(key, edge));
        is_new
    }

    /// Removes an edge; says what was there.
    pub fn remove_edge(&mut self, at: AssocRef) -> Option<AssocRow> {
        if !self.rows.assocs.contains_key(&at) {
            return None;
        }
        self.remember_edge(at);
        let old = self.rows.assocs.remove(&at)?;
        self.back.assocs.insert(at, None);
        self.change_list(at, -1, ListDelta::Remove(at.id2));
        Some(old)
    }

    /// Counts, and chains the list's changes: each names the one before it, inside a commit too.
    fn change_list(&mut self, at: AssocRef, added: i64, delta: ListDelta) {
        let list = (at.id1, at.atype);
        let position = self.next_position();
        let row = self.rows.counts.entry(list).or_insert_with(|| {
            self.back.new.counts.insert(list);
            CountRow::default()
        });
        let prev = row.last;
        row.count = row.count.saturating_add_signed(added);
        row.last = position;
        let row = *row;
        self.back.counts.insert(list, row);
        self.push(position, ChangeKind::List { id1: at.id1, atype: at.atype, prev, count: row.count, delta });
    }
}

/// An edge as answers and caches have it.
pub(crate) fn encode(at: AssocRef, row: &AssocRow) -> Bytes {
    encode_edge(&Edge { id2: at.id2, time: row.time, data: row.data.clone() })
}
