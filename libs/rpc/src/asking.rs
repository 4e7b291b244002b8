//! What is spoken on a stream of calls, on the calling side.

use std::fmt::Debug;
use std::future::Future;

use prost::Message as _;
use tao_proto::internal::tier_service_client::TierServiceClient;
use tao_proto::internal::{Call, ExchangeRequest, ExchangeResponse, Reply};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::authorize::Bearer;
use crate::line::Requests;
use crate::server::MAX_MESSAGE;
use crate::version;

/// See the module. The number of a call is given to it when it is sent.
pub trait Asking: Debug + Send + Sync + 'static {
    /// One call, without its number and time.
    type Call: Debug + Send;
    /// A message of calls.
    type Request: Default + Send;
    /// The answer to one call.
    type Reply: Debug + Send;
    /// A message of answers.
    type Response: Send;

    /// What the names of its metrics begin with.
    const METRICS: &'static str;

    /// About how many bytes a call takes.
    fn size(call: &Self::Call) -> usize;

    /// Adds a call to a message.
    fn put(request: &mut Self::Request, call: Self::Call, seq: u64, timeout_us: u64);

    /// Adds the numbers of calls that are given up.
    fn give_up(request: &mut Self::Request, cancels: Vec<u64>);

    /// The answers of a message by their numbers, and whether the server is about to end the stream.
    fn take(response: Self::Response) -> (Vec<(u64, Self::Reply)>, bool);

    /// Begins a stream; `authorization` says who does.
    fn open(
        channel: Channel,
        requests: Requests<Self>,
        authorization: Option<Bearer>,
    ) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send
    where
        Self: Sized;
}

/// What tiers speak.
#[derive(Debug)]
pub struct TierAsks;

impl Asking for TierAsks {
    type Call = Call;
    type Request = ExchangeRequest;
    type Reply = Reply;
    type Response = ExchangeResponse;

    const METRICS: &'static str = "tier_client";

    fn size(call: &Call) -> usize {
        call.encoded_len()
    }

    fn put(request: &mut ExchangeRequest, mut call: Call, seq: u64, timeout_us: u64) {
        (call.seq, call.timeout_us) = (seq, timeout_us);
        request.calls.push(call);
    }

    fn give_up(request: &mut ExchangeRequest, cancels: Vec<u64>) {
        request.cancels = cancels;
    }

    fn take(response: ExchangeResponse) -> (Vec<(u64, Reply)>, bool) {
        (response.replies.into_iter().map(|reply| (reply.seq, reply)).collect(), response.draining)
    }

    async fn open(
        channel: Channel,
        requests: Requests<Self>,
        _: Option<Bearer>,
    ) -> Result<Streaming<ExchangeResponse>, Status> {
        let mut client = TierServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut request = Request::new(requests);
        version::tell(request.metadata_mut());
        let response = client.exchange(request).await?;
        version::check(response.metadata())?.note("tier_client_versions_total");
        Ok(response.into_inner())
    }
}
