//! What Redis keeps: encoded nodes, counts, the newest edges of lists, and single edges of lists that are longer. What isn't there is
//! kept as well. All of it for an hour, and deleted after whatever changes it has been committed.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use prost::Message as _;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::proto::{Edge, Edges};
use crate::targets::reads::EdgeRow;

/// Seconds.
const TTL: u32 = 3_600;
/// Edges that are kept of a list.
pub const HEAD: usize = 100;

/// A key, as Redis has it: a letter, then numbers.
pub type Key = Vec<u8>;

fn new_key(kind: u8, numbers: [i64; 3]) -> Key {
    let mut key = vec![kind];
    numbers.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

/// Of a node.
pub fn node_key(id: i64) -> Key {
    new_key(b'n', [id, 0, 0])[..9].to_vec()
}

/// Of a list's length.
pub fn count_key(id1: i64, atype: i32) -> Key {
    new_key(b'c', [id1, atype.into(), 0])
}

/// Of a list's newest edges.
pub fn list_key(id1: i64, atype: i32) -> Key {
    new_key(b'l', [id1, atype.into(), 0])
}

/// Of one edge.
pub fn edge_key(id1: i64, atype: i32, id2: i64) -> Key {
    new_key(b'e', [id1, atype.into(), id2])
}

/// A connection that all requests of a thread share: commands that come while it is busy travel together.
#[derive(Clone)]
pub struct Cache {
    connection: MultiplexedConnection,
}

impl Cache {
    /// Connects.
    pub async fn open(url: &str) -> Result<Self> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let client = redis::Client::open(url)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        Ok(Self { connection: connection.context("can't connect to Redis")? })
    }

    /// A value.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, redis::RedisError> {
        let value: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut self.connection.clone()).await?;
        Ok(value.map(Bytes::from))
    }

    /// Values, in the order of their keys.
    pub async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, redis::RedisError> {
        let values: Vec<Option<Vec<u8>>> =
            redis::cmd("MGET").arg(keys).query_async(&mut self.connection.clone()).await?;
        Ok(values.into_iter().map(|value| value.map(Bytes::from)).collect())
    }

    /// Keeps a value. Nobody waits for it; one that is lost is a miss.
    pub fn keep(&self, key: Key, value: Bytes) {
        let mut connection = self.connection.clone();
        tokio::spawn(async move {
            let set = redis::cmd("SET").arg(key).arg(&value[..]).arg("EX").arg(TTL).exec_async(&mut connection).await;
            if let Err(error) = set {
                eprintln!("a value was not kept: {error}");
            }
        });
    }

    /// Deletes what a write has made wrong, before the write is answered.
    pub async fn forget(&self, keys: &[Key]) -> Result<(), redis::RedisError> {
        redis::cmd("DEL").arg(keys).exec_async(&mut self.connection.clone()).await
    }
}

/// The newest edges of a list, as they are kept: whether that is all of them, then encoded Edges.
pub struct Head {
    complete: bool,
    edges: Bytes,
}

impl Head {
    /// Of the newest edges, one more than are kept if there are as many.
    pub fn new(mut rows: Vec<EdgeRow>) -> Self {
        let complete = rows.len() <= HEAD;
        rows.truncate(HEAD);
        Self { complete, edges: encode(rows) }
    }

    /// As it was kept.
    pub fn of_value(value: &Bytes) -> Self {
        Self { complete: value.first() == Some(&1), edges: value.slice(1.min(value.len())..) }
    }

    /// As it is kept.
    pub fn value(&self) -> Bytes {
        [&[u8::from(self.complete)], &self.edges[..]].concat().into()
    }

    /// The newest `limit` edges, if they are here. No edge is decoded.
    pub fn newest(&self, limit: usize) -> Option<Bytes> {
        let (mut rest, mut edges) = (&self.edges[..], 0);
        while edges < limit && !rest.is_empty() {
            prost::encoding::decode_key(&mut rest).ok()?;
            let length = prost::encoding::decode_varint(&mut rest).ok()? as usize;
            rest = rest.get(length..)?;
            edges += 1;
        }
        let is_enough = edges == limit || self.complete;
        is_enough.then(|| self.edges.slice(..self.edges.len() - rest.len()))
    }

    /// The newest `limit` edges between two times, if they are here.
    pub fn between(&self, (low, high): (u32, u32), limit: usize) -> Option<Bytes> {
        let edges = Edges::decode(self.edges.clone()).ok()?.edges;
        let reaches = self.complete || edges.last().is_some_and(|oldest| oldest.time < low);
        let found: Vec<Edge> = edges.into_iter().filter(|edge| (low..=high).contains(&edge.time)).take(limit).collect();
        (reaches || found.len() == limit).then(|| Edges { edges: found }.encode_to_vec().into())
    }

    /// The edge to `id2`, encoded Edges that have at most this one; nothing if it may be further back in the list.
    pub fn edge(&self, id2: i64) -> Option<Bytes> {
        let edge = Edges::decode(self.edges.clone()).ok()?.edges.into_iter().find(|edge| edge.id2 == id2);
        (edge.is_some() || self.complete).then(|| Edges { edges: edge.into_iter().collect() }.encode_to_vec().into())
    }
}

/// Encoded Edges.
pub fn encode(rows: Vec<EdgeRow>) -> Bytes {
    Edges { edges: rows.into_iter().map(edge).collect() }.encode_to_vec().into()
}

/// As it travels.
pub fn edge(row: EdgeRow) -> Edge {
    Edge { id2: row.id2, time: row.time as u32, data: row.data.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: i64) -> Vec<EdgeRow> {
        (0..n).map(|k| EdgeRow { id2: 1_000 + k, time: 500 - k, data: vec![7; 3] }).collect()
    }

    fn ends(edges: &Bytes) -> Vec<i64> {
        Edges::decode(edges.clone()).unwrap().edges.iter().map(|edge| edge.id2).collect()
    }

    #[test]
    fn a_short_list_answers_everything() {
        let head = Head::of_value(&Head::new(rows(3)).value());
        assert_eq!(ends(&head.newest(2).unwrap()), [1_000, 1_001]);
        assert_eq!(ends(&head.newest(50).unwrap()).len(), 3);
        assert_eq!(ends(&head.between((499, 499), 10).unwrap()), [1_001]);
        assert_eq!(ends(&head.edge(1_002).unwrap()), [1_002]);
        assert!(head.edge(5).unwrap().is_empty());
        assert!(Head::new(Vec::new()).newest(1).unwrap().is_empty());
    }

    #[test]
    fn a_long_list_answers_what_it_surely_knows() {
        let head = Head::of_value(&Head::new(rows(HEAD as i64 + 1)).value());
        assert_eq!(ends(&head.newest(HEAD).unwrap()).len(), HEAD);
        assert!(head.newest(HEAD + 1).is_none());
        assert_eq!(ends(&head.between((450, 451), 9).unwrap()).len(), 2);
        assert_eq!(ends(&head.between((0, 500), 5).unwrap()).len(), 5);
        assert!(head.between((0, 450), 100).is_none());
        assert!(head.edge(5).is_none() && head.edge(1_050).is_some());
    }
}
