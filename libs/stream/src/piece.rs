//! A stretch of a log.

use tao_model::{Position, Result};
use tao_proto::internal;

/// Changes in one message and in one piece, in bytes, unless a single change is larger.
pub(crate) const MAX_PIECE: usize = 512 * 1024;
/// What a change takes in memory and in a message beside its content.
const OVERHEAD: usize = 96;

/// Consecutive changes: a commit, or a part of one that is large.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The position before the first of them.
    pub previous: Position,
    /// The position of the last.
    pub last: Position,
    /// About how large they are.
    pub bytes: usize,
    /// At least one.
    pub changes: Vec<internal::Change>,
}

impl Piece {
    /// Takes a message over. An error unless its changes are consecutive, after its `previous`.
    pub fn new(message: internal::Changes) -> Result<Self> {
        let broken = || tao_model::Error::Internal { what: "changes that do not follow each other".to_owned() };
        let previous = Position::from(message.previous.unwrap_or_default());
        let mut last = previous;
        for change in &message.changes {
            let position = change.position.map(Position::from).unwrap_or_default();
            if position != last.plus(1) {
                return Err(broken());
            }
            last = position;
        }
        if last == previous {
            return Err(broken());
        }
        let bytes = message.changes.iter().map(size).sum();
        Ok(Self { previous, last, bytes, changes: message.changes })
    }

    /// Cuts what is larger than `max` bytes, unless it is a single change.
    pub(crate) fn split(self, max: usize) -> Vec<Self> {
        if self.bytes <= max {
            return vec![self];
        }
        let mut pieces: Vec<Self> = Vec::new();
        let mut previous = self.previous;
        for change in self.changes {
            let (bytes, last) = (size(&change), previous.plus(1));
            match pieces.last_mut() {
                Some(piece) if piece.bytes + bytes <= max => {
                    piece.changes.push(change);
                    piece.bytes += bytes;
                    piece.last = last;
                }
                _ => pieces.push(Self { previous, last, bytes, changes: vec![change] }),
            }
            previous = last;
        }
        pieces
    }

    /// Those changes that lie after a position within the piece.
    pub(crate) fn after(&self, position: Position) -> &[internal::Change] {
        let seen = position.lsn.saturating_sub(self.previous.lsn) as usize;
        &self.changes[seen.min(self.changes.len())..]
    }
}

/// Consecutive pieces, of which the first may begin before `after`, as a page of what comes after it: in pieces that fit into
/// messages, and no more than `max` bytes of them, but at least one.
pub fn page(pieces: Vec<Piece>, after: Position, max: usize) -> Vec<Piece> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for piece in pieces.into_iter().filter(|piece| piece.last > after) {
        let piece = if piece.previous < after {
            let changes = piece.after(after).to_vec();
            Piece { previous: after, last: piece.last, bytes: changes.iter().map(size).sum(), changes }
        } else {
            piece
        };
        for piece in piece.split(MAX_PIECE) {
            bytes += piece.bytes;
            if bytes > max && !page.is_empty() {
                return page;
            }
            page.push(piece);
        }
    }
    page
}

impl From<Piece> for internal::Changes {
    fn from(piece: Piece) -> Self {
        Self { previous: Some(piece.previous.into()), changes: piece.changes }
    }
}

/// About how many bytes a change takes.
fn size(change: &internal::Change) -> usize {
    use internal::change::Key;
    let content = match &change.key {
        Some(Key::Object(object)) => object.object.as_ref().map_or(0, bytes_len),
        Some(Key::List(list)) => list.edge.as_ref().map_or(0, bytes_len),
        None => 0,
    };
    content + OVERHEAD
}

fn bytes_len(bytes: &impl AsRef<[u8]>) -> usize {
    bytes.as_ref().len()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn message(from: u64, changes: u64, bytes: usize) -> internal::Changes {
        let at = |lsn| Some(internal::Position { epoch: 1, lsn });
        let change = |lsn| {
            let object = Some(vec![0; bytes].into());
            let key = internal::change::Key::Object(internal::ObjectChange { id: 1, object });
            internal::Change { position: at(lsn), shard: 0, key: Some(key) }
        };
        internal::Changes { previous: at(from), changes: (from + 1..=from + changes).map(change).collect() }
    }

    #[test]
    fn only_consecutive_changes_are_a_piece() {
        assert_eq!(Piece::new(message(3, 2, 0)).unwrap().last, Position::new(1, 5));
        assert!(Piece::new(message(3, 0, 0)).is_err());
        let mut torn = message(3, 3, 0);
        torn.changes.remove(1);
        assert!(Piece::new(torn).is_err());
    }

    #[test]
    fn a_commit_of_any_size_is_read_in_pages() {
        let commit = || vec![Piece::new(message(0, 40, 60_000)).unwrap(), Piece::new(message(40, 3, 10)).unwrap()];
        let (mut reached, mut pages) = (Position::new(1, 2), 0);
        while reached < Position::new(1, 43) {
            let page = page(commit(), reached, 1024 * 1024);
            assert!(page.iter().all(|piece| piece.bytes <= MAX_PIECE + 60_096));
            for piece in page {
                assert_eq!(piece.previous, reached);
                reached = piece.last;
            }
            pages += 1;
        }
        assert_eq!((reached, pages), (Position::new(1, 43), 3));
        assert!(super::page(commit(), reached, 1024).is_empty());
    }

    #[test]
    fn large_pieces_are_cut_and_stay_consecutive() {
        let pieces = Piece::new(message(0, 10, 100)).unwrap().split(500);
        assert_eq!(pieces.iter().map(|p| p.changes.len()).collect::<Vec<_>>(), [2, 2, 2, 2, 2]);
        for (a, b) in pieces.iter().zip(&pieces[1..]) {
            assert_eq!(a.last, b.previous);
        }
        assert_eq!(pieces[0].after(Position::new(1, 1)).len(), 1);
        assert_eq!(Piece::new(message(0, 2, 5_000)).unwrap().split(10).len(), 2);
    }
}
