//! The service: Redis first, then PostgreSQL; writes to PostgreSQL, then out of Redis.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::cache::{Cache, HEAD, Head, count_key, edge, edge_key, encode, list_key, node_key};
use super::proto::graph_server::{Graph, GraphServer};
use super::proto::write_step::Step;
use super::proto::{
    AddEdgeRequest, CountAnswer, DeleteEdgeRequest, EdgeKey, EdgesAnswer, ListKey, ListRequest, MoveEdgeRequest, Node,
    NodeAnswer, NodeData, NodeKey, ReadAnswer, ReadRequest, UpdateNodeRequest, WriteAnswer, WriteRequest,
};
use super::transaction;
use crate::targets::bare;
use crate::targets::connections::Connections;
use crate::targets::reads::{self, Bounds, Points};

/// Serves until the process ends.
pub fn serve(
    postgres: &str,
    redis: &str,
    connections: usize,
    threads: usize,
    listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    let (postgres, redis) = (postgres.to_owned(), redis.to_owned());
    let make = async move || {
        let database = Arc::new(Connections::open(&postgres, (connections / threads).max(1)).await?);
        let cache = Cache::open(&redis).await?;
        Ok(GraphServer::new(Service { database, cache }))
    };
    bare::serve(threads, &make, listening)
}

/// A thread's part.
pub(super) struct Service {
    pub database: Arc<Connections>,
    pub cache: Cache,
}

/// Which store failed, and why; nothing is told to clients.
pub(super) fn failed(error: impl std::fmt::Display) -> Status {
    eprintln!("a store failed: {error}");
    Status::internal("a store failed")
}

/// A read of the database: a connection is taken, used and given back.
macro_rules! read {
    ($service:ident, $read:path, $($args:expr),*) => {{
        let mut lease = $service.database.take().await.map_err(failed)?;
        let result = $read(lease.connection(), $($args),*).await;
        lease.done(result).map_err(failed)
    }};
}

impl Service {
    async fn node(&self, id: i64) -> Result<Bytes, Status> {
        let key = node_key(id);
        if let Some(node) = self.cache.get(&key).await.map_err(failed)? {
            return Ok(node);
        }
        let node = encoded(read!(self, reads::object, id)?);
        self.cache.keep(key, node.clone());
        Ok(node)
    }

    /// From the database, and kept.
    async fn head(&self, id1: i64, atype: i32) -> Result<Head, Status> {
        let head = Head::new(read!(self, reads::range, id1, atype, HEAD as i64 + 1)?);
        self.cache.keep(list_key(id1, atype), head.value());
        Ok(head)
    }

