//! A thread's connections to a gRPC server.

use std::cell::Cell;

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
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * 4);
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
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
