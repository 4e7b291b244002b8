//! tao: a distributed social-graph store. One program: each tier, all of them in one process, and commands for data.

mod archive;
mod commands;
mod databases;
mod load;
mod roles;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A distributed social-graph store: typed objects and time-ordered associations, over gRPC.
#[derive(Debug, Parser)]
#[command(version, after_help = commands::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all tiers in one process, on SQLite: for trying out and for developing against
    Dev(roles::DevArgs),
    /// Run a storage shard: the tier that owns a database
    Shard(roles::ShardArgs),
    /// Run a leader: the tier between followers and a storage shard
    Leader(roles::LeaderArgs),
    /// Run a follower: the tier that clients talk to
    Follower(Box<roles::FollowerArgs>),
    /// Load an edge list into a running store
    Load(load::LoadArgs),
    /// Show changes as they are committed, one JSON object a line, until Ctrl-C; the last line has the token to go on with
    #[command(after_help = "Examples:
  tao watch --type follows --type user
  tao watch --id 383557369735155712 --since 60000
  tao watch --token TOKEN-OF-THE-LAST-LINE")]
    Watch(commands::WatchArgs),
    /// Ask followers to compare what they have cached with the database; exit code 1 when a value is not the same
    #[command(after_help = "Examples:
  tao audit
  tao audit --admin http://follower-0:9464,http://follower-1:9464 --samples 10000 --output json")]
    Audit(commands::AuditArgs),
    /// Ask a server whether it is ready; exit code 4 when it is not, with what it waits for
    #[command(after_help = "Example, a container's health check:\n  tao health --admin http://127.0.0.1:9464")]
    Health(commands::HealthArgs),
    /// Show who is there, what lives where, how far each is behind and how many reads caches answer; live with --watch
    Status(status::StatusArgs),
    /// Write the whole graph into a folder, as it is at one moment: JSON lines, or packed
    Export(archive::ExportArgs),
    /// Put an export into an empty cluster, as it was: ids, versions, times and data
    Import(archive::ImportArgs),
    /// Write a packed export, and read it back
    Backup(archive::BackupArgs),
    /// Put a cluster back to what a backup holds, and compare every row; what it had is deleted
    Restore(archive::RestoreArgs),
    /// Look whether the databases hold what they should: counts, inverses, types, the log; exit code 1 when something is wrong
    #[command(
        after_help = "Beside running tiers, on one snapshot of all databases. With --repair, missing inverses and wrong counts are put right.

Examples:
  tao verify --store postgres://tao@db/tao
  tao verify --store sqlite:data/tao.db --repair --yes --output json"
    )]
    Verify(verify::VerifyArgs),
    /// Work on schema files
    #[command(subcommand)]
    Schema(commands::SchemaCommand),
    /// Show the time, shard and sequence of ids
    Id(commands::IdArgs),
    /// Print completions for a shell
    #[command(after_help = "Examples:
  tao completions bash > /etc/bash_completion.d/tao
  tao completions zsh > \"${fpath[1]}/_tao\"
  tao completions fish > ~/.config/fish/completions/tao.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    #[command(flatten)]
    Graph(commands::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(args) => roles::dev(&args),
        Command::Shard(args) => roles::shard(args),
        Command::Leader(args) => roles::leader(args),
        Command::Follower(args) => roles::follower(*args),
        Command::Load(args) => {
            return finish(load::load(&args).map(|ended| match ended {
                load::Ended::Complete | load::Ended::CompleteBefore => ExitCode::SUCCESS,
                // As shells report a program that SIGINT ended.
                load::Ended::Interrupted => ExitCode::from(130),
            }));
        }
        Command::Completions { shell } => return finish(completions(shell).map(|()| ExitCode::SUCCESS)),
        Command::Audit(args) => return finish(commands::audit(&args)),
        Command::Health(args) => return finish(commands::health(&args).map(|()| ExitCode::SUCCESS)),
        Command::Status(args) => return finish(status::status(&args)),
        Command::Export(args) => return finish(archive::export(&args)),
        Command::Import(args) => return finish(archive::import(&args)),
        Command::Backup(args) => return finish(archive::backup(&args)),
        Command::Restore(args) => return finish(archive::restore(&args)),
        Command::Verify(args) => return finish(verify::verify(&args)),
        Command::Schema(command) => return finish(commands::schema(&command)),
        Command::Watch(args) => return finish(commands::watch(args).map(|()| ExitCode::SUCCESS)),
        Command::Id(args) => return finish(commands::id(&args).map(|()| ExitCode::SUCCESS)),
        Command::Graph(command) => return finish(command.run().map(|()| ExitCode::SUCCESS)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn finish(result: Result<ExitCode, commands::Failure>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn completions(shell: Shell) -> Result<(), commands::Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tao", &mut script);
    commands::show(&String::from_utf8_lossy(&script))
}
