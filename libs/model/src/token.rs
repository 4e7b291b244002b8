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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    cluster: ClusterId,
    map_version: u64,
    shards: BTreeMap<ShardId, Position>,
    logs: BTreeMap<LogId, Position>,
}

impl Token {
    /// A session that has seen nothing.
    pub const fn new(cluster: ClusterId) -> Self {
        Self { cluster, map_version: 0, shards: BTreeMap::new(), logs: BTreeMap::new() }
    }

    /// The position that reads of `shard`, which lives in `log`, must not fall behind.
    pub fn floor(&self, shard: ShardId, log: LogId) -> Position {
        let by_shard = self.shards.get(&shard).copied().unwrap_or_default();
        by_shard.max(self.logs.get(&log).copied().unwrap_or_default())
    }

    /// Remembers that the session has seen `shard` at `position`; `log_of` tells where shards live, for when the token grows too
    /// large and its shards are folded.
    pub fn see(&mut self, shard: ShardId, position: Position, log_of: impl Fn(ShardId) -> LogId) {
        if self.logs.get(&log_of(shard)).is_some_and(|p| *p >= position) {
            return;
        }
        let entry = self.shards.entry(shard).or_default();
        *entry = position.max(*entry);
        if self.shards.len() + self.logs.len() > MAX_ENTRIES {
            for (shard, position) in std::mem::take(&mut self.shards) {
                let entry = self.logs.entry(log_of(shard)).or_default();
                *entry = position.max(*entry);
            }
        }
    }

    /// Remembers that the session has seen everything in `log` up to `position`.
    pub fn see_log(&mut self, log: LogId, position: Position, log_of: impl Fn(ShardId) -> LogId) {
        let entry = self.logs.entry(log).or_default();
        *entry = position.max(*entry);
        let seen = *entry;
        self.shards.retain(|shard, position| *position > seen || log_of(*shard) != log);
    }

    /// Where a stream of the log's changes goes on that is to miss nothing of what the session has not seen: at the log's own
    /// position, else at the smallest of its shards'. `None` when the session has seen nothing of the log.
    pub fn resume_point(&self, log: LogId, log_of: impl Fn(ShardId) -> LogId) -> Option<Position> {
        let of_shards = self.shards.iter().filter(|(shard, _)| log_of(**shard) == log).map(|(_, position)| *position);
        self.logs.get(&log).copied().or_else(|| of_shards.min())
    }

    /// Merges what another token of the same session has seen.
    pub fn merge(&mut self, other: &Self, log_of: impl Fn(ShardId) -> LogId) {
        self.map_version = self.map_version.max(other.map_version);
        for (log, position) in &other.logs {
            let entry = self.logs.entry(*log).or_default();
            *entry = (*position).max(*entry);
        }
        for (shard, position) in &other.shards {
            self.see(*shard, *position, &log_of);
        }
    }

    /// The cluster that made it.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// As text that metadata can carry.
    pub fn encode(&self) -> String {
        let mut out = Vec::with_capacity(33 + self.shards.len() * 20 + self.logs.len() * 20);
        out.push(VERSION);
        out.extend(self.cluster.0);
        out.extend(self.map_version.to_be_bytes());
        out.extend((self.shards.len() as u16).to_be_bytes());
        out.extend((self.logs.len() as u16).to_be_bytes());
        let shards = self.shards.iter().map(|(s, p)| (s.0, p));
        for (number, position) in shards.chain(self.logs.iter().map(|(l, p)| (l.0, p))) {
            out.extend(number.to_be_bytes());
            out.extend(position.epoch.to_be_bytes());
            out.extend(position.lsn.to_be_bytes());
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
        let (shards, logs) = (reader.u16()?, reader.u16()?);
        for _ in 0..shards {
            token.shards.insert(ShardId(reader.u32()?), Position::new(reader.u64()?, reader.u64()?));
        }
        for _ in 0..logs {
            token.logs.insert(LogId(reader.u32()?), Position::new(reader.u64()?, reader.u64()?));
        }
        Some(token)
    }
}
