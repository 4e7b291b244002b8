//! What all sessions of a run share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::check::{Process, SessionHistory, Shape, Time};
use crate::cluster::{Cluster, Lives};
use crate::load::Keys;

/// A client of the public API.
pub(crate) type Graph = GraphServiceClient<Channel>;

/// Connections to each follower, shared by all sessions.
const CONNECTIONS: usize = 2;

/// How the load is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// Sessions at a time.
    pub sessions: u32,
    /// How long a call may take.
    pub deadline: Duration,
    /// A session waits up to this between two calls.
    pub pause: Duration,
    /// The share of calls that write.
    pub writes: f64,
}

impl Default for Options {
    fn default() -> Self {
        let (deadline, pause) = (Duration::from_secs(2), Duration::from_millis(8));
        Self { seed: 0, sessions: 48, deadline, pause, writes: 0.35 }
    }
}

/// For people who wait.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that were answered.
    pub done: AtomicU64,
    /// Calls that were not.
    pub failed: AtomicU64,
}

/// What all sessions of a run share.
pub struct Context {
    /// How the load is made.
    pub options: Options,
    /// Where keys live.
    pub shape: Shape,
    /// What they read and write.
    pub keys: Keys,
    /// For people who wait.
    pub counters: Counters,
    followers: Vec<Vec<Graph>>,
    lives: Lives,
    began: Instant,
    next_w: AtomicU64,
    next_session: AtomicU32,
    stopped: AtomicBool,
    finished: Mutex<Vec<SessionHistory>>,
}

impl Context {
    /// For a cluster; connections are made when they are needed, on the runtime that this is called on.
    pub fn new(cluster: &Cluster, options: Options) -> Result<Arc<Self>> {
        let connect = |address: &SocketAddr| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .tcp_nodelay(true)
                .connect_timeout(Duration::from_secs(1));
            Ok((0..CONNECTIONS).map(|_| Graph::new(endpoint.connect_lazy())).collect())
        };
        Ok(Arc::new(Self {
            options,
            shape: cluster.shape(),
            keys: Keys::default(),
            counters: Counters::default(),
            followers: cluster.followers().iter().map(connect).collect::<Result<_>>()?,
            lives: cluster.lives(),
            began: Instant::now(),
            next_w: AtomicU64::new(1),
            next_session: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            finished: Mutex::default(),
        }))
    }

    /// By the run's clock.
    pub fn now(&self) -> Time {
        self.began.elapsed().as_micros() as Time
    }

    /// How many followers there are.
    pub fn follower_count(&self) -> usize {
        self.followers.len()
    }

    /// A client of a follower.
    pub(crate) fn graph(&self, follower: usize, session: u32) -> Graph {
        let clients = &self.followers[follower];
        clients[session as usize % clients.len()].clone()
    }

    /// The life of a follower now.
    pub(crate) fn life(&self, follower: usize) -> u16 {
        self.lives.of(follower)
    }

    /// Which process served a call that began in this life; none for certain, when it has changed since.
    pub(crate) fn process(&self, follower: usize, life: u16) -> Process {
        if life != 0 && self.life(follower) == life {
            Process { follower: follower as u8, life }
        } else {
            Process::UNKNOWN
        }
    }

    pub(crate) fn take_w(&self) -> u64 {
        self.next_w.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn take_session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Sessions end after the call that they are at.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether sessions are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(crate) fn finish(&self, session: SessionHistory) {
        self.finished.lock().push(session);
    }

    /// What all sessions that have ended did.
    pub fn take_histories(&self) -> Vec<SessionHistory> {
        std::mem::take(&mut self.finished.lock())
    }
}
