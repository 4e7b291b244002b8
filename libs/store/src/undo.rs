//! Undoing an atomic batch, one of whose writes failed: what rows were before it is remembered while it is computed. Other writes
//! pay nothing for it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tao_model::{AssocRef, ObjectId};

use crate::backend::{AssocRow, CountRow, ListKey, ObjectRow};
use crate::batch::Overlay;

/// A row as it was.
pub(crate) enum Undo {
    Object(ObjectId, Was<ObjectRow, Option<ObjectRow>>),
    Edge(AssocRef, Was<AssocRow, Option<AssocRow>>),
    Count(ListKey, Was<CountRow, CountRow>),
}

/// What was known of a row, and what was to be written, if anything.
pub(crate) struct Was<R, W> {
    row: Option<R>,
    write: Option<W>,
}

impl<R: Clone, W: Clone> Was<R, W> {
    fn of<K: Hash + Ord>(rows: &HashMap<K, R>, back: &BTreeMap<K, W>, key: &K) -> Self {
        Self { row: rows.get(key).cloned(), write: back.get(key).cloned() }
    }

    fn restore<K: Copy + Hash + Ord>(self, rows: &mut HashMap<K, R>, back: &mut BTreeMap<K, W>, key: K) {
        match self.row {
            Some(row) => rows.insert(key, row),
            None => rows.remove(&key),
        };
        match self.write {
            Some(write) => back.insert(key, write),
            None => back.remove(&key),
        };
    }
}

/// Where an overlay was.
pub(crate) struct Mark {
    changes: usize,
    intents: usize,
}

impl Overlay<'_> {
    /// Before an object is changed.
    pub fn remember_object(&mut self, id: ObjectId) {
        if let Some(undo) = &mut self.undo {
            undo.push(Undo::Object(id, Was::of(&self.rows.objects, &self.back.objects, &id)));
        }
    }

    /// Before an edge of a list is changed, and with it the list's count.
    pub fn remember_edge(&mut self, at: AssocRef) {
        if let Some(undo) = &mut self.undo {
            let list = (at.id1, at.atype);
            undo.push(Undo::Edge(at, Was::of(&self.rows.assocs, &self.back.assocs, &at)));
            undo.push(Undo::Count(list, Was::of(&self.rows.counts, &self.back.counts, &list)));
        }
    }

    /// From here on, everything can be undone.
    pub fn begin_undo(&mut self) -> Mark {
        self.undo = Some(Vec::new());
        Mark { changes: self.changes.len(), intents: self.back.intents.len() }
    }

    /// Undoes everything since the mark. Ids that were made meanwhile are not made again.
    pub fn undo(&mut self, mark: &Mark) {
        let (rows, back) = (&mut self.rows, &mut self.back);
        for undo in self.undo.take().into_iter().flatten().rev() {
            match undo {
                Undo::Object(id, was) => was.restore(&mut rows.objects, &mut back.objects, id),
                Undo::Edge(at, was) => was.restore(&mut rows.assocs, &mut back.assocs, at),
                Undo::Count(list, was) => was.restore(&mut rows.counts, &mut back.counts, list),
            }
        }
        self.changes.truncate(mark.changes);
        back.intents.truncate(mark.intents);
    }
}
