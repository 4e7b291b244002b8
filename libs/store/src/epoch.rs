//! What this process knows to be committed, and when a new epoch is due: committed history was undone (COHERENCE, "Positions").

use parking_lot::Mutex;
use tao_model::Position;

/// The newest commit that is known to have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Its last change.
    pub last: Position,
    /// Its row in the log: the LSN of its first change, and when it was committed. `None`: the row was not read.
    pub row: Option<(u64, u64)>,
}

/// The newest mark.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Mark>);

impl Seen {
    /// Takes a commit in that surely happened; older ones change nothing.
    pub fn commit(&self, mark: Mark) {
        let mut newest = self.0.lock();
        if mark.last > newest.last {
            *newest = mark;
        }
    }

    pub fn mark(&self) -> Mark {
        *self.0.lock()
    }
}

/// Why an epoch may have to begin. Looked at again while the log's end is held, so that several who find the same thing begin one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewEpoch {
    /// This was seen, and the log ends before it.
    Beyond(Position),
    /// The history of this epoch is not the one that was seen.
    Differs(u64),
    /// An operator says so.
    Told,
}

impl NewEpoch {
    /// Whether the log, as it is now, is still one that needs a new epoch.
    pub fn is_due(self, head: Position) -> bool {
        match self {
            Self::Beyond(seen) => head < seen,
            Self::Differs(epoch) => head.epoch == epoch,
            Self::Told => true,
        }
    }

    /// Epochs never repeat, and the database alone cannot tell which there have been.
    pub fn next(self, head: Position, now_ms: u64) -> u64 {
        let above = match self {
            Self::Beyond(seen) => seen.epoch + 1,
            Self::Differs(_) | Self::Told => 0,
        };
        above.max(head.epoch + 1).max(now_ms / 1_000)
    }
}

/// Ids of a history that was undone may be this far ahead of the clock, in milliseconds: new ones begin above them.
pub(crate) const IDS_AHEAD_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_above_all_that_were_seen() {
        let head = Position::new(10, 5);
        assert_eq!(NewEpoch::Told.next(head, 3_000), 11);
        assert_eq!(NewEpoch::Told.next(head, 99_000), 99);
        assert_eq!(NewEpoch::Beyond(Position::new(200, 1)).next(head, 99_000), 201);
    }

    #[test]
    fn what_was_mended_meanwhile_needs_no_other_epoch() {
        let (seen, lost) = (Position::new(10, 9), Position::new(10, 5));
        assert!(NewEpoch::Beyond(seen).is_due(lost) && !NewEpoch::Beyond(seen).is_due(Position::new(11, 5)));
        assert!(NewEpoch::Differs(10).is_due(seen) && !NewEpoch::Differs(10).is_due(Position::new(11, 5)));
        let known = Seen::default();
        known.commit(Mark { last: seen, row: None });
        known.commit(Mark { last: lost, row: None });
        assert_eq!(known.mark().last, seen, "the newest stays");
    }
}
