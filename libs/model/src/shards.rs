//! Sets of logical shards, as a topology writes them: `0-511`, `7`, `0-3,8`.

use std::fmt;
use std::str::FromStr;

use crate::id::{IdLayout, ShardId};

/// A set of logical shards. Compared by what it contains, however it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ShardSet {
    /// First and last, ascending; neither overlapping nor adjacent, so that equal sets are equal values.
    ranges: Vec<(u32, u32)>,
}

impl ShardSet {
    /// No shard at all.
    pub const fn empty() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Every shard that a cluster of this layout has.
    pub fn all(layout: &IdLayout) -> Self {
        Self { ranges: vec![(0, layout.shards() - 1)] }
    }

    /// Shards `first` to `last`, both included; empty when `last` lies before `first`.
    pub fn range(first: ShardId, last: ShardId) -> Self {
        Self::merged(vec![(first.0, last.0)])
    }

    fn merged(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self { ranges: merged }
    }

    /// Whether it has no shard.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many shards it has.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    /// Whether a shard is in it.
    pub fn contains(&self, shard: ShardId) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= shard.0);
        after > 0 && shard.0 <= self.ranges[after - 1].1
    }

    /// Its shards, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.ranges.iter().flat_map(|(first, last)| (*first..=*last).map(ShardId))
    }

    /// The last of its shards.
    pub fn last(&self) -> Option<ShardId> {
        self.ranges.last().map(|(_, last)| ShardId(*last))
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::merged(self.ranges.iter().chain(&other.ranges).copied().collect())
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let both = self.ranges.iter().flat_map(|a| other.ranges.iter().map(|b| (a.0.max(b.0), a.1.min(b.1))));
        Self::merged(both.collect())
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for &(first, last) in &self.ranges {
            // What is left begins here; nothing is left once the last number of all is used up.
            let mut from = Some(first);
            for &(begin, end) in &other.ranges {
                let Some(first) = from.filter(|first| end >= *first && begin <= last) else { continue };
                if begin > first {
                    rest.push((first, begin - 1));
                }
                from = end.checked_add(1);
            }
            rest.extend(from.map(|first| (first, last)));
        }
        Self::merged(rest)
    }

    /// Whether no shard is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.intersection(other).is_empty()
    }

    /// Whether every shard of the other is in it.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.difference(self).is_empty()
    }

    /// An error that names the first shard which a cluster of this layout does not have.
    pub fn check(&self, layout: &IdLayout) -> Result<(), String> {
        match self.last() {
            Some(last) if last.0 >= layout.shards() => {
                Err(format!("shard {last} does not exist: the cluster has shards 0 to {}", layout.shards() - 1))
            }
            _ => Ok(()),
        }
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<T: IntoIterator<Item = ShardId>>(shards: T) -> Self {
        Self::merged(shards.into_iter().map(|shard| (shard.0, shard.0)).collect())
    }
}

impl fmt::Display for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Numbers and ranges with commas between them. A shard named twice is an error: it is a slip of whoever wrote it.
impl FromStr for ShardSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = Self::empty();
        for part in text.split(',').map(str::trim) {
            let number = |n: &str| {
                let is_plain = !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
                let problem = || format!("{part:?} is neither a shard nor a range of shards, such as 7 or 0-511");
                n.parse::<u32>().ok().filter(|_| is_plain).ok_or_else(problem)
            };
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first.trim())?, number(last.trim())?),
                None => (number(part)?, number(part)?),
            };
            if last < first {
                return Err(format!("the range {part} ends before it begins"));
            }
            let range = Self::range(ShardId(first), ShardId(last));
            if let Some(twice) = set.intersection(&range).iter().next() {
                return Err(format!("shard {twice} is named twice"));
            }
            set = set.union(&range);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> ShardSet {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_it_shows() {
        for (text, shown) in [("0-511", "0-511"), ("7", "7"), (" 8, 0 - 3 ,4", "0-4,8"), ("5-5", "5")] {
            assert_eq!(set(text).to_string(), shown);
            assert_eq!(set(shown), set(text));
        }
        assert_eq!(ShardSet::empty().to_string(), "none");
    }

    #[test]
    fn refuses_what_is_no_set() {
        for text in ["", ",", "a", "-1", "1-", "-", "3-2", "1,1", "0-5,5-9", "+1", "1-2-3", "4294967296"] {
            assert!(text.parse::<ShardSet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn knows_what_a_cluster_has() {
        assert_eq!(ShardSet::all(&IdLayout::STANDARD), set("0-1023"));
        assert!(set("1023").check(&IdLayout::STANDARD).is_ok());
        assert!(set("0-1024").check(&IdLayout::STANDARD).unwrap_err().contains("1024"));
        assert_eq!(set(&format!("0-{}", u32::MAX)).difference(&set("1")).last(), Some(ShardId(u32::MAX)));
    }

    proptest! {
        #[test]
        fn is_what_a_plain_set_is(a in prop::collection::btree_set(0u32..40, 0..20),
                                  b in prop::collection::btree_set(0u32..40, 0..20)) {
            let of = |s: &BTreeSet<u32>| s.iter().copied().map(ShardId).collect::<ShardSet>();
            let plain = |s: &ShardSet| s.iter().map(|s| s.0).collect::<BTreeSet<_>>();
            let (x, y) = (of(&a), of(&b));
            prop_assert_eq!(plain(&x), a.clone());
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(plain(&x.union(&y)), &a | &b);
            prop_assert_eq!(plain(&x.intersection(&y)), &a & &b);
            prop_assert_eq!(plain(&x.difference(&y)), &a - &b);
            prop_assert_eq!(x.is_disjoint(&y), a.is_disjoint(&b));
            prop_assert_eq!(x.is_superset(&y), a.is_superset(&b));
            prop_assert_eq!(x == y, a == b);
            for n in 0..42 {
                prop_assert_eq!(x.contains(ShardId(n)), a.contains(&n));
            }
            if !a.is_empty() {
                prop_assert_eq!(x.to_string().parse::<ShardSet>().unwrap(), x);
            }
        }
    }
}
