//! Sessions: what they have seen, and how their calls are made.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tao_proto::metadata::SESSION_TOKEN;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::pipeline_answer::Result as Answered;
use tao_rpc::{Authorize, authorize};
use tao_trace::{Kind, TRACEPARENT, TraceContext};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::bearer::BearerToken;
use crate::calls::{SessionAnswer, SessionRequest};
use crate::client::{Client, ClientOptions};
use crate::error::ClientError;
use crate::follower::Follower;
use crate::pipe::Piped;
use crate::route::{Chosen, Route};
use crate::seen::{Seen, merged};

/// Between two attempts, unless the server asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Calls that read their own writes and never see time go backwards, on any follower. Clones are the same session, and may be
/// used by many tasks at once. All its calls go to one follower, as long as that can be reached (see [`Client`]).
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    state: Arc<Mutex<State>>,
    deadline: Duration,
}

#[derive(Debug)]
struct State {
    seen: Seen,
    route: Route,
}

impl State {
    fn new(token: &str) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { seen: Seen::new(token), route: Route::new() }))
    }
}

impl Session {
    pub(crate) fn new(client: Client, token: &str) -> Self {
        let deadline = client.options().deadline;
        Self { client, state: State::new(token), deadline }
    }

    /// What the session has seen, for another process to go on with; empty when it has seen nothing.
    pub fn token(&self) -> String {
        self.state.lock().seen.text().as_ref().to_owned()
    }

