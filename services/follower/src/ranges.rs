//! Lists: what a cached list covers is a slice of it; what lies beyond is read through.

use bytes::Bytes;
use futures::future::join_all;
use tao_cache::{CachedList, Fresh, MIN_FETCHED};
use tao_model::limits::{MAX_ANSWER, MAX_LIMIT};
use tao_model::{Cursor, EdgeKey, EdgeTime, ObjectId, Result};
use tao_proto::answer::field_len;
use tao_proto::edges::{self, IndexEntry};
use tao_proto::internal;
use tao_rpc::{CallContext, Op, ReplyBody};

use crate::answers::{self, RESERVE};
use crate::execute::{Executed, Executor};
use crate::session::Session;
use crate::upstream::unexpected;
use crate::validate::{From, ListRef, RangeCall};

/// Objects that are fetched at once for `with_objects`: the answer may be full before all are needed.
const OBJECTS_AT_ONCE: usize = 200;

/// Edges of one answer: encoded, indexed, in order.
struct Page {
    edges: Bytes,
    index: Vec<IndexEntry>,
    more: bool,
}

/// Some neighbouring edges of a cached list, and whether more follow.
pub struct Span {
    first: usize,
    last: usize,
    more: bool,
}

impl Span {
    /// Its edges, as answers have them, and where to go on; `None` when they don't fit into an answer.
    pub fn of<'a>(&self, list: &'a CachedList, named: ListRef) -> Option<(&'a [u8], String)> {
        if self.first == self.last {
            return Some((&[], String::new()));
        }
        let bytes = &list.encoded()[list.end(self.first)..list.end(self.last)];
        let next = if self.more {
            Cursor { id1: named.id1, atype: named.atype, after: list.key(self.last - 1) }.encode()
        } else {
            String::new()
        };
        (bytes.len() <= MAX_ANSWER - RESERVE).then_some((bytes, next))
    }
}

impl Page {
    fn of_list(list: &CachedList, span: &Span) -> Self {
        Self { edges: list.edges_bytes(), index: list.index()[span.first..span.last].to_vec(), more: span.more }
    }

    /// Keeps the first `n` edges.
    fn truncate(&mut self, n: usize) {
        self.more |= n < self.index.len();
        self.index.truncate(n);
    }

    /// Keeps as many edges as fit into `max` bytes.
    fn fit(&mut self, max: usize) {
        let Some(first) = self.index.first() else { return };
        let fitting = self.index.partition_point(|e| (e.end - first.start) as usize <= max);
        self.truncate(fitting);
    }

    fn bytes(&self) -> Bytes {
        match (self.index.first(), self.index.last()) {
            (Some(first), Some(last)) => self.edges.slice(first.start as usize..last.end as usize),
            _ => Bytes::new(),
        }
    }
}

/// The part of a cached list that a range covers, if the list reaches so far.
pub fn covered(list: &CachedList, range: &RangeCall) -> Option<Span> {
    let here = list.len();
    let known_to_end = list.is_complete();
    let mut first = match range.from {
        From::Offset(offset) => usize::try_from(offset).ok()?,
        From::After(key) => list.partition_point(|there| there <= key),
    };
    let (low, high) = range.times.unwrap_or((0, EdgeTime::MAX));
    if high != EdgeTime::MAX {
        first = first.max(list.partition_point(|there| there.time > high));
    }
    if first >= here {
        return known_to_end.then_some(Span { first: 0, last: 0, more: false });
    }
    let in_time = if low == 0 { here } else { list.partition_point(|there| there.time >= low).max(first) };
    let last = in_time.min(first + range.limit);
    // All wanted edges are here when there are enough, when an edge here is older than wanted, or when the list ends here.
    if last - first == range.limit || in_time < here || known_to_end {
        // More follow in the prefix, or beyond it: an incomplete prefix that ends within the time bounds has a successor, whose
        // time is not known.
        let more = last < in_time || (in_time == here && !known_to_end);
        return Some(Span { first, last, more });
    }
    None
}

/// How many of a list's newest edges a range needs at first sight.
pub fn head(range: &RangeCall) -> usize {
    match range.from {
        From::Offset(offset) => usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(range.limit),
        From::After(_) => MIN_FETCHED,
    }
}

