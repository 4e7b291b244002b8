//! The change stream of one log on its way down the tiers (DESIGN section 7): a ring of recent changes in memory, cursors that
//! read it, and the history that they read where the ring does not reach. Storage shards and leaders serve their streams from it.

mod cursor;
mod piece;
mod ring;

pub use cursor::{History, Origin, subscribe};
pub use piece::{Piece, page};
pub use ring::{Gap, Ring};
