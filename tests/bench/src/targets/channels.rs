//! A thread's connections to a gRPC server.

use std::cell::Cell;
use std::net::IpAddr;

use anyhow::Result;
use tonic::transport::{Channel, Endpoint};

const STREAM_WINDOW: u32 = 1024 * 1024;

/// Connections that take turns.
pub struct Channels {
    channels: Vec<Channel>,
    turn: Cell<usize>,
}

impl Channels {
    /// Connects so many times to HOST:PORT.
    pub async fn connect(address: &str, connections: usize) -> Result<Self> {
        Self::connect_from(address, &vec![None; connections.max(1)]).await
    }

    /// Connects from each of these addresses, or from any.
    pub async fn connect_from(address: &str, from: &[Option<IpAddr>]) -> Result<Self> {
        let mut channels = Vec::with_capacity(from.len());
        for from in from {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .local_address(*from)
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(STREAM_WINDOW * 4);
            channels.push(endpoint.connect().await?);
        }
        Ok(Self { channels, turn: Cell::new(0) })
    }

    /// The next in turn.
    pub fn next(&self) -> Channel {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.channels[turn % self.channels.len()].clone()
    }
}
