//! `tao backup`: an export that is packed, and read back before it is called done.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check;
use super::export::{self, Order, Pace, summary};
use super::manifest::{Manifest, RowFormat};
use crate::commands::{Failure, Format};
use crate::databases::{DatabaseArgs, block_on};
use crate::load::stop::Stop;

/// Arguments of `tao backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is written is an export in the compact format: `tao restore` puts it back, `tao import` takes it into another cluster. Every file is read \
back. Not kept: the answers that idempotency keys are remembered with.

Example:
  tao backup /backups/monday --store postgres://tao@db-0/tao,postgres://tao@db-1/tao"
)]
pub struct BackupArgs {
    /// The folder; made when absent
    folder: PathBuf,
    #[command(flatten)]
    databases: DatabaseArgs,
    #[command(flatten)]
    pace: Pace,
    /// How to print the summary
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// Rows of a part.
const PART_ROWS: usize = 250_000;

/// Writes a backup, and reads it.
pub fn backup(args: &BackupArgs) -> Result<ExitCode, Failure> {
    let schema = args.databases.schema()?;
    let manifest = if Manifest::is_in(&args.folder) {
        eprintln!("{} was written completely before: it is read once more", args.folder.display());
        Manifest::read(&args.folder)?
    } else {
        let order = Order {
            folder: args.folder.clone(),
            format: RowFormat::Compact,
            gzip: true,
            pace: args.pace,
            part_rows: PART_ROWS,
        };
        let written = block_on(async { export::run(&args.databases.open().await?, &order, Stop::on_signal()).await })?;
        let Some(manifest) = written else { return Ok(ExitCode::from(130)) };
        manifest
    };
    check::checksums(&args.folder, &manifest)?;
    check::rows(&args.folder, &manifest, &schema)?;
    summary(&manifest, args.output)?;
    Ok(ExitCode::SUCCESS)
}
