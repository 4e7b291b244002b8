//! Reads one database whole, in key order, and compares it with itself and with the others: what is held in memory does not grow with
//! the graph.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use tao_model::{AssocRef, ObjectId, Position, Schema, ShardSet, TypeId};
use tao_proto::data;
use tao_store::direct::{DirectError, EdgeRow, ListCount, Snapshot};

use super::finding::{Finding, Findings};
use crate::load::progress::Progress;

/// Rows that are read at once.
const PAGE: usize = 2_000;

/// The check of one database.
pub struct Check {
    /// The types.
    pub schema: Arc<Schema>,
    /// The shards that live in each database, by place.
    pub shards: Arc<[ShardSet]>,
    /// Which of them this one is.
    pub place: usize,
    /// What is read in key order.
    pub scan: Snapshot,
    /// Of the same moment, by place: they are asked for inverses.
    pub look_ups: Vec<Snapshot>,
    /// Edges that intents are about: their inverses are under way.
    pub pending: Arc<HashSet<AssocRef>>,
    /// How far all checks are.
    pub progress: Arc<Mutex<Progress>>,
    /// What was found.
    pub findings: Findings,
    /// What can be repaired: lists to be counted anew, and pairs to be made whole.
    pub repairs: Repairs,
    /// The cluster's ids.
    pub layout: tao_model::IdLayout,
}

/// What can be repaired; taken away by whoever repairs, so that it stays short.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Lists whose count is wrong.
    pub lists: Vec<(ObjectId, TypeId)>,
    /// Edges whose inverse is missing or differs.
    pub edges: Vec<AssocRef>,
    /// How many of both at the most; the rest is found by another run.
    pub room: usize,
}

impl Repairs {
    fn list(&mut self, id1: ObjectId, atype: TypeId) {
        if self.lists.len() < self.room {
            self.lists.push((id1, atype));
        }
    }

    fn edge(&mut self, at: AssocRef) {
        if self.edges.len() < self.room {
            self.edges.push(at);
        }
    }
}

impl Check {
    /// Runs to the end.
    pub async fn run(&mut self) -> Result<(), DirectError> {
        self.objects().await?;
        self.lists().await?;
        self.log().await
    }

    fn found(&mut self, finding: &Finding) {
        self.findings.add(finding, &self.schema);
    }

    fn step(&self, rows: usize) {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(rows);
    }

    fn is_here(&self, id: ObjectId) -> bool {
        self.shards[self.place].contains(self.layout.shard(id))
    }

