//! All that a batch writes, in one statement, if the log still stands where it did: a compare-and-swap of the row `log_head`.
//!
//! READ COMMITTED makes this safe: an update that had to wait for the row looks at its condition again, every commit moves the row,
//! and so nobody can have written anything between the look and the swap when it matches. The other parts read from it; when it is
//! empty they write nothing.

use std::sync::OnceLock;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, query};
use tao_model::{AssocRef, ObjectId, ShardId};

use crate::backend::{AssocRow, Base, CountRow, ListKey, ObjectRow, WriteBack};
use crate::rows::stored;

const HEAD: &str = "WITH h AS (UPDATE log_head SET lsn = ?::bigint, intents = coalesce(?::bigint, intents), commits = commits + 1 \
     WHERE one = 1 AND epoch = ?::bigint AND lsn = ?::bigint AND commits = ?::bigint AND shards_version = ?::bigint RETURNING 1)";
const LOG: &str = ", l AS (INSERT INTO change_log (epoch, first_lsn, last_lsn, committed_ms, payload) \
     SELECT ?::bigint, ?::bigint, ?::bigint, ?::bigint, ?::bytea WHERE EXISTS (SELECT FROM h))";
const NEW_EDGES: &str = ", a AS (INSERT INTO assocs (id1, atype, id2, time, data) \
     SELECT u.* FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bytea[]) AS u WHERE EXISTS (SELECT FROM h))";
const NEW_COUNTS: &str = ", c AS (INSERT INTO assoc_counts (id1, atype, count, epoch, lsn) \
     SELECT u.* FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bigint[]) AS u WHERE EXISTS (SELECT FROM h))";
const COUNTS: &str = ", cu AS (UPDATE assoc_counts c SET count = u.count, epoch = u.epoch, lsn = u.lsn \
     FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bigint[]) AS u(id1, atype, count, epoch, lsn) \
     WHERE c.id1 = u.id1 AND c.atype = u.atype AND EXISTS (SELECT FROM h))";
const NEW_OBJECTS: &str = ", o AS (INSERT INTO objects (id, otype, version, created_ms, updated_ms, data) \
     SELECT u.* FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[]) AS u WHERE EXISTS (SELECT FROM h))";
const OBJECTS: &str = ", ou AS (UPDATE objects o SET otype = u.otype, version = u.version, created_ms = u.created_ms, updated_ms = u.updated_ms, data = u.data \
     FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[]) AS u(id, otype, version, created_ms, updated_ms, data) \
     WHERE o.id = u.id AND EXISTS (SELECT FROM h))";
const LEASES: &str = ", s AS (UPDATE shards s SET ids_until = u.until FROM UNNEST(?::int[], ?::bigint[]) AS u(shard, until) \
     WHERE s.shard = u.shard AND s.ids_until < u.until AND EXISTS (SELECT FROM h))";
const OTHERS: &str = ", au AS (UPDATE assocs a SET time = u.time, data = u.data \
     FROM UNNEST(?::bigint[], ?::int[], ?::bigint[], ?::bigint[], ?::bytea[]) AS u(id1, atype, id2, time, data) \
     WHERE a.id1 = u.id1 AND a.atype = u.atype AND a.id2 = u.id2 AND EXISTS (SELECT FROM h)), \
     ad AS (DELETE FROM assocs a USING UNNEST(?::bigint[], ?::int[], ?::bigint[]) AS u(id1, atype, id2) \
     WHERE a.id1 = u.id1 AND a.atype = u.atype AND a.id2 = u.id2 AND EXISTS (SELECT FROM h)), \
     od AS (DELETE FROM objects WHERE id = ANY(?::bigint[]) AND EXISTS (SELECT FROM h)), \
     k AS (INSERT INTO outcomes (key, fingerprint, answer, expires_ms) \
     SELECT u.* FROM UNNEST(?::text[], ?::bigint[], ?::bytea[], ?::bigint[]) AS u WHERE EXISTS (SELECT FROM h) \
     ON CONFLICT (key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, answer = EXCLUDED.answer, expires_ms = EXCLUDED.expires_ms), \
     i AS (INSERT INTO intents (epoch, number, shard, created_ms, payload) \
     SELECT u.* FROM UNNEST(?::bigint[], ?::bigint[], ?::int[], ?::bigint[], ?::bytea[]) AS u WHERE EXISTS (SELECT FROM h)), \
     d AS (INSERT INTO intents_done (source_log, epoch, number) \
     SELECT u.* FROM UNNEST(?::int[], ?::bigint[], ?::bigint[]) AS u WHERE EXISTS (SELECT FROM h) \
     ON CONFLICT (source_log) DO UPDATE SET epoch = EXCLUDED.epoch, number = EXCLUDED.number), \
     id AS (DELETE FROM intents WHERE (epoch, number) <= (?::bigint, ?::bigint) AND shard = ANY(?::int[]) AND EXISTS (SELECT FROM h))";
