//! A resolver that says what a test wants; connections are TCP's.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tao_client::{BoxIo, Client, ClientOptions, Connect, TcpConnect};
use tokio::sync::watch;
use tokio::time::timeout;

/// Questions by which whatever is to be noticed must have been: a question comes each 20 ms.
const QUESTIONS: u64 = 1_000;
/// Until something is seen that must come; no test waits so long.
pub const BOUND: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub struct Names {
    known: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
    /// How often it was asked.
    asked: Arc<watch::Sender<u64>>,
}

impl Names {
    /// What a host's name stands for from now on.
    pub fn set(&self, host: &str, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.known.lock().insert(host.to_owned(), addresses.into_iter().collect());
    }

    /// A client that asks often.
    pub fn client(&self, names: &str, options: &ClientOptions) -> Client {
        let resolve_every = Duration::from_millis(20);
        let connect = Arc::new(self.clone());
        Client::connect(names, ClientOptions { connect, resolve_every, ..options.clone() }).unwrap()
    }

    /// Looks after each question whether something has come about, which must be soon.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut asked = self.asked.subscribe();
        for _ in 0..QUESTIONS {
            if is_so() {
                return;
            }
            timeout(BOUND, asked.changed()).await.expect("the resolver is asked again and again").unwrap();
        }
        panic!("not {what} after {QUESTIONS} questions to the resolver");
    }
}

impl Connect for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let known = self.known.lock().get(host).cloned();
        self.asked.send_modify(|asked| *asked += 1);
        Box::pin(async move { known.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "nobody has heard of it")) })
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        TcpConnect.connect(peer)
    }
}
