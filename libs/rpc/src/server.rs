//! The serving side of the stream between tiers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use metrics::{Counter, Histogram, counter, histogram};
use tao_model::Result;
use tao_proto::internal;
use tao_proto::internal::tier_service_server::{TierService, TierServiceServer};
use tonic::{Request, Response, Status, Streaming};

use crate::call::{CallContext, OP_NAMES, OPS, Op, TierReply};
use crate::drain::Drain;
use crate::exchange::Exchange;
use crate::peer_status;
use crate::tier_calls::TierCalls;
use crate::version;

/// Bytes of a message that is taken or sent at most.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The streams of a tier, by path: what comes by them is traced and timed, not they.
pub const STREAMS: &[&str] = &["/tao.internal.v1.TierService/Exchange", "/tao.internal.v1.TierService/Subscribe"];

/// What a tier does.
///
/// A call's future is polled by the task of the stream that it came by: it stands still while its caller doesn't read, and is
/// dropped when the caller gives up or goes away. Work that others wait for too must be spawned.
pub trait TierHandler: Clone + Send + Sync + 'static {
    /// Whether streams may begin now: one that is refused sends no calls, and its caller comes back.
    fn admit(&self) -> Result<()> {
        Ok(())
    }

    /// Answers a call. It is polled once as soon as it arrives: what can be answered from memory should not yield.
    fn call(&self, context: CallContext, op: Op) -> impl Future<Output = Result<TierReply>> + Send;

    /// Begins a change stream. Its end tells the subscriber to subscribe again, from where it is.
    fn subscribe(
        &self,
        request: internal::SubscribeRequest,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<internal::SubscribeResponse>>>> + Send;
}

/// Limits of a stream of calls, and whose it is.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// The tier that serves, as a label of metrics.
    pub tier: &'static str,
    /// Calls under way at once on one stream. As many more are read and wait; then reading stops until there is room.
    pub max_in_flight: usize,
    /// After this (a tenth less, to a tenth more) a stream is drained, so that its caller connects again and load spreads;
    /// `None`: never.
    pub max_stream_age: Option<Duration>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { tier: "", max_in_flight: 4_096, max_stream_age: None }
    }
}

/// Serves a [`TierHandler`]; made by [`tier_server`].
#[derive(Debug)]
pub struct TierServer<H> {
    handler: H,
    limits: Arc<ServerLimits>,
    drain: Drain,
    metrics: Arc<ServerMetrics>,
}

/// The gRPC service of a tier. Metrics go to the recorder that is installed now.
pub fn tier_server<H: TierHandler>(handler: H, limits: ServerLimits, drain: Drain) -> TierServiceServer<TierServer<H>> {
    let metrics = Arc::new(ServerMetrics::new(limits.tier));
    let server = TierServer { handler, limits: Arc::new(limits), drain, metrics };
    TierServiceServer::new(server).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

/// What is counted of streams of calls.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    /// A label of them all.
    pub(crate) tier: &'static str,
    /// Seconds from when a call was read to its answer, by kind.
    pub(crate) durations: [Histogram; OPS],
    /// Messages read; calls by message tell how much batching there is.
    pub(crate) messages: Counter,
    /// Calls that their callers gave up.
    pub(crate) cancelled: Counter,
}

impl ServerMetrics {
    fn new(tier: &'static str) -> Self {
        // Shown before there are any: those that somebody is to be told of.
        for reason in ["INTERNAL", "UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED"] {
            counter!("tier_server_errors_total", "tier" => tier, "reason" => reason).increment(0);
        }
        Self {
            tier,
            durations: OP_NAMES.map(|op| histogram!("tier_server_duration_seconds", "tier" => tier, "op" => op)),
            messages: counter!("tier_server_messages_total", "tier" => tier),
            cancelled: counter!("tier_server_cancelled_total", "tier" => tier),
        }
    }
}

#[tonic::async_trait]
impl<H: TierHandler> TierService for TierServer<H> {
    type ExchangeStream = Exchange<TierCalls<H>>;
    type SubscribeStream = BoxStream<'static, Result<internal::SubscribeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<internal::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        version::check(request.metadata())?.note("tier_server_versions_total");
        self.handler.admit().map_err(|e| peer_status::to_status(&e))?;
        let calls = TierCalls::new(self.handler.clone(), self.metrics.clone());
        Ok(telling(Exchange::new(calls, self.limits.clone(), &self.drain, request.into_inner())))
    }

    async fn subscribe(
        &self,
        request: Request<internal::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        version::check(request.metadata())?;
        self.handler.admit().map_err(|e| peer_status::to_status(&e))?;
        let events = self.handler.subscribe(request.into_inner()).await;
        let events = events.map_err(|e| peer_status::to_status(&e))?;
        let events = events.map(|event| event.map_err(|e| peer_status::to_status(&e)));
        Ok(telling(events.take_until(self.drain.begun()).boxed()))
    }
}

/// An answer that says which version it is from.
fn telling<T>(answer: T) -> Response<T> {
    let mut response = Response::new(answer);
    version::tell(response.metadata_mut());
    response
}
