//! `tao load`: an edge list into a running store, in parallel, and resumed after an interruption.

mod edge_list;
mod state;

use std::collections::BTreeMap;
use std::io::{BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tao_client::v1::batch_item::Call;
use tao_client::v1::batch_result::Result as BatchResult;
use tao_client::v1::value::Kind;
use tao_client::v1::{AssocAddRequest, BatchItem, BatchRequest, ItemError, ObjectAddRequest, Value, WriteOptions};
use tao_client::{Client, ClientOptions, Session};

use edge_list::EdgeList;
use state::{Job, State};

/// Rounds that items of a batch are tried again for, when the server says that they may be.
const ROUNDS: u32 = 30;
/// Batches between two lines of progress that are not a bar, at the least.
const REPORT: Duration = Duration::from_secs(5);

/// What `tao load` prints at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Arguments of `tao load`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each id of the file becomes an object with the field `external_id`. A pair that comes again keeps its newest time;
an edge without a time gets 0. Lines that begin with # or %, and a first line of words, are passed over; edges from an id to
itself and lines that are no edge are skipped and reported. The whole graph is held in memory: about 12 bytes an edge.

A load that was interrupted goes on where it was when it is run again: what it has done is kept in FILE.tao-load.

Examples:
  tao load friends.txt.gz --type friend --undirected
  zcat big.gz | tao load - --type follows --rate 5000"
)]
pub struct LoadArgs {
    /// The edge list, plain or gzip; - for standard input (which can't be resumed)
    file: PathBuf,
    /// The association type of the edges
    #[arg(long = "type", value_name = "TYPE")]
    atype: String,
    /// The type of the objects that the file's ids become
    #[arg(long, value_name = "TYPE", default_value = "user")]
    object_type: String,
    /// Take `a b` and `b a` for the same edge, as symmetric types do
    #[arg(long)]
    undirected: bool,
    /// The follower
    #[arg(long, env = "TAO_ADDRESS", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    address: String,
    /// Batches under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Edges in one batch
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Edges a second at the most [default: as many as the store takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Where to keep what is done [default: FILE.tao-load]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Load again what was loaded completely before
    #[arg(long)]
    again: bool,
    /// Write a line `file_id object_id` for each object
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is loaded.
    Complete,
    /// Somebody asked it to stop; it can be resumed.
    Interrupted,
}

/// Loads an edge list.
pub fn load(args: &LoadArgs) -> Result<Ended> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    runtime.block_on(run(args))
}

async fn run(args: &LoadArgs) -> Result<Ended> {
    let content = content(&args.file)?;
    let list = edge_list::read(content.as_slice(), args.undirected).context("can't read the edge list")?;
    if list.edges.is_empty() {
        bail!("{} has no edges: a line has two numbers, and perhaps a time", args.file.display());
    }
    let path = state_path(args);
    if args.again
        && let Some(path) = &path
        && path.exists()
    {
        std::fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    let job = Job::new(&content, &args.atype, &args.object_type, args.undirected);
    drop(content);
    let mut state = State::open(path.as_deref(), &job, list.ids.len())?;
    if state.is_done {
        eprintln!("{} was loaded completely before; --again loads it once more", args.file.display());
        write_map(args, &list, &state)?;
        return Ok(Ended::Complete);
    }
    if state.is_resumed {
        eprintln!("going on with a load that was interrupted");
    }
    let client = Client::new(
        &args.address,
        ClientOptions { deadline: Duration::from_secs(60), attempts: 40, ..Default::default() },
    )?;
    let session = client.session();
    let begun = Instant::now();
    let stop = Stop::listen();
    let mut ended = make_objects(args, &session, &list, &mut state, &stop).await?;
    let objects_took = begun.elapsed();
    let begun = Instant::now();
    let already = state.edges.len();
    if ended == Ended::Complete {
        ended = write_edges(args, &session, &list, &mut state, &stop).await?;
    }
    state.sync()?;
    if ended == Ended::Interrupted {
        match path {
            Some(path) => eprintln!(
                "interrupted; what is done is kept in {}: run the same command again to go on",
                path.display()
            ),
            None => eprintln!("interrupted; run the same command again from the start"),
        }
        return Ok(ended);
    }
    state.done()?;
    write_map(args, &list, &state)?;
    let written = list.edges.len().saturating_sub(already * usize::from(args.batch));
    summary(args, &list, written, objects_took, begun.elapsed());
    Ok(ended)
}

fn content(file: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut content).context("can't read standard input")?;
    } else {
        content = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    }
    if content.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let mut decoder = MultiGzDecoder::new(BufReader::new(content.as_slice()));
        decoder.read_to_end(&mut plain).with_context(|| format!("{} is no whole gzip file", file.display()))?;
        content = plain;
    }
    Ok(content)
}

