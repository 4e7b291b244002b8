//! `tao export`: the whole graph as it is at one moment, into a folder; in parallel, and resumed after an interruption.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tao_model::{Clock as _, Position, Schema, SystemClock};
use tao_store::direct::{GraphRow, Snapshot, cut};

use super::durable::failed;
use super::journal::Journal;
use super::manifest::{Layout, LogPart, Manifest, Part, RowFormat, Types, VERSION};
use super::part::PartWriter;
use super::plan::{PartKind, PartPlan, edge_key, object_key, part_of, plan};
use super::record::Encoder;
use super::throttle::Throttle;
use crate::commands::time::rfc3339_ms;
use crate::commands::{Failure, Format, show};
use crate::databases::{DatabaseArgs, Databases, block_on};
use crate::load::progress::Progress;
use crate::load::stop::Stop;

/// Beside the parts, until the manifest is.
const STATE: &str = "export.state";

/// Arguments of `tao export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Beside running tiers: it reads one snapshot of all databases, a consistent moment, and holds nobody up but for the milliseconds in which that \
is taken. Interrupted, it goes on when the same command is run again: parts whose rows have not changed since are kept.

Examples:
  tao export graph --store postgres://tao@db/tao
  tao export graph --store sqlite:data/tao.db --format compact --rate 20000 --output json"
)]
pub struct ExportArgs {
    /// The folder; made when absent
    folder: PathBuf,
    #[command(flatten)]
    databases: DatabaseArgs,
    /// How rows are written: a JSON object a line, or packed messages in gzip
    #[arg(long, value_enum, default_value = "jsonl")]
    format: RowFormat,
    /// Pack the JSON with gzip
    #[arg(long)]
    gzip: bool,
    #[command(flatten)]
    pace: Pace,
    /// Rows of a part, about
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    part_rows: u32,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// How fast, and by how many.
#[derive(Debug, Clone, Copy, Args)]
pub struct Pace {
    /// Parts under way at once, of each database
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// Rows a second at the most, in all [default: as many as can be]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
}

/// What to write.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where.
    pub folder: PathBuf,
    /// How.
    pub format: RowFormat,
    /// Whether JSON is packed.
    pub gzip: bool,
    /// How fast.
    pub pace: Pace,
    /// Rows of a part.
    pub part_rows: usize,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// The first.
    Job { version: u32, cluster: String, format: RowFormat, gzip: bool },
    /// Parts of one log.
    Plan { log: u32, parts: Vec<PartPlan> },
    /// A part that is there, as its log was at a position.
    Done { part: Part, epoch: u64, lsn: u64 },
}

/// Writes an export and prints what it has.
pub fn export(args: &ExportArgs) -> Result<ExitCode, Failure> {
    let order = Order {
        folder: args.folder.clone(),
        format: args.format,
        gzip: args.gzip,
        pace: args.pace,
        part_rows: args.part_rows as usize,
    };
    if Manifest::is_in(&order.folder) {
        eprintln!("{} was written completely before; name another folder for another export", order.folder.display());
        return summary(&Manifest::read(&order.folder)?, args.output).map(|()| ExitCode::SUCCESS);
    }
    let manifest = block_on(async { run(&args.databases.open().await?, &order, Stop::on_signal()).await })?;
    match manifest {
        Some(manifest) => summary(&manifest, args.output).map(|()| ExitCode::SUCCESS),
        None => Ok(ExitCode::from(130)),
    }
}

/// Prints what an export has.
pub fn summary(manifest: &Manifest, output: Format) -> Result<(), Failure> {
    let (objects, edges) = (manifest.rows(PartKind::Objects), manifest.rows(PartKind::Edges));
    let bytes: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
    let positions = manifest.logs.iter().map(|log| (log.log.to_string(), log.position().to_string()));
    let positions: std::collections::BTreeMap<_, _> = positions.collect();
    show(&match output {
        Format::Json => {
            let parts = manifest.parts.len();
            let printed =
                json!({"objects": objects, "edges": edges, "parts": parts, "bytes": bytes, "positions": positions});
            format!("{printed}\n")
        }
        Format::Text => {
            let at: String = positions.iter().map(|(log, at)| format!(" log {log} at {at}")).collect();
            format!(
                "{objects} objects, {edges} edges (each direction is one) in {} parts, {bytes} bytes;{at}\n",
                manifest.parts.len()
            )
        }
    })
}

