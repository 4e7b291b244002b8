//! GraphService.Pipeline: many calls over one stream. What memory has is answered while the message is read, into the message that
//! is sent next; everything else runs as the call of its name would.

pub(crate) mod call;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tao_access::Standing;
use tao_model::{Error, Result, Token, Violations};
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::{PipelineCall, PipelineRequest};
use tao_proto::{Answer, error};
use tao_rpc::{Backlog, CallContext, DeadlineLimits, Dialect, Ended, Waiting};
use tao_trace::{FOUND_IN, Span, TraceContext, slow};
use tokio::time::Instant;
use tonic::Code;

use crate::admission::{Account, Gate, Pass};
use crate::answers;
use crate::execute::Executor;
use crate::hits::Found;
use crate::validate::{ReadCall, taken};
use call::{Field, Prepared};
use outbox::{Outbox, Sent};

/// Calls of one message, and tokens.
const MAX_IN_MESSAGE: usize = 1_024;

/// A session's token as a message brings it, read once for all calls that refer to it.
pub type Given = Option<Arc<Result<Token>>>;

/// A call, and the token that it refers to.
pub struct PipedCall {
    call: PipelineCall,
    given: Given,
    /// Why it is refused before it is looked at.
    refused: Option<Box<Error>>,
}

/// A call's end: the number of its answer's field, the answer, and a token of what it has seen.
pub type Piped = (Field, Result<Answer>, String);

/// The calls of one stream.
pub struct Pipeline {
    executor: Arc<Executor>,
    /// Judged again when the rules change, or its token ends.
    caller: Standing,
    account: Arc<Account>,
    gate: Option<Arc<Gate>>,
    outbox: Outbox,
    /// The tokens of the last message: the next is likely to bring them again.
    tokens: Vec<(String, Given)>,
}

impl Pipeline {
    /// Of this caller, without any call yet.
    pub fn new(executor: Arc<Executor>, caller: Standing, account: Arc<Account>, gate: Option<Arc<Gate>>) -> Self {
        Self { executor, caller, account, gate, outbox: Outbox::default(), tokens: Vec::new() }
    }

    /// Reads the tokens of a message.
    fn take_tokens(&mut self, texts: Vec<String>) {
        let known = std::mem::take(&mut self.tokens);
        let read = |(place, text): (usize, String)| {
            if let Some((known, token)) = known.get(place)
                && *known == text
                // An error may be that no leader has been met yet.
                && token.as_ref().is_some_and(|token| token.is_ok())
            {
                return (text, token.clone());
            }
            let token = self.executor.map().and_then(|map| Token::decode(&text, map.cluster));
            (text, Some(Arc::new(token)))
        };
        self.tokens = texts.into_iter().take(MAX_IN_MESSAGE).enumerate().map(read).collect();
    }

    fn piped(&self, place: usize, call: PipelineCall) -> PipedCall {
        let mut refused = None;
        let mut given = None;
        if place >= MAX_IN_MESSAGE {
            refused = Some(Error::invalid("calls", format!("at most {MAX_IN_MESSAGE} in one message")).into());
        } else if call.session > 0 {
            match self.tokens.get(call.session as usize - 1) {
                Some((_, token)) => given.clone_from(token),
                None => {
                    let rule =
                        format!("{} is no place in session_tokens, which has {}", call.session, self.tokens.len());
                    refused = Some(Error::invalid("session", rule).into());
                }
            }
        }
        PipedCall { call, given, refused }
    }

    /// Answers a read from memory, if it can be.
    fn hit(&mut self, seq: u64, field: Field, call: &Call, given: Option<&Token>) -> Option<Code> {
        let map = self.executor.map().ok()?;
        let caller = self.caller.last();
        let (read, floors) = call::plain_read(call, &self.executor.door(map))?;
        let floor = given.filter(|_| floors);
        let (executor, outbox) = (&self.executor, &mut self.outbox);
        executor.hit(map, &read, caller, floor, |found, at| {
            let session = outbox.session(map, at);
            match found {
                Found::Object(Some(object)) => outbox.push_field(seq, session, field, object),
                Found::Object(None) => {
                    let ReadCall::Object(id) = &read else { return Code::Internal };
                    let item = Answer::encode(&error::to_item(&answers::no_object(*id)));
                    outbox.push(&Sent { seq, session, field: Field::ERROR }, &item);
                    return Code::NotFound;
                }
                Found::Count(count) => outbox.push_int(seq, session, field, count),
                Found::Edges(edges, next) => outbox.push_edges(seq, session, field, edges, &next),
            }
            Code::Ok
        })
    }

    fn answer(&mut self, seq: u64, (field, result, token): Piped) {
        let session = self.outbox.token(token);
        match result {
            Ok(answer) => self.outbox.push(&Sent { seq, session, field }, &answer),
            Err(error) => {
                let item = Answer::encode(&error::to_item(&error));
                self.outbox.push(&Sent { seq, session, field: Field::ERROR }, &item);
            }
        }
    }
}

