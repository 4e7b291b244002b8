//! The service's client.

use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use prost::Message as _;
use tonic::transport::Channel;

use super::proto::graph_client::GraphClient;
use super::proto::write_step::Step;
use super::proto::{
    AddEdgeRequest, DeleteEdgeRequest, EdgeKey, Edges, ListKey, ListRequest, MoveEdgeRequest, Node, NodeData, NodeKey,
    ReadRequest, UpdateNodeRequest, WriteRequest, WriteStep,
};
use crate::graph::Graph;
use crate::op::{AType, Op, Outcome};
use crate::target::Caller;
use crate::targets::answer::{counted, number, other, sum, wrote};
use crate::targets::channels::Channels;
use crate::targets::key;

/// A thread's connections.
pub struct CacheAsideCaller {
    channels: Channels,
    graph: Arc<Graph>,
}

impl CacheAsideCaller {
    pub(super) fn new(channels: Channels, graph: Arc<Graph>) -> Self {
        Self { channels, graph }
    }

    fn client(&self) -> GraphClient<Channel> {
        GraphClient::new(self.channels.next())
    }

    fn data(&self, ticket: u32) -> Bytes {
        Bytes::copy_from_slice(self.graph.payload(ticket))
    }

    fn step(&self, op: &Op) -> Result<Step> {
        Ok(match *op {
            Op::ObjectAdd { payload } => Step::AddNode(NodeData { data: self.data(payload) }),
            Op::ObjectUpdate { id, payload } => {
                Step::UpdateNode(UpdateNodeRequest { id: key(id), data: self.data(payload) })
            }
            Op::ObjectDelete { id } => Step::DeleteNode(NodeKey { id: key(id) }),
            Op::AssocAdd { id1, id2, time, payload, atype } => {
                let (data, both) = (self.data(payload), atype == AType::Friend);
                Step::AddEdge(AddEdgeRequest { id1: key(id1), r#type: number(atype), id2: key(id2), time, data, both })
            }
            Op::AssocDelete { id1, id2, atype } => {
                let both = atype == AType::Friend;
                Step::DeleteEdge(DeleteEdgeRequest { id1: key(id1), r#type: number(atype), id2: key(id2), both })
            }
            Op::AssocChangeType { id1, id2, from } => {
                let new_type = number(other(from));
                Step::MoveEdge(MoveEdgeRequest { id1: key(id1), r#type: number(from), id2: key(id2), new_type })
            }
            _ => bail!("{op:?} is no write"),
        })
    }

    async fn list(&self, id1: u32, low: u32, high: Option<u32>, limit: u32) -> Result<Outcome> {
        let request = ListRequest { id1: key(id1), r#type: number(AType::Link), low, high, limit };
        listed(self.client().list_edges(request).await?.into_inner().edges)
    }
}

fn edge_key(id1: u32, id2: u32) -> EdgeKey {
    EdgeKey { id1: key(id1), r#type: number(AType::Link), id2: key(id2) }
}

fn node(encoded: Bytes) -> Result<Outcome> {
    if encoded.is_empty() {
        return Ok(Outcome::default());
    }
    Ok(Outcome { found: true, items: 1, bytes: Node::decode(encoded)?.data.len() as u32 })
}

fn listed(encoded: Bytes) -> Result<Outcome> {
    let edges = Edges::decode(encoded)?.edges;
    let bytes = edges.iter().map(|edge| edge.data.len() as u32).sum();
    Ok(Outcome { found: !edges.is_empty(), items: edges.len() as u32, bytes })
}

impl Caller for CacheAsideCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        match *op {
            Op::ObjectGet { id } => node(self.client().get_node(NodeKey { id: key(id) }).await?.into_inner().node),
            Op::AssocGet { id1, id2 } => listed(self.client().get_edge(edge_key(id1, id2)).await?.into_inner().edges),
            Op::AssocCount { id1 } => {
                let list = ListKey { id1: key(id1), r#type: number(AType::Link) };
                Ok(counted(self.client().count_edges(list).await?.into_inner().count))
            }
            Op::AssocRange { id1, limit } => self.list(id1, 0, None, limit).await,
            Op::AssocTimeRange { id1, low, high, limit } => self.list(id1, low, Some(high), limit).await,
            Op::ReadTransaction(ref ops) => self.read_all(ops).await,
            Op::WriteTransaction(ref ops) => {
                let steps = ops.iter().map(|op| Ok(WriteStep { step: Some(self.step(op)?) })).collect::<Result<_>>()?;
                Ok(wrote(self.client().write(WriteRequest { steps }).await?.into_inner().found))
            }
            ref write => {
                let mut client = self.client();
                let answer = match self.step(write)? {
                    Step::AddNode(request) => {
                        return client.add_node(request).await.map(|_| wrote(false)).map_err(Into::into);
                    }
                    Step::UpdateNode(request) => client.update_node(request).await,
                    Step::DeleteNode(request) => client.delete_node(request).await,
                    Step::AddEdge(request) => client.add_edge(request).await,
                    Step::DeleteEdge(request) => client.delete_edge(request).await,
                    Step::MoveEdge(request) => client.move_edge(request).await,
                };
                Ok(wrote(answer?.into_inner().found))
            }
        }
    }
}

impl CacheAsideCaller {
    /// Nodes and edges by key in one request; whatever else there is, one by one.
    async fn read_all(&self, ops: &[Op]) -> Result<Outcome> {
        let mut request = ReadRequest::default();
        let mut outcomes = Vec::new();
        for op in ops {
            match *op {
                Op::ObjectGet { id } => request.nodes.push(key(id)),
                Op::AssocGet { id1, id2 } => request.edges.push(edge_key(id1, id2)),
                ref single => outcomes.push(Box::pin(self.run(single)).await?),
            }
        }
        let answer = self.client().read(request).await?.into_inner();
        for encoded in answer.nodes {
            outcomes.push(node(encoded)?);
        }
        let edges = answer.edges.iter().map(|edge| edge.data.len() as u32);
        outcomes.extend(edges.map(|bytes| Outcome { found: true, items: 1, bytes }));
        Ok(sum(outcomes))
    }
}
