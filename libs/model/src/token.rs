//! Session tokens (COHERENCE rule 10): what a session has seen, as a floor for what it reads next.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bytes_reader::Reader;
use crate::error::{Error, Result};
use crate::graph::{ClusterId, LogId};
use crate::id::ShardId;
use crate::limits::MAX_TOKEN;
use crate::position::Position;

const VERSION: u8 = 1;
/// Metadata is often limited to 8 KiB: beyond this many entries, shards are folded into their logs.
const MAX_ENTRIES: usize = 256;

/// What a session has seen, by shard, or by log where shards were folded. Opaque text to its users.
///
/// Each log's shards are kept with it: whoever merges tokens, or folds one that has grown too large, need not know which log a
/// shard lives in. (What was seen of a shard in a log that it has left says nothing any more; see COHERENCE rule 12.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    cluster: ClusterId,
    map_version: u64,
    logs: BTreeMap<LogId, Seen>,
}

/// What a session has seen of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Of all of its shards.
    log: Position,
    /// Of single shards, beyond that.
    shards: BTreeMap<ShardId, Position>,
}

impl Seen {
    fn raise(&mut self, log: Position) {
        if log > self.log {
            self.log = log;
            self.shards.retain(|_, position| *position > log);
        }
    }

    fn see(&mut self, shard: ShardId, position: Position) {
        if position > self.log {
            let entry = self.shards.entry(shard).or_default();
            *entry = position.max(*entry);
        }
    }

    fn fold(&mut self) {
        if let Some(newest) = self.shards.values().max().copied() {
            self.raise(newest);
        }
    }
}

impl Token {
    /// A session that has seen nothing.
    pub const fn new(cluster: ClusterId) -> Self {
        Self { cluster, map_version: 0, logs: BTreeMap::new() }
    }

    /// The position that reads of `shard`, which lives in `log`, must not fall behind.
    pub fn floor(&self, shard: ShardId, log: LogId) -> Position {
        let seen = self.logs.get(&log);
        seen.map_or(Position::ZERO, |seen| seen.shards.get(&shard).copied().unwrap_or_default().max(seen.log))
    }

    /// Remembers that the session has seen `shard` at `position`; `log_of` tells where shards live.
    pub fn see(&mut self, shard: ShardId, position: Position, log_of: impl Fn(ShardId) -> LogId) {
        self.logs.entry(log_of(shard)).or_default().see(shard, position);
        self.bound();
    }

    /// Remembers that the session has seen everything in `log` up to `position`.
    pub fn see_log(&mut self, log: LogId, position: Position) {
        self.logs.entry(log).or_default().raise(position);
        self.bound();
    }

    /// Where a stream of the log's changes goes on that is to miss nothing of what the session has not seen: at the log's own
    /// position, else at the smallest of its shards'. `None` when the session has seen nothing of the log.
    pub fn resume_point(&self, log: LogId) -> Option<Position> {
        let seen = self.logs.get(&log)?;
        if seen.log == Position::ZERO { seen.shards.values().min().copied() } else { Some(seen.log) }
    }

    /// Merges what another token of the same session has seen.
    pub fn merge(&mut self, other: &Self) {
        self.map_version = self.map_version.max(other.map_version);
        for (log, others) in &other.logs {
            let seen = self.logs.entry(*log).or_default();
            seen.raise(others.log);
            others.shards.iter().for_each(|(shard, position)| seen.see(*shard, *position));
        }
        self.bound();
    }

    /// Folds shards into their logs when there are too many: a floor that is too high costs a trip, one that is too low a promise.
    fn bound(&mut self) {
        if self.logs.values().map(|seen| 1 + seen.shards.len()).sum::<usize>() > MAX_ENTRIES {
            self.logs.values_mut().for_each(Seen::fold);
        }
    }

    /// The cluster that made it.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// As text that metadata can carry.
    pub fn encode(&self) -> String {
        let shards: usize = self.logs.values().map(|seen| seen.shards.len()).sum();
        let mut out = Vec::with_capacity(27 + self.logs.len() * 22 + shards * 20);
        out.push(VERSION);
        out.extend(self.cluster.0);
        out.extend(self.map_version.to_be_bytes());
        out.extend((self.logs.len() as u16).to_be_bytes());
        let put = |number: u32, position: &Position, out: &mut Vec<u8>| {
            out.extend(number.to_be_bytes());
            out.extend(position.epoch.to_be_bytes());
            out.extend(position.lsn.to_be_bytes());
        };
        for (log, seen) in &self.logs {
            put(log.0, &seen.log, &mut out);
            out.extend((seen.shards.len() as u16).to_be_bytes());
            seen.shards.iter().for_each(|(shard, position)| put(shard.0, position, &mut out));
        }
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Reads a token that a caller gave, which must be of this cluster.
    pub fn decode(text: &str, cluster: ClusterId) -> Result<Self> {
        let token = Self::parse(text)?;
        if token.cluster == cluster { Ok(token) } else { Err(Error::TokenOtherCluster) }
    }

    /// Reads a token of any cluster.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed =
            |why: &str| Error::invalid("session_token", format!("{why}: pass a token as an answer gave it, or none"));
        if text.len() > MAX_TOKEN {
            return Err(malformed(&format!("{} bytes are more than {MAX_TOKEN}", text.len())));
        }
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
        let mut token = Self::new(ClusterId(reader.bytes16()?));
        token.map_version = reader.u64()?;
        for _ in 0..reader.u16()? {
            let log = LogId(reader.u32()?);
            let mut seen = Seen { log: Position::new(reader.u64()?, reader.u64()?), ..Seen::default() };
            for _ in 0..reader.u16()? {
                seen.shards.insert(ShardId(reader.u32()?), Position::new(reader.u64()?, reader.u64()?));
            }
            token.logs.insert(log, seen);
        }
        Some(token)
    }
}
