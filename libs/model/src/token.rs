//! Session tokens (COHERENCE rule 10): what a session has seen, as a floor for what it reads next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bytes_reader::{Reader, push_varint};
use crate::error::{Error, Result};
use crate::graph::{ClusterId, LogId};
use crate::id::ShardId;
use crate::limits::MAX_TOKEN;
use crate::position::Position;

const VERSION: u8 = 2;
/// Shards that are kept by themselves; beyond that they are folded into their logs. Few, since a token travels with every call and
/// every answer: a floor that is too high costs a trip at worst, and only at a follower that is behind.
const MAX_SHARDS: usize = 8;

/// What a session has seen, by log, and by shard where a shard was seen beyond that. Opaque text to its users.
///
/// Each log's shards are kept with it: whoever merges tokens, or folds one that has grown too large, need not know which log a
/// shard lives in. (What was seen of a shard in a log that it has left says nothing any more; see COHERENCE rule 12.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    cluster: ClusterId,
    map_version: u64,
    /// In order of their numbers.
    logs: Vec<Seen>,
}

/// What a session has seen of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    log: LogId,
    /// Of all of its shards: their floor.
    base: Position,
    /// Of single shards, beyond that; in order of their numbers.
    shards: Vec<(ShardId, Position)>,
    /// The lowest position that anything of this log was seen at, of the newest epoch.
    lowest: Option<Position>,
}

impl Seen {
    const fn new(log: LogId) -> Self {
        Self { log, base: Position::ZERO, shards: Vec::new(), lowest: None }
    }

    fn raise(&mut self, base: Position) {
        if base > self.base {
            self.base = base;
            self.shards.retain(|(_, position)| *position > base);
        }
    }

    fn see(&mut self, shard: ShardId, position: Position) {
        if position <= self.base {
            return;
        }
        match self.shards.binary_search_by_key(&shard, |(shard, _)| *shard) {
            Ok(place) => self.shards[place].1 = position.max(self.shards[place].1),
            Err(place) => self.shards.insert(place, (shard, position)),
        }
    }

    fn lower(&mut self, position: Position) {
        let is_lower = |low: Position| position.epoch > low.epoch || position.epoch == low.epoch && position < low;
        if position != Position::ZERO && self.lowest.is_none_or(is_lower) {
            self.lowest = Some(position);
        }
    }

    fn fold(&mut self) {
        if let Some(newest) = self.shards.iter().map(|(_, position)| *position).max() {
            self.raise(newest);
        }
    }
}

impl Token {
    /// A session that has seen nothing.
    pub const fn new(cluster: ClusterId) -> Self {
        Self { cluster, map_version: 0, logs: Vec::new() }
    }

    /// Whether nothing has been seen.
    pub const fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    fn log(&self, log: LogId) -> Option<&Seen> {
        self.logs.iter().find(|seen| seen.log == log)
    }

    fn log_mut(&mut self, log: LogId) -> &mut Seen {
        let place = self.logs.partition_point(|seen| seen.log < log);
        if self.logs.get(place).is_none_or(|seen| seen.log != log) {
            self.logs.insert(place, Seen::new(log));
        }
        &mut self.logs[place]
    }

    /// The position that reads of `shard`, which lives in `log`, must not fall behind.
    pub fn floor(&self, shard: ShardId, log: LogId) -> Position {
        let Some(seen) = self.log(log) else { return Position::ZERO };
        let own = seen.shards.iter().find(|(number, _)| *number == shard);
        own.map_or(Position::ZERO, |(_, position)| *position).max(seen.base)
    }

    /// What it says of all shards of `log`: it rises when shards are folded, and then hides what was seen of each.
    pub fn base(&self, log: LogId) -> Position {
        self.log(log).map_or(Position::ZERO, |seen| seen.base)
    }

    /// Remembers that the session has seen `shard` at `position`; `log_of` tells where shards live.
    pub fn see(&mut self, shard: ShardId, position: Position, log_of: impl Fn(ShardId) -> LogId) {
        let seen = self.log_mut(log_of(shard));
        seen.see(shard, position);
        seen.lower(position);
        self.bound();
    }

    /// Remembers that the session has seen something in `log` where everything up to `position` was known: it need not see any of
    /// the log's shards as they were before.
    pub fn see_at(&mut self, log: LogId, position: Position) {
        let seen = self.log_mut(log);
        seen.raise(position);
        seen.lower(position);
    }

    /// Remembers that the session has been told of everything in `log` up to `position`.
    pub fn see_log(&mut self, log: LogId, position: Position) {
        let seen = self.log_mut(log);
        seen.raise(position);
        seen.lowest = seen.lowest.max(Some(position));
    }

