//! The calling side.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tao_model::{Error, Result};
use tao_proto::internal::tier_service_client::TierServiceClient;
use tao_proto::internal::{SubscribeRequest, SubscribeResponse};
use tao_trace::Kind;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;

use crate::asking::{Asking, TierAsks};
use crate::authorize::{Authorize, Bearer};
use crate::call::{self, CallContext, Op, TierReply, is_write};
use crate::connect::{AddressError, Connect, TcpConnect, channel, parse_address};
use crate::line::Line;
use crate::link::Link;
use crate::members::runtime;
use crate::names::{Aim, Place, keep_resolving, literal};
use crate::peer_status;
use crate::server::MAX_MESSAGE;
use crate::version;

/// Limits and times of a client.
#[derive(Clone)]
pub struct LinkOptions {
    /// How names are resolved and connections made. Default: the system's resolver, and TCP.
    pub connect: Arc<dyn Connect>,
    /// How often a name is resolved again, give or take a tenth; it is resolved sooner when a connection breaks. Default: 2 s.
    pub resolve_every: Duration,
    /// Connections to the peer, 1 or more: more only help when one core can't carry the traffic, and batch less.
    pub connections: usize,
    /// Calls under way at once on each connection; more are OVERLOADED.
    pub max_in_flight: usize,
    /// Bytes of calls that wait to be sent on each connection; more are OVERLOADED.
    pub max_queued_bytes: usize,
    /// Calls in one message.
    pub max_message_calls: usize,
    /// Bytes of calls in one message, unless a single one is larger.
    pub max_message_bytes: usize,
    /// How long a call waits for a connection, if its deadline is not sooner.
    pub connect_wait: Duration,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How often an idle peer is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it has to answer.
    pub keepalive_timeout: Duration,
    /// Has the token that says who calls. Default: none, since between tiers certificates do.
    pub authorize: Option<Arc<dyn Authorize>>,
    /// Bytes that may be on their way on one stream; a connection gets four times as many.
    pub stream_window: u32,
    /// The runtimes that connections live on, one by one; there is at least one connection on each. A call takes one that lives on its
    /// caller's own thread, if there is such: then nobody has to be woken to send it, nor to hand its answer on. Default: the one that
    /// the client is made on.
    pub runtimes: Vec<Handle>,
}

impl LinkOptions {
    /// The token of the moment.
    pub(crate) fn bearer(&self) -> Option<Bearer> {
        self.authorize.as_ref().map(|authorize| authorize.bearer())
    }
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connect: Arc::new(TcpConnect),
            resolve_every: Duration::from_secs(2),
            connections: 1,
            max_in_flight: 4_096,
            max_queued_bytes: 64 * 1024 * 1024,
            max_message_calls: 256,
            max_message_bytes: 256 * 1024,
            connect_wait: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(3),
            keepalive_timeout: Duration::from_secs(4),
            authorize: None,
            stream_window: 2 * 1024 * 1024,
            runtimes: Vec::new(),
        }
    }
}

impl fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkOptions")
            .field("connections", &self.connections)
            .field("max_in_flight", &self.max_in_flight)
            .field("connect_wait", &self.connect_wait)
            .finish_non_exhaustive()
    }
}

/// Makes calls over long-lived streams. Cheap to clone; usable from any runtime. Its connections end with its last clone.
#[derive(Debug)]
pub struct LinkClient<A: Asking> {
    inner: Arc<Inner<A>>,
}

impl<A: Asking> Clone for LinkClient<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

#[derive(Debug)]
struct Inner<A: Asking> {
    place: Place,
    options: Arc<LinkOptions>,
    /// Of change streams: the one that the client was made on, if there was one.
    runtime: Handle,
    lines: Vec<Arc<Line<A>>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    _closed: DropGuard,
    /// Where nobody else sees to what the name stands for.
    _resolving: Option<AbortOnDropHandle<()>>,
}