/// One row if the log stood there, none if it did not.
const END: &str = " SELECT 1 FROM h";

/// A statement for each choice of parts. What is in none of a commit's rows is not in its statement: each part costs as much as a row.
/// Large batches have the same parts nearly always, and so far fewer statements are in use than a connection keeps prepared.
static TEXTS: [OnceLock<String>; 256] = [const { OnceLock::new() }; 256];

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// The statement that writes all of it.
pub(super) fn statement(from: Base, write: &WriteBack) -> Statement<'_> {
    let puts = write.assocs.iter().filter_map(|(at, row)| Some((at, row.as_ref()?)));
    let edges = Split::of(puts, |at| write.new.assocs.contains(at));
    let counts = Split::of(write.counts.iter(), |list| write.new.counts.contains(list));
    let puts = write.objects.iter().filter_map(|(id, row)| Some((id, row.as_ref()?)));
    let objects = Split::of(puts, |id| write.new.objects.contains(id));
    let others = Others::of(write, !edges.there.is_empty());
    let parts = [
        (write.log.is_some(), LOG),
        (!edges.new.is_empty(), NEW_EDGES),
        (!counts.new.is_empty(), NEW_COUNTS),
        (!counts.there.is_empty(), COUNTS),
        (!objects.new.is_empty(), NEW_OBJECTS),
        (!objects.there.is_empty(), OBJECTS),
        (!write.leases.is_empty(), LEASES),
        (others.is_some(), OTHERS),
    ];
    let mut query = query(super::text::text(&TEXTS, HEAD, &parts, END));
    let lsn = write.log.as_ref().map_or(from.head.lsn, |log| log.last.lsn);
    query = query.bind(lsn as i64).bind(write.intents_made().map(|number| number as i64));
    query = query.bind(from.head.epoch as i64).bind(from.head.lsn as i64).bind(from.commits).bind(from.shards_version);
    if let Some(log) = &write.log {
        query = query.bind(log.first.epoch as i64).bind(log.first.lsn as i64).bind(log.last.lsn as i64);
        query = query.bind(log.committed_ms as i64).bind(&*log.payload);
    }
    if !edges.new.is_empty() {
        query = bind_assocs(query, &edges.new);
    }
    for rows in [&counts.new, &counts.there].into_iter().filter(|rows| !rows.is_empty()) {
        query = bind_counts(query, rows);
    }
    for rows in [&objects.new, &objects.there].into_iter().filter(|rows| !rows.is_empty()) {
        query = bind_objects(query, rows);
    }
    if !write.leases.is_empty() {
        let shard: Vec<i32> = write.leases.keys().map(|s| s.0 as i32).collect();
        let until: Vec<i64> = write.leases.values().map(|u| *u as i64).collect();
        query = query.bind(shard).bind(until);
    }
    match others {
        Some(others) => others.bind(bind_assocs(query, &edges.there), write),
        None => query,
    }
}

/// Rows that are inserted, and rows that are updated.
struct Split<'a, K, R> {
    new: Vec<(&'a K, &'a R)>,
    there: Vec<(&'a K, &'a R)>,
}

impl<'a, K, R> Split<'a, K, R> {
    fn of(rows: impl Iterator<Item = (&'a K, &'a R)>, is_new: impl Fn(&K) -> bool) -> Self {
        let (new, there) = rows.partition(|(key, _)| is_new(key));
        Self { new, there }
    }
}

/// What most commits don't write.
struct Others<'a> {
    edges: Vec<&'a AssocRef>,
    objects: Vec<i64>,
}

