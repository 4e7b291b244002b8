//! Connections in TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tao_tls::{ClientTls, FollowsFiles};

use crate::connect::{BoxIo, Connect};

/// Secures the connections that another one makes. The files of its TLS are taken anew for as long as it lives.
pub struct SecureConnect {
    connect: Arc<dyn Connect>,
    tls: ClientTls,
    _following: FollowsFiles,
}

impl SecureConnect {
    /// On a tokio runtime.
    pub fn new(connect: Arc<dyn Connect>, tls: ClientTls) -> Self {
        let following = tls.follow_files();
        Self { connect, tls, _following: following }
    }
}

impl Connect for SecureConnect {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.connect.resolve(host, port)
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.connect_as(&peer.ip().to_string(), peer)
    }

    fn connect_as(&self, host: &str, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (connecting, tls, host) = (self.connect.connect_as(host, peer), self.tls.clone(), host.to_owned());
        async move { Ok(Box::new(tls.connect(&host, connecting.await?).await?) as BoxIo) }.boxed()
    }

    fn is_secure(&self) -> bool {
        true
    }
}
