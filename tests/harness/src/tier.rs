//! One server of the program under test.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Process;

/// Generous, since other suites run at the same time.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// Runs a server of `program` (its first argument, and more) on free ports, and waits until it listens; answers with its address.
pub fn tier(program: impl AsRef<Path>, args: &[&str]) -> Result<(Process, String)> {
    let (role, rest) = args.split_first().context("a role")?;
    let args = [&[*role, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"], rest].concat();
    // One process of all tiers has the follower in front.
    let front = if *role == "dev" { "follower" } else { role };
    let mut process = Process::spawn(program, &args, &[])?;
    let line = process.wait_line(&format!("listening for gRPC tier=\"{front}\""), LISTENS_WITHIN)?;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok((process, address.context("an address")?.to_owned()))
}
