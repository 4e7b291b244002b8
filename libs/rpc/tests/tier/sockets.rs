//! TCP_NODELAY, without which an answer can wait 40 ms: on both sides, as the sockets themselves say.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tao_rpc::{BoxIo, Connect, Drain, LinkOptions, ServerLimits, TcpConnect, TierClient, tier_server};
use tao_runtime::{Listener, ServeOptions, Shutdown, TcpAcceptor, TcpIo, Workers, serve};
use tokio::sync::mpsc;
use tonic::service::Routes;

use crate::support::*;

/// Reports what each accepted socket says, after it was given to the runtime that drives it.
struct Watched(TcpAcceptor, mpsc::UnboundedSender<bool>);

impl Listener for Watched {
    type Conn = (<TcpAcceptor as Listener>::Conn, mpsc::UnboundedSender<bool>);
    type Io = TcpIo;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        Ok((self.0.accept().await?, self.1.clone()))
    }

    async fn attach((conn, report): Self::Conn) -> io::Result<TcpIo> {
        let stream = TcpAcceptor::attach(conn).await?;
        let _ = report.send(stream.tcp().nodelay()?);
        Ok(stream)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Reports what each connected socket says.
struct WatchedConnect(mpsc::UnboundedSender<bool>);

impl Connect for WatchedConnect {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        TcpConnect.resolve(host, port)
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        let report = self.0.clone();
        Box::pin(async move {
            let stream = TcpConnect::stream(peer).await?;
            let _ = report.send(stream.nodelay()?);
            Ok(Box::new(stream) as BoxIo)
        })
    }
}

#[tokio::test]
async fn both_sides_send_at_once() {
    let (report, mut reports) = mpsc::unbounded_channel();
    let listener = Watched(TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), report.clone());
    let address = listener.local_addr().unwrap().to_string();
    let routes = Routes::new(tier_server(Handler::echo(), ServerLimits::default(), Drain::new()));
    let (_trigger, shutdown) = Shutdown::new();
    tokio::spawn(async move {
        let workers = Workers::new("sockets", std::num::NonZeroUsize::new(1)).unwrap();
        serve(listener, &workers, routes, ServeOptions::default(), shutdown).await
    });
    let options = LinkOptions { connect: Arc::new(WatchedConnect(report)), ..LinkOptions::default() };
    let client = TierClient::new(&address, options).unwrap();
    assert_eq!(ids_in(client.call(&soon(), read(5)).await.unwrap()), [5]);
    assert_eq!((reports.recv().await, reports.recv().await), (Some(true), Some(true)));
}
