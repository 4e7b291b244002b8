//! What a server's metrics say, read from Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};

/// Samples: name, labels, value.
#[derive(Debug, Default)]
pub struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    /// Reads a page of metrics; lines that are none are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The series of a metric that have these labels.
    fn series<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let has = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
        };
        self.0
            .iter()
            .filter(move |(found, labels, _)| found == name && has(labels))
            .map(|(_, labels, value)| (labels, *value))
    }

    /// The sum of a metric over all series that have these labels; none when there is no such series.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        self.series(name, wanted).map(|(_, value)| value).reduce(|sum, value| sum + value)
    }

    /// The sums by the value of another label.
    pub fn by(&self, label: &str, name: &str, wanted: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.series(name, wanted) {
            if let Some(by) = labels.get(label) {
                *sums.entry(by.clone()).or_default() += value;
            }
        }
        sums
    }

    /// The values that a label has, of any metric.
    pub fn values(&self, label: &str) -> BTreeSet<String> {
        self.0.iter().filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (false, '"') => return Some((value, &text[at + 1..])),
            (false, '\\') => escaped = true,
            (_, c) => {
                value.push(if escaped && c == 'n' { '\n' } else { c });
                escaped = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn series_are_summed_by_name_and_label() {
        let text = "# TYPE a counter\na{tier=\"leader\",kind=\"list\"} 3\na{kind=\"object\",tier=\"leader\"} 4 1700000000\n\
                    a{tier=\"follower\"} 1e2\nab 7\nb{x=\"q\\\"}\\n\"} NaN\nbroken{\n\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[("tier", "leader")]), Some(7.0));
        assert_eq!(metrics.sum("a", &[("tier", "leader"), ("kind", "list")]), Some(3.0));
        assert_eq!(
            (metrics.sum("a", &[]), metrics.sum("ab", &[]), metrics.sum("c", &[])),
            (Some(107.0), Some(7.0), None)
        );
        let by_tier = metrics.by("tier", "a", &[]);
        assert_eq!(by_tier.into_iter().collect::<Vec<_>>(), [("follower".into(), 100.0), ("leader".into(), 7.0)]);
        assert_eq!(metrics.values("tier").into_iter().collect::<Vec<_>>(), ["follower", "leader"]);
        assert!(metrics.values("x").contains("q\"}\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_metrics_or_is_passed_over(text in "([a-z]{1,3}([{](,?[a-z]=\"?[^\n]{0,4}\"?)*[}])? [0-9.]{0,3}\n|\\PC{0,20}\n){0,8}") {
            Metrics::parse(&text);
        }
    }
}
