//! Which part holds what: ranges of keys that leave nothing out, whatever is added between two attempts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tao_model::{AssocRef, Change, ChangeKind, LogId, ObjectId, TypeId};
use tao_store::direct::{DirectError, Snapshot};

use super::manifest::RowFormat;

/// What is in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Objects, by id.
    Objects,
    /// Edges, each direction one, by id1, type and id2.
    Edges,
    /// What writes had left to do in other logs.
    Intents,
}

/// A part: keys beyond one and up to another. Keys of edges are three numbers, those of objects one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPlan {
    /// Its name in the folder.
    pub file: String,
    /// What is in it.
    pub kind: PartKind,
    /// The log that it was read from.
    pub log: u32,
    /// Beyond this key; absent: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<i64>>,
    /// Up to this key; absent: to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<Vec<i64>>,
}

/// The key of an object, from a bound.
pub fn object_key(bound: Option<&Vec<i64>>) -> Option<ObjectId> {
    ObjectId::new(*bound?.first()?)
}

/// The key of an edge, from a bound.
pub fn edge_key(bound: Option<&Vec<i64>>) -> Option<AssocRef> {
    let [id1, atype, id2] = bound?[..] else { return None };
    Some(AssocRef { id1: ObjectId::new(id1)?, atype: TypeId(atype as u32), id2: ObjectId::new(id2)? })
}

fn edge_bound(at: AssocRef) -> Vec<i64> {
    vec![at.id1.get(), i64::from(at.atype.0), at.id2.get()]
}

/// Plans all parts of a log: so many rows each as there are now.
pub async fn plan(
    snapshot: &mut Snapshot,
    log: LogId,
    rows: usize,
    suffix: &str,
) -> Result<Vec<PartPlan>, DirectError> {
    let mut parts = Vec::new();
    let mut part = |kind, name: &str, n: usize, after: &Option<Vec<i64>>, up_to: Option<Vec<i64>>| {
        let file = format!("{name}-{}-{n:05}.{suffix}", log.0);
        parts.push(PartPlan { file, kind, log: log.0, after: after.clone(), up_to });
    };
    let (mut after, mut n) = (None, 0);
    loop {
        let beyond = snapshot.object_beyond(object_key(after.as_ref()), rows - 1).await?;
        let up_to = beyond.map(|id| vec![id.get()]);
        part(PartKind::Objects, "objects", n, &after, up_to.clone());
        (after, n) = (up_to, n + 1);
        if after.is_none() {
            break;
        }
    }
    n = 0;
    loop {
        let up_to = snapshot.edge_beyond(edge_key(after.as_ref()), rows - 1).await?.map(edge_bound);
        part(PartKind::Edges, "edges", n, &after, up_to.clone());
        (after, n) = (up_to, n + 1);
        if after.is_none() {
            return Ok(parts);
        }
    }
}

impl RowFormat {
    /// How names of parts end.
    pub const fn suffix(self, gzip: bool) -> &'static str {
        match (self, gzip) {
            (Self::Jsonl, false) => "jsonl",
            (Self::Jsonl, true) => "jsonl.gz",
            (Self::Compact, _) => "pb.gz",
        }
    }
}

impl PartPlan {
    /// Whether it is in gzip.
    pub fn is_packed(&self) -> bool {
        std::path::Path::new(&self.file).extension().is_some_and(|extension| extension == "gz")
    }

    /// Where it is.
    pub fn path(&self, folder: &std::path::Path) -> PathBuf {
        folder.join(&self.file)
    }

    /// Whether a change is about a row that is, or would be, in it.
    pub fn holds(&self, change: &Change) -> bool {
        let key = match (&change.kind, self.kind) {
            (ChangeKind::Object(id, _), PartKind::Objects) => vec![id.get()],
            (ChangeKind::List { id1, atype, delta, .. }, PartKind::Edges) => {
                let id2 = match delta {
                    tao_model::ListDelta::Put(key, _) => key.id2,
                    tao_model::ListDelta::Remove(id2) => *id2,
                };
                edge_bound(AssocRef { id1: *id1, atype: *atype, id2 })
            }
            (ChangeKind::Object(..) | ChangeKind::List { .. }, _) => return false,
        };
        self.after.as_ref().is_none_or(|after| key > *after) && self.up_to.as_ref().is_none_or(|up_to| key <= *up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ListDelta, Position, ShardId};

    #[test]
    fn a_part_holds_what_lies_beyond_one_key_and_up_to_the_other() {
        let id = |n| ObjectId::new(n).unwrap();
        let change = |kind| Change { position: Position::new(1, 1), shard: ShardId(0), kind };
        let edge = |id1, id2| {
            let (id1, delta) = (id(id1), ListDelta::Remove(id(id2)));
            change(ChangeKind::List { id1, atype: TypeId(3), prev: Position::ZERO, count: 0, delta })
        };
        let part = |kind, after: Option<&[i64]>, up_to: Option<&[i64]>| PartPlan {
            file: String::new(),
            kind,
            log: 0,
            after: after.map(<[i64]>::to_vec),
            up_to: up_to.map(<[i64]>::to_vec),
        };
        let edges = part(PartKind::Edges, Some(&[5, 3, 7]), Some(&[9, 3, 2]));
        let held = [(5, 7), (5, 8), (7, 1), (9, 2), (9, 3)].map(|(id1, id2)| edges.holds(&edge(id1, id2)));
        assert_eq!(held, [false, true, true, true, false]);
        let objects = part(PartKind::Objects, None, Some(&[9]));
        let held = [1, 9, 10].map(|n| objects.holds(&change(ChangeKind::Object(id(n), None))));
        assert_eq!(held, [true, true, false]);
        assert!(!objects.holds(&edge(1, 1)) && part(PartKind::Edges, None, None).holds(&edge(1, 1)));
    }
}
