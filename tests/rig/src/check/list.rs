//! Every state that a list had.

use std::collections::HashMap;

use prost::Message as _;
use tao_model::StableHash;
use tao_proto::v1;

use crate::check::{Among, Arena, Filter, Lsn, Page, Seen};

/// Between two states that are kept whole.
const STRIDE: usize = 64;

/// Stands for an edge of a list, its time and data included.
pub fn edge_hash(edge: &v1::Assoc) -> u64 {
    let bare = v1::Assoc { id1: 0, r#type: String::new(), ..edge.clone() };
    StableHash::of(&bare.encode_to_vec()).max(1)
}

/// An edge of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub time: u32,
    pub id2: i64,
    pub hash: u64,
    pub w: u64,
}

/// One change of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListVersion {
    pub lsn: Lsn,
    pub count: u32,
    pub id2: i64,
    /// `None`: the edge was removed.
    pub put: Option<Entry>,
}

/// All states of one list. State 0 is empty; change `i` leads from state `i` to state `i + 1`.
#[derive(Debug, Default)]
pub(crate) struct ListHistory {
    pub versions: Vec<ListVersion>,
    /// Every STRIDE-th state, in list order.
    kept: Vec<Vec<Entry>>,
    /// The newest state.
    pub now: Vec<Entry>,
    /// By hash: the states in which an edge was there, the end excluded.
    lives: HashMap<u64, Vec<(u32, u32)>>,
}

fn place(entry: &Entry) -> (std::cmp::Reverse<u32>, std::cmp::Reverse<i64>) {
    (std::cmp::Reverse(entry.time), std::cmp::Reverse(entry.id2))
}

fn apply(state: &mut Vec<Entry>, id2: i64, put: Option<Entry>) -> Option<Entry> {
    let old = state.iter().position(|e| e.id2 == id2).map(|at| state.remove(at));
    if let Some(entry) = put {
        let at = state.partition_point(|e| place(e) < place(&entry));
        state.insert(at, entry);
    }
    old
}

impl ListHistory {
    /// Takes in the next change; answers with the edge that it replaced or removed.
    pub fn push(&mut self, version: ListVersion) -> Option<Entry> {
        if self.versions.len().is_multiple_of(STRIDE) {
            self.kept.push(self.now.clone());
        }
        let state = self.versions.len() as u32 + 1;
        let old = apply(&mut self.now, version.id2, version.put);
        if let Some(life) = old.and_then(|old| self.lives.get_mut(&old.hash)).and_then(|lives| lives.last_mut()) {
            life.1 = state;
        }
        if let Some(entry) = version.put {
            self.lives.entry(entry.hash).or_default().push((state, u32::MAX));
        }
        self.versions.push(version);
        old
    }

    /// The last change's position; 0 when there was none.
    pub fn last(&self) -> Lsn {
        self.versions.last().map_or(0, |v| v.lsn)
    }

    /// The number of the state at a position.
    fn reached(&self, lsn: Lsn) -> usize {
        self.versions.partition_point(|v| v.lsn <= lsn)
    }

    /// Where a state began.
    fn begins(&self, state: usize) -> Lsn {
        state.checked_sub(1).map_or(0, |i| self.versions[i].lsn)
    }

    fn state(&self, number: usize) -> Vec<Entry> {
        let Some(base) = (number / STRIDE).checked_sub(usize::from(number / STRIDE >= self.kept.len())) else {
            return Vec::new();
        };
        let mut state = self.kept[base].clone();
        for version in &self.versions[base * STRIDE..number] {
            apply(&mut state, version.id2, version.put);
        }
        state
    }

    pub fn state_at(&self, lsn: Lsn) -> Vec<Entry> {
        self.state(self.reached(lsn))
    }

    pub fn count_at(&self, lsn: Lsn) -> u32 {
        self.reached(lsn).checked_sub(1).map_or(0, |i| self.versions[i].count)
    }

    /// The first of the states that were current at some position within the bounds and give this answer: where it began.
    pub fn earliest(&self, lo: Lsn, hi: Lsn, seen: &Seen, arena: &Arena) -> Option<Lsn> {
        if lo > hi {
            return None;
        }
        let (first, last) = (self.reached(lo), self.reached(hi));
        let edges = match seen {
            Seen::Object(_) => return None,
            Seen::Count(count) => {
                let count_of = |state: usize| state.checked_sub(1).map_or(0, |i| self.versions[i].count);
                return (first..=last).find(|s| count_of(*s) == *count).map(|s| self.begins(s));
            }
            Seen::Page(page) => arena.get(page.edges),
            Seen::Among(among) => arena.get(among.edges),
        };
        for (from, to) in self.windows(edges, first, last) {
            let mut state = self.state(from);
            for number in from..=to {
                if number > from {
                    let version = &self.versions[number - 1];
                    apply(&mut state, version.id2, version.put);
                }
                if fits(&state, seen, arena) {
                    return Some(self.begins(number));
                }
            }
        }
        None
    }

    /// The runs of states, within the bounds, in which all of these edges were there.
    fn windows(&self, edges: &[u64], first: usize, last: usize) -> Vec<(usize, usize)> {
        let mut windows = vec![(first, last)];
        for hash in edges {
            let Some(lives) = self.lives.get(hash) else { return Vec::new() };
            let cut = |(from, to): (usize, usize)| {
                lives.iter().filter_map(move |(born, died)| {
                    let (from, to) = (from.max(*born as usize), to.min(*died as usize - 1));
                    (from <= to).then_some((from, to))
                })
            };
            windows = windows.into_iter().flat_map(cut).collect();
        }
        windows
    }
}

/// Whether a state gives an answer.
fn fits(state: &[Entry], seen: &Seen, arena: &Arena) -> bool {
    match seen {
        Seen::Object(_) => false,
        Seen::Count(count) => state.len() == *count as usize,
        Seen::Page(page) => page_fits(state, page, arena),
        Seen::Among(among) => among_fits(state, among, arena),
    }
}

fn page_fits(state: &[Entry], page: &Page, arena: &Arena) -> bool {
    let Filter { after, offset, low, high, limit } = page.filter;
    let inside = |e: &&Entry| {
        let follows = after.is_none_or(|(time, id2)| (e.time, e.id2) < (time, id2));
        follows && (low..=high).contains(&e.time)
    };
    let mut rest = state.iter().filter(inside).skip(offset as usize);
    let shown = rest.by_ref().take(limit as usize).map(|e| &e.hash);
    shown.eq(arena.get(page.edges)) && !(page.ended && rest.next().is_some())
}

fn among_fits(state: &[Entry], among: &Among, arena: &Arena) -> bool {
    let ids = arena.get(among.ids);
    let inside = |e: &&Entry| (among.low..=among.high).contains(&e.time) && ids.contains(&(e.id2 as u64));
    state.iter().filter(inside).map(|e| &e.hash).eq(arena.get(among.edges))
}
