//! A client: its followers, and how their number changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use tao_model::limits::MAX_REQUEST;
use tao_rpc::members::{List, Members};
use tao_rpc::{Authorize, Connect, LinkOptions, SecureConnect, TcpConnect, parse_address};
use tao_tls::{ClientTls, FollowsFiles};
use tokio::runtime::Handle;

use crate::bearer::BearerToken;
use crate::error::ClientError;
use crate::follower::Follower;
use crate::session::Session;
use crate::stats::{ClientStats, Counts};

/// How calls are made.
#[derive(Clone)]
pub struct ClientOptions {
    /// For a call, its retries included. Default: 10 s.
    pub deadline: Duration,
    /// Attempts at the most; 1 is no retries. Default: 20, so that it is the deadline that ends a call.
    pub attempts: u32,
    /// Before the first retry; doubles with each, up to a second, less a random part. The server may ask for more.
    /// Default: 20 ms.
    pub backoff: Duration,
    /// Whether a write without an idempotency key gets a random one, so that it can be repeated. The store keeps the outcome of
    /// every key for a day; without keys, a write is repeated only when it surely did not happen. Default: true.
    pub generate_keys: bool,
    /// How long one follower may take for a call that may be repeated, when there are others: then another is asked, and may take twice
    /// as long, and so on, so that a call that is slow everywhere is answered. It bounds what a follower costs whose machine is gone
    /// without a word. Default: 3 s.
    pub patience: Duration,
    /// How names are resolved and connections made. Default: the system's resolver, and TCP.
    pub connect: Arc<dyn Connect>,
    /// With which authority, and which identity of its own, servers are spoken to in TLS; `None`: in plain text. Default: `None`.
    pub tls: Option<ClientTls>,
    /// The token that says who calls, where followers want one. Default: `None`.
    pub bearer: Option<BearerToken>,
    /// How often names are resolved again, give or take a tenth; they are resolved sooner when a connection breaks. Default: 2 s.
    pub resolve_every: Duration,
    /// For making a connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// A connection on which nothing has come for so long is asked whether it is alive. Default: 5 s.
    pub keepalive: Duration,
    /// Whether calls share a stream to the follower (GraphService.Pipeline), which makes many at once several times cheaper; otherwise
    /// each is a request of its own, as some proxies need it. Default: true.
    pub pipeline: bool,
    /// Bytes of a request or an answer, at the most: a larger one is refused here. Default: 4 MiB, as the server has it.
    pub max_message: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempts: 20,
            backoff: Duration::from_millis(20),
            generate_keys: true,
            patience: Duration::from_secs(3),
            connect: Arc::new(TcpConnect),
            tls: None,
            bearer: None,
            resolve_every: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(5),
            pipeline: true,
            max_message: MAX_REQUEST,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("deadline", &self.deadline)
            .field("attempts", &self.attempts)
            .field("generate_keys", &self.generate_keys)
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

/// Connections to all followers that some names stand for, as they come and go. Cheap to clone.
///
/// A [`Session`] calls one follower for as long as that can be reached, since its caches then know the session's part of the graph:
/// which one, rendezvous hashing of a random number says, so that sessions spread over the followers, and a new follower gets its
/// share of them within seconds. Make many sessions: they cost next to nothing. One session is load for one follower.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    followers: Members<Follower>,
    options: ClientOptions,
    counts: Counts,
    #[expect(dead_code, reason = "it is held for as long as there is the client")]
    follows_token: Option<FollowsFiles>,
}

impl Client {
    /// Of the followers at `names`: HOST:PORT, or several with commas between them. Every address that a name has is a follower. A
    /// connection is made with the first call to a follower, and again whenever it breaks. Must be called on a tokio runtime, which
    /// the client's connections live on. A name may begin with `https://` where the options have TLS, and with `http://` where they have
    /// not; the other way round is an error, so that nobody speaks in plain text by mistake.
    pub fn connect(names: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let is_secure = options.tls.is_some();
        let names = names.split(',').map(|name| bare(name.trim(), is_secure)).collect::<Result<Vec<_>, _>>()?;
        let connect = match &options.tls {
            Some(tls) => Arc::new(SecureConnect::new(options.connect.clone(), tls.clone())),
            None => options.connect.clone(),
        };
        let link = LinkOptions {
            connect,
            resolve_every: options.resolve_every,
            connect_timeout: options.connect_timeout,
            keepalive_interval: options.keepalive,
            keepalive_timeout: options.connect_timeout,
            runtimes: vec![Handle::current()],
            authorize: options.bearer.clone().map(|bearer| Arc::new(bearer) as Arc<dyn Authorize>),
            ..LinkOptions::default()
        };
        let (to_each, how) = (link.clone(), options.clone());
        let make = move |place| Follower::new(place, to_each.clone(), &how);
        let wrong = |_| ClientError::Address { address: names.join(",") };
        let followers = Members::new(&names, &link, make).map_err(wrong)?;
        let follows_token = options.bearer.as_ref().and_then(BearerToken::follow);
        Ok(Self { inner: Arc::new(Inner { followers, options, counts: Counts::default(), follows_token }) })
    }

    /// A session that has seen nothing.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), "")
    }

    /// What the calls of all its sessions have come to so far.
    pub fn stats(&self) -> ClientStats {
        self.inner.counts.read()
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// At least one; not to be held over an `await`.
    pub(crate) fn followers(&self) -> Guard<Arc<List<Follower>>> {
        self.inner.followers.now()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.inner.counts
    }
}

/// HOST:PORT of a name, without the scheme.
fn bare(name: &str, is_secure: bool) -> Result<String, ClientError> {
    let wrong = || ClientError::Address { address: name.to_owned() };
    let (scheme, rest) = name.split_once("://").map_or((None, name), |(scheme, rest)| (Some(scheme), rest));
    match (scheme, is_secure) {
        (None, _) | (Some("http"), false) | (Some("https"), true) => {}
        (Some("https"), false) => return Err(ClientError::NoTls { address: name.to_owned() }),
        (Some(_), _) => return Err(wrong()),
    }
    parse_address(rest).map(|_| rest.to_owned()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_have_a_host_and_a_port() {
        for right in ["localhost:1", "http://localhost:1", "[::1]:50051", "a:1, b:2,c:3"] {
            assert!(Client::connect(right, ClientOptions::default()).is_ok(), "{right}");
        }
        for wrong in ["", "localhost", "not an address", "a:1,", "ftp://a:1", ":1", "a:99999", "a:1,,b:1"] {
            let error = Client::connect(wrong, ClientOptions::default()).unwrap_err();
            assert!(matches!(error, ClientError::Address { .. }) && !error.is_retryable(), "{wrong}: {error}");
        }
        let error = Client::connect("https://a:1", ClientOptions::default()).unwrap_err();
        assert!(matches!(error, ClientError::NoTls { .. }) && !error.is_retryable(), "{error}");
    }
}