/// Writes an export; `None` when it was asked to stop.
pub async fn run(databases: &Databases, order: &Order, stop: Stop) -> Result<Option<Manifest>, Failure> {
    std::fs::create_dir_all(&order.folder).map_err(|error| failed(&order.folder, error))?;
    let mut export = Export::open(databases, order)?;
    let parallel = usize::from(order.pace.parallel);
    let mut snapshots = cut(&databases.all, parallel).await?;
    export.plan(&mut snapshots).await?;
    export.keep(&mut snapshots).await?;
    let positions: Vec<Position> = snapshots.iter().map(|these| these[0].position()).collect();
    let mut intents_done = Vec::with_capacity(positions.len());
    for these in &mut snapshots {
        let mut done: Vec<_> = these[0].done().await?.into_iter().map(|(log, at)| (log.0, at.epoch, at.lsn)).collect();
        done.sort_unstable();
        intents_done.push(done);
    }
    let mut intents = Vec::with_capacity(positions.len());
    for (these, database) in snapshots.iter_mut().zip(&databases.all) {
        intents.push(export.intents(&mut these[0], database.info().log.0).await?);
    }
    let Some(mut parts) = export.parts(snapshots, stop).await? else { return Ok(None) };
    parts.extend(intents.into_iter().filter(|part| part.rows > 0));
    let logs = databases.all.iter().zip(positions).zip(intents_done).map(|((database, at), intents_done)| LogPart {
        log: database.info().log.0,
        shards: database.shards().to_string(),
        epoch: at.epoch,
        lsn: at.lsn,
        intents_done,
    });
    let manifest = Manifest {
        version: VERSION,
        tao: env!("CARGO_PKG_VERSION").to_owned(),
        written: rfc3339_ms(SystemClock.now_ms()).unwrap_or_default(),
        cluster: databases.cluster.to_string(),
        layout: Layout::of(databases.layout),
        format: order.format,
        schema: Types::of(&databases.schema),
        logs: logs.collect(),
        parts,
    };
    manifest.write(&order.folder)?;
    export.journal.remove()?;
    Ok(Some(manifest))
}

/// An export under way.
struct Export<'a> {
    databases: &'a Databases,
    order: &'a Order,
    journal: Journal<Line>,
    plans: HashMap<u32, Vec<PartPlan>>,
    /// By file, what is there, and as of when.
    done: HashMap<String, (Part, Position)>,
}

impl<'a> Export<'a> {
    fn open(databases: &'a Databases, order: &'a Order) -> Result<Self, Failure> {
        let path = order.folder.join(STATE);
        let others = std::fs::read_dir(&order.folder).map_err(|error| failed(&order.folder, error))?.count();
        if others > 0 && !path.exists() {
            return Err(Failure::bad_input(format!("{} is not empty, and no export of tao", order.folder.display())));
        }
        let (mut journal, lines) = Journal::open(&path)?;
        let (mut plans, mut done) = (HashMap::new(), HashMap::new());
        if lines.is_empty() {
            let (cluster, format, gzip) = (databases.cluster.to_string(), order.format, order.gzip);
            journal.append(&Line::Job { version: VERSION, cluster, format, gzip })?;
            journal.sync()?;
        } else {
            eprintln!("going on with an export that was interrupted");
        }
        for line in lines {
            match line {
                Line::Job { version, cluster, format, gzip } => {
                    let is_same = (version, format, gzip) == (VERSION, order.format, order.gzip)
                        && cluster == databases.cluster.to_string();
                    if !is_same {
                        let what = "holds part of another export: of another cluster, or in another format";
                        return Err(Failure::bad_input(format!("{} {what}", order.folder.display())));
                    }
                }
                Line::Plan { log, parts } => drop(plans.insert(log, parts)),
                Line::Done { part, epoch, lsn } => {
                    done.insert(part.plan.file.clone(), (part, Position::new(epoch, lsn)));
                }
            }
        }
        Ok(Self { databases, order, journal, plans, done })
    }

