//! Calls to followers: tokens, deadlines, and what an error means.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tao_model::Token;
use tao_proto::metadata::SESSION_TOKEN;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_rig::check::Process;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::cluster::Cluster;
use crate::network::SimConnect;
use crate::plan::FOLLOWER_PORT;

/// For one attempt.
const DEADLINE: Duration = Duration::from_secs(2);

/// Generated stubs.
pub type Stub = GraphServiceClient<InterceptedService<Channel, Intercept>>;
type Intercept = fn(Request<()>) -> Result<Request<()>, Status>;

/// Asks for the answer's token in metadata, where every kind of answer has it.
fn with_metadata(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.metadata_mut().insert(SESSION_TOKEN, MetadataValue::from_static(""));
    Ok(request)
}

/// Connections of one host to all followers.
#[derive(Clone)]
pub struct Followers {
    stubs: Arc<[Stub]>,
    cluster: Cluster,
}

/// An answer, or why there is none.
pub struct Answered<T> {
    /// What the follower said.
    pub result: Result<T, Refusal>,
    /// The session token that came with it.
    pub token: Option<Token>,
    /// Who answered.
    pub process: Process,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of the closed list in docs/errors.md; empty when it was not tao that answered.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether a write surely did not happen.
    pub not_applied: bool,
}

impl Refusal {
    /// Whether nobody is to blame but the faults.
    pub fn is_outage(&self) -> bool {
        matches!(self.reason.as_str(), "" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "OVERLOADED" | "CANCELLED")
    }

    /// Whether the graph is not as the write needs it: a thing that happens when sessions write at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self.reason.as_str(), "NOT_FOUND" | "VERSION_MISMATCH" | "TYPE_MISMATCH" | "ALREADY_EXISTS")
    }

    fn of(status: &Status) -> Self {
        let info = status.get_details_error_info();
        let said = |key: &str| info.as_ref().and_then(|i| i.metadata.get(key)).is_some_and(|v| v == "true");
        let not_applied = said("not_applied");
        let is_ours = info.is_some();
        let reason = info.map(|i| i.reason).unwrap_or_default();
        let message = if is_ours { status.message().to_owned() } else { whole(status) };
        // The way there may say anything; a server that lost its handler would say so with details.
        Self { reason, message, not_applied }
    }
}

fn whole(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Followers {
    /// From a host; connects when there is something to send. Must be called on that host.
    pub fn connect(cluster: &Cluster, from: &str) -> Self {
        let stub = |name: &String| {
            let dial = SimConnect { from: from.to_owned(), lines: cluster.lines.clone() };
            let connector = tower::service_fn(move |uri: Uri| {
                let dialing = dial.dial(&uri);
                async move { dialing.await.map(TokioIo::new) }
            });
            let address =
                Uri::builder().scheme("http").authority(format!("{name}:{FOLLOWER_PORT}")).path_and_query("/");
            let address = address.build().unwrap_or_default();
            let channel = Endpoint::from(address)
                .connect_timeout(Duration::from_secs(1))
                .http2_keep_alive_interval(Duration::from_millis(500))
                .keep_alive_timeout(Duration::from_millis(500))
                .keep_alive_while_idle(true)
                .connect_with_connector_lazy(connector);
            GraphServiceClient::with_interceptor(channel, with_metadata as Intercept)
        };
        Self { stubs: cluster.plan.followers.iter().map(stub).collect(), cluster: cluster.clone() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.stubs.len()
    }

    fn life(&self, follower: usize) -> u16 {
        self.cluster.lives[follower].load(Ordering::Relaxed)
    }

    /// Makes a call.
    pub async fn call<T, F>(&self, follower: usize, send: impl FnOnce(Stub) -> F) -> Answered<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let life = self.life(follower);
        let late = || Err(Status::new(Code::DeadlineExceeded, "no answer"));
        let answer =
            tokio::time::timeout(DEADLINE, send(self.stubs[follower].clone())).await.unwrap_or_else(|_| late());
        let process =
            if self.life(follower) == life { Process { follower: follower as u8, life } } else { Process::UNKNOWN };
        let (token, result) = match answer {
            Ok(response) => (token(response.metadata()), Ok(response.into_inner())),
            Err(status) => (token(status.metadata()), Err(Refusal::of(&status))),
        };
        Answered { result, token, process }
    }
}

fn token(metadata: &MetadataMap) -> Option<Token> {
    Token::parse(metadata.get(SESSION_TOKEN)?.to_str().ok()?).ok()
}
