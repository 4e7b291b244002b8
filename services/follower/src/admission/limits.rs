//! What can be configured of limits by identity.

use std::collections::HashMap;

use clap::Args;
use serde::Deserialize;

use super::Kind;

/// Options of limits, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitOptions {
    /// Reads a second of each identity, and as many at once; 0: any number [default: 0]
    #[arg(long, env = "TAO_READS_PER_SECOND", value_name = "N")]
    pub reads_per_second: Option<u32>,
    /// Writes a second of each identity, and as many at once; 0: any number [default: 0]
    #[arg(long, env = "TAO_WRITES_PER_SECOND", value_name = "N")]
    pub writes_per_second: Option<u32>,
    /// Whether a follower that has more to do than it can takes in less, by fair shares: true or false [default: false]
    #[arg(long, env = "TAO_ADAPTIVE_LIMITS", value_name = "BOOL")]
    pub adaptive: Option<bool>,
    /// Other rates for some identities; in a file only.
    #[arg(skip)]
    pub identity: Vec<IdentityLimits>,
}

/// Rates of one identity, instead of those of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityLimits {
    /// Such as `cert:app.example`, or `address:10.0.0.7`.
    pub name: String,
    /// Absent: as for all. 0: any number.
    pub reads_per_second: Option<u32>,
    /// As for reads.
    pub writes_per_second: Option<u32>,
}

/// Checked limits.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// By kind; 0: none.
    rates: [u32; 2],
    named: HashMap<String, [Option<u32>; 2]>,
    is_adaptive: bool,
}

/// More than any follower does.
const FASTEST: u32 = 100_000_000;

impl LimitOptions {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            reads_per_second: self.reads_per_second.or(lower.reads_per_second),
            writes_per_second: self.writes_per_second.or(lower.writes_per_second),
            adaptive: self.adaptive.or(lower.adaptive),
            identity: if self.identity.is_empty() { lower.identity } else { self.identity },
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Limits, Vec<String>> {
        let mut problems = Vec::new();
        let mut rate = |of: &str, rate: Option<u32>| {
            if rate.is_some_and(|rate| rate > FASTEST) {
                problems.push(format!("limits: {of}: {} is not within 0 to {FASTEST}", rate.unwrap_or_default()));
            }
            rate
        };
        let rates = [
            rate("reads_per_second", self.reads_per_second).unwrap_or(0),
            rate("writes_per_second", self.writes_per_second).unwrap_or(0),
        ];
        let mut named = HashMap::new();
        let mut twice = Vec::new();
        for IdentityLimits { name, reads_per_second, writes_per_second } in self.identity {
            let own = [
                rate(&format!("{name}: reads_per_second"), reads_per_second),
                rate(&format!("{name}: writes_per_second"), writes_per_second),
            ];
            if named.insert(name.clone(), own).is_some() {
                twice.push(format!("limits: identity {name} is there twice"));
            }
        }
        problems.extend(twice);
        let is_adaptive = self.adaptive == Some(true);
        if problems.is_empty() { Ok(Limits { rates, named, is_adaptive }) } else { Err(problems) }
    }
}

impl Limits {
    /// Calls a second that an identity may make of a kind; none: any number.
    pub fn rate(&self, name: &str, kind: Kind) -> Option<u32> {
        let own = self.named.get(name).and_then(|own| own[kind as usize]);
        Some(own.unwrap_or(self.rates[kind as usize])).filter(|rate| *rate > 0)
    }

    /// Whether there are others beside, which adapt.
    pub const fn is_adaptive(&self) -> bool {
        self.is_adaptive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identitys_own_rates_win_one_by_one() {
        let own = IdentityLimits { name: "cert:a".to_owned(), reads_per_second: Some(0), writes_per_second: None };
        let options = LimitOptions {
            reads_per_second: Some(100),
            writes_per_second: Some(10),
            identity: vec![own],
            ..LimitOptions::default()
        };
        let limits = options.check().unwrap();
        assert_eq!((limits.rate("cert:a", Kind::Read), limits.rate("cert:a", Kind::Write)), (None, Some(10)));
        assert_eq!((limits.rate("x", Kind::Read), limits.rate("x", Kind::Write)), (Some(100), Some(10)));
    }

    #[test]
    fn every_problem_is_reported() {
        let named =
            || IdentityLimits { name: "a".to_owned(), reads_per_second: Some(u32::MAX), writes_per_second: None };
        let wrong = LimitOptions {
            writes_per_second: Some(u32::MAX),
            identity: vec![named(), named()],
            ..LimitOptions::default()
        };
        assert_eq!(wrong.check().unwrap_err().len(), 4);
    }
}