    /// Another session, at a follower of its own, which goes on where the one that gave `token` was.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { client: self.client.clone(), state: State::new(token), deadline: self.deadline }
    }

    /// Another session, which has seen nothing.
    #[must_use]
    pub fn new_session(&self) -> Self {
        self.with_token("")
    }

    /// The same session, with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Makes a call, and again where that is safe and may help, until it is answered or its deadline comes.
    pub(crate) async fn call<Req: SessionRequest, Res: SessionAnswer>(
        &self,
        mut request: Req,
        send: impl AsyncFn(&mut GraphServiceClient<Channel>, Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, ClientError> {
        let options = self.client.options();
        let deadline = Instant::now() + self.deadline;
        let repeatable = request.make_repeatable(options.generate_keys && options.attempts > 1);
        // A token of the caller's own, beside the session's.
        let given = request.take_token();
        let (bytes, limit) = (request.encoded_len(), options.max_message);
        if bytes > limit {
            return Err(ClientError::TooLarge { bytes, limit });
        }
        let caller = TraceContext::of_current_span();
        let mut perhaps_applied = false;
        let mut attempt = 1;
        let mut failed = None;
        let mut unreachable = None;
        let mut patience = options.patience;
        let mut has_renewed = false;
        loop {
            // Anew each time: other calls of the session, and errors, may have seen more.
            let (token, chosen) = self.next(&given, failed);
            let Some(Chosen { follower, has_others, moved }) = chosen else { return Err(ClientError::nobody()) };
            self.client.counts().attempt(attempt > 1, moved);
            let is_last = attempt >= options.attempts;
            // Another may know more than one that says nothing.
            let is_impatient = has_others && repeatable && !is_last;
            let until = if is_impatient { deadline.min(Instant::now() + patience) } else { deadline };
            let span = caller.span(Req::SPAN, Kind::Client);
            span.set("server.address", follower.address.clone());
            let trace = span.context();
            let answered = match follower.load.begin(&follower.address) {
                Err(error) => Err(error),
                Ok(sent) => {
                    let answered = if options.pipeline {
                        self.send_piped(&follower, request.clone(), token, trace, until, has_others).await
                    } else {
                        let mut request = request.clone();
                        request.set_token(&token);
                        self.send_alone(&follower, request, trace, &send, until).await
                    };
                    sent.ended(&answered);
                    answered
                }
            };
            if let Err(error) = &answered {
                span.fail(error.code().description());
            }
            drop(span);
            let error = match answered {
                Ok(answer) => {
                    follower.standing.succeeded();
                    self.learn(&given);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // The channel keeps time as well, and may be the first to notice.
            let is_transport = matches!(error, ClientError::Transport { .. });
            let is_late = is_transport && !error.is_not_applied() && Instant::now() >= until;
            let error = if is_late { self.late(&follower.address) } else { error };
            let is_silent = error.code() == Code::DeadlineExceeded && until < deadline;
            if is_transport || is_silent || error.code() == Code::Unavailable {
                follower.standing.failed();
            }
            if is_silent {
                // Perhaps it is the call that takes so long, at whichever follower.
                patience = patience.saturating_mul(2);
            }
            failed = Some(follower.number);
            // Nothing was done, and perhaps the file has another token by now.
            if error.code() == Code::Unauthenticated && !has_renewed {
                has_renewed = true;
                if options.bearer.as_ref().is_some_and(BearerToken::renews) {
                    continue;
                }
            }
            let safe = repeatable || error.is_not_applied();
            perhaps_applied |= !error.is_not_applied();
            let pause = pause(options, attempt, &error);
            let is_hopeless = !error.is_retryable() || !safe || is_last || Instant::now() + pause >= deadline;
            if is_hopeless || (error.is_overload() && !follower.load.may_repeat()) {
                // What was in the way says more than that the time is up.
                let was_not_sent = matches!(error, ClientError::Deadline { not_applied: true, .. });
                let error = unreachable.filter(|_| was_not_sent).unwrap_or(error);
                return Err(if perhaps_applied { error.perhaps_applied() } else { error });
            }
            unreachable = is_transport.then_some(error);
            sleep(pause).await;
            attempt += 1;
        }
    }

    /// What the session has seen, with what its caller has, and whom to call: preferably not the follower of the number `failed`.
    fn next(&self, given: &str, failed: Option<u64>) -> (Arc<str>, Option<Chosen>) {
        let followers = self.client.followers();
        let mut state = self.state.lock();
        let seen = state.seen.text();
        let chosen = state.route.choose(&followers, failed);
        drop(state);
        (merged(&seen, given), chosen)
    }

    /// Whom to call, preferably not the follower of the number `failed`.
    pub(crate) fn follower(&self, failed: Option<u64>) -> Option<Arc<Follower>> {
        self.next("", failed).1.map(|chosen| chosen.follower)
    }

    /// A call beside others on the follower's stream.
    async fn send_piped<Req: SessionRequest, Res: SessionAnswer>(
        &self,
        follower: &Follower,
        request: Req,
        token: Arc<str>,
        trace: TraceContext,
        deadline: Instant,
        fails_fast: bool,
    ) -> Result<Res, ClientError> {
        let piped = Piped { call: request.into_call(), trace, token };
        let sent = follower.pipe().send(piped, Req::IS_WRITE, deadline, fails_fast).await;
        let answer = sent.map_err(|error| ClientError::from_link(&error, &follower.address, self.deadline))?;
        if let Some(seen) = &answer.seen {
            self.state.lock().seen.learn(seen);
        }
        match answer.answered {
            Some(Answered::Error(error)) => Err(ClientError::from_item(error)),
            Some(answered) => Res::from_answer(answered).ok_or_else(ClientError::unreadable),
            None => Err(ClientError::unreadable()),
        }
    }

    /// A call as a request of its own.
    async fn send_alone<Req: SessionRequest, Res: SessionAnswer>(
        &self,
        follower: &Follower,
        request: Req,
        trace: TraceContext,
        send: &impl AsyncFn(&mut GraphServiceClient<Channel>, Request<Req>) -> Result<Response<Res>, Status>,
        deadline: Instant,
    ) -> Result<Res, ClientError> {
        let mut call = Request::new(request);
        if trace.is_sampled()
            && let Ok(traceparent) = trace.to_wire().parse()
        {
            call.metadata_mut().insert(TRACEPARENT, traceparent);
        }
        let bearer = self.client.options().bearer.as_ref();
        authorize(call.metadata_mut(), bearer.map(Authorize::bearer));
        call.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match timeout_at(deadline, send(&mut follower.graph(), call)).await {
            Ok(Ok(response)) => {
                let mut answer = response.into_inner();
                self.learn(&answer.take_token());
                Ok(answer)
            }
            Ok(Err(status)) => {
                if let Some(token) = status.metadata().get(SESSION_TOKEN).and_then(|t| t.to_str().ok()) {
                    self.learn(token);
                }
                Err(ClientError::from_status(&status, &follower.address))
            }
            Err(_) => Err(self.late(&follower.address)),
        }
    }

    fn late(&self, address: &str) -> ClientError {
        ClientError::Deadline { address: address.to_owned(), within: self.deadline, not_applied: false }
    }

    /// Adds what an answer has seen: answers of calls side by side each know a part.
    pub(crate) fn learn(&self, seen: &str) {
        if !seen.is_empty() {
            self.state.lock().seen.learn(&seen.into());
        }
    }

    /// Adds what a stream of changes has told.
    pub(crate) fn learn_told(&self, told: &str) {
        self.state.lock().seen.learn_told(&told.into());
    }
}

/// Grows with each attempt and has a random part, so that callers who failed together don't come back together; never shorter
/// than the server asks.
pub(crate) fn pause(options: &ClientOptions, attempt: u32, error: &ClientError) -> Duration {
    let grown = options.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(MAX_BACKOFF.max(options.backoff));
    let random = grown.mul_f64(rand::random_range(0.5..=1.0));
    error.retry_after().map_or(random, |asked| asked.saturating_add(random / 4).max(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_as_long_as_the_server_asks() {
        let options = ClientOptions::default();
        let mut error = ClientError::Refused {
            code: Code::Unavailable,
            reason: String::new(),
            message: String::new(),
            violations: Vec::new(),
            retryable: true,
            not_applied: true,
            retry_after: None,
        };
        for attempt in 1..=70 {
            let full = (options.backoff * 2_u32.pow((attempt - 1).min(6))).min(MAX_BACKOFF);
            let pause = pause(&options, attempt, &error);
            assert!((full / 2..=full).contains(&pause), "attempt {attempt}: {pause:?}");
        }
        let ClientError::Refused { retry_after, .. } = &mut error else { unreachable!() };
        *retry_after = Some(Duration::from_millis(300));
        assert!(pause(&options, 1, &error) >= Duration::from_millis(300));
    }
}
