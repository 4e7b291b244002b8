//! A server in TLS: who the peer is goes with each request, answers larger than a socket's room arrive, and silent peers harm nobody.

use std::num::NonZeroUsize;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tao_harness::{Authority, TempDir};
use tao_runtime::{Listener as _, PeerIdentity, ServeOptions, Shutdown, TcpAcceptor, Workers, serve};
use tao_tls::{ClientCheck, ClientOptions, ClientTls, KeyPairFiles, ServerOptions, ServerTls};
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Status};

use crate::service::{Service, call};

#[tokio::test]
async fn each_request_says_who_its_peer_is_and_silent_peers_hold_up_nobody() {
    let (folder, authority) = (TempDir::new().unwrap(), Authority::new("test").unwrap());
    let issue = |name: &str| {
        let (cert, key) = authority.issue(&[name]).unwrap().write(folder.path(), name).unwrap();
        KeyPairFiles { cert, key }
    };
    let ca = authority.write(folder.path(), "ca").unwrap();
    let clients = Some(ClientCheck { ca: ca.clone(), names: Vec::new(), is_required: true });
    let tls = ServerTls::load(ServerOptions { identity: issue("server.test"), clients }).unwrap();
    let listener = TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap().secured(Some(tls));
    let address = listener.local_addr().unwrap();
    // What a status may hold in a header, and a good deal more than one TLS record: 40 KiB.
    let service = Service::new(async |request: http::Request<tonic::body::Body>| {
        let identity = request.extensions().get::<Arc<PeerIdentity>>().map(|peer| peer.dns.join(","));
        Status::new(Code::Aborted, format!("{} {}", identity.unwrap_or_default(), "x".repeat(40 * 1024)))
    });
    let (shutdown, begun) = Shutdown::new();
    let serving = tokio::spawn(async move {
        let workers = Workers::new("worker", NonZeroUsize::new(1)).unwrap();
        serve(listener, &workers, Routes::new(service), ServeOptions::default(), begun).await
    });
    // On the one worker, and before the others.
    let silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];

    let tls =
        ClientTls::load(ClientOptions { ca, identity: Some(issue("app.test")), name: Some("server.test".to_owned()) });
    let tls = tls.unwrap();
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tls.connect("", TcpStream::connect(address).await?).await?)) }
    });
    let endpoint = Endpoint::from_static("http://server.test").http2_max_header_list_size(1 << 20);
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    for _ in 0..20 {
        let status = call(&channel).await.unwrap_err();
        let message = status.message();
        assert!(status.code() == Code::Aborted && message.starts_with("app.test xx"), "{status}");
        assert_eq!(message.len(), "app.test ".len() + 40 * 1024);
    }
    drop(channel);
    shutdown.trigger();
    serving.await.unwrap().unwrap();
    drop(silent);
}