    /// Plans what is not planned yet.
    async fn plan(&mut self, snapshots: &mut [Vec<Snapshot>]) -> Result<(), Failure> {
        let suffix = self.order.format.suffix(self.order.gzip);
        for (database, these) in self.databases.all.iter().zip(snapshots) {
            let log = database.info().log;
            if !self.plans.contains_key(&log.0) {
                let parts = plan(&mut these[0], log, self.order.part_rows, suffix).await?;
                self.journal.append(&Line::Plan { log: log.0, parts: parts.clone() })?;
                self.plans.insert(log.0, parts);
            }
        }
        self.journal.sync()
    }

    /// Keeps those parts of an earlier attempt that hold today what they held then: the log says which rows have changed since.
    async fn keep(&mut self, snapshots: &mut [Vec<Snapshot>]) -> Result<(), Failure> {
        let plans = &self.plans;
        for (database, these) in self.databases.all.iter().zip(snapshots) {
            let (log, snapshot) = (database.info().log.0, &mut these[0]);
            let head = snapshot.position();
            let is_old = |(part, at): &(Part, Position)| part.plan.log == log && *at != head;
            let Some(oldest) = self.done.values().filter(|done| is_old(done)).map(|(_, at)| *at).min() else {
                continue;
            };
            let mut end = oldest;
            while end.epoch == head.epoch && end < head {
                let page = snapshot.log(end).await?;
                for entry in &page {
                    let follows = entry.first == end.plus(1);
                    let Some(changes) = entry.changes.as_ref().ok().filter(|_| follows) else { break };
                    for change in changes {
                        let Some(part) = part_of(&plans[&log], change) else { continue };
                        if self.done.get(&part.file).is_some_and(|(_, at)| *at < change.position) {
                            self.done.remove(&part.file);
                        }
                    }
                    end = entry.last;
                }
                // A hole, or its end.
                if page.last().is_none_or(|last| last.last != end) {
                    break;
                }
            }
            if end != head {
                // Nobody can say what has changed.
                self.done.retain(|_, done| !is_old(done));
            }
        }
        Ok(())
    }

    async fn intents(&mut self, snapshot: &mut Snapshot, log: u32) -> Result<Part, Failure> {
        let file = format!("intents-{log}.jsonl");
        let plan = PartPlan { file, kind: PartKind::Intents, log, after: None, up_to: None };
        let encoder = Encoder(&self.databases.schema);
        let mut writer = PartWriter::create(&self.order.folder, plan, RowFormat::Jsonl, encoder)?;
        for intent in snapshot.intents().await? {
            writer.intent(&intent)?;
        }
        let part = writer.finish()?;
        if part.rows == 0 {
            let path = part.plan.path(&self.order.folder);
            std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
        }
        Ok(part)
    }

    /// Writes all parts that are not there; `None` when asked to stop.
    async fn parts(&mut self, snapshots: Vec<Vec<Snapshot>>, stop: Stop) -> Result<Option<Vec<Part>>, Failure> {
        let total = self.plans.values().map(Vec::len).sum();
        let shared = Arc::new(Shared {
            folder: self.order.folder.clone(),
            format: self.order.format,
            schema: self.databases.schema.clone(),
            throttle: Throttle::new(self.order.pace.rate),
            progress: Mutex::new(Progress::new("parts", total, self.done.len())),
            stop,
        });
        let (finished, mut incoming) = tokio::sync::mpsc::channel::<(Part, Position)>(64);
        let mut workers = Vec::new();
        for (database, these) in self.databases.all.iter().zip(snapshots) {
            let plans = self.plans.get(&database.info().log.0).into_iter().flatten();
            let left: VecDeque<_> = plans.filter(|plan| !self.done.contains_key(&plan.file)).cloned().collect();
            let left = Arc::new(Mutex::new(left));
            for snapshot in these {
                let worker = Worker { shared: shared.clone(), left: left.clone(), snapshot };
                workers.push(tokio::spawn(worker.run(finished.clone())));
            }
        }
        drop(finished);
        while let Some((part, at)) = incoming.recv().await {
            self.journal.append(&Line::Done { part: part.clone(), epoch: at.epoch, lsn: at.lsn })?;
            self.done.insert(part.plan.file.clone(), (part, at));
        }
        for ended in try_join_all(workers).await.map_err(Failure::other)? {
            ended?;
        }
        if self.done.len() < total {
            eprintln!("what is done is kept in {}: run the same command again to go on", self.order.folder.display());
            return Ok(None);
        }
        let mut parts: Vec<Part> = self.done.values().map(|(part, _)| part.clone()).collect();
        parts.sort_by(|a, b| (a.plan.log, &a.plan.file).cmp(&(b.plan.log, &b.plan.file)));
        Ok(Some(parts))
    }
}

