//! `tao load`: an edge list into a running store, in parallel, and resumed after an interruption.

mod edge_list;
mod input;
pub mod progress;
mod report;
mod spans;
mod state;
pub mod stop;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tao_client::{Client, ClientOptions};

use crate::commands::{Failure, Format, TlsArgs, show};
use edge_list::EdgeList;
pub use report::Ended;
use report::Report;
use state::{Job, State};
use stop::Stop;
use writer::{Patience, Writer, WriterOptions};

/// A call of the load, which the writer makes again.
const DEADLINE: Duration = Duration::from_secs(30);
/// With a store that doesn't answer.
const PATIENCE: Patience = Patience { backoff: Duration::from_millis(50), ends: Duration::from_secs(120) };

/// Arguments of `tao load`.
#[derive(Debug, Args)]
#[command(
    after_help = "A line is `src dst [time]`, separated by blanks, tabs or commas; plain or gzip. Each id of the file becomes an object \
with the field `external_id`. A pair that comes again keeps its newest time; an edge without a time gets 0. Lines that begin with # or \
%, and a first line of words, are passed over; edges from an id to itself and lines that are no edge are skipped and reported. The \
whole graph is held in memory: about 25 bytes an edge and 60 an id, so tens of millions of edges are fine.

A load that was interrupted (Ctrl-C, a crash, a store that went away) goes on where it was when the same command is run again: what \
it has done is kept in FILE.tao-load. Nothing is made twice. Standard input can't be resumed.

Examples:
  tao load CollegeMsg.txt --type messaged
  tao load friends.txt.gz --type friend --undirected --map ids.txt
  zcat big.gz | tao load - --type follows --rate 5000 --output json"
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
    /// Take `a b` and `b a` for the same edge, as types that are their own inverse do
    #[arg(long)]
    undirected: bool,
    /// The follower; several with commas between them
    #[arg(long, env = "TAO_ADDRESS", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    address: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// Batches under way at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Objects or edges in one batch
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Objects or edges a second at the most [default: as many as the store takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Where to keep what is done [default: FILE.tao-load]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Load once more what was loaded completely before: the same objects and edges
    #[arg(long)]
    again: bool,
    /// Write a line `file_id object_id` for each object
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// Loads an edge list and prints what became of it.
pub fn load(args: &LoadArgs) -> Result<Ended, Failure> {
    // Told before minutes of work, not after.
    if let Some(path) = &args.map {
        File::options().append(true).create(true).open(path).map_err(|error| cant_write(path, &error))?;
    }
    let list = input::read(&args.file, args.undirected)?;
    if list.edges.is_empty() {
        let name = args.file.display();
        return Err(Failure::bad_input(format!("{name} has no edges: a line has two numbers, and perhaps a time")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let report = runtime.block_on(async { run(args, &list, Stop::on_signal(), PATIENCE).await })?;
    show(&match args.output {
        Format::Text => report.text(&list),
        Format::Json => format!("{}\n", report.json(&list)),
    })?;
    Ok(report.ended)
}

async fn run(args: &LoadArgs, list: &EdgeList, stop: Stop, patience: Patience) -> Result<Report, Failure> {
    let path = args.state.clone().or_else(|| input::default_state(&args.file)).filter(|_| !input::is_stdin(&args.file));
    // What is written here may be written twice, so keys would be of no use; the writer has more patience than a client; and batches are
    // too large to gain by travelling together.
    let options = ClientOptions {
        deadline: DEADLINE,
        attempts: 1,
        generate_keys: false,
        pipeline: false,
        tls: args.tls.client()?,
        bearer: args.tls.bearer()?,
        ..Default::default()
    };
    let session = Client::connect(&args.address, options)?.session();
    let options = WriterOptions {
        atype: args.atype.clone(),
        object_type: args.object_type.clone(),
        concurrency: args.concurrency.into(),
        batch: args.batch.into(),
        rate: args.rate.map(f64::from),
        patience,
    };
    let mut writer = Writer { options, session, list, stop };
    if path.as_ref().is_none_or(|path| !path.exists()) && !writer.knows_type().await? {
        return Ok(Report::nothing(Ended::Interrupted));
    }
    let job = Job::new(list.fingerprint, &args.atype, &args.object_type, args.undirected);
    let mut state = match &path {
        Some(path) => State::open(path, &job, list.ids.len())?,
        None => State::unkept(list.ids.len()),
    };
    if state.is_done && args.again {
        state.begin_again()?;
    } else if state.is_done {
        eprintln!("{} was loaded completely before; --again loads it once more", args.file.display());
        write_map(args, list, &state)?;
        return Ok(Report::nothing(Ended::CompleteBefore));
    } else if state.is_resumed {
        eprintln!("going on with a load that was interrupted");
    }
    writer.session = writer.session.with_token(&state.token);
    let report = writer.write(&mut state).await;
    match &report {
        Ok(report) if report.ended == Ended::Complete => {
            state.done()?;
            write_map(args, list, &state)?;
        }
        // Nothing to go on with, and in the way of a command that was mended.
        Err(failure) if failure.is_bad_input() && state.has_made_nothing() => state.remove()?,
        Ok(_) | Err(_) => match state.path() {
            Some(path) => {
                eprintln!("what is done is kept in {}: run the same command again to go on", path.display());
            }
            None => eprintln!("not loaded completely; standard input can't be resumed"),
        },
    }
    report
}

fn write_map(args: &LoadArgs, list: &EdgeList, state: &State) -> Result<(), Failure> {
    let Some(path) = &args.map else { return Ok(()) };
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for (id, object) in list.ids.iter().zip(&state.ids) {
            writeln!(file, "{id} {object}")?;
        }
        file.flush()
    };
    write().map_err(|error| cant_write(path, &error))
}

fn cant_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::other(format!("can't write {}: {error}", path.display()))
}
