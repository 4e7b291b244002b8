//! Durations and sizes as people write them: `500ms`, `1m 30s`, `256MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in text: numbers with units, from `ns` to `d` and beyond; `1m 30s` is their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

/// Bytes in text: `512`, `64KiB`, `256MiB`, `1.5GiB` (powers of 1,024), `256MB` (powers of 1,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|e| format!("{text:?} is not a duration like 500ms, 30s or 1h 30m: {e}"))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|e| format!("{text:?} is not a size like 64KiB, 256MiB or 1GiB: {e}"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize(self.0).fmt(f)
    }
}

/// A number or a text, as configuration files have them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text like \"30s\" or \"256MiB\"")]
enum Raw {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match Raw::deserialize(from)? {
            // Seconds or milliseconds? Whoever wrote a bare number may have meant either.
            Raw::Number(n) => Err(D::Error::custom(format!("{n} needs a unit, as in \"{n}s\" or \"{n}ms\""))),
            Raw::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        match Raw::deserialize(from)? {
            Raw::Number(n) => Ok(Self(n)),
            Raw::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_can_write_durations_and_sizes() {
        let duration = |t: &str| t.parse::<HumanDuration>().map(|d| d.0);
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(
            duration("5").is_err()
                && duration("").is_err()
                && duration("-1s").is_err()
                && duration("9999999999999999999d").is_err()
        );
        let size = |t: &str| t.parse::<ByteSize>().map(|s| s.0);
        assert_eq!(
            (size("512"), size("256MiB"), size("1.5 KiB"), size("2MB")),
            (Ok(512), Ok(256 << 20), Ok(1536), Ok(2_000_000))
        );
        assert!(size("").is_err() && size("lots").is_err() && size("-5").is_err());
        assert_eq!(HumanDuration(Duration::from_millis(1_500)).to_string(), "1s 500ms");
        assert_eq!(ByteSize(256 << 20).to_string().parse::<ByteSize>().unwrap(), ByteSize(256 << 20));
    }
}
