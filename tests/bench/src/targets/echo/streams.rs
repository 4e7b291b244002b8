//! Numbered calls over streams: the machinery between tiers, with answers that are there already. All that knows of it is here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tao_client::v1::{AssocRangeResponse, Object};
use tao_model::Position;
use tao_proto::internal;
use tao_proto::internal::tier_service_server::TierServiceServer;
use tao_rpc::{
    CallContext, Drain, LinkOptions, Op as TierOp, ReplyBody, ServerLimits, TierClient, TierHandler, TierReply,
    TierServer, tier_server,
};

use super::Server;
use super::answers::{Answers, id};
use crate::graph::Graph;
use crate::op::{AType, Op, Outcome};
use crate::target::{Caller, Hits, Progress, Role, Setup, Target};
use crate::targets::answer::counted;
use crate::targets::tao::{got, listed};

const DEADLINE: Duration = Duration::from_secs(10);
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
const AS_OF: Position = Position::new(1_767_225_600, 1_000_000);

/// Answers at once.
#[derive(Clone)]
pub struct Handler(Arc<Answers>);

/// Over these answers.
pub fn server(answers: Arc<Answers>) -> TierServiceServer<TierServer<Handler>> {
    tier_server(Handler(answers), ServerLimits::default(), Drain::new())
}

impl TierHandler for Handler {
    async fn call(&self, _: CallContext, op: TierOp) -> tao_model::Result<TierReply> {
        let body = match op {
            TierOp::ObjectRead(read) => ReplyBody::Object(internal::ObjectState { object: self.0.object(read.id) }),
            TierOp::ListRead(read) => {
                let edges = self.0.newest(read.id1, read.newest as usize).0;
                ReplyBody::List(internal::ListState { count: self.0.count(read.id1).into(), edges })
            }
            _ => return Err(tao_model::Error::invalid("op", "the echo answers reads of objects and lists")),
        };
        Ok(TierReply { as_of: AS_OF, body })
    }

    async fn subscribe(
        &self,
        _: internal::SubscribeRequest,
    ) -> tao_model::Result<BoxStream<'static, tao_model::Result<internal::SubscribeResponse>>> {
        Ok(futures::stream::empty().boxed())
    }
}

/// The target.
#[derive(Debug)]
pub struct EchoStreams {
    server: Server,
    connections_a_thread: usize,
}

impl EchoStreams {
    /// Starts with [`Target::load`].
    pub fn new(setup: &Setup) -> Self {
        Self { server: Server::default(), connections_a_thread: (setup.connections / setup.threads).max(1) }
    }
}

impl Target for EchoStreams {
    type Caller = StreamsCaller;

    fn name(&self) -> &'static str {
        "echo-pipelined"
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        self.server.load(graph, true)?;
        progress(u64::from(graph.nodes()) + graph.edges());
        Ok(())
    }

    async fn caller(&self, _: usize) -> Result<StreamsCaller> {
        let options = LinkOptions { connections: self.connections_a_thread, ..Default::default() };
        let client = TierClient::new(self.server.address()?, options)?;
        client.wait_connected(CONNECTS_WITHIN).await.context("the echo can't be reached")?;
        Ok(StreamsCaller { client })
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        self.server.pid().map(|pid| (Role::Service, pid)).into_iter().collect()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(None)
    }
}

/// A thread's streams.
pub struct StreamsCaller {
    client: TierClient,
}

impl Caller for StreamsCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        let list = |node, newest| {
            let atype = AType::Link.number().into();
            TierOp::ListRead(internal::ListRead { id1: id(node), atype, newest })
        };
        let call = match *op {
            Op::ObjectGet { id: node } => TierOp::ObjectRead(internal::ObjectRead { id: id(node) }),
            Op::AssocCount { id1 } => list(id1, 0),
            Op::AssocRange { id1, limit } => list(id1, limit),
            _ => bail!("the echo answers ObjectGet, AssocCount and AssocRange, not {op:?}"),
        };
        match (op, self.client.call(&CallContext::within(DEADLINE), call).await?.body) {
            (Op::ObjectGet { .. }, ReplyBody::Object(state)) => {
                Ok(got(state.object.map(Object::decode).transpose()?.as_ref()))
            }
            (Op::AssocCount { .. }, ReplyBody::List(state)) => Ok(counted(state.count as i64)),
            (Op::AssocRange { .. }, ReplyBody::List(state)) => {
                Ok(listed(&AssocRangeResponse::decode(state.edges)?.assocs))
            }
            (_, other) => bail!("an answer to something else: {other:?}"),
        }
    }
}
