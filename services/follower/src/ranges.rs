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

impl Page {
    fn of_list(list: &CachedList, first: usize, last: usize, more: bool) -> Self {
        Self { edges: list.edges_bytes(), index: list.index()[first..last].to_vec(), more }
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
fn covered(list: &CachedList, range: &RangeCall) -> Option<Page> {
    let index = list.index();
    let known_to_end = list.is_complete();
    let mut first = match range.from {
        From::Offset(offset) => usize::try_from(offset).ok()?,
        From::After(key) => index.partition_point(|e| e.key <= key),
    };
    let (low, high) = range.times.unwrap_or((0, EdgeTime::MAX));
    if high != EdgeTime::MAX {
        first = first.max(index.partition_point(|e| e.key.time > high));
    }
    if first >= index.len() {
        return known_to_end.then(|| Page { edges: Bytes::new(), index: Vec::new(), more: false });
    }
    let in_time = index.partition_point(|e| e.key.time >= low).max(first);
    let last = in_time.min(first + range.limit);
    // All wanted edges are here when there are enough, when an edge here is older than wanted, or when the list ends here.
    if last - first == range.limit || in_time < index.len() || known_to_end {
        // More follow in the prefix, or beyond it: an incomplete prefix that ends within the time bounds has a successor, whose
        // time is not known.
        let more = last < in_time || (in_time == index.len() && !known_to_end);
        return Some(Page::of_list(list, first, last, more));
    }
    None
}

/// How many of a list's newest edges to ask for so that it covers the range, if a cached list can.
fn wanted(list: &CachedList, range: &RangeCall) -> Option<usize> {
    let first = match range.from {
        From::Offset(offset) => usize::try_from(offset).ok()?,
        From::After(key) => list.index().partition_point(|e| e.key <= key),
    };
    // A place that the prefix doesn't reach can be anywhere beyond it.
    let reached = matches!(range.from, From::Offset(_)) || first < list.index().len();
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
        let head = match range.from {
            From::Offset(offset) => usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(range.limit),
            From::After(_) => MIN_FETCHED,
        };
        if head <= MAX_LIMIT {
            let found = self.list(range.list, head.max(MIN_FETCHED), session, context).await?;
            if let Some(page) = covered(&found.value, range) {
                return Ok((page, found.as_of));
            }
            if let Some(wanted) = wanted(&found.value, range).filter(|w| *w > found.value.index().len()) {
                let found = self.list(range.list, wanted, session, context).await?;
                if let Some(page) = covered(&found.value, range) {
                    return Ok((page, found.as_of));
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
            let found = join_all(chunk.iter().map(|e| self.object_state(e.key.id2, session, context))).await;
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
        let mut wanted = id2s;
        wanted.sort_unstable();
        wanted.dedup();
        let known: Vec<IndexEntry> =
            head.value.index().into_iter().filter(|e| wanted.binary_search(&e.key.id2).is_ok()).collect();
        if head.value.is_complete() || known.len() == wanted.len() {
            let encoded = head.value.edges_bytes();
            let mut out = Vec::new();
            for entry in known.iter().filter(|e| (low..=high).contains(&e.key.time)) {
                out.extend_from_slice(&encoded[entry.start as usize..entry.end as usize]);
            }
            // At most 1,000 of the edges of one cached list, which is smaller than an answer may be.
            return Executed { result: Ok(answers::edges(out.into(), Vec::new())), seen: vec![(shard, head.as_of)] };
        }
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
