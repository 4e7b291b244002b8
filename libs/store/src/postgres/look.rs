//! All rows that a batch touches, and where the log stands, in one statement: one round trip, and one snapshot.

use std::sync::OnceLock;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Error, Postgres, query};
use tao_model::{LogId, ShardId};

use super::ids;
use super::text::text;
use crate::backend::{Base, Rows, Wanted};
use crate::rows::{self, Columns as _};

/// Columns of all: the kind, five numbers, data, a name.
const HEAD: &str = "SELECT 0, epoch, lsn, commits, shards_version, intents, NULL::bytea, NULL::text FROM log_head";
const OBJECTS: &str = " UNION ALL SELECT 1, id, otype, version, created_ms, updated_ms, data, NULL FROM objects WHERE id = ANY(?::bigint[]) \
     UNION ALL SELECT 2, id, otype, 0, 0, 0, NULL, NULL FROM objects WHERE id = ANY(?::bigint[])";
const EDGES: &str = " UNION ALL SELECT 3, a.id1, a.atype, a.id2, a.time, 0, a.data, NULL \
     FROM UNNEST(?::bigint[], ?::int[], ?::bigint[]) AS w(id1, atype, id2) \
     JOIN assocs a ON a.id1 = w.id1 AND a.atype = w.atype AND a.id2 = w.id2 \
     UNION ALL SELECT 4, c.id1, c.atype, c.count, c.epoch, c.lsn, NULL, NULL FROM UNNEST(?::bigint[], ?::int[]) AS w(id1, atype) \
     JOIN assoc_counts c ON c.id1 = w.id1 AND c.atype = w.atype";
const OTHERS: &str = " UNION ALL SELECT 5, fingerprint, expires_ms, 0, 0, 0, answer, key FROM outcomes WHERE key = ANY(?::text[]) \
     UNION ALL SELECT 6, shard, ids_until, 0, 0, 0, NULL, NULL FROM shards WHERE shard = ANY(?::int[]) \
     UNION ALL SELECT 7, source_log, epoch, number, 0, 0, NULL, NULL FROM intents_done WHERE source_log = ANY(?::int[])";

/// A statement for each choice of parts: few, so that all stay prepared.
static TEXTS: [OnceLock<String>; 8] = [const { OnceLock::new() }; 8];

/// The statement for these rows.
pub(super) fn statement(wanted: &Wanted) -> Query<'_, Postgres, PgArguments> {
    let has_objects = !wanted.objects.is_empty() || !wanted.types.is_empty();
    let has_edges = !wanted.assocs.is_empty() || !wanted.counts.is_empty();
    let has_others = !wanted.outcomes.is_empty() || !wanted.shards.is_empty() || !wanted.done.is_empty();
    let mut query = query(text(&TEXTS, HEAD, &[(has_objects, OBJECTS), (has_edges, EDGES), (has_others, OTHERS)], ""));
    if has_objects {
        query = query.bind(ids(&wanted.objects)).bind(ids(&wanted.types));
    }
    if has_edges {
        let id1: Vec<i64> = wanted.assocs.iter().map(|a| a.id1.get()).collect();
        let atype: Vec<i32> = wanted.assocs.iter().map(|a| a.atype.0 as i32).collect();
        let id2: Vec<i64> = wanted.assocs.iter().map(|a| a.id2.get()).collect();
        query = query.bind(id1).bind(atype).bind(id2);
        let id1: Vec<i64> = wanted.counts.iter().map(|c| c.0.get()).collect();
        let atype: Vec<i32> = wanted.counts.iter().map(|c| c.1.0 as i32).collect();
        query = query.bind(id1).bind(atype);
    }
    if has_others {
        let shards: Vec<i32> = wanted.shards.iter().map(|s| s.0 as i32).collect();
        let sources: Vec<i32> = wanted.done.iter().map(|log| log.0 as i32).collect();
        query = query.bind(&wanted.outcomes).bind(shards).bind(sources);
    }
    query
}

/// What it has found.
pub(super) fn found(all: &[PgRow], wanted: &Wanted) -> Result<(Base, Rows), Error> {
    let mut base = None;
    let mut found = Rows::default();
    found.assocs.reserve(wanted.assocs.len());
    found.counts.reserve(wanted.counts.len());
    for row in all {
        match sqlx::Row::try_get::<i32, _>(row, 0)? {
            0 => {
                found.intents = row.int(5)? as u64;
                let head = rows::position(row, 1)?;
                base = Some(Base { head, commits: row.int(3)?, shards_version: row.int(4)? });
            }
            1 => found.objects.extend([rows::object(row, 1)?]),
            2 => found.types.extend([rows::otype(row, 1)?]),
            3 => found.assocs.extend([rows::assoc(row, 1, 6)?]),
            4 => found.counts.extend([rows::count(row, 1)?]),
            5 => {
                let outcome = rows::outcome_row(row.int(1)?, row.bytes(6)?, row.int(2)?);
                found.outcomes.insert(row.text(7)?, outcome);
            }
            6 => found.shards.extend([(ShardId(row.int(1)? as u32), row.int(2)? as u64)]),
            7 => found.done.extend([(LogId(row.int(1)? as u32), rows::position(row, 2)?)]),
            kind => return Err(Error::Decode(format!("a row of kind {kind}").into())),
        }
    }
    Ok((base.ok_or_else(rows::no_log)?, found))
}
