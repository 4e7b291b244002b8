//! The log as one gapless sequence for subscribers, whoever commits: this process's commits as they happen, those of others as the
//! database is asked for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::{Gauge, gauge};
use tao_model::{Change, Clock, ClusterInfo, Error, Position, Result};
use tao_proto::{convert, internal};
use tao_stream::{Piece, Ring};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, Fault, LogRow};
use crate::epoch::{Mark, NewEpoch, Seen};

/// How often the database is asked for the log's end, and heartbeats are made: well below the 500 ms that listeners may count on.
const ASK: Duration = Duration::from_millis(200);
/// The same while others were lately found to write.
const ASK_OFTEN: Duration = Duration::from_millis(20);
const LATELY: Duration = Duration::from_secs(1);
/// The least time between two questions.
const PAUSE: Duration = Duration::from_millis(3);
/// Bytes of the log that are read at once.
const READ: usize = 1024 * 1024;

/// What the lane and the follower of the log share.
pub(crate) struct Feed {
    pub ring: Ring,
    pub seen: Arc<Seen>,
    info: ClusterInfo,
    wake: Notify,
    closed: AtomicBool,
    /// Where the log ends, as far as this process knows.
    end: Gauge,
}

impl Feed {
    pub fn new(ring: Ring, seen: Arc<Seen>, info: ClusterInfo, head: Position) -> Self {
        let end = gauge!("tao_store_log_lsn", "log" => info.log.0.to_string());
        let feed = Self { ring, seen, info, wake: Notify::new(), closed: AtomicBool::new(false), end };
        feed.start(head);
        feed
    }

    pub fn info(&self) -> ClusterInfo {
        self.info
    }

    /// Hands on a commit of this process; before its writers are answered.
    pub fn committed(&self, row: &LogRow, previous: Position, changes: &[Change]) {
        self.end.set(row.last.lsn as f64);
        self.seen.commit(mark(row));
        let changes = internal::Changes {
            previous: Some(previous.into()),
            changes: changes.iter().map(internal::Change::from).collect(),
        };
        if !Piece::new(changes).is_ok_and(|piece| self.ring.push(piece).is_ok()) {
            self.ask();
        }
    }

    /// The log is not where this process left it, or may not be: the database is asked soon.
    pub fn ask(&self) {
        self.wake.notify_one();
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.ring.stop();
        self.wake.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The log goes on in the epoch of its present end; streams of another end.
    pub fn enter(&self, head: Position) {
        if self.ring.end().is_some_and(|end| end.epoch < head.epoch) {
            tracing::info!(%head, "the log goes on in a new epoch");
            self.begin_anew(head);
        }
    }

    fn begin_anew(&self, head: Position) {
        self.seen.commit(Mark { last: head, row: None });
        self.start(head);
        if self.is_closed() {
            self.ring.stop();
        }
    }

    /// Streams end, and those that begin now begin here.
    fn start(&self, head: Position) {
        let (time_bits, shard_bits, sequence_bits) = self.info.layout.bits();
        self.ring.start(internal::Start {
            position: Some(head.into()),
            cluster: Bytes::copy_from_slice(&self.info.cluster.0),
            log: self.info.log.0,
            time_bits: u32::from(time_bits),
            shard_bits: u32::from(shard_bits),
            sequence_bits: u32::from(sequence_bits),
            shards: self.info.layout.shards(),
        });
    }
}

fn mark(row: &LogRow) -> Mark {
    Mark { last: row.last, row: Some((row.first.lsn, row.committed_ms)) }
}

/// A row's changes.
pub(crate) fn piece(row: &LogRow) -> Result<Piece> {
    let previous = Position::new(row.first.epoch, row.first.lsn - 1);
    let piece = Piece::new(internal::Changes {
        previous: Some(previous.into()),
        changes: convert::decode_log_raw(row.payload.clone())?,
    })?;
    if piece.last == row.last { Ok(piece) } else { Err(torn()) }
}

fn torn() -> Error {
    Error::Internal { what: "the log has a row that does not hold what it says".to_owned() }
}

/// Follows the database's log.
pub(crate) struct Follow {
    pub feed: Arc<Feed>,
    pub backend: Arc<dyn Backend>,
    pub clock: Arc<dyn Clock>,
}

impl Follow {
    /// Runs until the feed is closed.
    pub async fn run(self) {
        // When others were last found to write.
        let mut others: Option<Instant> = None;
        while !self.feed.is_closed() {
            match self.ask().await {
                Ok(true) => others = Some(Instant::now()),
                Ok(false) => {}
                // No heartbeat: streams stay open, and their listeners' freshness ends by itself.
                Err(fault) => tracing::debug!(?fault, "the log can't be followed"),
            }
            sleep(PAUSE).await;
            let often = others.is_some_and(|at| at.elapsed() < LATELY);
            let _ = timeout(if often { ASK_OFTEN } else { ASK }, self.feed.wake.notified()).await;
        }
    }

    /// Brings the ring to the log's end and vouches for it; says whether others have written.
    async fn ask(&self) -> Result<bool, Fault> {
        let Feed { ring, seen, .. } = &*self.feed;
        // Before the question: what is committed after the answer is not claimed.
        let time_ms = self.clock.now_ms();
        let mut others = false;
        loop {
            let Some(end) = ring.end() else { return Ok(false) };
            let known = seen.mark().last;
            let found = self.backend.log_after(end, READ).await?;
            self.feed.end.set(found.head.lsn as f64);
            if found.head < known || found.head < end {
                self.undone(NewEpoch::Beyond(known.max(end))).await?;
                continue;
            }
            if found.head.epoch != end.epoch {
                self.feed.enter(found.head);
                continue;
            }
            for row in &found.rows {
                let end = ring.end().unwrap_or(end);
                if row.last <= end {
                    continue;
                }
                if row.first.lsn <= end.lsn {
                    // Commits lie otherwise than they did.
                    self.undone(NewEpoch::Differs(end.epoch)).await?;
                    break;
                }
                let piece = piece(row).map_err(|error| {
                    tracing::error!(%error, row = %row.first, "the log can't be read");
                    Fault::Refused
                })?;
                if ring.push(piece).is_err() {
                    break;
                }
                seen.commit(mark(row));
                others = true;
            }
            match ring.end() {
                None => return Ok(false),
                Some(end) if end >= found.head => {
                    ring.heartbeat(found.head, time_ms);
                    return Ok(others);
                }
                Some(now) if now > end => {}
                Some(end) => {
                    tracing::warn!(%end, head = %found.head, "the log is not kept that far back: streams begin anew");
                    self.feed.begin_anew(found.head);
                }
            }
        }
    }

    async fn undone(&self, why: NewEpoch) -> Result<(), Fault> {
        let head = self.backend.begin_epoch(why).await?;
        self.feed.enter(head);
        Ok(())
    }
}
