//! Rows of both SQL databases, read alike.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Error, Row};
use tao_model::{AssocRef, Edge, EdgeTime, ObjectId, Position, ShardId, TypeId};

use crate::backend::{AssocRow, CountRow, Fault, ListKey, LogRow, LogRows, ObjectRow, OutcomeRow, ShardRow};
use crate::store::{AsOf, EdgePage, ListHead};

/// The version byte of stored data.
const DATA_VERSION: u8 = 1;
/// The state of a shard that is served.
const SERVED: i64 = 1;

/// A row whose columns are 64-bit integers, bytes or text.
pub(crate) trait Columns {
    fn int(&self, n: usize) -> Result<i64, Error>;
    fn maybe_int(&self, n: usize) -> Result<Option<i64>, Error>;
    fn bytes(&self, n: usize) -> Result<Vec<u8>, Error>;
    fn text(&self, n: usize) -> Result<String, Error>;
}

macro_rules! columns {
    ($row:ty) => {
        impl Columns for $row {
            fn int(&self, n: usize) -> Result<i64, Error> {
                self.try_get(n)
            }
            fn maybe_int(&self, n: usize) -> Result<Option<i64>, Error> {
                self.try_get(n)
            }
            fn bytes(&self, n: usize) -> Result<Vec<u8>, Error> {
                self.try_get(n)
            }
            fn text(&self, n: usize) -> Result<String, Error> {
                self.try_get(n)
            }
        }
    };
}
columns!(PgRow);
columns!(SqliteRow);

/// Data as it is stored.
pub(crate) fn stored(data: &Bytes) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 1);
    out.push(DATA_VERSION);
    out.extend_from_slice(data);
    out
}

fn data(row: &impl Columns, n: usize) -> Result<Bytes, Error> {
    let raw = Bytes::from(row.bytes(n)?);
    match raw.first() {
        Some(&DATA_VERSION) => Ok(raw.slice(1..)),
        _ => Err(Error::Decode("data of a version that is not known".into())),
    }
}

/// The same where it is of another version: as it is then, and nobody can decode it.
pub(crate) fn any_data(row: &impl Columns, n: usize) -> Result<Bytes, Error> {
    let raw = row.bytes(n)?;
    match raw.first() {
        Some(&DATA_VERSION) => Ok(Bytes::from(raw).slice(1..)),
        Some(_) => Ok(raw.into()),
        None => Ok(Bytes::from_static(&[0])),
    }
}

pub(crate) fn id(row: &impl Columns, n: usize) -> Result<ObjectId, Error> {
    ObjectId::new(row.int(n)?).ok_or_else(|| Error::Decode("an id that is not positive".into()))
}

/// Columns: epoch, lsn.
pub(crate) fn position(row: &impl Columns, n: usize) -> Result<Position, Error> {
    Ok(Position::new(row.int(n)? as u64, row.int(n + 1)? as u64))
}

/// Columns from `n`: id, otype, version, created_ms, updated_ms, data.
pub(crate) fn object(row: &impl Columns, n: usize) -> Result<(ObjectId, ObjectRow), Error> {
    let object = ObjectRow {
        otype: TypeId(row.int(n + 1)? as u32),
        version: row.int(n + 2)?,
        created_ms: row.int(n + 3)? as u64,
        updated_ms: row.int(n + 4)? as u64,
        data: data(row, n + 5)?,
    };
    Ok((id(row, n)?, object))
}

/// Columns from `n`: id, otype.
pub(crate) fn otype(row: &impl Columns, n: usize) -> Result<(ObjectId, TypeId), Error> {
    Ok((id(row, n)?, TypeId(row.int(n + 1)? as u32)))
}

/// Columns: shard, state, ids_until.
pub(crate) fn shard(row: &impl Columns) -> Result<ShardRow, Error> {
    let shard = ShardId(u32::try_from(row.int(0)?).map_err(|e| Error::Decode(e.into()))?);
    Ok(ShardRow { shard, is_served: row.int(1)? == SERVED, ids_until: row.int(2)? as u64 })
}

/// Columns from `n`: id1, atype, id2.
pub(crate) fn edge_key(row: &impl Columns, n: usize) -> Result<AssocRef, Error> {
    Ok(AssocRef { id1: id(row, n)?, atype: TypeId(row.int(n + 1)? as u32), id2: id(row, n + 2)? })
}

/// Columns from `n`: id1, atype, id2, time; at `m`: data.
pub(crate) fn assoc(row: &impl Columns, n: usize, m: usize) -> Result<(AssocRef, AssocRow), Error> {
    Ok((edge_key(row, n)?, AssocRow { time: row.int(n + 3)? as EdgeTime, data: data(row, m)? }))
}

/// Columns from `n`: id1, atype, count, epoch, lsn.
pub(crate) fn count(row: &impl Columns, n: usize) -> Result<(ListKey, CountRow), Error> {
    let row_of = CountRow { count: row.int(n + 2)? as u64, last: position(row, n + 3)? };
    Ok(((id(row, n)?, TypeId(row.int(n + 1)? as u32)), row_of))
}

