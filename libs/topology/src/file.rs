//! The static topology file.

use std::collections::BTreeSet;

use serde::Deserialize;
use tao_model::{ClusterId, LogId, ShardId, ShardSet};

use crate::{LogPlace, Topology};

/// Everything that is wrong with a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct TopologyError {
    /// One sentence each.
    pub problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    cluster: String,
    leaders: Vec<String>,
    logs: Vec<Log>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    id: u32,
    shards: Vec<String>,
    servers: Vec<String>,
}

impl Topology {
    /// Reads a topology's text.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let file: File =
            toml::from_str(text).map_err(|error| TopologyError { problems: vec![format!("topology: {error}")] })?;
        let mut problems = Vec::new();
        let cluster = cluster(&file.cluster);
        if cluster.is_none() {
            problems.push(format!("topology: cluster: {:?} is no UUID", file.cluster));
        }
        addresses("leaders", &file.leaders, &mut problems);
        if file.logs.is_empty() {
            problems.push("topology: logs: at least one".to_owned());
        }
        let mut logs = Vec::new();
        let mut ids = BTreeSet::new();
        for log in file.logs {
            if !ids.insert(log.id) {
                problems.push(format!("topology: log {} is there twice", log.id));
            }
            addresses(&format!("log {}: servers", log.id), &log.servers, &mut problems);
            match shards(&log.shards) {
                Ok(shards) => logs.push(LogPlace { id: LogId(log.id), shards: Some(shards), servers: log.servers }),
                Err(problem) => problems.push(format!("topology: log {}: shards: {problem}", log.id)),
            }
        }
        let map = map(&logs, &mut problems);
        match cluster {
            Some(cluster) if problems.is_empty() => {
                Ok(Self { version: file.version, cluster: Some(cluster), leaders: file.leaders, logs, map })
            }
            _ => Err(TopologyError { problems }),
        }
    }
}

/// More logical shards than any layout of ids can number.
const MAX_SHARDS: u32 = 1 << 22;

fn shards(texts: &[String]) -> Result<ShardSet, String> {
    let shards: ShardSet = texts.join(",").parse()?;
    match shards.last() {
        Some(ShardId(last)) if last >= MAX_SHARDS => Err(format!("no cluster has a shard {last}")),
        _ => Ok(shards),
    }
}

fn addresses(what: &str, all: &[String], problems: &mut Vec<String>) {
    if all.is_empty() {
        problems.push(format!("topology: {what}: at least one address"));
    }
    for (n, address) in all.iter().enumerate() {
        let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
            problems.push(format!("topology: {what}: {address:?} is no address like leader-0:50052"));
        }
        if all[..n].contains(address) {
            problems.push(format!("topology: {what}: {address} is there twice"));
        }
    }
}

/// By shard, the place of its log; every shard from 0 on is in exactly one.
fn map(logs: &[LogPlace], problems: &mut Vec<String>) -> Vec<u32> {
    let mut map: Vec<Option<u32>> = Vec::new();
    for (place, log) in logs.iter().enumerate() {
        for shard in log.shards.iter().flat_map(ShardSet::iter) {
            let at = shard.0 as usize;
            if map.len() <= at {
                map.resize(at + 1, None);
            }
            if let Some(other) = map[at].replace(place as u32) {
                let other = logs[other as usize].id.0;
                problems.push(format!("topology: shard {shard} is in log {other} and in log {}", log.id.0));
                return Vec::new();
            }
        }
    }
    if let Some(hole) = map.iter().position(Option::is_none) {
        problems.push(format!("topology: shard {} is in no log", ShardId(hole as u32)));
        return Vec::new();
    }
    map.into_iter().flatten().collect()
}

/// A UUID, with or without hyphens.
fn cluster(text: &str) -> Option<ClusterId> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let mut id = [0; 16];
    if digits.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(ClusterId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        version = 3
        cluster = "6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11"
        leaders = ["leader-0:50052", "leader-1:50052"]
        [[logs]]
        id = 0
        shards = ["0-9", "15"]
        servers = ["shard-0:50053", "shard-1:50053"]
        [[logs]]
        id = 7
        shards = ["10-14"]
        servers = ["shard-2:50053"]
    "#;

    #[test]
    fn shards_find_their_log() {
        let topology = Topology::parse(GOOD).unwrap();
        assert_eq!((topology.version(), topology.shards()), (3, Some(16)));
        for (shard, log) in [(0, 0), (9, 0), (10, 7), (14, 7), (15, 0)] {
            assert_eq!(topology.log_of(ShardId(shard)), LogId(log));
        }
        assert_eq!(topology.index_of(LogId(7)), Some(1));
        assert_eq!(topology.some_shard(1), ShardId(10));
        assert_eq!(topology.cluster().unwrap().to_string(), "6c7f2f865a0e4c0c9d3b0d9a3f1f4b11");
        let single = Topology::single(Vec::new(), vec!["a:1".to_owned()]);
        assert_eq!((single.log_of(ShardId(1000)), single.shards()), (LogId(0), None));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        for (from, to, want) in [
            ("\"15\"", "\"14\"", "shard 14 is in log 0 and in log 7"),
            ("\"15\"", "\"16\"", "shard 15 is in no log"),
            ("id = 7", "id = 0", "log 0 is there twice"),
            ("leader-1:50052", "leader-1", "is no address"),
            ("shard-1:50053", "shard-0:50053", "shard-0:50053 is there twice"),
            ("6c7f2f86", "6c7f2f8g", "is no UUID"),
            ("version", "versoin", "versoin"),
            ("[\"10-14\"]", "[\"14-10\"]", "log 7: shards"),
            ("[\"10-14\"]", "[\"10-4294967295\"]", "no cluster has a shard 4294967295"),
        ] {
            let error = Topology::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(want), "{want}: {error}");
        }
        let both = GOOD.replacen("6c7f", "x", 1).replacen("leader-0:50052", "", 1);
        assert_eq!(Topology::parse(&both).unwrap_err().problems.len(), 2);
    }
}
