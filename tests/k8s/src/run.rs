//! Commands that are run to their end.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs it and returns what it printed; an error has what it complained about.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let said = [output.stderr, output.stdout].concat();
    bail!("{name} {} failed ({}): {}", args.join(" "), output.status, String::from_utf8_lossy(&said).trim())
}