/// Columns: key, fingerprint, answer, expires_ms.
pub(crate) fn outcome(row: &impl Columns) -> Result<(String, OutcomeRow), Error> {
    Ok((row.text(0)?, outcome_row(row.int(1)?, row.bytes(2)?, row.int(3)?)))
}

pub(crate) fn outcome_row(fingerprint: i64, answer: Vec<u8>, expires_ms: i64) -> OutcomeRow {
    OutcomeRow { fingerprint, answer, expires_ms: expires_ms as u64 }
}

fn edge(row: &impl Columns, n: usize) -> Result<Option<Edge>, Error> {
    if row.maybe_int(n)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Edge { id2: id(row, n)?, time: row.int(n + 1)? as EdgeTime, data: data(row, n + 2)? }))
}

/// Columns: epoch, last_lsn, committed_ms.
pub(crate) fn log_age(row: &impl Columns) -> Result<(Position, u64), Error> {
    Ok((position(row, 0)?, row.int(2)? as u64))
}

/// Columns: the head's epoch and lsn, then a row's first_lsn, last_lsn, committed_ms and payload, where these may be null.
pub(crate) fn log<R: Columns>(rows: &[R]) -> Result<LogRows, Error> {
    let head = head(rows)?;
    let mut found = LogRows { head, rows: Vec::with_capacity(rows.len()) };
    for row in rows {
        if let Some(first) = row.maybe_int(2)? {
            found.rows.push(LogRow {
                first: Position::new(head.epoch, first as u64),
                last: Position::new(head.epoch, row.int(3)? as u64),
                committed_ms: row.int(4)? as u64,
                payload: Bytes::from(row.bytes(5)?),
            });
        }
    }
    Ok(found)
}

/// Columns of the first row: epoch, lsn.
pub(crate) fn head<R: Columns>(rows: &[R]) -> Result<Position, Error> {
    position(rows.first().ok_or_else(no_log)?, 0)
}

/// No row at all: the database has no log.
pub(crate) fn no_log() -> Error {
    Error::Decode("log_head has no row".into())
}

/// Columns: epoch, lsn, then an object's or nulls.
pub(crate) fn objects<R: Columns>(rows: &[R]) -> Result<AsOf<HashMap<ObjectId, ObjectRow>>, Error> {
    let position = position(rows.first().ok_or_else(no_log)?, 0)?;
    let mut value = HashMap::with_capacity(rows.len());
    for row in rows {
        if row.maybe_int(2)?.is_some() {
            let (id, object) = object(row, 2)?;
            value.insert(id, object);
        }
    }
    Ok(AsOf { position, value })
}

/// Columns: epoch, lsn, id2, time, data, where the last three may be null.
fn edges<R: Columns>(rows: &[R]) -> Result<AsOf<Vec<Edge>>, Error> {
    let position = position(rows.first().ok_or_else(no_log)?, 0)?;
    let edges = rows.iter().filter_map(|row| edge(row, 2).transpose());
    Ok(AsOf { position, value: edges.collect::<Result<_, _>>()? })
}

/// Bytes by which a query may exceed what fits, so that one edge more than fits is seen, and it is known that more follow.
pub(crate) const ONE_MORE: usize = tao_model::limits::MAX_DATA + 64;

/// As [`edges`], and the list's count in the sixth column.
pub(crate) fn list<R: Columns>(rows: &[R]) -> Result<AsOf<ListHead>, Error> {
    let AsOf { position, value: edges } = self::edges(rows)?;
    let count = rows.first().ok_or_else(no_log)?.int(5)? as u64;
    Ok(AsOf { position, value: ListHead { count, edges } })
}

/// As [`edges`], of a query for one edge more than `limit`, or than fits into `max_bytes` and [`ONE_MORE`].
pub(crate) fn page<R: Columns>(rows: &[R], limit: usize, max_bytes: usize) -> Result<AsOf<EdgePage>, Error> {
    let AsOf { position, value: mut edges } = self::edges(rows)?;
    let mut more = edges.len() > limit;
    edges.truncate(limit);
    let mut bytes = 0;
    let fitting = edges.iter().take_while(|e| {
        bytes += e.data.len() + 32;
        bytes <= max_bytes
    });
    let fitting = fitting.count();
    more |= fitting < edges.len();
    edges.truncate(fitting);
    Ok(AsOf { position, value: EdgePage { edges, more } })
}

/// What a driver's error means, given which of the database's own codes say that it can't be used at present. Its text goes to the
/// log and no further.
pub(crate) fn fault(error: &Error, is_lost: fn(&str) -> bool) -> Fault {
    let lost = match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => true,
        Error::Database(e) => e.code().is_some_and(|code| is_lost(&code)),
        _ => false,
    };
    if lost {
        tracing::warn!(error = error as &dyn std::error::Error, "the database can't be reached");
        Fault::Unreachable
    } else {
        tracing::error!(error = error as &dyn std::error::Error, "the database refused a statement");
        Fault::Refused
    }
}
