//! The operators' commands, on the real program.

mod schema;
mod verify;

use std::process::{Command, Output};

use serde_json::Value;

use crate::cluster::TAO;

/// Runs tao to its end.
fn tao(args: &[&str]) -> Output {
    Command::new(TAO).args(args).output().expect("tao runs")
}

/// The same with `--output json`: what it printed, and its exit code.
fn json(args: &[&str]) -> (Value, Option<i32>) {
    let output = tao(&[args, &["--output", "json"]].concat());
    let printed = serde_json::from_slice(&output.stdout);
    let printed = printed.unwrap_or_else(|_| panic!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (printed, output.status.code())
}
