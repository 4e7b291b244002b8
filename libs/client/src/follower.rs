//! A follower, and the ways to it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_rpc::{Channels, LinkClient, LinkOptions, Place, Standing};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::client::ClientOptions;
use crate::load::Load;
use crate::pipe::Pipes;

/// See the module.
#[derive(Debug)]
pub(crate) struct Follower {
    /// No other has it.
    pub number: u64,
    /// Its name, for errors.
    pub address: String,
    /// Whether others are to be called before it.
    pub standing: Standing,
    /// How many calls it takes.
    pub load: Load,
    place: Place,
    link: LinkOptions,
    is_piped: bool,
    /// Its stream of calls, once there is something to send.
    pipe: OnceLock<LinkClient<Pipes>>,
    channels: Channels,
    max_message: usize,
}

impl Follower {
    /// Not connected to yet. On a tokio runtime.
    pub fn new(place: Place, link: LinkOptions, options: &ClientOptions) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        let limit = |endpoint: Endpoint| {
            let endpoint = endpoint
                .connect_timeout(options.connect_timeout)
                .http2_keep_alive_interval(options.keepalive)
                .keep_alive_timeout(options.connect_timeout)
                .keep_alive_while_idle(true);
            // What is not a valid header is not sent: this is one.
            let agent = concat!("tao-client/", env!("CARGO_PKG_VERSION"));
            endpoint.clone().user_agent(agent).unwrap_or(endpoint)
        };
        let runtime = link.runtimes.first().cloned().unwrap_or_else(Handle::current);
        Self {
            number: MADE.fetch_add(1, Ordering::Relaxed),
            address: place.label(),
            standing: Standing::default(),
            load: Load::default(),
            channels: Channels::new(place.clone(), limit, link.connect.clone(), runtime),
            place,
            link,
            is_piped: options.pipeline,
            pipe: OnceLock::new(),
            max_message: options.max_message,
        }
    }

    /// The stream of calls.
    pub fn pipe(&self) -> &LinkClient<Pipes> {
        self.pipe.get_or_init(|| LinkClient::to(self.place.clone(), self.link.clone()))
    }

    /// For requests of their own.
    pub fn graph(&self) -> GraphServiceClient<Channel> {
        GraphServiceClient::new(self.channels.channel()).max_decoding_message_size(self.max_message)
    }

    /// Begins to connect, if it has not begun.
    pub fn begin(&self) {
        if self.is_piped {
            self.pipe();
        }
    }

    /// Whether a call would be sent at once: it neither has to be connected to first, nor has it asked for no more calls. Of requests of
    /// their own nobody knows.
    pub fn is_open(&self) -> bool {
        !self.is_piped || self.pipe.get().is_some_and(LinkClient::is_connected)
    }
}
