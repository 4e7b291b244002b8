//! The answers, encoded once, in a file between who makes them and who sends them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes};
use prost::Message as _;
use tao_client::Timestamp;
use tao_client::v1::{Assoc, AssocRangeResponse, Object};
use tao_model::{ClusterId, Cursor, EdgeKey, LogId, ObjectId, Position, ShardId, Token, TypeId};

use crate::graph::Graph;
use crate::op::AType;
use crate::targets::tao::{NODE, data};

/// Ids are as long as this store's: a time after 2024 and a shard before the place.
const FIRST_ID: i64 = 90_000_000_000 << 22;
/// Edges of a list that there are answers about.
const LONGEST: usize = 1_000;
/// When all objects were made.
const CREATED: Timestamp = Timestamp { seconds: 1_767_225_600, nanos: 123_000_000 };

/// A node's id in requests and answers.
pub fn id(node: u32) -> i64 {
    FIRST_ID + i64::from(node)
}

/// Where a node's answers are.
struct Node {
    object: usize,
    list: usize,
    end: usize,
    count: u32,
}

/// What is answered about each node.
pub struct Answers {
    bytes: Bytes,
    nodes: Vec<Node>,
    token: String,
    cursor: String,
}

impl Answers {
    /// Encodes them: for each node the lengths of its object, its newest edges and its list, then object and edges.
    pub fn write(graph: &Graph, file: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        for node in 0..graph.nodes() {
            let object = Object {
                id: id(node),
                r#type: NODE.to_owned(),
                version: 1,
                created: Some(CREATED),
                updated: Some(CREATED),
                data: data(graph.payload(graph.object(node))),
            };
            let edge = |edge: crate::graph::Edge| Assoc {
                id2: id(edge.id2),
                time: edge.time.into(),
                data: data(graph.payload(edge.payload)),
                ..Default::default()
            };
            let assocs = graph.list(node).take(LONGEST).map(edge).collect();
            let object = object.encode_to_vec();
            let list = AssocRangeResponse { assocs, ..Default::default() }.encode_to_vec();
            for length in [object.len() as u32, list.len() as u32, graph.degree(node)] {
                out.write_all(&length.to_be_bytes())?;
            }
            out.write_all(&object)?;
            out.write_all(&list)?;
        }
        out.flush()?;
        Ok(())
    }

    /// Takes them into memory.
    pub fn read(file: &Path) -> Result<Self> {
        let bytes = Bytes::from(std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?);
        let mut rest = bytes.clone();
        let mut nodes = Vec::new();
        while rest.has_remaining() {
            let [object, list] = [rest.try_get_u32()? as usize, rest.try_get_u32()? as usize];
            let count = rest.try_get_u32()?;
            let at = bytes.len() - rest.len();
            nodes.push(Node { object: at, list: at + object, end: at + object + list, count });
            rest.advance(object + list);
        }
        let mut token = Token::new(ClusterId([7; 16]));
        token.see(ShardId(5), Position::new(1_767_225_600, 1_000_000), |_| LogId(0));
        let id1 = ObjectId::new(FIRST_ID).context("an id")?;
        let after = EdgeKey { time: 1, id2: id1 };
        let cursor = Cursor { id1, atype: TypeId(AType::Link.number().into()), after }.encode();
        Ok(Self { bytes, nodes, token: token.encode(), cursor })
    }

    fn node(&self, id: i64) -> Option<&Node> {
        self.nodes.get(usize::try_from(id - FIRST_ID).ok()?)
    }

    /// An encoded Object.
    pub fn object(&self, id: i64) -> Option<Bytes> {
        self.node(id).map(|node| self.bytes.slice(node.object..node.list))
    }

    /// The length of a list.
    pub fn count(&self, id: i64) -> u32 {
        self.node(id).map_or(0, |node| node.count)
    }

    /// The newest edges of a list, encoded fields `assocs` of AssocRangeResponse; and whether there are more.
    pub fn newest(&self, id: i64, limit: usize) -> (Bytes, bool) {
        let Some(node) = self.node(id) else { return (Bytes::new(), false) };
        let all = self.bytes.slice(node.list..node.end);
        if node.count as usize <= limit {
            return (all, false);
        }
        let mut rest = &all[..];
        for _ in 0..limit.min(LONGEST) {
            let Ok(length) =
                prost::encoding::decode_key(&mut rest).and_then(|_| prost::encoding::decode_varint(&mut rest))
            else {
                break;
            };
            rest = rest.get(length as usize..).unwrap_or_default();
        }
        (all.slice(..all.len() - rest.len()), true)
    }

    /// The session's token in every answer.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What an answer has that doesn't reach the end of a list.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Shape;

    #[test]
    fn answers_are_those_of_the_graph() {
        let graph = Graph::new(Shape::Tao, 2_000, 3).unwrap();
        let folder = tao_harness::TempDir::new().unwrap();
        let file = folder.join("answers");
        Answers::write(&graph, &file).unwrap();
        let answers = Answers::read(&file).unwrap();
        for node in 0..graph.nodes() {
            let object = Object::decode(answers.object(id(node)).unwrap()).unwrap();
            assert_eq!((object.id, object.data), (id(node), data(graph.payload(graph.object(node)))));
            assert_eq!(answers.count(id(node)), graph.degree(node));
            for limit in [1, 3, 50, LONGEST] {
                let (edges, more) = answers.newest(id(node), limit);
                let ends = AssocRangeResponse::decode(edges).unwrap().assocs;
                let ends: Vec<i64> = ends.iter().map(|edge| edge.id2).collect();
                let expected: Vec<i64> = graph.list(node).take(limit).map(|edge| id(edge.id2)).collect();
                assert_eq!((ends, more), (expected, graph.degree(node) as usize > limit));
            }
        }
        assert!(answers.object(id(graph.nodes())).is_none() && answers.object(1).is_none());
    }
}
