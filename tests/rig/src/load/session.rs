//! One session: its token, its way through the followers, and what it did and saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tao_model::{LogId, ObjectId, ShardId, Token};
use tao_proto::{metadata, v1};
use tonic::{Request, Response, Status};

use crate::check::{Failed, Kind, Level, Lsn, Process, SessionHistory, Shape, Step, Time};
use crate::load::answer::{Failure, LATE, classify};
use crate::load::context::{Context, Graph};

/// After a deadline passed there, a session goes elsewhere for a while.
const AVOID: Duration = Duration::from_secs(1);
/// Steps of a session, mostly; one in eight lives longer, until its token is folded.
const SHORT_LIFE: std::ops::Range<u32> = 40..240;
const LONG_LIFE: u32 = 2_000;

/// One session.
pub struct Session {
    pub(crate) context: Arc<Context>,
    pub(crate) rng: SmallRng,
    pub(crate) history: SessionHistory,
    /// All that it has seen and done.
    token: Option<Token>,
    /// Of objects that it wrote.
    pub(crate) versions: HashMap<ObjectId, i64>,
    avoid: Vec<Option<Instant>>,
    /// Where the next call goes, instead of anywhere.
    pub(crate) pinned: Option<usize>,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub follower: usize,
    pub level: Level,
    /// Whether the session's token goes along.
    pub token: bool,
    /// Whether it is a floor.
    pub floored: bool,
    pub deadline: Duration,
}

/// How a call went.
pub(crate) struct Trip {
    pub start: Time,
    pub end: Time,
    pub process: Process,
    pub manner: Manner,
    /// The token that went along.
    sent: Option<Token>,
    /// The token that came back.
    came: Option<Token>,
}

impl Session {
    /// A new one, which has seen nothing.
    pub fn new(context: &Arc<Context>) -> Self {
        let id = context.take_session();
        let rng = SmallRng::seed_from_u64(context.options.seed ^ (u64::from(id) << 32));
        let history = SessionHistory { id, ..Default::default() };
        let avoid = vec![None; context.follower_count()];
        Self { context: context.clone(), rng, history, token: None, versions: HashMap::new(), avoid, pinned: None }
    }

    /// Sessions one after the other, until the run ends.
    pub async fn run(context: Arc<Context>) {
        while !context.is_stopped() {
            let mut session = Self::new(&context);
            let life = if session.rng.random_ratio(1, 8) { LONG_LIFE } else { session.rng.random_range(SHORT_LIFE) };
            for _ in 0..life {
                if context.is_stopped() {
                    break;
                }
                session.step().await;
                let pause = context.options.pause.mul_f64(session.rng.random());
                tokio::time::sleep(pause).await;
            }
            session.finish();
        }
    }

    /// Hands over what it did.
    pub fn finish(self) {
        self.context.finish(self.history);
    }

    async fn step(&mut self) {
        if self.rng.random_bool(self.context.options.writes) { self.any_write().await } else { self.any_read().await }
    }

    /// A follower, any but those that have just let a deadline pass.
    pub(crate) fn hop(&mut self) -> usize {
        if let Some(follower) = self.pinned.take() {
            return follower;
        }
        let now = Instant::now();
        let count = self.avoid.len();
        let first = self.rng.random_range(0..count);
        let is_good = |f: &usize| self.avoid[*f].is_none_or(|until| until < now);
        (0..count).map(|n| (first + n) % count).find(is_good).unwrap_or(first)
    }

    /// How a read may be made, all levels among them.
    pub(crate) fn any_manner(&mut self) -> Manner {
        let follower = self.hop();
        let deadline = self.context.options.deadline;
        let manner = |level, token, floored| Manner { follower, level, token, floored, deadline };
        match self.rng.random_range(0..100) {
            0..45 => manner(Level::Cached, true, true),
            45..70 => manner(Level::Cached, false, false),
            70..78 => manner(Level::Cached, true, false),
            78..90 => {
                let token = self.rng.random_bool(0.5);
                manner(Level::Bounded(self.rng.random_range(20..2_000)), token, token)
            }
            _ => {
                let token = self.rng.random_bool(0.5);
                manner(Level::Strong, token, token)
            }
        }
    }

    /// A read that its session's token is a floor of.
    pub(crate) fn with_token(&self, follower: usize) -> Manner {
        let deadline = self.context.options.deadline;
        Manner { follower, level: Level::Cached, token: true, floored: true, deadline }
    }

    /// A read by nobody in particular.
    pub(crate) fn without_token(&self, follower: usize) -> Manner {
        Manner { token: false, floored: false, ..self.with_token(follower) }
    }

    /// The options of a read that is made so.
    pub(crate) fn read_options(&mut self, manner: &Manner) -> Option<v1::ReadOptions> {
        let mut options = v1::ReadOptions { session_token: self.token_text(manner), ..Default::default() };
        let explicit = self.rng.random_bool(0.5);
        match manner.level {
            Level::Cached | Level::Settled if manner.floored => {
                if explicit && !options.session_token.is_empty() {
                    options.set_consistency(v1::Consistency::AtLeastAsFresh);
                }
            }
            Level::Cached | Level::Settled => {
                if manner.token || explicit {
                    options.set_consistency(v1::Consistency::MinimizeLatency);
                }
            }
            Level::Bounded(ms) => {
                options.set_consistency(v1::Consistency::BoundedStaleness);
                options.max_staleness_ms = i64::from(ms);
            }
            Level::Strong => options.set_consistency(v1::Consistency::Strong),
        }
        Some(options)
    }

