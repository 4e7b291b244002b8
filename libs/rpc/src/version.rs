//! Which version of the protocol between tiers the other side of a stream speaks, told once a stream, as metadata in both directions.

use std::fmt;

use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// The number of what tiers say to each other. It goes up by one with each release that says something new, and tiers work with the
/// number before and the number after (docs/upgrades.md).
pub const PROTOCOL: u32 = 2;
/// That of those who don't tell theirs: before 2, nobody did.
const SILENT: u32 = 1;

const PROTOCOL_KEY: &str = "tao-protocol";
const VERSION_KEY: &str = "tao-version";
/// The release that this is, for logs and metrics.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// What it speaks.
    pub protocol: u32,
    /// Its release, as it calls itself; at most 32 characters.
    pub version: String,
}

/// Adds this side to what a stream begins with.
pub(crate) fn tell(metadata: &mut MetadataMap) {
    metadata.insert(PROTOCOL_KEY, MetadataValue::from(PROTOCOL));
    metadata.insert(VERSION_KEY, MetadataValue::from_static(VERSION));
}

/// The other side of a stream; FAILED_PRECONDITION, naming both, when it is not a neighbour.
pub(crate) fn check(metadata: &MetadataMap) -> Result<Peer, Status> {
    let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
    let protocol = text(PROTOCOL_KEY).map_or(Some(SILENT), |text| text.parse().ok());
    let version = text(VERSION_KEY).unwrap_or("unknown").chars().take(32).collect();
    match protocol {
        Some(protocol) if protocol.abs_diff(PROTOCOL) <= 1 => Ok(Peer { protocol, version }),
        other => {
            let protocol = other.map_or_else(|| "an unreadable protocol".to_owned(), |n| format!("protocol {n}"));
            Err(Status::failed_precondition(format!(
                "tao {version} speaks {protocol} and tao {VERSION} speaks protocol {PROTOCOL}: only neighbours understand each other (docs/upgrades.md)"
            )))
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tao {} with protocol {}", self.version, self.protocol)
    }
}

impl Peer {
    /// Counts its stream, and mentions it when it is not the same as this.
    pub(crate) fn note(&self, metric: &'static str) {
        let labels = [("version", self.version.clone()), ("protocol", self.protocol.to_string())];
        metrics::counter!(metric, &labels).increment(1);
        if self.protocol != PROTOCOL || self.version != VERSION {
            tracing::info!(peer = %self, own = PROTOCOL, "a stream with a tier of another version");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_from_strangers() {
        let of = |protocol: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(PROTOCOL_KEY, protocol.parse().unwrap());
            check(&metadata)
        };
        let mut own = MetadataMap::new();
        tell(&mut own);
        assert_eq!(check(&own).unwrap(), Peer { protocol: PROTOCOL, version: VERSION.to_owned() });
        assert_eq!(check(&MetadataMap::new()).unwrap().protocol, SILENT);
        for near in [PROTOCOL - 1, PROTOCOL, PROTOCOL + 1] {
            assert_eq!(of(&near.to_string()).unwrap().protocol, near);
        }
        let (far, own) = ((PROTOCOL + 2).to_string(), format!("speaks protocol {PROTOCOL}:"));
        let named = format!("protocol {far}");
        for (far, name) in [(far.as_str(), named.as_str()), ("-1", "unreadable"), ("", "unreadable")] {
            let status = of(far).unwrap_err();
            assert_eq!(status.code(), tonic::Code::FailedPrecondition);
            assert!(status.message().contains(name) && status.message().contains(&own), "{status:?}");
        }
    }
}
