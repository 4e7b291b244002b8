//! Does in other logs what writes of this one have left to do there: one task for each other log sends its intents, oldest first,
//! and deletes them when they are done. Several processes of one database may do so at the same time: each sends all that is left,
//! in order, and the receiver remembers how far it is. A write waits a little for its own, so that its answer covers both logs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use tao_model::{
    Change, Clock, Error, ItemOutcome, LogId, Pending, Position, Result, ShardId, ShardSet, WriteOutcome, WriteResult,
};
use tao_proto::{convert, internal};
use tao_rpc::{AddressError, CallContext, LinkOptions, Op, ReplyBody, TierGroup};
use tao_store::{Store, StoredIntent};
use tao_topology::Topology;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};

/// How long a write waits for what it has left to do elsewhere.
const WAIT: Duration = Duration::from_millis(300);
/// How long before its caller's deadline it stops to wait.
const MARGIN: Duration = Duration::from_millis(20);
/// How often the database is asked for intents of other processes.
const POLL: Duration = Duration::from_secs(1);
/// Intents in one message.
const MAX_INTENTS: usize = 256;
/// About how many bytes of them.
const MAX_BYTES: usize = 1024 * 1024;
/// For one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts while a log can't be reached, at first and at the most.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// Outcomes that are kept for the writes that wait for them.
const MAX_RECENT: usize = 4_096;

/// Everything that this log leaves to others. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    log: LogId,
    store: Arc<dyn Store>,
    topology: Arc<Topology>,
    /// By place in the topology; none for this log itself.
    targets: Arc<[Option<Target>]>,
}

/// Another log.
struct Target {
    log: LogId,
    shards: ShardSet,
    /// One of those, for calls.
    shard: ShardId,
    servers: TierGroup,
    progress: watch::Sender<Progress>,
    recent: Mutex<VecDeque<(Position, Done)>>,
    /// The last intent that was sent and is done, to be deleted with all before it.
    sent: watch::Sender<Position>,
}

/// How far a log is with what is left to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    /// It has done everything up to here.
    done: Position,
    /// It could not be reached the last time.
    is_down: bool,
}

/// What became of one intent.
#[derive(Debug, Clone, Default)]
struct Done {
    result: WriteResult,
    changes: Vec<Change>,
    /// What it has left to do in turn.
    pending: Vec<Pending>,
}

/// Sent, and answered.
struct Round {
    /// Everything up to here is done.
    done: Position,
    /// Whether more may be left.
    more: bool,
}

