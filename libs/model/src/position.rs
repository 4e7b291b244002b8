//! Positions in a database's log.

use std::fmt;

/// A position in a log; compared as the pair (COHERENCE, "Positions"). The default lies before every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Grows whenever committed history is undone; Unix seconds when the log began.
    pub epoch: u64,
    /// Counts changes, from 1, without gaps.
    pub lsn: u64,
}

impl Position {
    /// Before every change of every log.
    pub const ZERO: Self = Self { epoch: 0, lsn: 0 };

    /// A position.
    pub const fn new(epoch: u64, lsn: u64) -> Self {
        Self { epoch, lsn }
    }

    /// The position `n` changes later in the same epoch.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self { epoch: self.epoch, lsn: self.lsn + n }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.lsn)
    }
}