    async fn objects(&mut self) -> Result<(), DirectError> {
        let mut after = None;
        loop {
            let page = self.scan.objects(after, None, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for object in &page {
                if self.schema.object(object.otype).is_none() {
                    self.found(&Finding::ObjectType(object.id, object.otype));
                }
                if !self.is_here(object.id) {
                    self.found(&Finding::Misplaced(object.id));
                }
                if data::decode(&object.data).is_none() {
                    self.found(&Finding::Unreadable(object.id));
                }
            }
            self.step(page.len());
        }
    }

    /// Edges and counts, both in the order of their lists.
    async fn lists(&mut self) -> Result<(), DirectError> {
        let (mut after, mut list): (Option<AssocRef>, Option<ListCount>) = (None, None);
        let mut counts = Counts::default();
        loop {
            let page = self.scan.edges(after, None, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.at);
            for edge in &page {
                let key = (edge.at.id1, edge.at.atype);
                match &mut list {
                    Some(list) if (list.id1, list.atype) == key => list.count += 1,
                    _ => {
                        if let Some(counted) = list.replace(ListCount { id1: key.0, atype: key.1, count: 1 }) {
                            self.counted(&mut counts, counted).await?;
                        }
                    }
                }
                self.edge(edge);
            }
            self.inverses(&page).await?;
            self.step(page.len());
        }
        if let Some(counted) = list {
            self.counted(&mut counts, counted).await?;
        }
        // Lists that have a count and no edge.
        while let Some(stored) = counts.next(&mut self.scan).await? {
            self.compare(stored, 0);
        }
        Ok(())
    }

    fn edge(&mut self, edge: &EdgeRow) {
        if self.schema.assoc(edge.at.atype).is_none() {
            self.found(&Finding::EdgeType(edge.at));
        }
        if !self.is_here(edge.at.id1) {
            self.found(&Finding::Misplaced(edge.at.id1));
        }
        if data::decode(&edge.data).is_none() {
            self.found(&Finding::Unreadable(edge.at.id1));
        }
    }

    /// All edges of a list were seen: its count is next, behind those of lists without edges.
    async fn counted(&mut self, counts: &mut Counts, list: ListCount) -> Result<(), DirectError> {
        let key = (list.id1, list.atype);
        loop {
            let stored = counts.peek(&mut self.scan).await?;
            match stored {
                Some(stored) if (stored.id1, stored.atype) < key => self.compare(stored, 0),
                Some(stored) if (stored.id1, stored.atype) == key => {
                    counts.rows.pop_front();
                    self.compare(stored, list.count);
                    return Ok(());
                }
                Some(_) | None => {
                    self.compare(ListCount { count: 0, ..list }, list.count);
                    return Ok(());
                }
            }
            counts.rows.pop_front();
        }
    }

    fn compare(&mut self, stored: ListCount, counted: u64) {
        let ListCount { id1, atype, count: stored } = stored;
        if stored != counted {
            self.found(&Finding::Count { id1, atype, stored, counted });
            self.repairs.list(id1, atype);
        }
    }

    async fn inverses(&mut self, page: &[EdgeRow]) -> Result<(), DirectError> {
        let mut wanted: Vec<Vec<AssocRef>> = vec![Vec::new(); self.shards.len()];
        for edge in page {
            let Some(inverse) = self.schema.inverse(edge.at).filter(|_| !self.pending.contains(&edge.at)) else {
                continue;
            };
            if let Some(place) = self.shards.iter().position(|s| s.contains(self.layout.shard(inverse.id1))) {
                wanted[place].push(inverse);
            }
        }
        let mut there = HashMap::new();
        for (snapshot, wanted) in self.look_ups.iter_mut().zip(&wanted).filter(|(_, wanted)| !wanted.is_empty()) {
            there.extend(snapshot.find_edges(wanted).await?);
        }
        for edge in page {
            let Some(inverse) = self.schema.inverse(edge.at).filter(|_| !self.pending.contains(&edge.at)) else {
                continue;
            };
            let finding = match there.get(&inverse) {
                Some(other) if (other.time, &other.data) == (edge.time, &edge.data) => continue,
                Some(_) => Finding::InverseDiffers(edge.at),
                None => Finding::InverseMissing(edge.at),
            };
            self.found(&finding);
            self.repairs.edge(edge.at);
        }
        Ok(())
    }

    /// What is kept of the log has no holes and ends where the log does.
    async fn log(&mut self) -> Result<(), DirectError> {
        let (mut after, mut end): (Position, Option<Position>) = (Position::ZERO, None);
        loop {
            let page = self.scan.log(after).await?;
            let Some(last) = page.last() else { break };
            after = last.first;
            for entry in &page {
                if let Some(before) = end.filter(|before| before.lsn + 1 != entry.first.lsn) {
                    self.found(&Finding::Log(entry.first, format!("does not follow {before}")));
                }
                end = Some(entry.last);
                let consecutive = |changes: &[tao_model::Change]| {
                    let is_last = changes.last().is_some_and(|change| change.position == entry.last);
                    is_last && (0..).zip(changes).all(|(n, change)| change.position == entry.first.plus(n))
                };
                match &entry.changes {
                    Ok(changes) if consecutive(changes) => {}
                    Ok(_) => {
                        self.found(&Finding::Log(entry.first, "does not hold the changes that it names".to_owned()));
                    }
                    Err(why) => self.found(&Finding::Log(entry.first, format!("can't be read: {why}"))),
                }
            }
        }
        let head = self.scan.position();
        if let Some(end) = end.filter(|end| end.lsn != head.lsn || end.epoch > head.epoch) {
            self.found(&Finding::Log(head, format!("is the end, and the last commit that is kept ends at {end}")));
        }
        Ok(())
    }
}

/// Counts of lists, a page at a time.
#[derive(Default)]
struct Counts {
    rows: VecDeque<ListCount>,
    after: Option<(ObjectId, TypeId)>,
    is_over: bool,
}

impl Counts {
    async fn peek(&mut self, scan: &mut Snapshot) -> Result<Option<ListCount>, DirectError> {
        if self.rows.is_empty() && !self.is_over {
            self.rows.extend(scan.counts(self.after, PAGE).await?);
            self.is_over = self.rows.is_empty();
            self.after = self.rows.back().map(|last| (last.id1, last.atype)).or(self.after);
        }
        Ok(self.rows.front().copied())
    }

    async fn next(&mut self, scan: &mut Snapshot) -> Result<Option<ListCount>, DirectError> {
        self.peek(scan).await?;
        Ok(self.rows.pop_front())
    }
}
