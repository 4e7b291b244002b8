//! A list in cache: its count, and its newest edges as one contiguous buffer, encoded as answers have them, with an index.
//!
//! A count alone takes no memory of its own. What has edges is one allocation: a head, where each edge ends, and the encoded edges. Times
//! and ids are not kept beside the edges that hold them: to find one takes a handful of them, which decode in some nanoseconds each.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tao_model::limits::{MAX_ANSWER, MAX_DATA, MAX_LIMIT};
use tao_model::{EdgeKey, ListDelta, ObjectId};
use tao_proto::edges::{self, IndexEntry};

/// The newest edges of a list, at most [`MAX_LIMIT`] and about [`MAX_ANSWER`] bytes of them, and how many there are in all. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedList(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// No edge is here.
    Count(u64),
    /// Some are: see [`Builder::finish`].
    Edges(Arc<[u8]>),
}

/// The count, the number of edges, and the bytes of where one ends.
const HEAD: usize = 16;

impl CachedList {
    /// From the encoded edges of a reply; `None` when they can't be read.
    pub fn from_encoded(count: u64, encoded: impl AsRef<[u8]>) -> Option<Self> {
        let encoded = encoded.as_ref();
        if encoded.is_empty() {
            return Some(Self(Form::Count(count)));
        }
        let mut ends = Vec::with_capacity(encoded.len() / 24 + 1);
        let mut last = None;
        for field in edges::fields(encoded) {
            let (key, end) = field?;
            if last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            ends.push(end as u32);
        }
        (ends.len() as u64 <= count).then(|| Self::pack(count, &ends, encoded))
    }

    fn pack(count: u64, ends: &[u32], encoded: &[u8]) -> Self {
        let width = if u16::try_from(encoded.len()).is_ok() { 2 } else { 4 };
        let mut raw = Vec::with_capacity(HEAD + ends.len() * width + encoded.len());
        raw.extend_from_slice(&count.to_le_bytes());
        raw.extend_from_slice(&(ends.len() as u32).to_le_bytes());
        raw.extend_from_slice(&(width as u32).to_le_bytes());
        ends.iter().for_each(|end| raw.extend_from_slice(&end.to_le_bytes()[..width]));
        raw.extend_from_slice(encoded);
        Self(Form::Edges(raw.into()))
    }

    /// All edges of the list.
    pub fn count(&self) -> u64 {
        match &self.0 {
            Form::Count(count) => *count,
            Form::Edges(raw) => raw.first_chunk().map_or(0, |count| u64::from_le_bytes(*count)),
        }
    }

