//! A whole Kubernetes on this machine, in namespaces of its own, and the store on it.

mod cluster;
mod disturb;
mod guide;
mod images;
mod kubectl;
mod load;
mod node;
mod outside;
mod process;
mod production;
mod report;
mod run;
mod secured;
mod test;
mod volumes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::node::Node;
use crate::outside::Place;

/// Brings up a real Kubernetes: API server, controllers, scheduler, kubelet, kube-proxy, DNS and containerd, in namespaces of their own
/// for network, mounts and processes. Needs root. Nothing is left of it at the end.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fail, instead of saying so, where this machine can't run it
    #[arg(long)]
    required: bool,
    /// The `tao` of the version before, between which and this one upgrades and rollbacks are tested
    #[arg(long, value_name = "PROGRAM", global = true)]
    previous: Option<PathBuf>,
    /// What cargo was given to build this, to be given to it again, such as --release
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true, global = true)]
    cargo: Vec<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up the cluster with the images of this repository, and run a command in it, a shell if none is given; KUBECONFIG is set,
    /// and `kubectl` is there
    Up {
        /// The command
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Apply the manifests, and disturb what runs under load: the last lines are JSON, the exit code is 1 when a promise was broken
    Test,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(why) = outside::lacking() {
        eprintln!("no Kubernetes was run: {why}");
        return if arguments.required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let ended = match Place::inside() {
        None => outside::enter(arguments.previous.as_deref()),
        Some(place) => inside(&place, &arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn inside(place: &Place, arguments: &Arguments) -> Result<ExitCode> {
    let node = Node::start(place)?;
    for archive in images::archives(&test::images(&place.folder))? {
        node.import(&archive)?;
    }
    match &arguments.command {
        Command::Test => test::all(&node, arguments.previous.is_some(), &arguments.cargo),
        Command::Up { command } => {
            let (program, args) = command.split_first().map_or(("bash", &[][..]), |(p, a)| (p.as_str(), a));
            let path = std::env::var("PATH").unwrap_or_default();
            let status = std::process::Command::new(program)
                .args(args)
                .env("KUBECONFIG", node.kubectl().config())
                .env("PATH", format!("{}:{path}", node.programs()?.display()))
                .status()
                .with_context(|| format!("cannot run {program}"))?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
