//! The baselines' writes: an edge and its count in one statement, one round trip, one commit.

use sqlx::{Error, PgConnection, Row as _, query};

use super::log::Log;

/// An edge as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// The start.
    pub id1: i64,
    /// The type's number.
    pub atype: i32,
    /// The end.
    pub id2: i64,
    /// Seconds.
    pub time: i64,
    /// The payload.
    pub data: &'a [u8],
    /// Whether the same edge in the other direction is written too.
    pub both: bool,
}

/// Parts of statements that begin with `edges`: (id1, atype, id2, time, data) of what is written. Rows and counts are locked in key
/// order, so that two writers of the same edge don't wait for each other.
macro_rules! put {
    ($edges:literal) => {
        concat!(
            "WITH put AS (INSERT INTO assocs (id1, atype, id2, time, data) ",
            $edges,
            " ON CONFLICT (id1, atype, id2) DO UPDATE SET time = excluded.time, data = excluded.data \
             RETURNING id1, atype, (xmax = 0) AS created), \
             counted AS (INSERT INTO assoc_counts (id1, atype, count) SELECT id1, atype, 1 FROM put WHERE created ORDER BY id1 \
             ON CONFLICT (id1, atype) DO UPDATE SET count = assoc_counts.count + 1 RETURNING 1)"
        )
    };
}

macro_rules! one {
    () => {
        put!("VALUES ($1, $2, $3, $4, $5)")
    };
}

macro_rules! two {
    () => {
        put!("SELECT id1, $2, id2, $4, $5 FROM (VALUES ($1, $3), ($3, $1)) AS e(id1, id2) ORDER BY id1")
    };
}

macro_rules! ordered_log {
    ($put:expr, $changes:literal) => {
        concat!(
            $put,
            ", head AS (UPDATE log_head SET lsn = lsn + ",
            $changes,
            " WHERE (SELECT count(*) FROM put) > 0 AND (SELECT count(*) FROM counted) >= 0 RETURNING epoch, lsn), \
             logged AS (INSERT INTO change_log SELECT epoch, lsn - ",
            $changes,
            " + 1, lsn, $6, $7 FROM head) SELECT bool_and(created) FROM put"
        )
    };
}

macro_rules! unordered_log {
    ($put:expr) => {
        concat!(
            $put,
            ", logged AS (INSERT INTO change_log SELECT 0, lsn, lsn, $6, $7 FROM nextval('log_lsns') AS l(lsn)) \
             SELECT bool_and(created) FROM put"
        )
    };
}

/// By log, then by the number of directions.
const fn add(log: Log, both: bool) -> &'static str {
    match (log, both) {
        (Log::None, false) => concat!(one!(), " SELECT bool_and(created) FROM put"),
        (Log::None, true) => concat!(two!(), " SELECT bool_and(created) FROM put"),
        (Log::Ordered, false) => ordered_log!(one!(), "1"),
        (Log::Ordered, true) => ordered_log!(two!(), "2"),
        (Log::Unordered, false) => unordered_log!(one!()),
        (Log::Unordered, true) => unordered_log!(two!()),
    }
}

/// Adds an edge or replaces it; whether it was there.
pub async fn assoc_add(connection: &mut PgConnection, edge: Edge<'_>, log: Log) -> Result<bool, Error> {
    let mut statement = query(add(log, edge.both));
    statement = statement.bind(edge.id1).bind(edge.atype).bind(edge.id2).bind(edge.time).bind(edge.data);
    if log != Log::None {
        statement = statement.bind(super::log::now_ms()).bind(super::log::payload(edge));
    }
    statement.fetch_one(connection).await?.try_get::<bool, _>(0).map(|created| !created)
}

const DELETE: &str = "WITH gone AS (DELETE FROM assocs WHERE id1 = $1 AND atype = $2 AND id2 = $3 RETURNING 1), \
    counted AS (UPDATE assoc_counts SET count = count - 1 WHERE id1 = $1 AND atype = $2 AND EXISTS (SELECT FROM gone)) \
    SELECT EXISTS (SELECT FROM gone)";
/// Locked in key order first: a DELETE by itself has none.
const DELETE_BOTH: &str = "WITH held AS MATERIALIZED (SELECT id1, id2 FROM assocs \
    WHERE atype = $2 AND (id1, id2) IN (($1, $3), ($3, $1)) ORDER BY id1 FOR UPDATE), \
    gone AS (DELETE FROM assocs a USING held WHERE a.atype = $2 AND a.id1 = held.id1 AND a.id2 = held.id2 RETURNING a.id1), \
    counted AS (INSERT INTO assoc_counts SELECT id1, $2, 0 FROM gone ORDER BY id1 \
    ON CONFLICT (id1, atype) DO UPDATE SET count = assoc_counts.count - 1) \
    SELECT EXISTS (SELECT FROM gone)";
const CHANGE_TYPE: &str = "WITH gone AS (DELETE FROM assocs WHERE id1 = $1 AND atype = $2 AND id2 = $3 RETURNING time, data), \
    put AS (INSERT INTO assocs SELECT $1, $4, $3, time, data FROM gone \
    ON CONFLICT (id1, atype, id2) DO UPDATE SET time = excluded.time, data = excluded.data RETURNING (xmax = 0) AS created), \
    counted AS (INSERT INTO assoc_counts SELECT $1, atype, n FROM \
    (SELECT $2 AS atype, -1 AS n FROM gone UNION ALL SELECT $4, 1 FROM put WHERE created) AS c ORDER BY atype \
    ON CONFLICT (id1, atype) DO UPDATE SET count = assoc_counts.count + excluded.count) \
    SELECT EXISTS (SELECT FROM gone)";
const OBJECT_ADD: &str = "INSERT INTO objects VALUES (nextval('object_ids'), 1, 1, $1, $1, $2) RETURNING id";
const OBJECT_UPDATE: &str = "UPDATE objects SET data = $2, version = version + 1, updated_ms = $3 WHERE id = $1";

/// Deletes an edge; whether it was there.
pub async fn assoc_delete(
    connection: &mut PgConnection,
    (id1, atype, id2): (i64, i32, i64),
    both: bool,
) -> Result<bool, Error> {
    let statement = query(if both { DELETE_BOTH } else { DELETE }).bind(id1).bind(atype).bind(id2);
    statement.fetch_one(connection).await?.try_get(0)
}

/// Moves an edge to another type; whether it was there.
pub async fn assoc_change_type(
    connection: &mut PgConnection,
    (id1, atype, id2): (i64, i32, i64),
    new: i32,
) -> Result<bool, Error> {
    let statement = query(CHANGE_TYPE).bind(id1).bind(atype).bind(id2).bind(new);
    statement.fetch_one(connection).await?.try_get(0)
}

/// Adds a node and gives it an id.
pub async fn object_add(connection: &mut PgConnection, data: &[u8]) -> Result<i64, Error> {
    let statement = query(OBJECT_ADD).bind(super::log::now_ms()).bind(data);
    statement.fetch_one(connection).await?.try_get(0)
}

/// Replaces a node's payload; whether it was there.
pub async fn object_update(connection: &mut PgConnection, id: i64, data: &[u8]) -> Result<bool, Error> {
    let statement = query(OBJECT_UPDATE).bind(id).bind(data).bind(super::log::now_ms());
    Ok(statement.execute(connection).await?.rows_affected() > 0)
}

/// Deletes a node; whether it was there.
pub async fn object_delete(connection: &mut PgConnection, id: i64) -> Result<bool, Error> {
    let statement = query("DELETE FROM objects WHERE id = $1").bind(id);
    Ok(statement.execute(connection).await?.rows_affected() > 0)
}
