//! The primitive changes of lists, over the rows that a batch has loaded.

use bytes::Bytes;
use tao_model::{AssocRef, ChangeKind, Edge, EdgeKey, ListDelta};
use tao_proto::edges::encode_edge;

use crate::backend::AssocRow;
use crate::batch::Overlay;

impl Overlay<'_> {
    /// Puts an edge; says whether it was not there. One that is there and equal is not changed.
    pub fn put_edge(&mut self, at: AssocRef, row: &AssocRow) -> bool {
        let old = self.rows.assocs.get(&at);
        let is_new = old.is_none();
        if old == Some(row) {
            return false;
        }
        let edge = encode(at, row);
        let key = EdgeKey { time: row.time, id2: at.id2 };
        self.rows.assocs.insert(at, row.clone());
        self.back.assocs.insert(at, Some(row.clone()));
        self.change_list(at, i64::from(is_new), ListDelta::Put(key, edge));
        is_new
    }

    /// Removes an edge; says what was there.
    pub fn remove_edge(&mut self, at: AssocRef) -> Option<AssocRow> {
        let old = self.rows.assocs.remove(&at)?;
        self.back.assocs.insert(at, None);
        self.change_list(at, -1, ListDelta::Remove(at.id2));
        Some(old)
    }

    /// Counts, and chains the list's changes: each names the one before it, inside a commit too.
    fn change_list(&mut self, at: AssocRef, added: i64, delta: ListDelta) {
        let list = (at.id1, at.atype);
        let position = self.next_position();
        let row = self.rows.counts.entry(list).or_default();
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
