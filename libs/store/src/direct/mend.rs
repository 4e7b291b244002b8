//! Makes pairs of inverse edges whole that have come apart.

use std::collections::{HashMap, HashSet};

use tao_model::{AssocRef, Schema, Step};
use tao_proto::intents;

use super::{DirectDatabase, DirectError, EdgeRow, GraphRow, RowChange, Snapshot};
use crate::backend::{AssocRow, Wanted};

/// Puts the missing one of each pair, and where they differ, what the canonical side says; nothing is removed. Looks at both sides
/// again while nobody can write: a pair that is whole by now, or that an intent is about, is left alone. Says how many edges it has
/// put. All databases of the cluster must be given.
pub async fn mend(databases: &[DirectDatabase], schema: &Schema, edges: &[AssocRef]) -> Result<usize, DirectError> {
    let mut locks = Vec::with_capacity(databases.len());
    let mut held = Vec::with_capacity(databases.len());
    for database in databases {
        locks.push(database.lasting.lock().await);
        held.push(database.hold().await?);
    }
    let mut under_way = HashSet::new();
    if databases.len() > 1 {
        for database in databases {
            let mut snapshot = Snapshot::connect(database).await?;
            snapshot.take().await?;
            under_way.extend(pending(&mut snapshot, schema).await?);
        }
    }
    let sides: Vec<AssocRef> = edges.iter().flat_map(|edge| [Some(*edge), schema.inverse(*edge)]).flatten().collect();
    let mut found = HashMap::new();
    for (database, begun) in databases.iter().zip(&mut held) {
        let here = |at: &&AssocRef| database.shards.contains(database.info.layout.shard(at.id1));
        let assocs = sides.iter().filter(here).copied().collect();
        found.extend(begun.transaction.load(&Wanted { assocs, ..Wanted::default() }).await?.assocs);
    }
    let puts: Vec<RowChange> = edges
        .iter()
        .filter(|edge| !under_way.contains(*edge))
        .filter_map(|edge| put(schema, *edge, &found))
        .map(|edge| RowChange::Put(GraphRow::Edge(edge)))
        .collect();
    let mut changed = 0;
    for ((database, begun), lasting) in databases.iter().zip(held).zip(&mut locks) {
        let here = |put: &&RowChange| database.shards.contains(database.info.layout.shard(put.owner()));
        let puts: Vec<RowChange> = puts.iter().filter(here).cloned().collect();
        changed += database.commit_held(begun, lasting, &puts).await?;
    }
    Ok(changed)
}

/// The edges that intents are about, each with its inverse.
pub async fn pending(snapshot: &mut Snapshot, schema: &Schema) -> Result<HashSet<AssocRef>, DirectError> {
    let mut all = HashSet::new();
    for intent in snapshot.intents().await? {
        for step in intents::decode(&intent.payload)? {
            match step {
                Step::Put { edge, .. } | Step::Remove { edge, .. } => {
                    all.extend([Some(edge), schema.inverse(edge)].into_iter().flatten());
                }
                Step::DeleteObject(_) => {}
            }
        }
    }
    Ok(all)
}

/// What must be put to make a pair whole.
fn put(schema: &Schema, edge: AssocRef, found: &HashMap<AssocRef, AssocRow>) -> Option<EdgeRow> {
    let inverse = schema.inverse(edge)?;
    let (from, to) = match (found.get(&edge), found.get(&inverse)) {
        (None, None) => return None,
        (Some(one), Some(other)) if one == other => return None,
        (Some(_), Some(_)) => {
            let canonical = schema.canonical(edge);
            (canonical, schema.inverse(canonical)?)
        }
        (Some(_), None) => (edge, inverse),
        (None, Some(_)) => (inverse, edge),
    };
    let row = found.get(&from)?;
    Some(EdgeRow { at: to, time: row.time, data: row.data.clone() })
}
