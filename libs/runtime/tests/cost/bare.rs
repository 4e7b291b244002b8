//! The least that a server can be: connections by turns on the workers, hyper's loop, the service.

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tao_runtime::{Listener as _, TcpAcceptor};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tower::Service as _;

use crate::echo::Echo;

pub async fn serve(mut listener: TcpAcceptor, workers: Vec<Handle>) -> std::io::Result<()> {
    for worker in workers.iter().cycle() {
        let (connection, _) = listener.accept().await?;
        worker.spawn(async move {
            let io = TokioIo::new(TcpStream::from_std(connection).unwrap());
            let service = hyper::service::service_fn(|request| Echo.call(request));
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
        });
    }
    Ok(())
}
