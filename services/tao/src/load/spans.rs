//! Which parts of a long row of things are done.

use std::collections::BTreeMap;
use std::ops::Range;

/// Spans that neither overlap nor touch: begin → end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Spans(BTreeMap<usize, usize>);

impl Spans {
    /// Adds a span, which may overlap others.
    pub fn add(&mut self, span: Range<usize>) {
        if span.is_empty() {
            return;
        }
        let Range { mut start, mut end } = span;
        while let Some((&from, &to)) = self.0.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// How many things they cover.
    pub fn covered(&self) -> usize {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// What they leave of `0..total`, in pieces of at most `size`.
    pub fn missing(&self, total: usize, size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let ends = self.0.values().copied();
        let froms: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let tos: Vec<usize> = self.0.keys().copied().chain([total]).collect();
        froms.into_iter().zip(tos).flat_map(move |(from, to)| {
            let to = to.min(total);
            (from..to.max(from)).step_by(size.max(1)).map(move |start| start..to.min(start + size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a row of flags.
        #[test]
        fn spans_are_what_was_added(added in prop::collection::vec((0usize..50, 0usize..12), 0..20), total in 0usize..60, size in 1usize..9) {
            let (mut spans, mut flags) = (Spans::default(), [false; 70]);
            for (from, len) in added {
                spans.add(from..from + len);
                flags[from..from + len].fill(true);
            }
            prop_assert_eq!(spans.covered(), flags.iter().filter(|done| **done).count());
            let ends: Vec<_> = spans.0.iter().collect();
            prop_assert!(ends.windows(2).all(|two| two[0].1 < two[1].0), "{:?}", spans);
            let pieces: Vec<_> = spans.missing(total, size).collect();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= size));
            let missing: Vec<_> = pieces.into_iter().flatten().collect();
            let want: Vec<_> = (0..total).filter(|place| !flags[*place]).collect();
            prop_assert_eq!(missing, want);
        }
    }
}
