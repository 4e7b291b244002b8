//! A TCP proxy that fails as networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::free_port;

const CHUNK: usize = 64 * 1024;

/// How a [`Proxy`] treats connections, those that are open and new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Bytes are passed on at once.
    Pass,
    /// Each piece is held back for a random time up to this.
    Delay(Duration),
    /// What comes back is late: by a time of its own, up to this, on every other connection, and not at all on the rest. What two
    /// connections carry at the same time arrives in either order.
    Uneven(Duration),
    /// Connections are accepted and stay open, and nothing is passed on, either way. What was sent meanwhile arrives when the network
    /// passes again, as after a partition.
    BlackHole,
    /// As a black hole, but only for what comes back: requests arrive, and answers don't.
    HalfOpen,
    /// Open connections are reset, and so is each new one.
    Reset,
}

impl Network {
    fn stalls(self, way: Way) -> bool {
        match self {
            Self::BlackHole => true,
            Self::HalfOpen => way == Way::Back,
            Self::Pass | Self::Delay(_) | Self::Uneven(_) | Self::Reset => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// A proxy on a free port of 127.0.0.1 before a server on another. It runs on a thread of its own; dropped, it resets everything.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    connections: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Before `target`, which need not listen yet. Random times come from `seed`.
    pub fn start(target: SocketAddr, seed: u64) -> Result<Self> {
        let port = free_port()?;
        let (network, watched) = watch::channel(Network::Pass);
        let connections = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, started) = mpsc::channel();
        let count = connections.clone();
        let thread = std::thread::Builder::new().name(format!("proxy-{port}")).spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
                let listener = match listener {
                    Ok(listener) => {
                        let _ = ready.send(Ok(()));
                        listener
                    }
                    Err(error) => return drop(ready.send(Err(error))),
                };
                serve(&listener, target, seed, watched, &count).await;
            });
        })?;
        started.recv().context("the proxy's thread ended")?.context("the proxy can't listen")?;
        Ok(Self { port, network, connections, thread: Some(thread) })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// From now on, the network is like this.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The thread ends when nobody can change the network any more.
        self.network = watch::channel(Network::Reset).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: &TcpListener,
    target: SocketAddr,
    seed: u64,
    mut network: watch::Receiver<Network>,
    connections: &AtomicU64,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            gone = network.changed() => match gone {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        // A connection that ended before it was accepted is none.
        let Ok((client, _)) = accepted else { continue };
        let number = connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(client, target, SmallRng::seed_from_u64(seed ^ number), network.clone()));
    }
}

/// Serves one connection until either end closes it or the network resets it.
async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut random: SmallRng,
    mut network: watch::Receiver<Network>,
) {
    let passes = |network: &Network| *network != Network::BlackHole;
    if network.wait_for(passes).await.is_err() || *network.borrow() == Network::Reset {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    // Closing is a reset from now on; an orderly end is a shutdown before it.
    reset(&client);
    reset(&server);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = pump(Way::There, from_client, to_server, SmallRng::from_rng(&mut random), network.clone());
    let back = pump(Way::Back, from_server, to_client, random, network.clone());
    // An end passes on by itself; a reset of one side is one of the other.
    let both = async { tokio::try_join!(there, back) };
    tokio::select! {
        _ = both => {}
        _ = network.wait_for(|n| *n == Network::Reset) => {}
    }
}

/// Makes the closing of a connection a reset.
fn reset(stream: &TcpStream) {
    // One that is gone already needs none.
    let _ = stream.set_zero_linger();
}

async fn pump(
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut random: SmallRng,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let own = if way == Way::Back && random.random() { random.random() } else { 0.0 };
    loop {
        let read = from.read(&mut buffer).await?;
        // What has come is held back, the end of the stream too.
        let now = *network.wait_for(|n| !n.stalls(way)).await.map_err(io::Error::other)?;
        let late = match now {
            Network::Delay(longest) => longest.mul_f64(random.random()),
            Network::Uneven(longest) => longest.mul_f64(own),
            Network::Pass | Network::BlackHole | Network::HalfOpen | Network::Reset => Duration::ZERO,
        };
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
