//! `tao restore`: a cluster back to what a backup, or any export of it, holds. What came after is undone, and said to be: a new epoch
//! begins, so tokens of that future are refused (ADR 0007).

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tao_model::Schema;
use tao_store::direct::{DirectDatabase, DirectError};
use tao_store::{OpenOptions, open};

use super::check;
use super::compare::{Compared, compare};
use super::export::{Pace, name};
use super::import::{Import, Imported, above, is_empty};
use super::manifest::Manifest;
use crate::commands::{Failure, Format, confirm, show};
use crate::databases::{DatabaseArgs, Databases, block_on};
use crate::load::stop::Stop;
use crate::verify;

/// Arguments of `tao restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "The databases must be those of the same cluster, or new and empty ones, named in the order of the backup's logs: those become that cluster. What \
they hold is deleted. Stop the cluster's storage shards first. When all is put back, every row is compared with the backup, and counts and inverses are \
verified; exit code 1 when something is not equal. Interrupted, it goes on when the same command is run again.

Example:
  tao restore /backups/monday --store postgres://tao@db-0/tao,postgres://tao@db-1/tao --yes"
)]
pub struct RestoreArgs {
    /// The folder of the backup
    folder: PathBuf,
    #[command(flatten)]
    databases: DatabaseArgs,
    #[command(flatten)]
    pace: Pace,
    /// Where to keep what is done [default: a file in the folder]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Also while storage shards have the databases open: clients see the graph come back row by row
    #[arg(long)]
    live: bool,
    /// How to print what became of it
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// Puts a backup back, and prints whether all of it is there.
pub fn restore(args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let manifest = Manifest::read(&args.folder)?;
    let restored = block_on(async {
        let databases = open_all(args, &manifest).await?;
        let mut import = Import::open(&databases, &args.folder, &manifest, args.state.as_deref(), "restore")?;
        if import.is_begun().await? && !import.is_done() {
            eprintln!("going on with a restore that was interrupted");
        } else {
            refuse_running(args, &databases).await?;
            check::checksums(&args.folder, &manifest)?;
            if !is_empty(&databases).await? {
                let what =
                    format!("everything in {} databases is replaced by {}", databases.all.len(), name(&args.folder));
                confirm(&what, args.yes)?;
            }
            for database in &databases.all {
                database.wipe(above(&databases, &manifest, database.info().log)?).await?;
            }
            import.begin().await?;
        }
        if import.run(args.pace, Stop::on_signal()).await? == Imported::Interrupted {
            return Ok(None);
        }
        let compared = compare(&databases, &args.folder, &manifest, args.pace.parallel.into()).await?;
        Ok(Some((compared, verify::check(&databases, false).await?)))
    })?;
    let Some((compared, verified)) = restored else { return Ok(ExitCode::from(130)) };
    let problems = verified.findings.total();
    show(&match args.output {
        Format::Text => text(&compared, &verified),
        Format::Json => {
            let Compared { equal, different, examples } = &compared;
            let findings = verified.findings.json();
            let printed = json!({"equal": equal, "different": different, "examples": examples, "problems": problems, "findings": findings});
            format!("{printed}\n")
        }
    })?;
    Ok(if compared.different + problems > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(compared: &Compared, verified: &verify::Verified) -> String {
    let mut out = format!("{} rows are equal, {} are not\n", compared.equal, compared.different);
    compared.examples.iter().for_each(|example| out.push_str(&format!("  {example}\n")));
    out.push_str(&verified.findings.to_string());
    out
}

async fn refuse_running(args: &RestoreArgs, databases: &Databases) -> Result<(), Failure> {
    let servers = databases.servers().await?;
    if args.live || servers.is_empty() {
        return Ok(());
    }
    let what = "storage shards have the databases open, or had within 30 seconds: stop them, or say --live";
    Err(Failure::unreachable(format!("{what}: {}", servers.join(", "))))
}

/// Opens the databases; those that are new become logs of the backup's cluster.
async fn open_all(args: &RestoreArgs, manifest: &Manifest) -> Result<Databases, Failure> {
    let schema = args.databases.schema()?;
    for (n, url) in args.databases.store.iter().enumerate() {
        let within = |failure: Failure| failure.within(format!("database {}", n + 1));
        match DirectDatabase::open(url, schema.clone()).await {
            Ok(database) => database.close().await,
            Err(DirectError::NotReady(_)) => create(manifest, n, url, schema.clone()).await.map_err(within)?,
            // SQLite's file is not there.
            Err(DirectError::Open(_)) if is_new_file(url) => {
                create(manifest, n, url, schema.clone()).await.map_err(within)?;
            }
            Err(error) => return Err(within(error.into())),
        }
    }
    let databases = args.databases.open().await?;
    if databases.cluster != manifest.cluster_id()? {
        let (of, is) = (&manifest.cluster, databases.cluster);
        let what = "`tao import` takes it into another cluster, if that is empty";
        return Err(Failure::bad_input(format!(
            "the backup is of cluster {of}, and the databases are of {is}: {what}"
        )));
    }
    Ok(databases)
}

fn is_new_file(url: &str) -> bool {
    let file = url.strip_prefix("sqlite:").map(|file| file.trim_start_matches("//"));
    file.is_some_and(|file| !std::path::Path::new(file).exists())
}

async fn create(manifest: &Manifest, n: usize, url: &str, schema: Arc<Schema>) -> Result<(), Failure> {
    let log = manifest.logs.get(n);
    let log = log.ok_or_else(|| {
        Failure::bad_input(format!("it is new, and the backup has only {} logs", manifest.logs.len()))
    })?;
    let options = OpenOptions::new(url, schema, manifest.layout.to_model()?);
    let options = OpenOptions {
        cluster: Some(manifest.cluster_id()?),
        log: log.id(),
        shards: log.shard_set()?,
        server: "tao restore".to_owned(),
        ..options
    };
    let store = open(options).await.map_err(|error| Failure::from(DirectError::from(error)))?;
    store.close().await;
    Ok(())
}