impl<A: Asking> LinkClient<A> {
    /// Begins to connect to `host:port` or `http://host:port`, in the background and for as long as the client lives: to the first
    /// address that answers, where the name has several. Must be made on a tokio runtime, or be given one.
    pub fn new(address: &str, options: LinkOptions) -> Result<Self, AddressError> {
        let name = Arc::new(parse_address(address)?);
        let known = literal(&name);
        let (tell, aim) = watch::channel(Aim { addresses: known.into_iter().collect(), problem: None });
        let asks = Arc::<Notify>::default();
        let place = Place::new(name.clone(), aim, asks.clone());
        let resolving = known.is_none().then(|| {
            let tell = move |resolved: io::Result<_>| {
                tell.send_modify(|aim| match resolved {
                    Ok(addresses) => *aim = Aim { addresses, problem: None },
                    Err(error) => aim.problem = Some(error.to_string()),
                });
            };
            let task = keep_resolving(options.connect.clone(), name, options.resolve_every, asks, tell);
            AbortOnDropHandle::new(runtime(&options).spawn(task))
        });
        Ok(Self::start(place, options, resolving))
    }

    /// Begins to connect to a place, which somebody else looks for. See [`Self::new`].
    pub fn to(place: Place, options: LinkOptions) -> Self {
        Self::start(place, options, None)
    }

    fn start(place: Place, options: LinkOptions, resolving: Option<AbortOnDropHandle<()>>) -> Self {
        let runtime = runtime(&options);
        let runtimes = if options.runtimes.is_empty() { vec![runtime.clone()] } else { options.runtimes.clone() };
        let closed = CancellationToken::new();
        let options = Arc::new(options);
        let connections = options.connections.max(runtimes.len());
        let start = |runtime: &Handle| {
            let line = Arc::new(Line::new(place.label(), options.clone()));
            runtime.spawn(Link::new(place.clone(), options.clone(), line.clone(), closed.clone()).run());
            line
        };
        let lines = runtimes.iter().cycle().take(connections).map(start).collect();
        let turn = AtomicUsize::new(0);
        let closed = closed.drop_guard();
        let inner = Inner { place, options, runtime, lines, turn, _closed: closed, _resolving: resolving };
        Self { inner: Arc::new(inner) }
    }

    /// Where the peer is.
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// Whether a call would be sent at once.
    pub fn is_connected(&self) -> bool {
        self.inner.lines.iter().any(|line| line.is_open())
    }

    /// Waits until calls can be sent; fails with what stands in the way when that takes too long.
    pub async fn wait_connected(&self, time: Duration) -> Result<()> {
        self.line().wait_open(Instant::now() + time, false).await
    }

    /// Asks, and waits for the answer until the deadline. Dropping the future gives the call up, there too. `fails_fast`: while there is
    /// no connection, an attempt to make one that failed is enough to fail the call, since its caller knows another server.
    ///
    /// Errors: UNAVAILABLE, DEADLINE_EXCEEDED (each says whether a write surely did not happen) and OVERLOADED (nothing was sent).
    pub async fn send(&self, call: A::Call, is_write: bool, deadline: Instant, fails_fast: bool) -> Result<A::Reply> {
        let now = Instant::now();
        if deadline <= now {
            return Err(Error::DeadlineExceeded { not_applied: true });
        }
        let mut call = Some(call);
        let mut line = self.line();
        let mut ticket = loop {
            if let Some(ticket) = line.submit(&mut call, is_write, deadline)? {
                break ticket;
            }
            let limit = now + self.inner.options.connect_wait;
            match line.wait_open(limit.min(deadline), fails_fast).await {
                Ok(()) => {}
                Err(_) if deadline <= limit => return Err(Error::DeadlineExceeded { not_applied: true }),
                Err(error) => return Err(error),
            }
            line = self.line();
        };
        match timeout_at(deadline, ticket.answer()).await {
            Ok(reply) => reply,
            Err(_) => {
                let sent = ticket.give_up();
                Err(Error::DeadlineExceeded { not_applied: !is_write || !sent })
            }
        }
    }