    async fn edge(&self, key: EdgeKey) -> Result<Bytes, Status> {
        let EdgeKey { id1, r#type: atype, id2 } = key;
        let keys = [list_key(id1, atype), edge_key(id1, atype, id2)];
        let kept = self.cache.get_all(&keys).await.map_err(failed)?;
        let [list, one] = &kept[..] else { return Err(failed("two keys, not two values")) };
        let head = match (list, one) {
            (_, Some(edge)) => return Ok(edge.clone()),
            (Some(list), None) => Head::of_value(list),
            (None, None) => self.head(id1, atype).await?,
        };
        if let Some(edge) = head.edge(id2) {
            return Ok(edge);
        }
        // Further back in a long list.
        let edge = encode(read!(self, reads::assoc, id1, atype, id2)?.into_iter().collect());
        let [_, key] = keys;
        self.cache.keep(key, edge.clone());
        Ok(edge)
    }

    async fn list(&self, request: ListRequest) -> Result<Bytes, Status> {
        let ListRequest { id1, r#type: atype, low, high, limit } = request;
        let is_bounded = low > 0 || high.is_some();
        let high = high.unwrap_or(u32::MAX);
        let answer = |head: &Head| {
            if is_bounded { head.between((low, high), limit as usize) } else { head.newest(limit as usize) }
        };
        let head = match self.cache.get(&list_key(id1, atype)).await.map_err(failed)? {
            Some(list) => Head::of_value(&list),
            None => self.head(id1, atype).await?,
        };
        if let Some(edges) = answer(&head) {
            return Ok(edges);
        }
        let bounds = Bounds { low: low.into(), high: high.into(), limit: limit.into() };
        let rows = if is_bounded {
            read!(self, reads::time_range, id1, atype, bounds)?
        } else {
            read!(self, reads::range, id1, atype, limit.into())?
        };
        Ok(encode(rows))
    }

    /// Nodes and edges by key: what the cache has in one round trip, and the rest in another to the database.
    async fn points(&self, request: ReadRequest) -> Result<ReadAnswer, Status> {
        let nodes = request.nodes.iter().map(|id| node_key(*id));
        let edges = request.edges.iter().map(|e| edge_key(e.id1, e.r#type, e.id2));
        let keys: Vec<_> = nodes.chain(edges).collect();
        let values = self.cache.get_all(&keys).await.map_err(failed)?;
        let (nodes, edges) = values.split_at(request.nodes.len());
        let mut answer = ReadAnswer::default();
        let mut missing = Points::default();
        for (id, node) in request.nodes.iter().zip(nodes) {
            match node {
                Some(node) => answer.nodes.push(node.clone()),
                None => missing.ids.push(*id),
            }
        }
        for (key, edge) in request.edges.iter().zip(edges) {
            match edge {
                Some(edge) => {
                    answer.edges.extend(super::proto::Edges::decode(edge.clone()).map_err(failed)?.edges);
                }
                None => missing.edge(key.id1, key.r#type, key.id2),
            }
        }
        answer.nodes.retain(|node| !node.is_empty());
        if missing.is_empty() {
            return Ok(answer);
        }
        let mut lease = self.database.take().await.map_err(failed)?;
        let found = missing.read(lease.connection()).await;
        let found = lease.done(found).map_err(failed)?;
        for (id, row) in missing.ids.iter().zip(found.objects) {
            let node = encoded(row);
            self.cache.keep(node_key(*id), node.clone());
            answer.nodes.extend((!node.is_empty()).then_some(node));
        }
        for (place, row) in found.edges.into_iter().enumerate() {
            let key = edge_key(missing.id1s[place], missing.atypes[place], missing.id2s[place]);
            self.cache.keep(key, encode(row.iter().cloned().collect()));
            answer.edges.extend(row.map(edge));
        }
        Ok(answer)
    }

    async fn write(&self, steps: Vec<Step>) -> Result<Response<WriteAnswer>, Status> {
        let found = transaction::write(self, &steps).await?;
        Ok(Response::new(WriteAnswer { found }))
    }
}

/// A Node; empty when there is none.
fn encoded(row: Option<reads::ObjectRow>) -> Bytes {
    row.map_or_else(Bytes::new, |row| {
        let (version, created_ms, updated_ms) = (row.version, row.created_ms, row.updated_ms);
        Node { version, created_ms, updated_ms, data: row.data.into() }.encode_to_vec().into()
    })
}

#[tonic::async_trait]
impl Graph for Service {
    async fn get_node(&self, request: Request<NodeKey>) -> Result<Response<NodeAnswer>, Status> {
        Ok(Response::new(NodeAnswer { node: self.node(request.into_inner().id).await? }))
    }

    async fn get_edge(&self, request: Request<EdgeKey>) -> Result<Response<EdgesAnswer>, Status> {
        Ok(Response::new(EdgesAnswer { edges: self.edge(request.into_inner()).await? }))
    }

    async fn count_edges(&self, request: Request<ListKey>) -> Result<Response<CountAnswer>, Status> {
        let ListKey { id1, r#type: atype } = request.into_inner();
        let key = count_key(id1, atype);
        if let Some(count) = self.cache.get(&key).await.map_err(failed)? {
            return CountAnswer::decode(count).map(Response::new).map_err(failed);
        }
        let answer = CountAnswer { count: read!(self, reads::count, id1, atype)? };
        self.cache.keep(key, answer.encode_to_vec().into());
        Ok(Response::new(answer))
    }

    async fn list_edges(&self, request: Request<ListRequest>) -> Result<Response<EdgesAnswer>, Status> {
        Ok(Response::new(EdgesAnswer { edges: self.list(request.into_inner()).await? }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadAnswer>, Status> {
        self.points(request.into_inner()).await.map(Response::new)
    }

    async fn add_node(&self, request: Request<NodeData>) -> Result<Response<NodeKey>, Status> {
        let data = request.into_inner().data;
        let id = read!(self, crate::targets::writes::object_add, &data)?;
        // Somebody may have asked for it before it was there.
        self.cache.forget(&[node_key(id)]).await.map_err(failed)?;
        Ok(Response::new(NodeKey { id }))
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Result<Response<WriteAnswer>, Status> {
        self.write(vec![Step::UpdateNode(request.into_inner())]).await
    }

    async fn delete_node(&self, request: Request<NodeKey>) -> Result<Response<WriteAnswer>, Status> {
        self.write(vec![Step::DeleteNode(request.into_inner())]).await
    }

    async fn add_edge(&self, request: Request<AddEdgeRequest>) -> Result<Response<WriteAnswer>, Status> {
        self.write(vec![Step::AddEdge(request.into_inner())]).await
    }

    async fn delete_edge(&self, request: Request<DeleteEdgeRequest>) -> Result<Response<WriteAnswer>, Status> {
        self.write(vec![Step::DeleteEdge(request.into_inner())]).await
    }

    async fn move_edge(&self, request: Request<MoveEdgeRequest>) -> Result<Response<WriteAnswer>, Status> {
        self.write(vec![Step::MoveEdge(request.into_inner())]).await
    }

    async fn write(&self, request: Request<WriteRequest>) -> Result<Response<WriteAnswer>, Status> {
        let steps = request.into_inner().steps.into_iter().filter_map(|step| step.step).collect();
        Service::write(self, steps).await
    }
}
