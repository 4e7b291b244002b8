//! Calls over GraphService.Pipeline: what is called while the line is busy travels together.

use std::sync::Arc;

use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::pipeline_answer::Result as Answered;
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::{PipelineAnswer, PipelineCall, PipelineRequest, PipelineResponse};
use tao_rpc::{Asking, Bearer, Requests, authorize};
use tao_trace::TraceContext;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// Bytes of a message of answers: a follower sends what it has at 256 KiB, and one answer of up to 3 MiB on top.
const MAX_ANSWERS: usize = 4 * 1024 * 1024;
/// Tokens of a message that are looked through for one that is there already.
const LOOK_BACK: usize = 8;

/// What clients speak with followers.
#[derive(Debug)]
pub(crate) struct Pipes;

/// A call, and what its session has seen.
#[derive(Debug, Clone)]
pub(crate) struct Piped {
    pub call: Call,
    /// The span that it has here.
    pub trace: TraceContext,
    /// Empty when that is nothing.
    pub token: Arc<str>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct PipedAnswer {
    /// `None`: of a kind that this version does not know.
    pub answered: Option<Answered>,
    /// A token of what the call has seen, if it has seen anything.
    pub seen: Option<Arc<str>>,
}

impl Asking for Pipes {
    type Call = Piped;
    type Request = PipelineRequest;
    type Reply = PipedAnswer;
    type Response = PipelineResponse;

    const METRICS: &'static str = "tao_client";

    fn size(piped: &Piped) -> usize {
        piped.call.encoded_len() + piped.token.len() + 16
    }

    fn put(request: &mut PipelineRequest, piped: Piped, seq: u64, timeout_us: u64) {
        let mut session = 0;
        if !piped.token.is_empty() {
            let tokens = &mut request.session_tokens;
            let known = tokens.iter().rposition(|token| **token == *piped.token);
            let known = known.filter(|place| tokens.len() - place <= LOOK_BACK);
            session = 1 + known.unwrap_or_else(|| {
                tokens.push(piped.token.as_ref().to_owned());
                tokens.len() - 1
            }) as u32;
        }
        request.calls.push(PipelineCall {
            seq,
            timeout_us,
            session,
            traceparent: piped.trace.to_wire(),
            call: Some(piped.call),
        });
    }

    fn give_up(request: &mut PipelineRequest, cancels: Vec<u64>) {
        request.cancels = cancels;
    }

    fn take(response: PipelineResponse) -> (Vec<(u64, PipedAnswer)>, bool) {
        let tokens: Vec<Arc<str>> = response.session_tokens.into_iter().map(Into::into).collect();
        let answer = |PipelineAnswer { seq, session, result }| {
            let seen = (session as usize).checked_sub(1).and_then(|place| tokens.get(place).cloned());
            (seq, PipedAnswer { answered: result, seen })
        };
        // Once nobody knows who asks on a stream, another may do better: it begins with the token of that moment.
        let is_over = response.answers.iter().any(is_unauthenticated);
        (response.answers.into_iter().map(answer).collect(), response.draining || is_over)
    }

    async fn open(
        channel: Channel,
        requests: Requests<Self>,
        bearer: Option<Bearer>,
    ) -> Result<Streaming<PipelineResponse>, Status> {
        let mut graph = GraphServiceClient::new(channel).max_decoding_message_size(MAX_ANSWERS);
        let mut request = Request::new(requests);
        authorize(request.metadata_mut(), bearer);
        graph.pipeline(request).await.map(tonic::Response::into_inner)
    }
}

fn is_unauthenticated(answer: &PipelineAnswer) -> bool {
    matches!(&answer.result, Some(Answered::Error(error)) if error.code == Code::Unauthenticated as i32)
}