    /// The open connection whose turn it is, of this thread if there is one.
    fn line(&self) -> &Line<A> {
        let lines = &self.inner.lines;
        if let [line] = lines.as_slice() {
            return line;
        }
        let here = thread::current().id();
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed) % lines.len();
        let (ahead, behind) = lines.split_at(turn);
        let mut open = behind.iter().chain(ahead).filter(|line| line.is_open());
        let Some(first) = open.next() else { return &lines[turn] };
        if first.lives_on(here) { first } else { open.find(|line| line.lives_on(here)).unwrap_or(first) }
    }
}

/// Calls a tier.
pub type TierClient = LinkClient<TierAsks>;

impl TierClient {
    /// Asks, and waits for the answer until the deadline. Dropping the future gives the call up, there too.
    ///
    /// Errors: the peer's own, and those of [`LinkClient::send`].
    pub async fn call(&self, context: &CallContext, op: Op) -> Result<TierReply> {
        self.ask(context, op, false).await
    }

    /// The same; see [`LinkClient::send`] for `fails_fast`.
    pub(crate) async fn ask(&self, context: &CallContext, op: Op, fails_fast: bool) -> Result<TierReply> {
        let is_write = is_write(&op);
        let span = context.trace.span(call::span_name(&op), Kind::Client);
        let mut wire = call::to_wire(context, op);
        if !span.is_recorded() {
            return call::from_reply(self.send(wire, is_write, context.deadline, fails_fast).await?);
        }
        wire.traceparent = span.context().to_wire();
        span.set("server.address", self.inner.place.label());
        let sent = self.send(wire, is_write, context.deadline, fails_fast).await;
        let answer = sent.and_then(call::from_reply);
        if let Err(error) = &answer {
            span.fail(error.reason());
        }
        answer
    }

    /// Begins a change stream, on a connection of its own. When it ends, or after an error, it is to be begun again.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<BoxStream<'static, Result<SubscribeResponse>>> {
        self.open(request, None).await
    }

    /// The same, with another window than the options have.
    pub(crate) async fn open(
        &self,
        request: SubscribeRequest,
        window: Option<u32>,
    ) -> Result<BoxStream<'static, Result<SubscribeResponse>>> {
        let (place, mut options) = (self.inner.place.clone(), self.inner.options.clone());
        if let Some(stream_window) = window {
            options = Arc::new(LinkOptions { stream_window, ..(*options).clone() });
        }
        let peer = self.inner.lines[0].peer().to_owned();
        // On the client's runtime: the connection must outlive the caller's.
        let connecting = self.inner.runtime.spawn(async move {
            let connecting = async {
                let reaching = async { channel(place.name(), &place.addresses().await?, &options).await };
                let (channel, _) = reaching.await.map_err(|why| unreachable(&peer, &why))?;
                let mut client = TierServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
                let mut request = Request::new(request);
                version::tell(request.metadata_mut());
                let response = client.subscribe(request).await;
                let checked = response.and_then(|r| version::check(r.metadata()).map(|_| r.into_inner()));
                Ok((channel, checked.map_err(|status| peer_status::from_status(&peer, &status))?))
            };
            let opened = timeout(options.connect_timeout, connecting).await;
            let opened = opened.unwrap_or_else(|_| Err(unreachable(&peer, "no answer")));
            if opened.is_err() {
                place.doubt();
            }
            opened.map(|(channel, events)| (channel, events, peer))
        });
        let (channel, events, peer) = AbortOnDropHandle::new(connecting)
            .await
            .map_err(|_| Error::unavailable("the client's runtime has ended"))??;
        let events = events.map(move |event| {
            // The stream needs its connection.
            let _kept = &channel;
            event.map_err(|status| peer_status::from_status(&peer, &status))
        });
        Ok(events.boxed())
    }
}

fn unreachable(peer: &str, why: &str) -> Error {
    Error::unavailable(format!("{peer} can't be reached: {why}"))
}
