//! A stream of changes that outlives the followers that serve it.

use std::sync::Arc;
use std::time::Duration;

use tao_proto::v1;
use tao_rpc::{Authorize, authorize};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Request, Streaming};

use crate::bearer::BearerToken;
use crate::error::ClientError;
use crate::follower::Follower;
use crate::session::{Session, pause};

/// A stream without a message for so long is taken for dead; followers send one at least every second.
const SILENCE: Duration = Duration::from_secs(5);

/// Changes as they are committed; see GraphService.Watch. When its follower is gone it resumes, there or at another, where it was:
/// no change is missed, and none comes twice.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    /// With the token of what has come so far, once something has.
    request: v1::WatchRequest,
    open: Option<Open>,
    /// Came before anybody asked for it.
    ready: Vec<v1::Change>,
    /// Since when nothing has come, and attempts since then.
    failing: Option<(Instant, u32)>,
    /// The number of the follower that failed last.
    failed: Option<u64>,
}

#[derive(Debug)]
struct Open {
    answers: Streaming<v1::WatchResponse>,
    follower: Arc<Follower>,
}

impl Session {
    /// Watches changes: from the present on, unless the request says otherwise (with [`Session::token`], what the session has not
    /// seen is not missed). What the watch shows becomes part of what the session has seen. Nothing is sent before the first
    /// [`Watch::next`] or [`Watch::begin`].
    pub fn watch(&self, request: v1::WatchRequest) -> Watch {
        Watch { session: self.clone(), request, open: None, ready: Vec::new(), failing: None, failed: None }
    }
}

impl Watch {
    /// Where to resume, in this process or another: it covers all that has come. Empty before the watch has begun,
    /// unless the request had a token.
    pub fn token(&self) -> &str {
        &self.request.session_token
    }

    /// Returns once the watch has begun: every change from now on will come.
    pub async fn begin(&mut self) -> Result<(), ClientError> {
        while self.open.is_none() {
            let changes = self.step().await?;
            self.ready.extend(changes);
        }
        Ok(())
    }

    /// The next changes, at least one: of one database, in the order of their commits. Fails with what can't be mended by trying
    /// again (as when changes are not kept any more), or when no follower has sent anything for the session's deadline; a later
    /// call then tries again. Giving the future up loses nothing.
    pub async fn next(&mut self) -> Result<Vec<v1::Change>, ClientError> {
        if !self.ready.is_empty() {
            return Ok(std::mem::take(&mut self.ready));
        }
        loop {
            let changes = self.step().await?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// One message, or one failed attempt.
    async fn step(&mut self) -> Result<Vec<v1::Change>, ClientError> {
        let (received, follower) = match &mut self.open {
            Some(open) => (receive(open).await, open.follower.clone()),
            None => {
                let Some(follower) = self.session.follower(self.failed) else { return Err(ClientError::nobody()) };
                (self.connect(&follower).await, follower)
            }
        };
        match received {
            Ok(answer) => {
                (self.failing, self.failed) = (None, None);
                self.session.learn_told(&answer.session_token);
                // From here on the token says where to begin.
                self.request.since_ms = 0;
                self.request.session_token = answer.session_token;
                Ok(answer.changes)
            }
            Err(error) => {
                self.open = None;
                self.failed(&follower, error).await?;
                Ok(Vec::new())
            }
        }
    }

    async fn connect(&mut self, follower: &Arc<Follower>) -> Result<v1::WatchResponse, ClientError> {
        let mut graph = follower.graph();
        let address = || follower.address.clone();
        let within = self.session.deadline();
        let mut request = Request::new(self.request.clone());
        authorize(request.metadata_mut(), self.session.client().options().bearer.as_ref().map(Authorize::bearer));
        let watch = graph.watch(request);
        let answers = match timeout_at(Instant::now() + within, watch).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(ClientError::from_status(&status, &follower.address)),
            Err(_) => return Err(ClientError::Deadline { address: address(), within, not_applied: true }),
        };
        receive(self.open.insert(Open { answers, follower: follower.clone() })).await
    }

    /// Waits for the next attempt, unless there is to be none.
    async fn failed(&mut self, follower: &Follower, error: ClientError) -> Result<(), ClientError> {
        let (since, attempt) = self.failing.unwrap_or_else(|| (Instant::now(), 1));
        let is_elsewhere = matches!(error, ClientError::Transport { .. } | ClientError::Deadline { .. })
            || matches!(error.code(), Code::Unavailable | Code::ResourceExhausted);
        self.failed = is_elsewhere.then_some(follower.number);
        // One that has as many watches as it may have still answers calls.
        if is_elsewhere && error.code() != Code::ResourceExhausted {
            follower.standing.failed();
        }
        let options = self.session.client().options();
        let pause = pause(options, attempt, &error);
        // The token may have ended, and the file have another by now.
        let is_renewed = error.code() == Code::Unauthenticated
            && attempt == 1
            && options.bearer.as_ref().is_some_and(BearerToken::renews);
        if !(error.is_retryable() || is_renewed) || since.elapsed() + pause >= self.session.deadline() {
            self.failing = None;
            return Err(error);
        }
        self.failing = Some((since, attempt + 1));
        sleep(pause).await;
        Ok(())
    }
}

async fn receive(open: &mut Open) -> Result<v1::WatchResponse, ClientError> {
    let ended = |message: &str| ClientError::Transport {
        address: open.follower.address.clone(),
        code: Code::Unavailable,
        message: message.to_owned(),
        not_applied: true,
    };
    match timeout(SILENCE, open.answers.message()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err(ended("the stream ended")),
        Ok(Err(status)) => Err(ClientError::from_status(&status, &open.follower.address)),
        Err(_) => Err(ended("the stream is silent")),
    }
}