fn state_path(args: &LoadArgs) -> Option<PathBuf> {
    args.state.clone().or_else(|| {
        let name = args.file.file_name()?.to_string_lossy().into_owned();
        (args.file != Path::new("-")).then(|| args.file.with_file_name(name + ".tao-load"))
    })
}

/// Whether somebody has pressed Ctrl-C; what runs is then finished.
struct Stop(tokio::sync::watch::Receiver<bool>);

impl Stop {
    fn listen() -> Self {
        let (said, stop) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("\nfinishing what is under way; press Ctrl-C again to end at once");
                said.send_replace(true);
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130);
                }
            }
        });
        Self(stop)
    }

    fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

/// A bar for terminals, and a line now and then for everything else.
struct Progress {
    bar: ProgressBar,
    last: Instant,
    what: &'static str,
}

impl Progress {
    fn new(what: &'static str, total: usize, done: usize) -> Self {
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("{msg:>8} {wide_bar} {pos}/{len} {per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, last: Instant::now(), what }
    }

    fn add(&mut self, done: usize) {
        self.bar.inc(done as u64);
        if !std::io::stderr().is_terminal() && self.last.elapsed() >= REPORT {
            self.last = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            eprintln!("{}: {} of {total}, {:.0}/s", self.what, self.bar.position(), self.bar.per_sec());
        }
    }
}

/// Makes the objects that are still missing. Each has its own idempotency key: made twice, it is the same object.
async fn make_objects(
    args: &LoadArgs,
    session: &Session,
    list: &EdgeList,
    state: &mut State,
    stop: &Stop,
) -> Result<Ended> {
    let size = usize::from(args.batch);
    let missing: Vec<usize> = (0..list.ids.len()).step_by(size).filter(|from| state.objects[*from].is_none()).collect();
    let mut progress =
        Progress::new("objects", list.ids.len(), list.ids.len() - (missing.len() * size).min(list.ids.len()));
    let run = state.run.clone();
    let batches = missing.into_iter().take_while(|_| !stop.is_asked()).map(|from| {
        let ids = &list.ids[from..(from + size).min(list.ids.len())];
        let calls = ids.iter().enumerate().map(|(n, id)| {
            let value = Value { kind: Some(Kind::StringValue(id.to_string())) };
            let key = format!("load-{run}-{}", from + n);
            Call::ObjectAdd(ObjectAddRequest {
                r#type: args.object_type.clone(),
                data: BTreeMap::from([("external_id".to_owned(), value)]),
                options: Some(WriteOptions { idempotency_key: key, ..Default::default() }),
                ..Default::default()
            })
        });
        let calls: Vec<_> = calls.collect();
        async move { Ok::<_, anyhow::Error>((from, send(session, calls).await?)) }
    });
    let mut running = futures::stream::iter(batches).buffer_unordered(usize::from(args.concurrency));
    while let Some(answered) = running.next().await {
        let (from, results) = answered?;
        let ids = results.into_iter().map(|result| match result {
            BatchResult::ObjectAdd(added) => {
                added.object.map(|o| o.id).context("an object was added without an answer")
            }
            other => bail!("an unexpected answer: {other:?}"),
        });
        let ids = ids.collect::<Result<Vec<_>>>()?;
        progress.add(ids.len());
        state.made(from, ids)?;
    }
    progress.bar.finish_and_clear();
    state.sync()?;
    Ok(if state.objects.iter().all(Option::is_some) { Ended::Complete } else { Ended::Interrupted })
}

/// Writes the edges that are still missing. An edge that is written twice is the same edge.
async fn write_edges(
    args: &LoadArgs,
    session: &Session,
    list: &EdgeList,
    state: &mut State,
    stop: &Stop,
) -> Result<Ended> {
    let size = usize::from(args.batch);
    let objects: Vec<i64> = state.objects.iter().copied().flatten().collect();
    let missing: Vec<usize> = (0..list.edges.len()).step_by(size).filter(|from| !state.edges.contains(from)).collect();
    let total = missing.len();
    let mut progress =
        Progress::new("edges", list.edges.len(), list.edges.len() - (total * size).min(list.edges.len()));
    let begun = tokio::time::Instant::now();
    let batches = missing.into_iter().enumerate().take_while(|_| !stop.is_asked()).map(|(n, from)| {
        let edges = &list.edges[from..(from + size).min(list.edges.len())];
        let calls = edges.iter().map(|(a, b, time)| {
            Call::AssocAdd(AssocAddRequest {
                id1: objects[*a as usize],
                r#type: args.atype.clone(),
                id2: objects[*b as usize],
                time: Some(i64::from(*time)),
                ..Default::default()
            })
        });
        let calls: Vec<_> = calls.collect();
        let not_before = args.rate.map(|rate| begun + Duration::from_secs_f64((n * size) as f64 / f64::from(rate)));
        async move {
            if let Some(time) = not_before {
                tokio::time::sleep_until(time).await;
            }
            let count = calls.len();
            send(session, calls).await?;
            Ok::<_, anyhow::Error>((from, count))
        }
    });
    let mut running = futures::stream::iter(batches).buffer_unordered(usize::from(args.concurrency));
    let mut done = 0;
    while let Some(answered) = running.next().await {
        let (from, count) = answered?;
        progress.add(count);
        state.wrote(from)?;
        done += 1;
    }
    progress.bar.finish_and_clear();
    Ok(if done == total { Ended::Complete } else { Ended::Interrupted })
}

/// Sends calls as one batch, and those that may be tried again once more, until each has an answer.
async fn send(session: &Session, calls: Vec<Call>) -> Result<Vec<BatchResult>> {
    let mut answers: Vec<Option<BatchResult>> = vec![None; calls.len()];
    let mut last: Option<ItemError> = None;
    for round in 0..ROUNDS {
        let open: Vec<usize> = (0..calls.len()).filter(|n| answers[*n].is_none()).collect();
        if open.is_empty() {
            break;
        }
        if round > 0 {
            tokio::time::sleep(Duration::from_millis(u64::from(round) * 50)).await;
        }
        let items = open.iter().map(|n| BatchItem { call: Some(calls[*n].clone()) }).collect();
        let answer = session.batch(BatchRequest { items, options: None }).await?;
        for (n, result) in open.into_iter().zip(answer.results) {
            match result.result {
                Some(BatchResult::Error(error)) if error.retryable => last = Some(error),
                Some(BatchResult::Error(error)) => bail!("{}: {}", error.reason, error.message),
                result => answers[n] = result,
            }
        }
    }
    let answers: Option<Vec<_>> = answers.into_iter().collect();
    answers.with_context(|| last.map_or_else(|| "no answer".to_owned(), |e| format!("{}: {}", e.reason, e.message)))
}

fn write_map(args: &LoadArgs, list: &EdgeList, state: &State) -> Result<()> {
    let Some(path) = &args.map else { return Ok(()) };
    let lines = list.ids.iter().zip(&state.objects).filter_map(|(id, object)| Some(format!("{id} {}\n", (*object)?)));
    let text: String = lines.collect();
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

fn summary(args: &LoadArgs, list: &EdgeList, written: usize, objects: Duration, edges: Duration) {
    let skipped = &list.skipped;
    let rate = written as f64 / edges.as_secs_f64().max(1e-9);
    if args.output == Output::Json {
        let summary = json!({
            "users": list.ids.len(),
            "edges": list.edges.len(),
            "written": written,
            "object_seconds": objects.as_secs_f64(),
            "seconds": edges.as_secs_f64(),
            "edges_per_second": rate,
            "skipped": {
                "repeated": skipped.repeated,
                "to_itself": skipped.to_itself,
                "malformed": skipped.malformed,
            },
        });
        println!("{summary}");
        return;
    }
    println!(
        "{} objects in {:.1} s, {} edges in {:.1} s: {rate:.0} edges/s",
        list.ids.len(),
        objects.as_secs_f64(),
        written,
        edges.as_secs_f64()
    );
    for (count, reason) in [
        (skipped.repeated, "pairs that came again; their newest time is kept"),
        (skipped.to_itself, "edges from an id to itself"),
        (skipped.malformed, "lines that are no edge"),
    ] {
        if count > 0 {
            println!("skipped {count} {reason}");
        }
    }
    for (number, line) in &skipped.examples {
        println!("  line {number}: {line}");
    }
}
