//! The example in each language, on a real cluster: generated stubs add, follow, post, like, and read it back through the other
//! follower.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use tao_harness::{built_program, repository};

use crate::cluster::Cluster;

const PRINTED: &str = "\
Ann follows Bob; follows: 1
Ann likes Bob's post; likes: 1
Ann's feed, through the other follower:
  Bob: Hello, graph (likes: 1)
Refused: id: required: an object's id
";

fn installed(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

/// Runs one with the addresses of two followers, and compares what it prints.
fn check(mut example: Command, followers: [&str; 2]) {
    let output = example.args(followers).output().unwrap_or_else(|e| {
        panic!("{example:?} can't be run: {e}; tests/tools/install.sh tests prepares the examples");
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, PRINTED, "{example:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example:?}: {}", output.status);
}

fn script(runner: &Path, script: PathBuf) -> Command {
    let mut command = Command::new(runner);
    command.arg(script);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_language_reads_its_own_writes() {
    let cluster = Cluster::processes().await;
    let followers = [cluster.address(0), cluster.address(1)];
    let examples = repository().join("examples");

    check(Command::new(built_program("feed").unwrap()), followers);
    if installed("python3") {
        let python = examples.join("python");
        check(script(&python.join(".venv/bin/python"), python.join("feed.py")), followers);
    }
    if installed("go") {
        check(Command::new(examples.join("go/feed")), followers);
    }
    if installed("npm") {
        check(script(Path::new("node"), examples.join("typescript/dist/feed.js")), followers);
    }
}
