//! Follows a change stream: every event goes through the cache before anybody else hears of it.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tao_model::{ClusterId, ClusterInfo, Error, IdLayout, LogId, Result};
use tao_proto::convert;
use tao_proto::internal::{self, subscribe_response::Event};
use tokio::time::{Instant, timeout_at};

use crate::MemoryCache;

/// A stream that tells nothing of the log for so long is given up: another server may know more. A storage shard that reaches its
/// database makes a heartbeat every 200 ms.
const SILENCE: Duration = Duration::from_secs(5);

/// Who else hears of a stream: a leader's fan-out to its followers.
pub trait Observer: Send + Sync {
    /// The stream began. `resumed`: the cache goes on from where it was, which may be later than the start (COHERENCE rule 14);
    /// otherwise it was reset to the start.
    fn started(&self, start: &internal::Start, resumed: bool);
    /// The cache has applied this event. An error ends the stream.
    fn applied(&self, event: internal::SubscribeResponse) -> Result<()>;
}

/// For a tier that nobody listens to.
impl Observer for () {
    fn started(&self, _: &internal::Start, _: bool) {}
    fn applied(&self, _: internal::SubscribeResponse) -> Result<()> {
        Ok(())
    }
}

/// The cluster that a stream's start tells of.
pub fn cluster_info(start: &internal::Start) -> Result<ClusterInfo> {
    let broken = |why: String| Error::Internal { what: format!("the change stream's start can't be read: {why}") };
    let cluster = <[u8; 16]>::try_from(&start.cluster[..]).map_err(|_| broken("no cluster id".to_owned()))?;
    let bits = |raw: u32| u8::try_from(raw).map_err(|_| broken(format!("{raw} bits")));
    let layout =
        IdLayout::new(bits(start.time_bits)?, bits(start.shard_bits)?, bits(start.sequence_bits)?, start.shards);
    Ok(ClusterInfo { cluster: ClusterId(cluster), log: LogId(start.log), layout: layout.map_err(broken)? })
}

/// Applies a stream to the cache until it breaks; says why it did. The caller subscribes again, best at
/// [`MemoryCache::resume_point`]: a stream that begins where the cache has been resumes, any other resets it (COHERENCE rule 7). `meet` is
/// asked once whether the stream is of the cluster that this tier serves.
pub async fn follow(
    memory: &MemoryCache,
    mut events: impl Stream<Item = Result<internal::SubscribeResponse>> + Unpin,
    observer: &impl Observer,
    meet: impl Fn(ClusterInfo) -> Result<()>,
) -> Error {
    let mut started = false;
    let mut heard = Instant::now();
    let error = loop {
        match step(memory, &mut events, observer, &meet, &mut started, &mut heard).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    if started {
        memory.disconnected();
    }
    error
}

async fn step(
    memory: &MemoryCache,
    events: &mut (impl Stream<Item = Result<internal::SubscribeResponse>> + Unpin),
    observer: &impl Observer,
    meet: &impl Fn(ClusterInfo) -> Result<()>,
    started: &mut bool,
    heard: &mut Instant,
) -> Result<()> {
    let lost = |what: &str| Error::unavailable(format!("change stream: {what}"));
    let message = timeout_at(*heard + SILENCE, events.next())
        .await
        .map_err(|_| lost("silent for too long"))?
        .ok_or_else(|| lost("ended"))??;
    match (&message.event, *started) {
        (Some(Event::Start(start)), false) => {
            meet(cluster_info(start)?)?;
            let position = start.position.unwrap_or_default().into();
            let resumed = memory.resume(position);
            if !resumed {
                memory.start(position);
            }
            observer.started(start, resumed);
            *started = true;
            return Ok(());
        }
        (Some(Event::Changes(changes)), true) => {
            *heard = Instant::now();
            let previous = changes.previous.unwrap_or_default().into();
            let changes = convert::changes(changes.changes.clone())?;
            memory.apply_stream(previous, &changes).map_err(|gap| lost(&gap.to_string()))?;
        }
        (Some(Event::Heartbeat(heartbeat)), true) => {
            let position = heartbeat.position.unwrap_or_default().into();
            memory.heartbeat(position, heartbeat.time_ms).map_err(|gap| lost(&gap.to_string()))?;
            // One without a time says only that its sender lives: it may itself be cut off from the log, and another not.
            if heartbeat.time_ms > 0 {
                *heard = Instant::now();
            }
        }
        (Some(Event::Start(_)), true) => return Err(lost("a second start")),
        (Some(_), false) => return Err(lost("began without a start")),
        (None, _) => return Err(lost("an event that this version doesn't know")),
    }
    observer.applied(message)
}
