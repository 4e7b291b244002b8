//! The state of a stream, read on every hit as one value by readers that write nothing.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tao_model::Position;

/// How often a reader looks again before it waits for whoever writes.
const SPINS: u32 = 64;

/// The state of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stream {
    pub applied: Position,
    /// Counts resets: an entry of an older generation is as good as dropped.
    pub generation: u64,
    /// The newest heartbeat's stamp, in milliseconds since 1970; 0 when there is none.
    pub heartbeat_ms: u64,
    /// Whether a stream keeps the entries right. Changes only under all stripes' locks.
    pub connected: bool,
}

impl Stream {
    /// Whether everything up to `position` has been applied, in the one history that its epoch has.
    pub fn reaches(&self, position: Position) -> bool {
        position.epoch == self.applied.epoch && position <= self.applied
    }
}

/// A version that is odd while the words are written, and the words. A line of its own: nothing else makes readers fetch it again.
pub(crate) struct StreamCell {
    state: CachePadded<(AtomicU64, [AtomicU64; 5])>,
    writing: Mutex<()>,
}

impl StreamCell {
    pub fn new() -> Self {
        Self { state: CachePadded::default(), writing: Mutex::new(()) }
    }

    /// All that was done before the state was stored is seen by whoever loaded it.
    pub fn load(&self) -> Stream {
        let (version, _) = &*self.state;
        for _ in 0..SPINS {
            let before = version.load(Ordering::Acquire);
            let stream = self.read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && version.load(Ordering::Relaxed) == before {
                return stream;
            }
            spin_loop();
        }
        // The writer was interrupted.
        let _writing = self.writing.lock();
        self.read()
    }

    /// Stores what `next` makes of the state, and returns the state before it. Nothing is stored for `None`: that is an error.
    pub fn update(&self, next: impl FnOnce(Stream) -> Option<Stream>) -> Result<Stream, Stream> {
        let _writing = self.writing.lock();
        let before = self.read();
        let Some(next) = next(before) else { return Err(before) };
        let (version, words) = &*self.state;
        let was = version.load(Ordering::Relaxed);
        version.store(was + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let values =
            [next.applied.epoch, next.applied.lsn, next.generation, next.heartbeat_ms, u64::from(next.connected)];
        words.iter().zip(values).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        version.store(was + 2, Ordering::Release);
        Ok(before)
    }

    pub fn store(&self, stream: Stream) {
        // Always something.
        let _ = self.update(|_| Some(stream));
    }

    fn read(&self) -> Stream {
        let (_, words) = &*self.state;
        let [epoch, lsn, generation, heartbeat_ms, connected] =
            words.each_ref().map(|word| word.load(Ordering::Relaxed));
        let applied = Position { epoch, lsn };
        Stream { applied, generation, heartbeat_ms, connected: connected != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const WRITES: u64 = 200_000;

    #[test]
    fn readers_never_see_halves_or_go_back() {
        let cell = StreamCell::new();
        let of = |n: u64| Stream {
            applied: Position::new(n, 2 * n),
            generation: 3 * n,
            heartbeat_ms: 4 * n,
            connected: !n.is_multiple_of(2),
        };
        cell.store(of(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < WRITES {
                        let seen = cell.load();
                        assert!(seen == of(seen.applied.epoch) && seen.applied.epoch >= last);
                        last = seen.applied.epoch;
                    }
                });
            }
            for n in 1..=WRITES {
                assert!(cell.update(|before| (before == of(n - 1)).then(|| of(n))).is_ok());
            }
        });
        assert_eq!(cell.load(), of(WRITES));
        assert_eq!(cell.update(|_| None), Err(of(WRITES)));
    }
}