    /// Where a stream of the log's changes goes on that is to miss nothing of what the session has not seen: at the lowest position
    /// that it saw anything of the log at. `None` when it has seen nothing of the log.
    pub fn resume_point(&self, log: LogId) -> Option<Position> {
        self.log(log)?.lowest
    }

    /// Merges what another token of the same session has seen.
    pub fn merge(&mut self, other: &Self) {
        self.join(other, Seen::lower);
    }

    /// Merges the token of a stream that has told the session of everything up to there.
    pub fn merge_told(&mut self, other: &Self) {
        self.join(other, |seen, lowest| seen.lowest = seen.lowest.max(Some(lowest)));
    }

    fn join(&mut self, other: &Self, lowest: impl Fn(&mut Seen, Position)) {
        self.map_version = self.map_version.max(other.map_version);
        for theirs in &other.logs {
            let seen = self.log_mut(theirs.log);
            seen.raise(theirs.base);
            theirs.shards.iter().for_each(|(shard, position)| seen.see(*shard, *position));
            theirs.lowest.into_iter().for_each(|position| lowest(seen, position));
        }
        self.bound();
    }

    /// Folds shards into their logs when there are too many.
    fn bound(&mut self) {
        if self.logs.iter().map(|seen| seen.shards.len()).sum::<usize>() > MAX_SHARDS {
            self.logs.iter_mut().for_each(Seen::fold);
        }
    }

    /// The cluster that made it.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// As text that metadata can carry.
    pub fn encode(&self) -> String {
        let shards: usize = self.logs.iter().map(|seen| seen.shards.len()).sum();
        let mut out = Vec::with_capacity(24 + self.logs.len() * 24 + shards * 12);
        out.push(VERSION);
        out.extend(self.cluster.0);
        push_varint(&mut out, self.map_version);
        push_varint(&mut out, self.logs.len() as u64);
        let put = |out: &mut Vec<u8>, position: Position| {
            push_varint(out, position.epoch);
            push_varint(out, position.lsn);
        };
        for seen in &self.logs {
            push_varint(&mut out, u64::from(seen.log.0));
            put(&mut out, seen.base);
            put(&mut out, seen.lowest.unwrap_or_default());
            push_varint(&mut out, seen.shards.len() as u64);
            for (shard, position) in &seen.shards {
                push_varint(&mut out, u64::from(shard.0));
                put(&mut out, *position);
            }
        }
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Reads a token that a caller gave, which must be of this cluster.
    pub fn decode(text: &str, cluster: ClusterId) -> Result<Self> {
        let token = Self::parse(text)?;
        if token.cluster == cluster { Ok(token) } else { Err(Error::TokenOtherCluster) }
    }

    /// Reads a token of any cluster, or several of one, joined by commas.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_TOKEN {
            return Err(malformed(&format!("{} bytes are more than {MAX_TOKEN}", text.len())));
        }
        let mut parts = text.split(',');
        let mut token = Self::parse_one(parts.next().unwrap_or_default())?;
        for part in parts {
            token.merge(&Self::decode(part, token.cluster)?);
        }
        Ok(token)
    }

    fn parse_one(text: &str) -> Result<Self> {
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("not a token"))?;
        let mut reader = Reader(&raw);
        match reader.u8() {
            Some(VERSION) => {}
            Some(v) => return Err(malformed(&format!("of version {v}, and this server reads version {VERSION}"))),
            None => return Err(malformed("empty")),
        }
        Self::read(&mut reader).filter(|_| reader.is_empty()).ok_or_else(|| malformed("not a token"))
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let number = |reader: &mut Reader<'_>| u32::try_from(reader.varint()?).ok();
        let position = |reader: &mut Reader<'_>| Some(Position::new(reader.varint()?, reader.varint()?));
        let mut token = Self::new(ClusterId(reader.bytes16()?));
        token.map_version = reader.varint()?;
        for _ in 0..reader.varint()? {
            let log = LogId(number(reader)?);
            if token.logs.last().is_some_and(|last| last.log >= log) {
                return None;
            }
            let (base, lowest) = (position(reader)?, position(reader)?);
            let lowest = (lowest != Position::ZERO).then_some(lowest);
            let mut seen = Seen { base, lowest, ..Seen::new(log) };
            for _ in 0..reader.varint()? {
                let shard = ShardId(number(reader)?);
                if seen.shards.last().is_some_and(|(last, _)| *last >= shard) || seen.shards.len() >= MAX_SHARDS {
                    return None;
                }
                seen.shards.push((shard, position(reader)?));
            }
            token.logs.push(seen);
        }
        Some(token)
    }
}

fn malformed(why: &str) -> Error {
    Error::invalid("session_token", format!("{why}: pass a token as an answer gave it, or none"))
}
