//! `tao import`: an export into an empty cluster, with ids, versions, times and data as they were; in parallel, and resumed after an
//! interruption.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Args;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tao_model::{AssocRef, LogId, Position, Step};
use tao_proto::intents;
use tao_store::direct::{EdgeRow, GraphRow, RowChange, cut};

use super::check;
use super::durable::failed;
use super::export::{Pace, locked, name};
use super::journal::Journal;
use super::manifest::{Manifest, Part};
use super::part::{PartReader, checksum};
use super::plan::PartKind;
use super::record::Decoder;
use super::throttle::Throttle;
use crate::commands::{Failure, Format, show};
use crate::databases::{DatabaseArgs, Databases, block_on};
use crate::load::progress::Progress;
use crate::load::stop::Stop;

/// Arguments of `tao import`.
#[derive(Debug, Args)]
#[command(
    after_help = "The cluster must be empty, its ids be laid out as those of the export, and its schema have the same types; how many databases it has, and which \
cluster it is, does not matter. It may run meanwhile: what is written goes through the log, so caches hear of it; sessions begin anew.
Interrupted, it goes on when the same command is run again: what it has done is kept beside the export.

Examples:
  tao import graph --store postgres://tao@db/tao
  tao import graph --store sqlite:data/tao.db --rate 20000 --output json"
)]
pub struct ImportArgs {
    /// The folder of the export
    folder: PathBuf,
    #[command(flatten)]
    databases: DatabaseArgs,
    #[command(flatten)]
    pace: Pace,
    /// Where to keep what is done [default: a file in the folder]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Line {
    /// The first: of which export, into which cluster.
    Job { manifest: String, cluster: String },
    /// The databases are as they should be; the epoch that has begun in each.
    Begun { epochs: Vec<(u32, u64)> },
    /// So many rows of a part are there.
    Rows { file: String, rows: u64 },
    /// All is done.
    Done,
}

/// An import, and how far it is.
pub struct Import<'a> {
    /// Where to.
    pub databases: &'a Databases,
    /// From where.
    pub folder: &'a Path,
    /// What.
    pub manifest: &'a Manifest,
    journal: Journal<Line>,
    rows: HashMap<String, u64>,
    epochs: Option<Vec<(u32, u64)>>,
    is_done: bool,
}

/// What an import has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// All is there; so many rows were read for it this time.
    Complete(u64),
    /// It was asked to stop.
    Interrupted,
}

