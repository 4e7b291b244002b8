//! Writes: one statement by itself, several in a transaction; then what they made wrong goes from the cache.

use sqlx::{Connection as _, Error, PgConnection};
use tonic::Status;

use super::cache::{Key, count_key, edge_key, list_key, node_key};
use super::proto::write_step::Step;
use super::service::{Service, failed};
use crate::targets::log::Log;
use crate::targets::retry::{ATTEMPTS, is_retryable};
use crate::targets::writes::{self, Edge};

/// Does all of it; whether there was something before.
pub async fn write(service: &Service, steps: &[Step]) -> Result<bool, Status> {
    let mut attempt = 1;
    let found = loop {
        let mut lease = service.database.take().await.map_err(failed)?;
        let result = match steps {
            [only] => one(lease.connection(), only).await,
            all => several(lease.connection(), all).await,
        };
        match lease.done(result) {
            Err(error) if is_retryable(&error) && attempt < ATTEMPTS => attempt += 1,
            result => break result.map_err(failed)?,
        }
    };
    let keys: Vec<Key> = steps.iter().flat_map(stale).collect();
    if !keys.is_empty() {
        service.cache.forget(&keys).await.map_err(failed)?;
    }
    Ok(found)
}

async fn several(connection: &mut PgConnection, steps: &[Step]) -> Result<bool, Error> {
    // Rows are locked in the same order by all, so that few transactions have to be begun again.
    let mut ordered: Vec<&Step> = steps.iter().collect();
    ordered.sort_by_key(|step| lock_order(step));
    let mut transaction = connection.begin().await?;
    let mut found = false;
    for step in ordered {
        found |= one(&mut transaction, step).await?;
    }
    transaction.commit().await?;
    Ok(found)
}

async fn one(connection: &mut PgConnection, step: &Step) -> Result<bool, Error> {
    match step {
        Step::AddNode(node) => writes::object_add(connection, &node.data).await.map(|_| false),
        Step::UpdateNode(node) => writes::object_update(connection, node.id, &node.data).await,
        Step::DeleteNode(node) => writes::object_delete(connection, node.id).await,
        Step::AddEdge(e) => {
            let time = e.time.into();
            let edge = Edge { id1: e.id1, atype: e.r#type, id2: e.id2, time, data: &e.data, both: e.both };
            writes::assoc_add(connection, edge, Log::None).await
        }
        Step::DeleteEdge(e) => writes::assoc_delete(connection, (e.id1, e.r#type, e.id2), e.both).await,
        Step::MoveEdge(e) => writes::assoc_change_type(connection, (e.id1, e.r#type, e.id2), e.new_type).await,
    }
}

/// Nodes first, then lists.
fn lock_order(step: &Step) -> (bool, i64) {
    match step {
        Step::AddNode(_) => (false, i64::MAX),
        Step::UpdateNode(node) => (false, node.id),
        Step::DeleteNode(node) => (false, node.id),
        Step::AddEdge(edge) => (true, edge.id1),
        Step::DeleteEdge(edge) => (true, edge.id1),
        Step::MoveEdge(edge) => (true, edge.id1),
    }
}

/// What is not so any more.
fn stale(step: &Step) -> Vec<Key> {
    let edge = |id1, atype, id2| vec![list_key(id1, atype), count_key(id1, atype), edge_key(id1, atype, id2)];
    let both = |id1, atype, id2, both: bool| {
        let other = if both { edge(id2, atype, id1) } else { Vec::new() };
        [edge(id1, atype, id2), other].concat()
    };
    match step {
        Step::AddNode(_) => Vec::new(),
        Step::UpdateNode(node) => vec![node_key(node.id)],
        Step::DeleteNode(node) => vec![node_key(node.id)],
        Step::AddEdge(e) => both(e.id1, e.r#type, e.id2, e.both),
        Step::DeleteEdge(e) => both(e.id1, e.r#type, e.id2, e.both),
        Step::MoveEdge(e) => [edge(e.id1, e.r#type, e.id2), edge(e.id1, e.new_type, e.id2)].concat(),
    }
}
