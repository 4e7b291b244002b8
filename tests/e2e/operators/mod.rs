//! The operators' commands, on the real program.

mod archive;
mod restore;
mod schema;
mod status;
mod verify;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::cluster::TAO;

/// All rows of an export in JSON, in no order of their own.
pub fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for file in std::fs::read_dir(folder).expect("an export") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            rows.extend(std::fs::read_to_string(path).expect("a part").lines().map(str::to_owned));
        }
    }
    rows.sort_unstable();
    rows
}

/// Runs tao to its end.
pub fn tao(args: &[&str]) -> Output {
    Command::new(TAO).args(args).output().expect("tao runs")
}

/// The same with `--output json`: what it printed, and its exit code.
pub fn json(args: &[&str]) -> (Value, Option<i32>) {
    let output = tao(&[args, &["--output", "json"]].concat());
    let printed = serde_json::from_slice(&output.stdout);
    let printed = printed.unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (printed, output.status.code())
}