impl Dispatcher {
    /// For the intents of this store; begins to connect to the others' servers.
    pub fn new(store: Arc<dyn Store>, topology: Arc<Topology>, link: &LinkOptions) -> Result<Self, AddressError> {
        let log = store.info().log;
        let target = |(n, place): (usize, &tao_topology::LogPlace)| {
            let Some(shards) = place.shards.clone().filter(|_| place.id != log) else { return Ok(None) };
            Ok(Some(Target {
                log: place.id,
                shards,
                shard: topology.some_shard(n),
                servers: TierGroup::new(&place.servers, link)?,
                progress: watch::Sender::default(),
                recent: Mutex::default(),
                sent: watch::Sender::default(),
            }))
        };
        let targets = topology.logs().iter().enumerate().map(target).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { log, store, topology, targets: targets.into() })
    }

    /// Runs until the tasks are dropped; there are none where there is one log.
    pub fn start(&self, clock: Arc<dyn Clock>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for place in 0..self.targets.len() {
            if self.targets[place].is_some() {
                let (sends, deletes) = (self.clone(), self.clone());
                tasks.spawn(async move { sends.keep_sending(place).await });
                tasks.spawn(async move { deletes.keep_deleting(place).await });
            }
        }
        // Shown before there are any, and also where there never are.
        counter!("tao_shard_intents_delivered_total").increment(0);
        counter!("tao_shard_intent_failures_total").increment(0);
        gauge!("tao_shard_intents").set(0.0);
        gauge!("tao_shard_intents_oldest_seconds").set(0.0);
        if !tasks.is_empty() {
            let store = self.store.clone();
            tasks.spawn(measure(store, clock));
        }
        tasks
    }

    async fn keep_sending(&self, place: usize) {
        let Some(target) = &self.targets[place] else { return };
        let mut made = self.store.intents_made();
        let mut poll = interval(POLL);
        let (mut done, mut pause) = (Position::ZERO, RETRY);
        loop {
            // Whatever is made from here on wakes the task up again.
            made.mark_unchanged();
            match target.round(&*self.store, self.log, done).await {
                Ok(round) => {
                    (done, pause) = (round.done, RETRY);
                    target.progress.send_if_modified(|progress| {
                        let new = Progress { done, is_down: false };
                        std::mem::replace(progress, new) != new
                    });
                    if round.more {
                        continue;
                    }
                }
                Err(error) => {
                    target.progress.send_modify(|progress| progress.is_down = true);
                    counter!("tao_shard_intent_failures_total").increment(1);
                    if error.is_retryable() {
                        tracing::warn!(log = target.log.0, %error, "can't do in another log what is left to it");
                    } else {
                        tracing::error!(log = target.log.0, %error, "another log refuses what is left to it");
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                    continue;
                }
            }
            tokio::select! {
                changed = made.changed() => {
                    if changed.is_err() {
                        // The store is closed.
                        return;
                    }
                }
                _ = poll.tick() => {}
            }
        }
    }

    async fn keep_deleting(&self, place: usize) {
        let Some(target) = &self.targets[place] else { return };
        let mut sent = target.sent.subscribe();
        // Something may have been sent already.
        sent.mark_changed();
        while sent.changed().await.is_ok() {
            loop {
                let up_to = *sent.borrow_and_update();
                if up_to == Position::ZERO {
                    break;
                }
                match self.store.delivered(&target.shards, up_to).await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "can't delete intents that are done"),
                }
                sleep(POLL).await;
            }
        }
    }

    /// Waits a little until what a write has left to do is done, and adds what it has changed there. What is not done in time, or
    /// not known to be, stays pending.
    pub async fn settle(&self, outcome: &mut WriteOutcome, deadline: Instant) {
        if outcome.pending.is_empty() {
            return;
        }
        // Some time is left to answer in: the write is done.
        let until = (deadline - MARGIN).min(Instant::now() + WAIT);
        let WriteOutcome { result, changes, position, pending, .. } = outcome;
        *pending = self.settle_all(pending, result, changes, position, until).await;
        for item in &mut outcome.items {
            let ItemOutcome { result, pending, .. } = item;
            *pending = self.settle_all(pending, result, &mut Vec::new(), &mut outcome.position, until).await;
        }
    }

    /// What is left of these. The result is the other log's, where that has all of the write; the position is raised to where this
    /// log has done what came back to it.
    async fn settle_all(
        &self,
        pending: &[Pending],
        result: &mut WriteResult,
        changes: &mut Vec<Change>,
        position: &mut Position,
        until: Instant,
    ) -> Vec<Pending> {
        let mut left = Vec::new();
        for pending in pending {
            let place = self.topology.place_of(pending.shard);
            let Some(target) = &self.targets[place] else {
                left.push(*pending);
                continue;
            };
            match target.wait(pending.position, until).await {
                Waited::Done(done) => {
                    changes.extend(done.changes);
                    if pending.whole {
                        *result = WriteResult { edge: result.edge.take(), ..done.result };
                    }
                    for next in done.pending {
                        if self.came_back(target.log, &next, until).await {
                            // Later in this log than the write itself: its caller must see that, too.
                            match self.store.head().await {
                                Ok(head) => *position = (*position).max(head),
                                Err(_) => left.push(next),
                            }
                        } else {
                            left.push(next);
                        }
                    }
                }
                // Nothing more can come of it.
                Waited::Unknown if !pending.more => {}
                Waited::Unknown | Waited::Late => left.push(*pending),
            }
        }
        left
    }

    /// Whether this log has done what another has left to it in turn.
    async fn came_back(&self, from: LogId, pending: &Pending, until: Instant) -> bool {
        if self.topology.log_of(pending.shard) != self.log {
            return false;
        }
        let mut done = self.store.intents_done();
        let has_done = |done: &HashMap<LogId, Position>| done.get(&from).is_some_and(|at| *at >= pending.position);
        timeout_at(until, done.wait_for(has_done)).await.is_ok_and(|done| done.is_ok())
    }
}