/// How many of a list's newest edges to ask for so that it covers the range, if a cached list can.
fn wanted(list: &CachedList, range: &RangeCall) -> Option<usize> {
    let first = match range.from {
        From::Offset(offset) => usize::try_from(offset).ok()?,
        From::After(key) => list.partition_point(|there| there <= key),
    };
    // A place that the prefix doesn't reach can be anywhere beyond it.
    let reached = matches!(range.from, From::Offset(_)) || first < list.len();
    let wanted = first.checked_add(range.limit)?;
    (reached && wanted <= MAX_LIMIT).then_some(wanted)
}

impl Executor {
    /// A list with at least so many of its newest edges, if it has them.
    pub async fn list(
        &self,
        list: ListRef,
        newest: usize,
        session: &Session,
        context: &CallContext,
    ) -> Result<Fresh<std::sync::Arc<CachedList>>> {
        let shard = Self::shard(session, list.id1);
        self.reader(shard).list(list.id1, list.atype, newest, self.read(session, shard, context)?).await
    }

    /// AssocRange and AssocTimeRange.
    pub async fn range(&self, range: RangeCall, session: &Session, context: &CallContext) -> Executed {
        let (page, as_of) = match self.page(&range, session, context).await {
            Ok(found) => found,
            Err(error) => return error.into(),
        };
        let mut seen = vec![(Self::shard(session, range.list.id1), as_of)];
        let mut page = page;
        page.fit(MAX_ANSWER - RESERVE);
        let mut objects = Vec::new();
        if range.with_objects {
            objects = match self.other_ends(&mut page, session, context, &mut seen).await {
                Ok(objects) => objects,
                Err(error) => return Executed { result: Err(error), seen },
            };
        }
        let next = page
            .index
            .last()
            .filter(|_| page.more)
            .map(|last| Cursor { id1: range.list.id1, atype: range.list.atype, after: last.key }.encode());
        Executed { result: Ok(answers::range(page.bytes(), objects, next.as_deref().unwrap_or(""))), seen }
    }

    async fn page(
        &self,
        range: &RangeCall,
        session: &Session,
        context: &CallContext,
    ) -> Result<(Page, tao_model::Position)> {
        let head = head(range);
        if head <= MAX_LIMIT {
            let found = self.list(range.list, head.max(MIN_FETCHED), session, context).await?;
            if let Some(span) = covered(&found.value, range) {
                return Ok((Page::of_list(&found.value, &span), found.as_of));
            }
            if let Some(wanted) = wanted(&found.value, range).filter(|w| *w > found.value.len()) {
                let found = self.list(range.list, wanted, session, context).await?;
                if let Some(span) = covered(&found.value, range) {
                    return Ok((Page::of_list(&found.value, &span), found.as_of));
                }
            }
        }
        self.scan(range, session, context).await
    }

    async fn scan(
        &self,
        range: &RangeCall,
        session: &Session,
        context: &CallContext,
    ) -> Result<(Page, tao_model::Position)> {
        let (low, high) = range.times.unwrap_or((0, EdgeTime::MAX));
        let (after, offset) = match range.from {
            From::Offset(offset) => (None, offset),
            From::After(EdgeKey { time, id2 }) => (Some(internal::EdgeKey { time, id2: id2.get() }), 0),
        };
        let op = Op::ListScan(internal::ListScan {
            id1: range.list.id1.get(),
            atype: range.list.atype.0,
            after,
            offset,
            limit: range.limit as u32,
            low,
            high,
        });
        let (list, as_of) = self.edge_list(range.list.id1, op, session, context).await?;
        let index = edges::index(&list.edges).ok_or_else(unexpected)?;
        Ok((Page { edges: list.edges, index, more: list.more }, as_of))
    }

    /// Asks the leader for edges that caches don't hold.
    async fn edge_list(
        &self,
        id1: ObjectId,
        op: Op,
        session: &Session,
        context: &CallContext,
    ) -> Result<(internal::EdgeList, tao_model::Position)> {
        let read = self.read(session, Self::shard(session, id1), context)?;
        let context = CallContext { floor: read.floor, ..read.context };
        let reply = self.leaders.call(&context, op).await?;
        let ReplyBody::Edges(list) = reply.body else { return Err(unexpected()) };
        Ok((list, reply.as_of))
    }

