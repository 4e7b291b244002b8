//! The newest stretch of a log, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tao_model::{Position, Result};
use tao_proto::internal;
use tokio::sync::watch;

use crate::piece::{MAX_PIECE, Piece};

/// Changes that do not follow what the ring has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gap: the log is known up to {end}, and the next change follows {previous}")]
pub struct Gap {
    /// Up to where the ring has everything.
    pub end: Position,
    /// What the changes follow.
    pub previous: Position,
}

/// Recent changes of one log, gapless, bounded in bytes. Whoever reads slowly holds nothing up and costs no memory: it reads the
/// rest from history. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts what happens, to wake cursors.
    changed: watch::Sender<u64>,
    max_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct State {
    /// What a stream that began now would start with; `None` before the first start, and after a stop.
    pub start: Option<internal::Start>,
    /// Counts starts and stops: cursors of an older generation are over.
    pub generation: u64,
    pub pieces: VecDeque<Arc<Piece>>,
    bytes: usize,
    pub end: Position,
    pub stamp: Stamp,
    next_cursor: u64,
    cursors: BTreeMap<u64, Position>,
}

/// The newest heartbeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Everything up to here was committed before `time_ms`, and nothing else was.
    pub head: Position,
    pub time_ms: u64,
}

impl Ring {
    /// Of at most so many bytes, about; it serves nobody until it is started.
    pub fn new(max_bytes: usize) -> Self {
        let state = State {
            start: None,
            generation: 0,
            pieces: VecDeque::new(),
            bytes: 0,
            end: Position::ZERO,
            stamp: Stamp::default(),
            next_cursor: 0,
            cursors: BTreeMap::new(),
        };
        let (changed, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed, max_bytes }) }
    }

    /// Begins (again) at `start.position`: what was there is forgotten, and every stream ends.
    pub fn start(&self, start: internal::Start) {
        self.restart(Some(start));
    }

    /// Ends every stream, and serves nobody until the next start.
    pub fn stop(&self) {
        self.restart(None);
    }

    fn restart(&self, start: Option<internal::Start>) {
        let mut state = self.shared.state.lock();
        state.end = start.as_ref().and_then(|s| s.position).map(Position::from).unwrap_or_default();
        state.start = start;
        state.generation += 1;
        state.pieces.clear();
        state.bytes = 0;
        state.stamp = Stamp::default();
        self.wake(state);
    }

    /// Up to where the ring has everything; `None` while it is stopped.
    pub fn end(&self) -> Option<Position> {
        let state = self.shared.state.lock();
        state.start.as_ref().map(|_| state.end)
    }

    /// Adds changes that follow the ring's end. Those that it has are passed over; an error, and nothing is added, when there would
    /// be a gap.
    pub fn push(&self, piece: Piece) -> Result<(), Gap> {
        let mut state = self.shared.state.lock();
        let end = state.end;
        if piece.last <= end {
            return Ok(());
        }
        if state.start.is_none() || piece.previous > end || piece.last.epoch != end.epoch {
            return Err(Gap { end, previous: piece.previous });
        }
        let piece = if piece.previous < end {
            let changes = piece.after(end).to_vec();
            Piece { previous: end, bytes: piece.bytes, last: piece.last, changes }
        } else {
            piece
        };
        for piece in piece.split(MAX_PIECE) {
            state.bytes += piece.bytes;
            state.end = piece.last;
            state.pieces.push_back(Arc::new(piece));
        }
        while state.bytes > self.shared.max_bytes
            && let Some(oldest) = state.pieces.pop_front()
        {
            state.bytes -= oldest.bytes;
        }
        self.wake(state);
        Ok(())
    }

    /// Whoever made this knows that everything up to `head` was committed before `time_ms`, and nothing after it was. Streams pass
    /// it on once they have sent that much. `time_ms` is milliseconds since 1970, by the storage shard's clock.
    pub fn heartbeat(&self, head: Position, time_ms: u64) {
        let mut state = self.shared.state.lock();
        if head > state.end || head.epoch != state.end.epoch || time_ms <= state.stamp.time_ms {
            return;
        }
        state.stamp = Stamp { head, time_ms };
        self.wake(state);
    }

    /// The position of the slowest stream.
    pub fn slowest(&self) -> Option<Position> {
        self.shared.state.lock().cursors.values().min().copied()
    }

    fn wake(&self, state: parking_lot::MutexGuard<'_, State>) {
        drop(state);
        self.shared.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state.lock())
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    pub(crate) fn register(&self, position: Position) -> Registration {
        let mut state = self.shared.state.lock();
        state.next_cursor += 1;
        let id = state.next_cursor;
        state.cursors.insert(id, position);
        Registration { ring: self.clone(), id }
    }
}

/// A stream's entry among those that [`Ring::slowest`] looks at, until dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    ring: Ring,
    id: u64,
}

impl Registration {
    pub(crate) fn reached(&self, position: Position) {
        self.ring.shared.state.lock().cursors.insert(self.id, position);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ring.shared.state.lock().cursors.remove(&self.id);
    }
}

impl State {
    /// The first piece that reaches beyond a position; `None` when the ring does not reach back to it, or has nothing after it.
    pub(crate) fn piece_after(&self, position: Position) -> Option<&Arc<Piece>> {
        let piece = self.pieces.get(self.pieces.partition_point(|piece| piece.last <= position))?;
        (piece.previous <= position).then_some(piece)
    }

    /// Whether changes right after a position may be missing here.
    pub(crate) fn is_behind(&self, position: Position) -> bool {
        position < self.pieces.front().map_or(self.end, |oldest| oldest.previous)
    }
}