/// What a write that waits finds.
enum Waited {
    Done(Done),
    /// It is done, by somebody else or long ago.
    Unknown,
    Late,
}

impl Target {
    /// Sends what is left after `done`.
    async fn round(&self, store: &dyn Store, source: LogId, done: Position) -> Result<Round> {
        let page = store.intents(&self.shards, done, MAX_INTENTS).await?;
        let (mut bytes, found) = (0, page.intents.len());
        let fitting = page.intents.iter().take_while(|intent| {
            let fits = bytes == 0 || bytes + intent.payload.len() <= MAX_BYTES;
            bytes += intent.payload.len();
            fits
        });
        let sending = &page.intents[..fitting.count()];
        let Some(last) = sending.last().map(|intent| intent.position) else {
            // All that was made until now for this log is done.
            return Ok(Round { done: page.head.max(done), more: false });
        };
        self.send(source, sending).await?;
        self.sent.send_replace(last);
        let more = sending.len() < found || found == MAX_INTENTS;
        Ok(Round { done: if more { last } else { page.head.max(last) }, more })
    }

    async fn send(&self, source: LogId, intents: &[StoredIntent]) -> Result<()> {
        let stored = |intent: &StoredIntent| internal::StoredIntent {
            position: Some(intent.position.into()),
            payload: intent.payload.clone(),
        };
        let message = internal::Intents { source: source.0, intents: intents.iter().map(stored).collect() };
        let write = internal::Write { kind: Some(internal::write::Kind::Intents(message)) };
        let mut context = CallContext::within(PATIENCE);
        context.shard = self.shard;
        // As leaders do: to one server, as long as it lives. Its commits are the larger, and if the other log leaves something to this
        // one in turn, it comes to where the write waits.
        let reply = self.servers.call(u64::from(self.log.0), &context, Op::Write(write)).await?;
        let unreadable =
            || Error::Internal { what: "a storage shard answered with a reply of another kind".to_owned() };
        let ReplyBody::Written(written) = reply.body else { return Err(unreadable()) };
        let WriteOutcome { changes, items, .. } = convert::outcome(written, reply.as_of)?;
        if items.len() != intents.len() {
            return Err(unreadable());
        }
        counter!("tao_shard_intents_delivered_total").increment(intents.len() as u64);
        let mut changes = changes.into_iter();
        let mut recent = self.recent.lock();
        for (intent, item) in intents.iter().zip(items) {
            let ItemOutcome { result, changes: own, pending, skipped } = item;
            let changes: Vec<_> = changes.by_ref().take(own).collect();
            // Of what came before it is not known any more what it did.
            if !skipped {
                recent.push_back((intent.position, Done { result, changes, pending }));
            }
        }
        let too_many = recent.len().saturating_sub(MAX_RECENT);
        recent.drain(..too_many);
        Ok(())
    }

    async fn wait(&self, position: Position, until: Instant) -> Waited {
        let mut progress = self.progress.subscribe();
        // Nobody waits for a log that can't be reached.
        let came = timeout_at(until, progress.wait_for(|p| p.done >= position || p.is_down)).await;
        let is_done = matches!(came, Ok(Ok(progress)) if progress.done >= position);
        if !is_done {
            return Waited::Late;
        }
        let recent = self.recent.lock();
        match recent.binary_search_by(|(at, _)| at.cmp(&position)) {
            Ok(found) => Waited::Done(recent[found].1.clone()),
            Err(_) => Waited::Unknown,
        }
    }
}

/// Tells how much is left to do.
async fn measure(store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
    let (count, oldest) = (gauge!("tao_shard_intents"), gauge!("tao_shard_intents_oldest_seconds"));
    let mut tick = interval(POLL);
    loop {
        tick.tick().await;
        match store.intents_waiting().await {
            Ok(waiting) => {
                count.set(waiting.count as f64);
                let age = waiting.oldest_ms.map_or(0, |made| clock.now_ms().saturating_sub(made));
                oldest.set(age as f64 / 1_000.0);
            }
            Err(error) => tracing::warn!(%error, "can't tell how many intents wait"),
        }
    }
}