    /// The objects that a page's edges point to, as many as fit; the page is cut to match.
    async fn other_ends(
        &self,
        page: &mut Page,
        session: &Session,
        context: &CallContext,
        seen: &mut Vec<crate::session::Seen>,
    ) -> Result<Vec<Bytes>> {
        let mut objects = Vec::new();
        let (mut size, mut done) = (RESERVE, 0);
        'all: for chunk in page.index.chunks(OBJECTS_AT_ONCE) {
            let found = join_all(chunk.iter().map(|e| self.readable_object(e.key.id2, session, context))).await;
            for (entry, found) in chunk.iter().zip(found) {
                let found = found?;
                size += (entry.end - entry.start) as usize;
                size += found.value.as_ref().map_or(0, |o| field_len(2, o.len()));
                if size > MAX_ANSWER {
                    break 'all;
                }
                seen.push((Self::shard(session, entry.key.id2), found.as_of));
                objects.extend(found.value);
                done += 1;
            }
        }
        page.truncate(done);
        Ok(objects)
    }

    /// AssocGet: from the cached head of the list when it holds all that is asked for, else read through.
    pub async fn edges(
        &self,
        list: ListRef,
        id2s: Vec<ObjectId>,
        (low, high): (EdgeTime, EdgeTime),
        session: &Session,
        context: &CallContext,
    ) -> Executed {
        let shard = Self::shard(session, list.id1);
        let head = match self.list(list, MIN_FETCHED, session, context).await {
            Ok(head) => head,
            Err(error) => return error.into(),
        };
        if let Some(known) = known_edges(&head.value, &id2s, (low, high)) {
            return Executed { result: Ok(answers::edges(known.into(), Vec::new())), seen: vec![(shard, head.as_of)] };
        }
        let mut wanted = id2s;
        wanted.sort_unstable();
        wanted.dedup();
        let op = Op::EdgesRead(internal::EdgesRead {
            id1: list.id1.get(),
            atype: list.atype.0,
            id2s: wanted.iter().map(|id| id.get()).collect(),
            low,
            high,
        });
        match self.edge_list(list.id1, op, session, context).await {
            Ok((found, as_of)) => Executed { result: page_of_edges(found, &wanted), seen: vec![(shard, as_of)] },
            Err(error) => error.into(),
        }
    }
}

/// The edges to given objects, when a cached list can tell of each whether it exists.
pub fn known_edges(list: &CachedList, id2s: &[ObjectId], (low, high): (EdgeTime, EdgeTime)) -> Option<Vec<u8>> {
    let mut wanted = id2s.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let (mut known, mut out) = (0, Vec::new());
    for (n, key) in list.keys().enumerate() {
        if wanted.binary_search(&key.id2).is_err() {
            continue;
        }
        known += 1;
        // At most 1,000 of the edges of one cached list, which is smaller than an answer may be.
        if (low..=high).contains(&key.time) {
            out.extend_from_slice(&list.encoded()[list.end(n)..list.end(n + 1)]);
        }
    }
    (list.is_complete() || known == wanted.len()).then_some(out)
}

/// The answer to an AssocGet that was read through. When it was cut, what comes after its last edge may be any of the ids that are
/// not in it.
fn page_of_edges(found: internal::EdgeList, wanted: &[ObjectId]) -> Result<tao_proto::Answer> {
    let index = edges::index(&found.edges).ok_or_else(unexpected)?;
    let mut page = Page { edges: found.edges, index, more: found.more };
    page.fit(MAX_ANSWER - RESERVE);
    let mut remaining = Vec::new();
    if page.more {
        let mut got: Vec<_> = page.index.iter().map(|e| e.key.id2).collect();
        got.sort_unstable();
        remaining = wanted.iter().filter(|id| got.binary_search(id).is_err()).map(|id| id.get()).collect();
    }
    Ok(answers::edges(page.bytes(), remaining))
}