    /// How many of them are here.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Count(_) => 0,
            Form::Edges(raw) => number(raw, 8..12),
        }
    }

    /// Whether none is here.
    pub const fn is_empty(&self) -> bool {
        matches!(self.0, Form::Count(_))
    }

    /// Whether all are here.
    pub fn is_complete(&self) -> bool {
        self.len() as u64 == self.count()
    }

    /// The edges that are here, where they lie: fields `assocs` of the answers that list edges.
    pub fn encoded(&self) -> &[u8] {
        match &self.0 {
            Form::Count(_) => &[],
            Form::Edges(raw) => &raw[edges_start(raw)..],
        }
    }

    /// As [`CachedList::encoded`], to keep: shared, not copied.
    pub fn edges_bytes(&self) -> Bytes {
        self.newest_bytes(usize::MAX)
    }

    /// The first `n` of them, shared.
    pub fn newest_bytes(&self, n: usize) -> Bytes {
        let end = self.end(n.min(self.len()));
        match &self.0 {
            Form::Edges(raw) if end > 0 => {
                let start = edges_start(raw);
                Bytes::from_owner(Shared(raw.clone())).slice(start..start + end)
            }
            _ => Bytes::new(),
        }
    }

    /// Where the first `n` edges end in [`CachedList::encoded`]: edge `n` begins there. At most [`CachedList::len`].
    pub fn end(&self, n: usize) -> usize {
        match (&self.0, n.checked_sub(1)) {
            (Form::Edges(raw), Some(last)) => {
                let width = number(raw, 12..16);
                number(raw, HEAD + last * width..HEAD + (last + 1) * width)
            }
            _ => 0,
        }
    }

    /// Edge `n`'s place in the list; it is decoded for that.
    pub fn key(&self, n: usize) -> EdgeKey {
        edges::field_key(&self.encoded()[self.field(n)]).expect("read before it was kept")
    }

    fn field(&self, n: usize) -> Range<usize> {
        self.end(n)..self.end(n + 1)
    }

    /// How many edges at the beginning have a place for which `is_before` holds: of all places, it must hold for those up to some one.
    pub fn partition_point(&self, is_before: impl Fn(EdgeKey) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if is_before(self.key(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The places of all edges that are here, in order.
    pub fn keys(&self) -> impl Iterator<Item = EdgeKey> {
        (0..self.len()).map(|n| self.key(n))
    }

    /// Where each edge is, decoded: for a few of them, or to find one, there are cheaper ways.
    pub fn index(&self) -> Vec<IndexEntry> {
        (0..self.len())
            .map(|n| IndexEntry { key: self.key(n), start: self.end(n) as u32, end: self.end(n + 1) as u32 })
            .collect()
    }

    /// Whether so many of the newest edges are here, or all, or as many as fit.
    pub(crate) fn covers(&self, newest: usize) -> bool {
        let here = self.len();
        here >= newest || here as u64 == self.count() || self.is_full()
    }

    /// Whether the next edge may not have fitted: data has up to 64 KiB, and stores count 32 bytes an edge beside it.
    fn is_full(&self) -> bool {
        self.encoded().len() + self.len() * 32 + MAX_DATA + 64 > MAX_ANSWER
    }

    /// Bytes of its allocation; none for a count.
    pub(crate) fn memory(&self) -> usize {
        match &self.0 {
            Form::Count(_) => 0,
            // An Arc's two counts come first.
            Form::Edges(raw) => 2 * size_of::<usize>() + raw.len(),
        }
    }

    /// The list after one change, which must be the next one of this list.
    #[must_use]
    pub(crate) fn with_delta(&self, count: u64, delta: &ListDelta) -> Self {
        let (id2, put) = match delta {
            ListDelta::Put(key, edge) => (key.id2, Some((*key, edge))),
            ListDelta::Remove(id2) => (*id2, None),
        };
        let removed = self.find(id2);
        let here = self.len();
        // Where the edge goes among those that stay. At the end of an incomplete list its place is not known.
        let place = put.and_then(|(key, edge)| {
            let at = self.partition_point(|there| there < key);
            let is_inside = (at..here).any(|n| Some(n) != removed);
            (is_inside || self.is_complete()).then_some((at, edge))
        });
        let encoded = self.encoded();
        let room = encoded.len() + place.map_or(0, |(_, edge)| edge.len() + 8);
        let mut list = Builder { edges: Vec::with_capacity(room), ends: Vec::with_capacity(here + 1) };
        let (at, gone) = (place.map_or(here, |(at, _)| at), removed.unwrap_or(here));
        list.copy(self, 0..at.min(gone));
        list.copy(self, gone.saturating_add(1).min(at)..at);
        if let Some((_, edge)) = place {
            edges::push_edge(&mut list.edges, edge);
            list.end_edge();
        }
        list.copy(self, at..gone.max(at));
        list.copy(self, gone.saturating_add(1).clamp(at, here)..here);
        list.finish(count)
    }

    /// Which of the edges that are here leads to `id2`.
    pub fn find(&self, id2: ObjectId) -> Option<usize> {
        let (end, encoded) = (edges::encode_end(id2), self.encoded());
        let mut start = 0;
        (0..self.len()).find(|n| {
            let next = self.end(n + 1);
            let field = &encoded[start..next];
            start = next;
            edges::leads_to(field, &end)
        })
    }
}

/// A little-endian number of 2 or 4 bytes.
fn number(raw: &[u8], at: Range<usize>) -> usize {
    match raw[at] {
        [a, b] => usize::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => 0,
    }
}

/// Where the encoded edges begin.
fn edges_start(raw: &[u8]) -> usize {
    HEAD + number(raw, 8..12) * number(raw, 12..16)
}

/// Lets answers share a list's buffer.
struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Builder {
    edges: Vec<u8>,
    ends: Vec<u32>,
}

impl Builder {
    fn end_edge(&mut self) {
        self.ends.push(self.edges.len() as u32);
    }

    /// Takes edges over from a list, all at once.
    fn copy(&mut self, list: &CachedList, edges: Range<usize>) {
        if edges.is_empty() {
            return;
        }
        let (from, here) = (list.end(edges.start), self.edges.len());
        self.ends.extend(edges.clone().map(|n| (list.end(n + 1) - from + here) as u32));
        self.edges.extend_from_slice(&list.encoded()[from..list.end(edges.end)]);
    }

    /// Cuts what is too long: a list keeps its newest prefix.
    fn finish(self, count: u64) -> CachedList {
        let fitting = self.ends.partition_point(|end| *end as usize <= MAX_ANSWER).min(MAX_LIMIT);
        match self.ends[..fitting].last() {
            Some(end) => CachedList::pack(count, &self.ends[..fitting], &self.edges[..*end as usize]),
            None => CachedList(Form::Count(count)),
        }
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
        assert_eq!((list.len(), list.is_complete(), list.key(0).time), (6_000, false, 9_000));
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
