//! A list in cache: its count, and its newest edges as one contiguous buffer, encoded as answers have them, with an index.

use bytes::Bytes;
use tao_model::limits::{MAX_ANSWER, MAX_DATA, MAX_LIMIT};
use tao_model::{EdgeKey, ListDelta, ObjectId};
use tao_proto::edges::{self, IndexEntry};

/// The newest edges of a list, at most [`MAX_LIMIT`] and about [`MAX_ANSWER`] bytes of them, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedList {
    count: u64,
    edges: Bytes,
    index: Vec<IndexEntry>,
}

impl CachedList {
    /// From the encoded edges of a reply; `None` when they can't be read.
    pub fn from_encoded(count: u64, edges: Bytes) -> Option<Self> {
        let index = edges::index(&edges)?;
        let ordered = index.is_sorted_by(|a, b| a.key < b.key) && index.len() as u64 <= count;
        ordered.then_some(Self { count, edges, index })
    }

    /// All edges of the list.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are here.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether all are here.
    pub fn is_complete(&self) -> bool {
        self.index.len() as u64 == self.count
    }

    /// The edges that are here: fields `assocs` of the answers that list edges.
    pub fn edges_bytes(&self) -> Bytes {
        self.edges.clone()
    }

    /// The same, where they lie.
    pub fn encoded(&self) -> &[u8] {
        &self.edges
    }

    /// The first `n` of them.
    pub fn newest_bytes(&self, n: usize) -> Bytes {
        match n.min(self.index.len()).checked_sub(1) {
            Some(last) => self.edges.slice(..self.index[last].end as usize),
            None => Bytes::new(),
        }
    }

    /// Where each edge is.
    pub fn index(&self) -> &[IndexEntry] {
        &self.index
    }

    /// Whether so many of the newest edges are here, or all, or as many as fit.
    pub(crate) fn covers(&self, newest: usize) -> bool {
        self.len() >= newest || self.is_complete() || self.is_full()
    }

    /// Whether the next edge may not have fitted: data has up to 64 KiB, and stores count 32 bytes an edge beside it.
    fn is_full(&self) -> bool {
        self.edges.len() + self.len() * 32 + MAX_DATA + 64 > MAX_ANSWER
    }

    pub(crate) fn memory(&self) -> usize {
        self.edges.len() + self.index.len() * size_of::<IndexEntry>()
    }

    /// The list after one change, which must be the next one of this list.
    #[must_use]
    pub(crate) fn with_delta(&self, count: u64, delta: &ListDelta) -> Self {
        let (id2, put) = match delta {
            ListDelta::Put(key, edge) => (key.id2, Some((*key, edge))),
            ListDelta::Remove(id2) => (*id2, None),
        };
        let removed = self.position(id2);
        let known_to_end = self.is_complete();
        let kept = |n: &usize| Some(*n) != removed;
        // Where the edge goes among those that stay. At the end of an incomplete list its place is not known.
        let place = put.and_then(|(key, edge)| {
            let at = self.index.partition_point(|e| e.key < key);
            let is_inside = (at..self.index.len()).any(|n| kept(&n));
            (is_inside || known_to_end).then_some((at, edge))
        });
        let mut list =
            Builder::with_capacity(self.edges.len() + place.map_or(0, |(_, e)| e.len() + 8), self.index.len() + 1);
        for n in 0..=self.index.len() {
            if let Some((at, edge)) = place
                && at == n
                && let Some((key, _)) = put
            {
                list.push(key, edge);
            }
            if let Some(entry) = self.index.get(n).filter(|_| kept(&n)) {
                list.copy(entry, &self.edges);
            }
        }
        list.finish(count)
    }

    fn position(&self, id2: ObjectId) -> Option<usize> {
        self.index.iter().position(|e| e.key.id2 == id2)
    }
}

struct Builder {
    edges: Vec<u8>,
    index: Vec<IndexEntry>,
}

impl Builder {
    fn with_capacity(bytes: usize, edges: usize) -> Self {
        Self { edges: Vec::with_capacity(bytes), index: Vec::with_capacity(edges) }
    }

