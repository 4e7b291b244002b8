//! Sessions that write through one follower and read at once through two others: with their token they always see what they wrote;
//! without it, often enough, they don't, which shows that the first figure means something.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use tao_proto::v1;
use tonic::Request;

use crate::cluster::{Cluster, Plan};
use crate::load::{Context, Options};

/// How long a call may take: nothing is broken here.
const DEADLINE: Duration = Duration::from_secs(30);
/// Followers that a session reads from after each write.
const READERS: usize = 2;

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Hops {
    /// Everything random came from it.
    pub seed: u64,
    /// Reads with the writer's token.
    pub with_token: u64,
    /// Those that did not show the write.
    pub stale_with_token: u64,
    /// Reads without.
    pub without_token: u64,
    /// Those that did not show the write.
    pub stale_without_token: u64,
    /// How long both took.
    pub seconds: f64,
}

impl Hops {
    /// For programs: one line.
    pub fn json(&self) -> String {
        json!({
            "seed": self.seed,
            "hops": self.with_token,
            "stale": self.stale_with_token,
            "hops_without_token": self.without_token,
            "stale_without_token": self.stale_without_token,
            "seconds": self.seconds,
        })
        .to_string()
    }
}

/// Does `count` reads with a token and as many without, and counts those that are stale.
pub fn run(plan: &Plan, options: Options, count: u64) -> Result<Hops> {
    let cluster = Cluster::start(plan, options.seed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let (with, without) = runtime.block_on(async {
        let context = Context::new(&cluster, options)?;
        Ok::<_, anyhow::Error>((pass(&context, count, true).await?, pass(&context, count, false).await?))
    })?;
    Ok(Hops {
        seed: options.seed,
        with_token: with.reads.into_inner(),
        stale_with_token: with.stale.into_inner(),
        without_token: without.reads.into_inner(),
        stale_without_token: without.stale.into_inner(),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

#[derive(Debug, Default)]
struct Tally {
    begun: AtomicU64,
    reads: AtomicU64,
    stale: AtomicU64,
}

async fn pass(context: &Arc<Context>, count: u64, token: bool) -> Result<Tally> {
    let tally = Arc::new(Tally::default());
    let sessions: Vec<_> = (0..context.options.sessions)
        .map(|n| tokio::spawn(session(context.clone(), tally.clone(), n, count, token)))
        .collect();
    for session in sessions {
        session.await.context("a session panicked")??;
    }
    Arc::into_inner(tally).context("a session goes on")
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Writes ever higher numbers into an object of its own.
async fn session(context: Arc<Context>, tally: Arc<Tally>, number: u32, count: u64, with_token: bool) -> Result<()> {
    let followers = context.follower_count();
    let add = v1::ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    let added = context.graph(0, number).object_add(request(add)).await?.into_inner();
    let (id, mut token) = (added.object.context("no object")?.id, added.session_token);
    let mut n = 0;
    while tally.begun.fetch_add(READERS as u64, Ordering::Relaxed) < count {
        n += 1;
        let writer = n as usize % followers;
        let value = v1::Value { kind: Some(v1::value::Kind::Int64Value(n)) };
        let options = Some(v1::WriteOptions { session_token: token, ..Default::default() });
        let update = v1::ObjectUpdateRequest {
            id,
            set: [("n".to_owned(), value.clone())].into(),
            options,
            ..Default::default()
        };
        token = context.graph(writer, number).object_update(request(update)).await?.into_inner().session_token;
        for step in 1..=READERS {
            let reader = (writer + step) % followers;
            let session_token = if with_token { token.clone() } else { String::new() };
            let options = Some(v1::ReadOptions { session_token, ..Default::default() });
            let get = request(v1::ObjectGetRequest { id, options });
            // An object that a cache still takes for absent is stale, too.
            let shown = match context.graph(reader, number).object_get(get).await {
                Ok(answer) => answer.into_inner().object.is_some_and(|o| o.data.get("n") == Some(&value)),
                Err(status) if status.code() == tonic::Code::NotFound => false,
                Err(status) => return Err(status.into()),
            };
            tally.reads.fetch_add(1, Ordering::Relaxed);
            tally.stale.fetch_add(u64::from(!shown), Ordering::Relaxed);
        }
    }
    Ok(())
}