impl<'a> Others<'a> {
    fn of(write: &'a WriteBack, are_edges_there: bool) -> Option<Self> {
        let edges: Vec<_> = write.assocs.iter().filter(|(_, row)| row.is_none()).map(|(at, _)| at).collect();
        let objects: Vec<_> = write.objects.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.get()).collect();
        let is_any = are_edges_there
            || !edges.is_empty()
            || !objects.is_empty()
            || !write.outcomes.is_empty()
            || !write.intents.is_empty()
            || !write.done.is_empty()
            || write.delivered.is_some();
        is_any.then_some(Self { edges, objects })
    }

    fn bind<'q>(self, query: Statement<'q>, write: &'q WriteBack) -> Statement<'q> {
        let id1: Vec<i64> = self.edges.iter().map(|a| a.id1.get()).collect();
        let atype: Vec<i32> = self.edges.iter().map(|a| a.atype.0 as i32).collect();
        let id2: Vec<i64> = self.edges.iter().map(|a| a.id2.get()).collect();
        let query = query.bind(id1).bind(atype).bind(id2).bind(self.objects);

        let key: Vec<&str> = write.outcomes.keys().map(String::as_str).collect();
        let fingerprint: Vec<i64> = write.outcomes.values().map(|o| o.fingerprint).collect();
        let answer: Vec<&[u8]> = write.outcomes.values().map(|o| o.answer.as_slice()).collect();
        let expires: Vec<i64> = write.outcomes.values().map(|o| o.expires_ms as i64).collect();
        let query = query.bind(key).bind(fingerprint).bind(answer).bind(expires);

        let epoch: Vec<i64> = write.intents.iter().map(|i| i.position.epoch as i64).collect();
        let number: Vec<i64> = write.intents.iter().map(|i| i.position.lsn as i64).collect();
        let shard: Vec<i32> = write.intents.iter().map(|i| i.shard.0 as i32).collect();
        let created: Vec<i64> = write.intents.iter().map(|i| i.created_ms as i64).collect();
        let payload: Vec<&[u8]> = write.intents.iter().map(|i| i.payload.as_slice()).collect();
        let query = query.bind(epoch).bind(number).bind(shard).bind(created).bind(payload);

        let source: Vec<i32> = write.done.keys().map(|log| log.0 as i32).collect();
        let epoch: Vec<i64> = write.done.values().map(|p| p.epoch as i64).collect();
        let number: Vec<i64> = write.done.values().map(|p| p.lsn as i64).collect();
        let query = query.bind(source).bind(epoch).bind(number);

        let (up_to, shards) = write.delivered.as_ref().map(|d| (d.up_to, d.shards())).unwrap_or_default();
        let shards: Vec<i32> = shards.into_iter().map(|ShardId(shard)| shard as i32).collect();
        query.bind(up_to.epoch as i64).bind(up_to.lsn as i64).bind(shards)
    }
}

fn bind_assocs<'q>(query: Statement<'q>, rows: &[(&AssocRef, &AssocRow)]) -> Statement<'q> {
    let id1: Vec<i64> = rows.iter().map(|(a, _)| a.id1.get()).collect();
    let atype: Vec<i32> = rows.iter().map(|(a, _)| a.atype.0 as i32).collect();
    let id2: Vec<i64> = rows.iter().map(|(a, _)| a.id2.get()).collect();
    let time: Vec<i64> = rows.iter().map(|(_, r)| i64::from(r.time)).collect();
    let data: Vec<Vec<u8>> = rows.iter().map(|(_, r)| stored(&r.data)).collect();
    query.bind(id1).bind(atype).bind(id2).bind(time).bind(data)
}

fn bind_counts<'q>(query: Statement<'q>, rows: &[(&ListKey, &CountRow)]) -> Statement<'q> {
    let id1: Vec<i64> = rows.iter().map(|(k, _)| k.0.get()).collect();
    let atype: Vec<i32> = rows.iter().map(|(k, _)| k.1.0 as i32).collect();
    let count: Vec<i64> = rows.iter().map(|(_, c)| c.count as i64).collect();
    let epoch: Vec<i64> = rows.iter().map(|(_, c)| c.last.epoch as i64).collect();
    let lsn: Vec<i64> = rows.iter().map(|(_, c)| c.last.lsn as i64).collect();
    query.bind(id1).bind(atype).bind(count).bind(epoch).bind(lsn)
}

fn bind_objects<'q>(query: Statement<'q>, rows: &[(&ObjectId, &ObjectRow)]) -> Statement<'q> {
    let id: Vec<i64> = rows.iter().map(|(id, _)| id.get()).collect();
    let otype: Vec<i32> = rows.iter().map(|(_, o)| o.otype.0 as i32).collect();
    let version: Vec<i64> = rows.iter().map(|(_, o)| o.version).collect();
    let created: Vec<i64> = rows.iter().map(|(_, o)| o.created_ms as i64).collect();
    let updated: Vec<i64> = rows.iter().map(|(_, o)| o.updated_ms as i64).collect();
    let data: Vec<Vec<u8>> = rows.iter().map(|(_, o)| stored(&o.data)).collect();
    query.bind(id).bind(otype).bind(version).bind(created).bind(updated).bind(data)
}