    fn push(&mut self, key: EdgeKey, edge: &Bytes) {
        let start = self.edges.len() as u32;
        edges::push_edge(&mut self.edges, edge);
        self.index.push(IndexEntry { key, start, end: self.edges.len() as u32 });
    }

    fn copy(&mut self, entry: &IndexEntry, from: &Bytes) {
        let start = self.edges.len() as u32;
        self.edges.extend_from_slice(&from[entry.start as usize..entry.end as usize]);
        self.index.push(IndexEntry { key: entry.key, start, end: self.edges.len() as u32 });
    }

    /// Cuts what is too long: a list keeps its newest prefix.
    fn finish(mut self, count: u64) -> CachedList {
        let fitting = self.index.partition_point(|e| e.end as usize <= MAX_ANSWER).min(MAX_LIMIT);
        self.index.truncate(fitting);
        self.edges.truncate(self.index.last().map_or(0, |e| e.end as usize));
        CachedList { count, edges: self.edges.into(), index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tao_model::Edge;
    use tao_proto::edges::{encode_edge, encode_list};

    fn edge(time: u32, id2: i64) -> Edge {
        Edge { id2: ObjectId::new(id2).unwrap(), time, data: Bytes::new() }
    }

    fn cached(all: &BTreeMap<i64, u32>, newest: usize) -> CachedList {
        let mut edges: Vec<_> = all.iter().map(|(id2, time)| edge(*time, *id2)).collect();
        edges.sort_by_key(|e| EdgeKey { time: e.time, id2: e.id2 });
        edges.truncate(newest);
        CachedList::from_encoded(all.len() as u64, encode_list(&edges, usize::MAX).0).unwrap()
    }

    proptest! {
        /// Whatever happens to a list, the cached prefix stays a prefix of the true list.
        #[test]
        fn deltas_keep_a_prefix(
            start in prop::collection::btree_map(1i64..20, 0u32..6, 0..15),
            newest in 0usize..15,
            steps in prop::collection::vec((1i64..20, prop::option::of(0u32..6)), 0..40),
        ) {
            let mut all = start;
            let mut list = cached(&all, newest);
            for (id2, time) in steps {
                let delta = match time {
                    Some(time) => {
                        all.insert(id2, time);
                        let edge = edge(time, id2);
                        ListDelta::Put(EdgeKey { time, id2: edge.id2 }, encode_edge(&edge))
                    }
                    None if all.remove(&id2).is_none() => continue,
                    None => ListDelta::Remove(ObjectId::new(id2).unwrap()),
                };
                let was_complete = list.is_complete();
                list = list.with_delta(all.len() as u64, &delta);
                let truth = cached(&all, usize::MAX);
                prop_assert_eq!(list.count(), all.len() as u64);
                prop_assert_eq!(list.index(), &truth.index()[..list.len()]);
                prop_assert_eq!(list.edges_bytes(), truth.newest_bytes(list.len()));
                prop_assert!(!was_complete || list.is_complete());
            }
        }
    }

    #[test]
    fn a_list_that_grows_too_long_keeps_its_newest() {
        let all: BTreeMap<i64, u32> = (1..=6_000).map(|n| (n, n as u32)).collect();
        let list = cached(&all, usize::MAX);
        assert!(list.is_complete());
        let newer = edge(9_000, 7_000);
        let list =
            list.with_delta(6_001, &ListDelta::Put(EdgeKey { time: 9_000, id2: newer.id2 }, encode_edge(&newer)));
        assert_eq!((list.len(), list.is_complete(), list.index()[0].key.time), (6_000, false, 9_000));
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        let (list, _) = encode_list(&[edge(1, 1), edge(2, 2)], usize::MAX);
        assert!(CachedList::from_encoded(2, list.clone()).is_none(), "out of order");
        let (list, _) = encode_list(&[edge(2, 2), edge(1, 1)], usize::MAX);
        assert!(CachedList::from_encoded(1, list.clone()).is_none(), "more than counted");
        assert!(CachedList::from_encoded(2, list.slice(1..)).is_none());
        assert!(CachedList::from_encoded(2, list).is_some());
    }
}