/// Runs a call that counts as under way meanwhile.
async fn passing(pass: Pass, run: impl Future<Output = Piped>) -> Piped {
    let piped = run.await;
    pass.ended(&piped.1);
    piped
}

/// Runs a call within its span, which ends with it.
async fn spanned(span: Span, run: impl Future<Output = Piped>) -> Piped {
    span.set("rpc.system.name", "grpc");
    let piped = span.around(run).await;
    if let (_, Err(error), _) = &piped {
        span.set("rpc.response.status_code", i64::from(error::code(error) as i32));
        span.fail(error.reason());
    }
    piped
}

impl Dialect for Pipeline {
    type Request = PipelineRequest;
    type Response = Answer;
    type Call = PipedCall;
    type Answer = Piped;

    fn open(&mut self, request: PipelineRequest, arrived: Instant, calls: &mut Backlog<PipedCall>) -> Vec<u64> {
        self.take_tokens(request.session_tokens);
        let new = request.calls.into_iter().enumerate();
        calls.extend(new.map(|(place, call)| (self.piped(place, call), arrived)));
        request.cancels
    }

    fn seq(call: &PipedCall) -> u64 {
        call.call.seq
    }

    fn begin(&mut self, piped: PipedCall, arrived: Instant, now: Instant) -> Option<Waiting<Piped>> {
        let PipedCall { call: PipelineCall { seq, timeout_us, call, traceparent, .. }, given, refused } = piped;
        let given = given.as_deref().map(Result::as_ref).transpose();
        let (call, given) = match (refused, call, given) {
            (Some(error), ..) => {
                self.refuse(seq, &error);
                return None;
            }
            (None, _, Err(error)) => {
                let error = error.clone();
                self.refuse(seq, &error);
                return None;
            }
            (None, None, _) => {
                self.refuse(seq, &Error::invalid("call", "required: one call, of those that this version knows"));
                return None;
            }
            (None, Some(call), Ok(given)) => (call, given),
        };
        let limits = DeadlineLimits::default();
        let time = if timeout_us == 0 { limits.default } else { Duration::from_micros(timeout_us).min(limits.maximum) };
        let deadline = arrived + time;
        if deadline <= now {
            self.refuse(seq, &Error::DeadlineExceeded { not_applied: true });
            return None;
        }
        if let Err(error) = self.caller.now(now) {
            self.refuse(seq, &error);
            return None;
        }
        let field = Field::of(&call);
        if let Err(refusal) = self.executor.admission.admit(&self.account, field.kind(), 1) {
            if refusal.brake
                && let Some(gate) = &self.gate
            {
                gate.hold();
            }
            field.series().record(Code::ResourceExhausted, now - arrived);
            self.refuse(seq, &refusal.error());
            return None;
        }
        let span = tao_trace::begin(field.span_name(), || TraceContext::parse(&traceparent));
        if let Some(code) = self.hit(seq, field, &call, given) {
            span.set("rpc.system.name", "grpc");
            span.set(FOUND_IN, "memory");
            let took = now - arrived;
            field.series().record(code, took);
            slow::note(took, span.context(), || field.series().told(code));
            return None;
        }
        let mut context = CallContext::new(deadline);
        context.trace = span.context();
        let prepared = self.executor.map().and_then(|map| {
            let mut violations = Violations::default();
            let prepared =
                Prepared::new(self.caller.last(), &self.executor.door(map), map, given, call, &mut violations)?;
            taken(prepared, violations)
        });
        let entered = prepared.and_then(|prepared| {
            let (kind, calls) = prepared.load();
            Ok((self.executor.admission.enter(&self.account, kind, calls)?, prepared))
        });
        match entered {
            Ok((pass, prepared)) => {
                let (kind, is_write) = (field.0 as usize, prepared.is_write());
                let trace = context.trace;
                let future = passing(pass, prepared.run(self.executor.clone(), context));
                let future = if span.is_recorded() { spanned(span, future).boxed() } else { future.boxed() };
                Some(Waiting { seq, kind, is_write, deadline, trace, future })
            }
            Err(error) => {
                field.series().record(error::code(&error), now - arrived);
                self.refuse(seq, &error);
                None
            }
        }
    }

    fn refuse(&mut self, seq: u64, error: &Error) {
        self.answer(seq, (Field::ERROR, Err(error.clone()), String::new()));
    }

    fn finish(&mut self, ended: Ended<Piped>) {
        let code = match &ended.answer {
            Ok((_, Ok(_), _)) => Code::Ok,
            Ok((_, Err(error), _)) | Err(error) => error::code(error),
        };
        let (series, took) = (Field(ended.kind as u32).series(), ended.arrived.elapsed());
        series.record(code, took);
        slow::note(took, ended.trace, || series.told(code));
        match ended.answer {
            Ok(piped) => self.answer(ended.seq, piped),
            Err(error) => self.refuse(ended.seq, &error),
        }
    }

    fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    fn message(&mut self, draining: bool) -> Answer {
        self.outbox.message(draining)
    }
}
