//! Callers that always wait for an answer, on two threads of their own.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tao_runtime::Workers;
use tonic::client::Grpc;
use tonic::codegen::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

pub struct Load {
    calls: Arc<AtomicU64>,
    callers: Vec<tokio::task::JoinHandle<()>>,
    threads: Workers,
}

impl Load {
    /// Answers so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub async fn stop(self) {
        for caller in self.callers {
            caller.abort();
            let _ = caller.await;
        }
        drop(self.threads);
    }
}

pub async fn start(server: SocketAddr, connections: usize, callers: usize, bytes: usize) -> Load {
    let threads = Workers::new("load", NonZeroUsize::new(2)).unwrap();
    let mut load = Load { calls: Arc::default(), callers: Vec::new(), threads };
    let handles = load.threads.handles();
    for n in 0..connections {
        let handle = &handles[n % handles.len()];
        let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap().tcp_nodelay(true);
        let channel = handle.spawn(async move { endpoint.connect().await }).await.unwrap().unwrap();
        for _ in 0..callers / connections {
            let (mut grpc, calls) = (Grpc::new(channel.clone()), load.calls.clone());
            load.callers.push(handle.spawn(async move {
                loop {
                    grpc.ready().await.unwrap();
                    let path = PathAndQuery::from_static("/cost.Echo/Get");
                    let codec = ProstCodec::<i64, Bytes>::default();
                    let answer = grpc.unary(tonic::Request::new(bytes as i64), path, codec).await.unwrap();
                    assert_eq!(answer.into_inner().len(), bytes);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }
    load
}
