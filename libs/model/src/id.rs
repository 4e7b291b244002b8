//! 64-bit ids `[time:42][shard:10][sequence:12]` (DESIGN section 3) and the generator that makes them.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::hash::StableHash;

/// 2024-01-01T00:00:00Z, in milliseconds since 1970: where the time in an id begins.
pub const EPOCH_MS: u64 = 1_704_067_200_000;

/// An object's id: positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(i64);

impl ObjectId {
    /// `None` unless positive.
    pub const fn new(id: i64) -> Option<Self> {
        if id > 0 { Some(Self(id)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A logical shard's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How the 64 bits of an id are split, and how many logical shards there are. Fixed when a cluster is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdLayout {
    time_bits: u8,
    shard_bits: u8,
    sequence_bits: u8,
    shards: u32,
}

/// What an id says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdParts {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The logical shard that the object lives on.
    pub shard: ShardId,
    /// Tells apart the ids of one millisecond and shard.
    pub sequence: u64,
}

impl IdLayout {
    /// 42 bits of time, 10 of shard (1,024 shards), 12 of sequence.
    pub const STANDARD: Self = Self { time_bits: 42, shard_bits: 10, sequence_bits: 12, shards: 1024 };

    /// A layout; the three fields fill 64 bits, and `shards` is at most what `shard_bits` can number.
    pub fn new(time_bits: u8, shard_bits: u8, sequence_bits: u8, shards: u32) -> Result<Self, String> {
        if u32::from(time_bits) + u32::from(shard_bits) + u32::from(sequence_bits) != 64 {
            return Err(format!("the bits of an id add up to 64, not {time_bits} + {shard_bits} + {sequence_bits}"));
        }
        if !(38..=46).contains(&time_bits) {
            return Err(format!("time takes 38 to 46 bits of an id, not {time_bits}"));
        }
        if sequence_bits < 4 || shard_bits == 0 {
            return Err("an id has at least 1 bit of shard and 4 of sequence".to_owned());
        }
        if shards == 0 || u64::from(shards) > 1 << shard_bits {
            return Err(format!("{shard_bits} shard bits number 1 to {} shards, not {shards}", 1u64 << shard_bits));
        }
        Ok(Self { time_bits, shard_bits, sequence_bits, shards })
    }

    /// Bits of time, shard and sequence.
    pub const fn bits(&self) -> (u8, u8, u8) {
        (self.time_bits, self.shard_bits, self.sequence_bits)
    }

    /// How many logical shards there are, numbered from 0.
    pub const fn shards(&self) -> u32 {
        self.shards
    }

    /// Ids a millisecond and shard.
    pub const fn sequences(&self) -> u64 {
        1 << self.sequence_bits
    }

    /// The shard of an id, whether or not the cluster has it.
    pub const fn shard(&self, id: ObjectId) -> ShardId {
        ShardId(((id.0 as u64 >> self.sequence_bits) & ((1 << self.shard_bits) - 1)) as u32)
    }

    /// Takes an id apart.
    pub const fn decode(&self, id: ObjectId) -> IdParts {
        let raw = id.0 as u64;
        IdParts {
            time_ms: (raw >> (self.shard_bits + self.sequence_bits)) + EPOCH_MS,
            shard: self.shard(id),
            sequence: raw & (self.sequences() - 1),
        }
    }

    /// Puts an id together; `None` when a part doesn't fit its bits, or when the id would not be positive.
    pub fn encode(&self, parts: IdParts) -> Option<ObjectId> {
        let ms = parts.time_ms.checked_sub(EPOCH_MS)?;
        if ms >> (self.time_bits - 1) != 0 || parts.shard.0 >= self.shards || parts.sequence >= self.sequences() {
            return None;
        }
        let raw = (ms << (self.shard_bits + self.sequence_bits))
            | (u64::from(parts.shard.0) << self.sequence_bits)
            | parts.sequence;
        ObjectId::new(raw as i64)
    }

    /// Evenly spread shard of a key; a key keeps its shard for ever.
    pub fn shard_of_key(&self, key: &str) -> ShardId {
        let hash = StableHash::of(key.as_bytes());
        let mixed = hash ^ (hash >> 32);
        ShardId((mixed % u64::from(self.shards)) as u32)
    }

    /// The shard of an id that a caller gave, if the cluster has that shard.
    pub fn checked_shard(&self, id: ObjectId) -> Result<ShardId, String> {
        let shard = self.shard(id);
        if shard.0 < self.shards {
            Ok(shard)
        } else {
            Err(format!("{id} is of shard {shard}, and the cluster has shards 0 to {}", self.shards - 1))
        }
    }
}

/// Makes the ids of one shard: ascending, never twice, even when the clock steps back. It waits rather than wraps when a
/// millisecond's sequence is spent.
#[derive(Debug, Clone)]
pub struct IdGenerator {
    layout: IdLayout,
    shard: ShardId,
    /// The millisecond that ids are being made in, since 1970; runs ahead of a clock that stepped back.
    millisecond: u64,
    /// The next sequence within it.
    sequence: u64,
}

/// Why a generator has no id now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoId {
    /// The millisecond is spent: ask again after this time.
    Wait(Duration),
    /// The layout's time is used up.
    EndOfTime,
}

impl IdGenerator {
    /// A generator whose first id is of millisecond `from_ms` (since 1970) or later: pass what an earlier generator may have
    /// reached.
    pub fn new(layout: IdLayout, shard: ShardId, from_ms: u64) -> Self {
        Self { layout, shard, millisecond: from_ms.max(EPOCH_MS + 1), sequence: 0 }
    }

    /// The next id, given the clock's reading.
    pub fn next(&mut self, now_ms: u64) -> Result<ObjectId, NoId> {
        if now_ms > self.millisecond {
            self.millisecond = now_ms;
            self.sequence = 0;
        }
        if self.sequence >= self.layout.sequences() {
            return Err(NoId::Wait(Duration::from_millis(1)));
        }
        let parts = IdParts { time_ms: self.millisecond, shard: self.shard, sequence: self.sequence };
        let id = self.layout.encode(parts).ok_or(NoId::EndOfTime)?;
        self.sequence += 1;
        Ok(id)
    }

    /// After waiting as long as [`NoId::Wait`] said: goes on in the next millisecond even when the clock is behind it, so that
    /// a clock that stepped back an hour costs no hour.
    pub fn waited(&mut self) {
        if self.sequence >= self.layout.sequences() {
            self.millisecond += 1;
            self.sequence = 0;
        }
    }

    /// The millisecond that the next id is of, at the earliest.
    pub fn millisecond(&self) -> u64 {
        self.millisecond
    }

    /// Whether this generator, or one before it that it was started after, may have made the id.
    pub fn may_have_made(&self, id: ObjectId) -> bool {
        let parts = self.layout.decode(id);
        (parts.time_ms, parts.sequence) < (self.millisecond, self.sequence)
    }
}

impl From<NoId> for Error {
    fn from(no: NoId) -> Self {
        match no {
            NoId::Wait(time) => {
                Self::Overloaded { what: "ids of this millisecond are spent".to_owned(), retry_after: time }
            }
            NoId::EndOfTime => Self::Internal { what: "the id layout's time is used up".to_owned() },
        }
    }
}
