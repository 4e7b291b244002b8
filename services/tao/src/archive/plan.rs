//! Which part holds what: ranges of keys that leave nothing out, whatever is added between two attempts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tao_model::{AssocRef, Change, ChangeKind, ListDelta, LogId, ObjectId, TypeId};
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
}

/// The part that holds, or would hold, the row that a change is about: of all parts of a log, as they were planned.
pub fn part_of<'a>(parts: &'a [PartPlan], change: &Change) -> Option<&'a PartPlan> {
    let (kind, key) = match &change.kind {
        ChangeKind::Object(id, _) => (PartKind::Objects, vec![id.get()]),
        ChangeKind::List { id1, atype, delta, .. } => {
            let id2 = match delta {
                ListDelta::Put(key, _) => key.id2,
                ListDelta::Remove(id2) => *id2,
            };
            (PartKind::Edges, edge_bound(AssocRef { id1: *id1, atype: *atype, id2 }))
        }
    };
    let (objects, edges) = parts.split_at(parts.partition_point(|part| part.kind == PartKind::Objects));
    let of_kind = if kind == PartKind::Objects { objects } else { edges };
    of_kind.get(of_kind.partition_point(|part| part.up_to.as_ref().is_some_and(|up_to| *up_to < key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{Position, ShardId};

    #[test]
    fn each_change_is_of_the_part_whose_keys_lie_around_it() {
        let id = |n| ObjectId::new(n).unwrap();
        let change = |kind| Change { position: Position::new(1, 1), shard: ShardId(0), kind };
        let edge = |id1, id2| {
            let (id1, delta) = (id(id1), ListDelta::Remove(id(id2)));
            change(ChangeKind::List { id1, atype: TypeId(3), prev: Position::ZERO, count: 0, delta })
        };
        let object = |n| change(ChangeKind::Object(id(n), None));
        let part = |file: &str, kind, after: Option<&[i64]>, up_to: Option<&[i64]>| {
            let [after, up_to] = [after, up_to].map(|bound| bound.map(<[i64]>::to_vec));
            PartPlan { file: file.to_owned(), kind, log: 0, after, up_to }
        };
        let (objects, edges) = (PartKind::Objects, PartKind::Edges);
        let parts = [
            part("o0", objects, None, Some(&[9])),
            part("o1", objects, Some(&[9]), None),
            part("e0", edges, None, Some(&[5, 3, 7])),
            part("e1", edges, Some(&[5, 3, 7]), Some(&[9, 3, 2])),
            part("e2", edges, Some(&[9, 3, 2]), None),
        ];
        for (change, file) in [
            (object(1), "o0"),
            (object(9), "o0"),
            (object(10), "o1"),
            (edge(5, 7), "e0"),
            (edge(5, 8), "e1"),
            (edge(9, 2), "e1"),
            (edge(9, 3), "e2"),
            (edge(900, 1), "e2"),
        ] {
            assert_eq!(part_of(&parts, &change).unwrap().file, file, "{change:?}");
        }
    }
}
