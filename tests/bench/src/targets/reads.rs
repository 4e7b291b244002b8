//! The baselines' reads: the best SQL for each, one round trip a request.

use std::fmt;

use sqlx::postgres::PgRow;
use sqlx::{Error, PgConnection, Row as _, query};

/// A node's row, without its id.
pub struct ObjectRow {
    /// Counts changes from 1.
    pub version: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last changed.
    pub updated_ms: i64,
    /// The payload.
    pub data: Vec<u8>,
}

/// An edge's row, without the list that it is in.
#[derive(Clone)]
pub struct EdgeRow {
    /// The other end.
    pub id2: i64,
    /// Seconds.
    pub time: i64,
    /// The payload.
    pub data: Vec<u8>,
}

impl fmt::Debug for EdgeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id2, self.time)
    }
}

/// Which edges of a list.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of this time or later.
    pub low: i64,
    /// Of this time or earlier.
    pub high: i64,
    /// At most so many.
    pub limit: i64,
}

const OBJECT: &str = "SELECT version, created_ms, updated_ms, data FROM objects WHERE id = $1";
const EDGE: &str = "SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 AND id2 = $3";
const COUNT: &str = "SELECT count FROM assoc_counts WHERE id1 = $1 AND atype = $2";
const RANGE: &str =
    "SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 ORDER BY time DESC, id2 DESC LIMIT $3";
const TIME_RANGE: &str = "SELECT id2, time, data FROM assocs WHERE id1 = $1 AND atype = $2 AND time BETWEEN $3 AND $4 \
                          ORDER BY time DESC, id2 DESC LIMIT $5";
/// Objects and edges by key. Each row says which of the wanted ones it is: edges from 0, objects from -1 downwards.
const POINTS: &str = "SELECT -n, o.version, o.created_ms, o.updated_ms, o.data \
                      FROM unnest($1::bigint[]) WITH ORDINALITY AS want(id, n) JOIN objects o USING (id) \
                      UNION ALL \
                      SELECT n - 1, e.id2, e.time, 0, e.data \
                      FROM unnest($2::bigint[], $3::int[], $4::bigint[]) WITH ORDINALITY AS want(id1, atype, id2, n) \
                      JOIN assocs e USING (id1, atype, id2)";

/// All of them, each with arguments and the index that it is to use, for a test that looks at their plans.
#[cfg(test)]
pub(super) const STATEMENTS: [(&str, &str, &str); 6] = [
    (OBJECT, "1", "objects_pkey"),
    (EDGE, "1, 1, 1", "assocs_pkey"),
    (COUNT, "1, 1", "assoc_counts_pkey"),
    (RANGE, "1, 1, 50", "assocs_by_time"),
    (TIME_RANGE, "1, 1, 0, 2000000000, 50", "assocs_by_time"),
    (POINTS, "'{1,2}', '{1,2}', '{1,1}', '{3,4}'", "assocs_pkey"),
];

fn edge(row: &PgRow) -> Result<EdgeRow, Error> {
    Ok(EdgeRow { id2: row.try_get(0)?, time: row.try_get(1)?, data: row.try_get(2)? })
}

fn edges(rows: &[PgRow]) -> Result<Vec<EdgeRow>, Error> {
    rows.iter().map(edge).collect()
}

/// A node.
pub async fn object(connection: &mut PgConnection, id: i64) -> Result<Option<ObjectRow>, Error> {
    let row = query(OBJECT).bind(id).fetch_optional(connection).await?;
    row.map(|row| {
        Ok(ObjectRow {
            version: row.try_get(0)?,
            created_ms: row.try_get(1)?,
            updated_ms: row.try_get(2)?,
            data: row.try_get(3)?,
        })
    })
    .transpose()
}

/// One edge.
pub async fn assoc(connection: &mut PgConnection, id1: i64, atype: i32, id2: i64) -> Result<Option<EdgeRow>, Error> {
    let row = query(EDGE).bind(id1).bind(atype).bind(id2).fetch_optional(connection).await?;
    row.as_ref().map(edge).transpose()
}

/// The length of a list.
pub async fn count(connection: &mut PgConnection, id1: i64, atype: i32) -> Result<i64, Error> {
    let row = query(COUNT).bind(id1).bind(atype).fetch_optional(connection).await?;
    row.map_or(Ok(0), |row| row.try_get(0))
}

/// The newest edges of a list.
pub async fn range(connection: &mut PgConnection, id1: i64, atype: i32, limit: i64) -> Result<Vec<EdgeRow>, Error> {
    edges(&query(RANGE).bind(id1).bind(atype).bind(limit).fetch_all(connection).await?)
}

/// The newest edges of a list between two times.
pub async fn time_range(
    connection: &mut PgConnection,
    id1: i64,
    atype: i32,
    bounds: Bounds,
) -> Result<Vec<EdgeRow>, Error> {
    let rows = query(TIME_RANGE).bind(id1).bind(atype).bind(bounds.low).bind(bounds.high).bind(bounds.limit);
    edges(&rows.fetch_all(connection).await?)
}

/// Objects and edges by their keys, all in one statement. An object comes as an edge to nowhere.
#[derive(Debug, Default)]
pub struct Points {
    /// Of objects.
    pub ids: Vec<i64>,
    /// Of edges, each with its type and other end below.
    pub id1s: Vec<i64>,
    /// Of the same edges.
    pub atypes: Vec<i32>,
    /// Of the same edges.
    pub id2s: Vec<i64>,
}

/// What was found of [`Points`], each at the place of its key.
#[derive(Default)]
pub struct Found {
    /// Of `ids`.
    pub objects: Vec<Option<ObjectRow>>,
    /// Of `id1s`, `atypes` and `id2s`.
    pub edges: Vec<Option<EdgeRow>>,
}

impl Points {
    /// Asks for one more edge.
    pub fn edge(&mut self, id1: i64, atype: i32, id2: i64) {
        self.id1s.push(id1);
        self.atypes.push(atype);
        self.id2s.push(id2);
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.id1s.is_empty()
    }

    /// Reads them.
    pub async fn read(&self, connection: &mut PgConnection) -> Result<Found, Error> {
        let rows = query(POINTS).bind(&self.ids).bind(&self.id1s).bind(&self.atypes).bind(&self.id2s);
        let mut found = Found::default();
        found.objects.resize_with(self.ids.len(), || None);
        found.edges.resize_with(self.id1s.len(), || None);
        for row in rows.fetch_all(connection).await? {
            let (place, data) = (row.try_get::<i64, _>(0)?, row.try_get(4)?);
            if place < 0 {
                let row = ObjectRow {
                    version: row.try_get(1)?,
                    created_ms: row.try_get(2)?,
                    updated_ms: row.try_get(3)?,
                    data,
                };
                found.objects[(-1 - place) as usize] = Some(row);
            } else {
                found.edges[place as usize] = Some(EdgeRow { id2: row.try_get(1)?, time: row.try_get(2)?, data });
            }
        }
        Ok(found)
    }
}
