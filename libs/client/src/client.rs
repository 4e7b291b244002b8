//! Connections to followers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tao_model::limits::MAX_REQUEST;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_rpc::{LinkClient, LinkOptions};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::ClientError;
use crate::pipe::Pipes;
use crate::session::Session;

/// How calls are made.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For a call, its retries included. Default: 10 s.
    pub deadline: Duration,
    /// Attempts at the most; 1 is no retries. Default: 8.
    pub attempts: u32,
    /// Before the first retry; doubles with each, up to a second, less a random part. The server may ask for more.
    /// Default: 20 ms.
    pub backoff: Duration,
    /// Whether a write without an idempotency key gets a random one, so that it can be repeated. The store keeps the outcome of
    /// every key for a day; without keys, a write is repeated only when it surely did not happen. Default: true.
    pub generate_keys: bool,
    /// For making a connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// A connection on which nothing has come for so long is asked whether it is alive. Default: 20 s.
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
            attempts: 8,
            backoff: Duration::from_millis(20),
            generate_keys: true,
            connect_timeout: Duration::from_secs(5),
            keepalive: Duration::from_secs(20),
            pipeline: true,
            max_message: MAX_REQUEST,
        }
    }
}

/// Connections to one or more followers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    followers: Vec<Follower>,
    /// Which of them is called: one, until it fails, since its caches then know the caller's part of the graph.
    turn: AtomicUsize,
    options: ClientOptions,
}

/// A follower, and where it is.
#[derive(Debug)]
pub(crate) struct Follower {
    pub address: String,
    pub graph: GraphServiceClient<Channel>,
    /// Its stream of calls, begun with the first of them.
    pipe: OnceLock<LinkClient<Pipes>>,
    link: LinkOptions,
}

impl Follower {
    /// The stream of calls. On a tokio runtime.
    pub fn pipe(&self) -> Result<&LinkClient<Pipes>, ClientError> {
        if let Some(pipe) = self.pipe.get() {
            return Ok(pipe);
        }
        let wrong = |_| ClientError::Address { address: self.address.clone() };
        let pipe = LinkClient::new(&self.address, self.link.clone()).map_err(wrong)?;
        Ok(self.pipe.get_or_init(|| pipe))
    }
}

impl Client {
    /// Of the followers at `addresses`: HOST:PORT, or several with commas between them. Makes a connection with the first call,
    /// and again whenever it breaks; of several followers one is called until it can't be reached, and then the next.
    /// Needs a tokio runtime.
    pub fn connect(addresses: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let addresses: Vec<_> = addresses.split(',').map(str::trim).collect();
        let has_others = addresses.len() > 1;
        let followers: Vec<_> =
            addresses.iter().map(|address| follower(address, has_others, &options)).collect::<Result<_, _>>()?;
        let turn = AtomicUsize::new(rand::random_range(0..followers.len()));
        Ok(Self { inner: Arc::new(Inner { followers, turn, options }) })
    }

    /// A session that has seen nothing.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), "")
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// The follower to call now, and its turn.
    pub(crate) fn follower(&self) -> (usize, &Follower) {
        let turn = self.inner.turn.load(Ordering::Relaxed);
        (turn, &self.inner.followers[turn % self.inner.followers.len()])
    }

    /// The follower of this turn failed: the next one's turn, unless another call has said so already.
    pub(crate) fn move_on(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        // Whoever loses the race was told of a follower that nobody calls any more.
        self.inner.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

fn follower(address: &str, has_others: bool, options: &ClientOptions) -> Result<Follower, ClientError> {
    let wrong = || ClientError::Address { address: address.to_owned() };
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let uri: Uri = uri.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("http") || uri.port_u16().is_none() || uri.host().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    let channel = Endpoint::from(uri)
        .user_agent(concat!("tao-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| wrong())?
        .tcp_nodelay(true)
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.connect_timeout)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let graph = GraphServiceClient::new(channel).max_decoding_message_size(options.max_message);
    let link = LinkOptions {
        connect_timeout: options.connect_timeout,
        keepalive_interval: options.keepalive,
        keepalive_timeout: options.connect_timeout,
        fails_fast: has_others,
        ..LinkOptions::default()
    };
    Ok(Follower { address: address.to_owned(), graph, pipe: OnceLock::new(), link })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_have_a_host_and_a_port() {
        for right in ["localhost:1", "http://localhost:1", "[::1]:50051", "a:1, b:2,c:3"] {
            assert!(Client::connect(right, ClientOptions::default()).is_ok(), "{right}");
        }
        for wrong in ["", "localhost", "not an address", "a:1,", "https://a:1", ":1", "a:99999", "a:1,,b:1"] {
            let error = Client::connect(wrong, ClientOptions::default()).unwrap_err();
            assert!(matches!(error, ClientError::Address { .. }) && !error.is_retryable(), "{wrong}: {error}");
        }
    }

    #[tokio::test]
    async fn a_turn_is_passed_on_once_however_many_calls_fail_in_it() {
        let client = Client::connect("a:1,b:2,c:3", ClientOptions::default()).unwrap();
        let (turn, first) = client.follower();
        client.move_on(turn);
        client.move_on(turn);
        let (next, second) = client.follower();
        assert_eq!(next, turn + 1);
        assert_ne!(first.address, second.address);
    }
}