    /// The session's token as a call brings it.
    pub(crate) fn token_text(&self, manner: &Manner) -> String {
        self.token.as_ref().filter(|_| manner.token).map(Token::encode).unwrap_or_default()
    }

    /// Makes a call, and merges the token that comes back.
    pub(crate) async fn call<M, T>(
        &mut self,
        manner: Manner,
        message: M,
        make: impl AsyncFnOnce(Graph, Request<M>) -> Result<Response<T>, Status>,
        token_of: impl FnOnce(&T) -> &str,
    ) -> (Result<T, Failure>, Trip) {
        let context = self.context.clone();
        let sent = self.token.clone().filter(|_| manner.token);
        let mut request = Request::new(message);
        request.set_timeout(manner.deadline);
        let life = context.life(manner.follower);
        let start = context.now();
        let answered = make(context.graph(manner.follower, self.history.id), request);
        let answered = tokio::time::timeout(manner.deadline, answered).await;
        let end = context.now();
        let process = context.process(manner.follower, life);
        let (result, came) = match answered {
            Err(_) => {
                self.avoid[manner.follower] = Some(Instant::now() + AVOID);
                (Err(LATE), None)
            }
            Ok(Err(status)) => {
                let token = status.metadata().get(metadata::SESSION_TOKEN).and_then(|t| t.to_str().ok());
                let came = self.merge(token.unwrap_or_default(), end);
                (Err(classify(&status)), came)
            }
            Ok(Ok(response)) => {
                let answer = response.into_inner();
                let came = self.merge(token_of(&answer), end);
                (Ok(answer), came)
            }
        };
        let counter = match &result {
            Ok(_) | Err(Failure::Refused(_)) => &context.counters.done,
            Err(_) => &context.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        (result, Trip { start, end, process, manner, sent, came })
    }

    fn merge(&mut self, text: &str, at: Time) -> Option<Token> {
        if text.is_empty() {
            return None;
        }
        let came = match Token::parse(text) {
            Ok(came) => came,
            Err(error) => {
                self.odd(at, Kind::OddError, &format!("a token that can't be read came back: {error}"));
                return None;
            }
        };
        match &mut self.token {
            Some(token) => token.merge(&came),
            None => self.token = Some(came.clone()),
        }
        Some(came)
    }

    pub(crate) fn odd(&mut self, at: Time, kind: Kind, text: &str) {
        let text = format!("session {}: {text}", self.history.id);
        self.history.steps.push(Step::Odd(Box::new((at, kind, text))));
    }

    /// Records that a read failed.
    pub(crate) fn read_failed(&mut self, failure: Failure, trip: &Trip, what: &str) {
        match failure {
            Failure::Unavailable { .. } => {
                self.history.steps.push(Step::Failed(Failed { start: trip.start, end: trip.end }));
            }
            Failure::Refused(text) | Failure::Odd(text) => {
                self.odd(trip.end, Kind::OddError, &format!("{what} by {:?}: {text}", trip.process));
            }
        }
    }
}

fn floor(token: Option<&Token>, shard: ShardId, log: usize) -> Lsn {
    token.map_or(0, |token| token.floor(shard, LogId(log as u32)).lsn as Lsn)
}

impl Trip {
    /// What the token that went along asks of the keys of `owner`.
    pub fn floor(&self, shape: &Shape, owner: ObjectId) -> Lsn {
        let sent = self.sent.as_ref().filter(|_| self.manner.floored);
        floor(sent, shape.shard(owner), shape.log(owner))
    }

    /// What the token that came back says of the shard of `owner`.
    pub fn covered(&self, shape: &Shape, owner: ObjectId) -> Lsn {
        floor(self.came.as_ref(), shape.shard(owner), shape.log(owner))
    }

    /// Whether the token that came back has forgotten of the shard of `owner` what it said when it went.
    pub fn forgot(&self, shape: &Shape, owner: ObjectId) -> bool {
        self.covered(shape, owner) < floor(self.sent.as_ref(), shape.shard(owner), shape.log(owner))
    }

    /// Whether the token that came back says nothing of the shard of `owner`.
    pub fn is_silent(&self, shape: &Shape, owner: ObjectId) -> bool {
        self.covered(shape, owner) == 0
    }

    /// The freshness of the one key of `owner`'s shard that was read, where the tokens tell.
    pub fn claim(&self, shape: &Shape, owner: ObjectId) -> Lsn {
        let log = shape.log(owner);
        let (sent, came) = (self.sent.as_ref(), self.came.as_ref());
        // Folded on the way: the other shards' positions hide this one's.
        let base = |token: Option<&Token>| token.map_or(0, |token| token.base(LogId(log as u32)).lsn);
        if base(came) > base(sent) {
            return 0;
        }
        let after = self.covered(shape, owner);
        let before = floor(sent, shape.shard(owner), log);
        // What went along hides what came when it was no floor.
        if sent.is_some() && !self.manner.floored && after <= before { 0 } else { after }
    }
}

/// Reads every key on every follower, without a token, when all is quiet.
pub async fn sweep(context: &Arc<Context>) {
    let mut session = Session::new(context);
    for follower in 0..context.follower_count() {
        session.read_everything(follower).await;
    }
    session.finish();
}
