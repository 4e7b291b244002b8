//! Whether a cluster holds what an export does: every row of both, in key order.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use futures::future::try_join_all;
use tao_model::{ShardSet, Step};
use tao_store::direct::{GraphRow, Snapshot, cut};

use super::export::{PlannedRows, key, locked};
use super::import::steps;
use super::manifest::{Manifest, Part};
use super::part::PartReader;
use super::plan::PartKind;
use super::record::Decoder;
use crate::commands::Failure;
use crate::databases::Databases;

/// Rows that are compared at once.
const PAGE: usize = 1_000;
/// Differences that are told.
const EXAMPLES: usize = 10;

/// What a comparison has found.
#[derive(Debug, Default)]
pub struct Compared {
    /// Rows that are equal.
    pub equal: u64,
    /// Rows that are not, or are on one side only.
    pub different: u64,
    /// Some of those.
    pub examples: Vec<String>,
}

/// Compares all of it; what was still left to do when the export was made is passed over, by its ids.
pub async fn compare(
    databases: &Databases,
    folder: &Path,
    manifest: &Manifest,
    parallel: usize,
) -> Result<Compared, Failure> {
    let mut passed = HashSet::new();
    for step in steps(folder, manifest)? {
        match step {
            Step::Put { edge, .. } | Step::Remove { edge, .. } => {
                let sides = [Some(edge), databases.schema.inverse(edge)].into_iter().flatten();
                passed.extend(sides.map(|at| vec![at.id1.get(), i64::from(at.atype.0), at.id2.get()]));
            }
            Step::DeleteObject(id) => drop(passed.insert(vec![id.get()])),
        }
    }
    let mut snapshots = cut(&databases.all, parallel).await?;
    let left = manifest.parts.iter().filter(|part| part.plan.kind != PartKind::Intents).cloned();
    let left = Mutex::new(left.collect::<VecDeque<_>>());
    let workers = (0..parallel).map(|_| {
        let mut these: Vec<Snapshot> = snapshots.iter_mut().filter_map(Vec::pop).collect();
        let (left, passed) = (&left, &passed);
        async move {
            let mut compared = Compared::default();
            loop {
                let Some(part) = locked(left).pop_front() else { return Ok::<_, Failure>(compared) };
                compare_part(databases, (folder, manifest), &part, &mut these, passed, &mut compared).await?;
            }
        }
    });
    let workers: Vec<_> = workers.collect();
    let mut all = Compared::default();
    for compared in try_join_all(workers).await? {
        all.equal += compared.equal;
        all.different += compared.different;
        all.examples.extend(compared.examples);
    }
    all.examples.truncate(EXAMPLES);
    Ok(all)
}

async fn compare_part(
    databases: &Databases,
    (folder, manifest): (&Path, &Manifest),
    part: &Part,
    snapshots: &mut [Snapshot],
    passed: &HashSet<Vec<i64>>,
    compared: &mut Compared,
) -> Result<(), Failure> {
    let of = manifest.logs.iter().find(|log| log.log == part.plan.log);
    let shards =
        of.ok_or_else(|| Failure::bad_input("the manifest names a part of a log that it has not"))?.shard_set()?;
    let decoder = Decoder::new(&databases.schema, &manifest.schema).map_err(Failure::bad_input)?;
    let mut reader = PartReader::open(folder, &part.plan, manifest.format)?;
    let mut written = VecDeque::new();
    let mut stored: Vec<Stored> = snapshots.iter_mut().map(|snapshot| Stored::new(snapshot, part)).collect();
    loop {
        if written.is_empty() {
            written.extend(reader.rows(&decoder, PAGE)?);
        }
        let there = next(&mut stored, databases, &shards).await?;
        let (want, found) = (written.front().map(key), there.as_ref().map(|(_, row)| key(row)));
        let (takes_want, takes_found) = match (&want, &found) {
            (None, None) => return Ok(()),
            (Some(want), Some(found)) => (want <= found, found <= want),
            (want, found) => (want.is_some(), found.is_some()),
        };
        let wanted = if takes_want { written.pop_front() } else { None };
        let row = match there.filter(|_| takes_found) {
            Some((place, _)) => stored[place].rows.pop_front(),
            None => None,
        };
        if want.or(found).is_some_and(|key| passed.contains(&key)) {
            continue;
        }
        if wanted == row {
            compared.equal += 1;
            continue;
        }
        compared.different += 1;
        if compared.examples.len() < EXAMPLES {
            let side = |row: Option<GraphRow>| row.map_or_else(|| "nothing".to_owned(), |row| format!("{row:?}"));
            compared.examples.push(format!("written {}, stored {}", side(wanted), side(row)));
        }
    }
}

/// Rows of one database in a part's range.
struct Stored<'a> {
    snapshot: &'a mut Snapshot,
    planned: PlannedRows,
    rows: VecDeque<GraphRow>,
    is_over: bool,
}

impl<'a> Stored<'a> {
    fn new(snapshot: &'a mut Snapshot, part: &Part) -> Self {
        Self { snapshot, planned: PlannedRows::new(&part.plan), rows: VecDeque::new(), is_over: false }
    }
}

/// The first of all databases' rows that is of these shards, and whose it is.
async fn next(
    stored: &mut [Stored<'_>],
    databases: &Databases,
    shards: &ShardSet,
) -> Result<Option<(usize, GraphRow)>, Failure> {
    let mut first: Option<(usize, GraphRow)> = None;
    for (place, of) in stored.iter_mut().enumerate() {
        while of.rows.is_empty() && !of.is_over {
            let page = of.planned.next(of.snapshot, PAGE).await?;
            of.is_over = page.is_empty();
            let is_of = |row: &GraphRow| match row {
                GraphRow::Object(object) => shards.contains(databases.layout.shard(object.id)),
                GraphRow::Edge(edge) => shards.contains(databases.layout.shard(edge.at.id1)),
            };
            of.rows.extend(page.into_iter().filter(is_of));
        }
        if let Some(row) = of.rows.front().filter(|row| first.as_ref().is_none_or(|(_, f)| key(row) < key(f))) {
            first = Some((place, row.clone()));
        }
    }
    Ok(first)
}
