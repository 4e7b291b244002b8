//! `tao schema check`: what two schema files differ in, before the newer one is given to a cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use tao_model::Schema;
use tao_model::compatibility::{SchemaChange, Verdict, compare};

use super::failure::Failure;
use super::output::{Format, show};

/// What can be done with schema files.
#[derive(Debug, Subcommand)]
pub enum SchemaCommand {
    /// Say what a new schema file changes, and whether a cluster that has data can take it
    #[command(
        after_help = "Exit codes: 0 all of it is safe, 1 something needs attention, 2 something is unsafe, or a file is no schema.

Example:
  tao schema check schema.toml schema-next.toml --output json"
    )]
    Check(CheckArgs),
}

/// Arguments of `tao schema check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The schema file that the cluster has
    old: PathBuf,
    /// The one that it is to get
    new: PathBuf,
    /// How to print the differences
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// Prints the differences; the exit code tells the worst.
pub fn schema(command: &SchemaCommand) -> Result<ExitCode, Failure> {
    let SchemaCommand::Check(args) = command;
    let changes = compare(&read(&args.old)?, &read(&args.new)?);
    let worst = changes.iter().map(|change| change.verdict).max().unwrap_or(Verdict::Safe);
    show(&match args.output {
        Format::Text => text(&changes),
        Format::Json => {
            format!("{}\n", json!({"verdict": worst.name(), "changes": changes.iter().map(line).collect::<Vec<_>>()}))
        }
    })?;
    Ok(match worst {
        Verdict::Safe => ExitCode::SUCCESS,
        Verdict::Attention => ExitCode::from(1),
        Verdict::Unsafe => ExitCode::from(2),
    })
}

fn read(path: &Path) -> Result<Schema, Failure> {
    let said = |problem: String| Failure::bad_input(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| said(format!("can't be read: {error}")))?;
    Schema::parse(&text).map_err(said)
}

fn line(change: &SchemaChange) -> serde_json::Value {
    json!({"verdict": change.verdict.name(), "subject": change.subject, "what": change.what})
}

fn text(changes: &[SchemaChange]) -> String {
    if changes.is_empty() {
        return "no differences\n".to_owned();
    }
    changes.iter().map(|c| format!("{:<9}  {}: {}\n", c.verdict, c.subject, c.what)).collect()
}
