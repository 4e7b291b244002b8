//! Clients that come from addresses of their own: on loopback, each is another peer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tao_client::{Client, ClientOptions};
use tao_rpc::{BoxIo, Connect, TcpConnect};
use tokio::net::TcpSocket;

use super::caller::Sessions;
use crate::overload::DEADLINE;

struct From(IpAddr);

impl Connect for From {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        TcpConnect.resolve(host, port)
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        let from = SocketAddr::new(self.0, 0);
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            let stream = socket.connect(peer).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        }
        .boxed()
    }
}

/// Sessions of a client a connection, whose calls end at the deadline of an overload.
pub fn sessions(address: &str, from: &[Option<IpAddr>]) -> Result<Sessions> {
    let client = |from: &Option<IpAddr>| {
        let connect: Arc<dyn Connect> = match from {
            Some(from) => Arc::new(From(*from)),
            None => Arc::new(TcpConnect),
        };
        let options = ClientOptions { generate_keys: false, deadline: DEADLINE, connect, ..Default::default() };
        Client::connect(address, options)
    };
    Ok(Sessions::new(from.iter().map(client).collect::<Result<_, _>>()?))
}
