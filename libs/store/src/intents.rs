//! What a write leaves to do in other logs: rows that are committed with it and deleted when it is done there.

use tao_model::{Position, ShardId, ShardSet, Step};

/// An intent to be stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntentRow {
    /// The log's epoch, and how many intents it has made with this one.
    pub position: Position,
    pub shard: ShardId,
    pub created_ms: u64,
    pub payload: Vec<u8>,
}

/// Intents that are done: those to these shards, up to a place.
#[derive(Debug, Clone)]
pub(crate) struct Delivered {
    pub shards: ShardSet,
    pub up_to: Position,
}

impl Delivered {
    /// As SQL takes them.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shards.iter().collect()
    }
}

/// What one write leaves to do, by shard.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Without steps: nothing of its own, but what was left before matters to it.
    pub shards: Vec<(ShardId, Vec<Step>)>,
    /// Whether it is all of the write.
    pub whole: bool,
}

impl Left {
    /// The write has to do with this shard of another log.
    pub fn touch(&mut self, shard: ShardId) -> &mut Vec<Step> {
        let place = match self.shards.iter().position(|(at, _)| *at == shard) {
            Some(place) => place,
            None => {
                self.shards.push((shard, Vec::new()));
                self.shards.len() - 1
            }
        };
        &mut self.shards[place].1
    }

    /// Something is to be done there.
    pub fn step(&mut self, shard: ShardId, step: Step) {
        self.touch(shard).push(step);
    }
}