/// What all workers share.
struct Shared {
    folder: PathBuf,
    format: RowFormat,
    schema: Arc<Schema>,
    throttle: Throttle,
    progress: Mutex<Progress>,
    stop: Stop,
}

/// Writes one part after the other, from its own connection to the one snapshot.
struct Worker {
    shared: Arc<Shared>,
    left: Arc<Mutex<VecDeque<PartPlan>>>,
    snapshot: Snapshot,
}

/// The lock of what is whole between any two of its uses.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    async fn run(mut self, finished: tokio::sync::mpsc::Sender<(Part, Position)>) -> Result<(), Failure> {
        loop {
            let Some(plan) = locked(&self.left).pop_front() else { return Ok(()) };
            let Some(part) = self.write(plan).await? else { return Ok(()) };
            locked(&self.shared.progress).add(1);
            if finished.send((part, self.snapshot.position())).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, plan: PartPlan) -> Result<Option<Part>, Failure> {
        let Shared { folder, format, schema, throttle, stop, .. } = &*self.shared;
        let mut rows = PlannedRows::new(&plan);
        let mut writer = PartWriter::create(folder, plan, *format, Encoder(schema))?;
        loop {
            if stop.is_asked() {
                return Ok(None);
            }
            let page = rows.next(&mut self.snapshot, throttle.chunk()).await?;
            if page.is_empty() {
                return writer.finish().map(Some);
            }
            page.iter().try_for_each(|row| writer.row(row))?;
            throttle.wait(page.len()).await;
        }
    }
}

/// The rows that a part holds, or would hold, in a snapshot; in key order.
pub struct PlannedRows {
    kind: PartKind,
    after: Option<Vec<i64>>,
    up_to: Option<Vec<i64>>,
}

impl PlannedRows {
    /// All of them.
    pub fn new(plan: &PartPlan) -> Self {
        Self { kind: plan.kind, after: plan.after.clone(), up_to: plan.up_to.clone() }
    }

    /// The next; none at the end.
    pub async fn next(&mut self, snapshot: &mut Snapshot, limit: usize) -> Result<Vec<GraphRow>, Failure> {
        let (after, up_to) = (self.after.as_ref(), self.up_to.as_ref());
        let rows: Vec<GraphRow> = match self.kind {
            PartKind::Objects => {
                let objects = snapshot.objects(object_key(after), object_key(up_to), limit).await?;
                objects.into_iter().map(GraphRow::Object).collect()
            }
            PartKind::Edges => {
                let edges = snapshot.edges(edge_key(after), edge_key(up_to), limit).await?;
                edges.into_iter().map(GraphRow::Edge).collect()
            }
            PartKind::Intents => Vec::new(),
        };
        self.after = rows.last().map(key).or(self.after.take());
        Ok(rows)
    }
}

/// A row's key, as bounds have it.
pub fn key(row: &GraphRow) -> Vec<i64> {
    match row {
        GraphRow::Object(object) => vec![object.id.get()],
        GraphRow::Edge(edge) => vec![edge.at.id1.get(), i64::from(edge.at.atype.0), edge.at.id2.get()],
    }
}

/// A folder's name, for messages.
pub fn name(folder: &Path) -> String {
    folder.display().to_string()
}