/// Imports and prints what was done.
pub fn import(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let manifest = Manifest::read(&args.folder)?;
    let imported = block_on(async {
        let databases = args.databases.open().await?;
        let mut import = Import::open(&databases, &args.folder, &manifest, args.state.as_deref(), "import")?;
        if import.is_done && import.is_begun().await? {
            eprintln!("{} was imported completely before", name(&args.folder));
            return Ok(Imported::Complete(0));
        }
        if import.is_begun().await? {
            eprintln!("going on with an import that was interrupted");
        } else {
            if !is_empty(&databases).await? {
                let what = "the cluster is not empty: `tao restore` replaces what a cluster has";
                return Err(Failure::bad_input(what));
            }
            check::checksums(&args.folder, &manifest)?;
            for database in &databases.all {
                // Whatever was in its log before: nobody takes the one for the other, and ids of before are not made again.
                database.begin_epoch(above(&databases, &manifest, database.info().log)?).await?;
            }
            import.begin().await?;
        }
        import.run(args.pace, Stop::on_signal()).await
    })?;
    match imported {
        Imported::Interrupted => Ok(ExitCode::from(130)),
        Imported::Complete(rows) => {
            let (objects, edges) = (manifest.rows(PartKind::Objects), manifest.rows(PartKind::Edges));
            show(&match args.output {
                Format::Json => format!("{}\n", json!({"objects": objects, "edges": edges, "rows_read": rows})),
                Format::Text => format!("{objects} objects, {edges} edges (each direction is one) are there\n"),
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether no database has anything.
pub async fn is_empty(databases: &Databases) -> Result<bool, Failure> {
    for these in &mut cut(&databases.all, 1).await? {
        if !these[0].is_empty().await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A position that the log's next epoch must lie above: that of the export, where it is of the same log.
pub fn above(databases: &Databases, manifest: &Manifest, log: LogId) -> Result<Position, Failure> {
    let is_same = databases.cluster == manifest.cluster_id()?;
    let written = manifest.logs.iter().find(|part| is_same && part.id() == log);
    Ok(written.map_or(Position::ZERO, super::manifest::LogPart::position))
}

impl<'a> Import<'a> {
    /// Opens its state; refuses what can't be imported there at all.
    pub fn open(
        databases: &'a Databases,
        folder: &'a Path,
        manifest: &'a Manifest,
        state: Option<&Path>,
        command: &str,
    ) -> Result<Self, Failure> {
        if manifest.layout.to_model()? != databases.layout {
            let what =
                "the cluster's ids are laid out otherwise than those of the export: bits, or the number of shards";
            return Err(Failure::bad_input(what));
        }
        Decoder::new(&databases.schema, &manifest.schema).map_err(Failure::bad_input)?;
        let cluster = databases.cluster.to_string();
        let beside = || folder.join(format!("{command}-{}.state", cluster.get(..8).unwrap_or(&cluster)));
        let path = state.map_or_else(beside, Path::to_owned);
        let (hash, _) = checksum(&folder.join("manifest.json"))?;
        let (mut journal, lines) = Journal::open(&path)?;
        if lines.is_empty() {
            journal.append(&Line::Job { manifest: hash.clone(), cluster: cluster.clone() })?;
        }
        let (rows, epochs, is_done) = (HashMap::new(), None, false);
        let mut import = Self { databases, folder, manifest, journal, rows, epochs, is_done };
        for line in lines {
            match line {
                Line::Job { manifest, cluster: of } if (&manifest, &of) != (&hash, &cluster) => {
                    return Err(failed(&path, "is of another import: remove it, or name another with --state"));
                }
                Line::Job { .. } => {}
                Line::Begun { epochs } => {
                    (import.rows, import.epochs, import.is_done) = (HashMap::new(), Some(epochs), false);
                }
                Line::Rows { file, rows } => drop(import.rows.insert(file, rows)),
                Line::Done => import.is_done = true,
            }
        }
        Ok(import)
    }

    /// Whether it was begun, and the databases' history is still that in which it was.
    pub async fn is_begun(&self) -> Result<bool, Failure> {
        Ok(self.epochs.is_some() && self.epochs == Some(self.present_epochs().await?))
    }

    /// Whether all was there.
    pub const fn is_done(&self) -> bool {
        self.is_done
    }

    async fn present_epochs(&self) -> Result<Vec<(u32, u64)>, Failure> {
        let mut epochs = Vec::new();
        for database in &self.databases.all {
            epochs.push((database.info().log.0, database.head().await?.epoch));
        }
        Ok(epochs)
    }

    /// From here on it can be gone on with.
    pub async fn begin(&mut self) -> Result<(), Failure> {
        let epochs = self.present_epochs().await?;
        (self.rows, self.is_done) = (HashMap::new(), false);
        self.epochs = Some(epochs.clone());
        self.journal.append(&Line::Begun { epochs })?;
        self.journal.sync()
    }

    /// Writes what is not there yet.
    pub async fn run(&mut self, pace: Pace, stop: Stop) -> Result<Imported, Failure> {
        let parts = self.manifest.parts.iter().filter(|part| part.plan.kind != PartKind::Intents);
        let left: VecDeque<(Part, u64)> = parts
            .map(|part| (part.clone(), self.rows.get(&part.plan.file).copied().unwrap_or(0)))
            .filter(|(part, rows)| *rows < part.rows)
            .collect();
        let total: u64 = self.manifest.parts.iter().map(|part| part.rows).sum();
        let before: u64 = self.rows.values().sum();
        let work = Work {
            databases: self.databases,
            folder: self.folder,
            manifest: self.manifest,
            throttle: Throttle::new(pace.rate),
            stop: stop.clone(),
            left: Mutex::new(left),
            journal: Mutex::new(&mut self.journal),
            progress: Mutex::new(Progress::new("rows", total as usize, before as usize)),
        };
        // Commits come one after another; beside them, others are unpacked and read.
        let read = try_join_all((0..pace.parallel).map(|_| work.run())).await?.into_iter().sum();
        if stop.is_asked() {
            eprintln!("what is done is kept: run the same command again to go on");
            return Ok(Imported::Interrupted);
        }
        drop(work);
        self.apply_intents().await?;
        self.journal.append(&Line::Done)?;
        self.journal.sync()?;
        self.is_done = true;
        Ok(Imported::Complete(read))
    }

    /// Does what was left to do when the export was made.
    async fn apply_intents(&self) -> Result<(), Failure> {
        for step in steps(self.folder, self.manifest)? {
            for change in changes(&step, self.databases) {
                put(self.databases, vec![change]).await?;
            }
        }
        Ok(())
    }
}

/// What writes had left to do when an export was made, in order, without what was done already.
pub fn steps(folder: &Path, manifest: &Manifest) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::new();
    for part in manifest.parts.iter().filter(|part| part.plan.kind == PartKind::Intents) {
        for intent in PartReader::open(folder, &part.plan, manifest.format)?.intents()? {
            let mut target = None;
            for log in &manifest.logs {
                if log.shard_set()?.contains(intent.shard) {
                    target = Some(log);
                }
            }
            let done = target.and_then(|log| log.intents_done.iter().find(|(source, ..)| *source == part.plan.log));
            let is_done = done.is_some_and(|(_, epoch, number)| intent.position <= Position::new(*epoch, *number));
            if !is_done {
                let unreadable = |error| failed(&part.plan.path(folder), error);
                steps.extend(intents::decode(&intent.payload).map_err(unreadable)?);
            }
        }
    }
    Ok(steps)
}

/// A step's changes of single rows; both directions, where the step leaves the other one to its log.
fn changes(step: &Step, databases: &Databases) -> Vec<RowChange> {
    let sides = |edge: AssocRef, both: bool| {
        let inverse = databases.schema.inverse(edge).filter(|_| both);
        [Some(edge), inverse].into_iter().flatten()
    };
    match step {
        Step::Put { edge, time, data, both } => {
            let put = |at| RowChange::Put(GraphRow::Edge(EdgeRow { at, time: *time, data: data.clone() }));
            sides(*edge, *both).map(put).collect()
        }
        Step::Remove { edge, both } => sides(*edge, *both).map(RowChange::RemoveEdge).collect(),
        Step::DeleteObject(id) => vec![RowChange::DeleteObject(*id)],
    }
}

/// Makes changes, each in its database.
async fn put(databases: &Databases, changes: Vec<RowChange>) -> Result<(), Failure> {
    let mut of: Vec<Vec<RowChange>> = databases.all.iter().map(|_| Vec::new()).collect();
    for change in changes {
        let shard = databases.layout.shard(change.owner());
        let missing =
            || Failure::bad_input(format!("{} is of shard {shard}, which the cluster has not", change.owner()));
        let place = databases.place_of(shard).ok_or_else(missing)?;
        of[place].push(change);
    }
    for (database, changes) in databases.all.iter().zip(&of) {
        database.apply(changes).await?;
    }
    Ok(())
}

/// What all readers of parts share.
struct Work<'a> {
    databases: &'a Databases,
    folder: &'a Path,
    manifest: &'a Manifest,
    throttle: Throttle,
    stop: Stop,
    left: Mutex<VecDeque<(Part, u64)>>,
    journal: Mutex<&'a mut Journal<Line>>,
    progress: Mutex<Progress>,
}

impl Work<'_> {
    /// Takes one part after the other; says how many rows it has read.
    async fn run(&self) -> Result<u64, Failure> {
        let decoder = Decoder::new(&self.databases.schema, &self.manifest.schema).map_err(Failure::bad_input)?;
        let mut read = 0;
        loop {
            let Some((part, mut done)) = locked(&self.left).pop_front() else { return Ok(read) };
            let mut reader = PartReader::open(self.folder, &part.plan, self.manifest.format)?;
            reader.skip(done)?;
            loop {
                if self.stop.is_asked() {
                    return Ok(read);
                }
                let rows = reader.rows(&decoder, self.throttle.chunk())?;
                if rows.is_empty() {
                    break;
                }
                let count = rows.len();
                self.throttle.wait(count).await;
                put(self.databases, rows.into_iter().map(RowChange::Put).collect()).await?;
                (done, read) = (done + count as u64, read + count as u64);
                locked(&self.journal).append(&Line::Rows { file: part.plan.file.clone(), rows: done })?;
                locked(&self.progress).add(count);
            }
        }
    }
}
