//! The public API as a person sees it, through the real grpcurl.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::programs::{find, repository, run};

/// Runs `grpcurl args…` and returns what it printed. When it fails, the error holds what it complained about.
pub fn grpcurl<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<String> {
    run(Command::new(program()?).args(args))
}

/// Runs `grpcurl args…` and returns its exit status and output, whatever they are.
pub fn grpcurl_output<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Output> {
    Command::new(program()?).args(args).output().context("cannot run grpcurl")
}

fn program() -> Result<PathBuf> {
    let mut folders = vec![repository().join(".tools/bin")];
    // GOPATH may hold several folders; the default is ~/go.
    match env::var_os("GOPATH") {
        Some(paths) => folders.extend(env::split_paths(&paths).map(|path| path.join("bin"))),
        None => folders.extend(env::home_dir().map(|home| home.join("go/bin"))),
    }
    find("grpcurl", &folders).context(
        "grpcurl is not installed: run `tests/tools/install.sh`, \
         or `go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest`",
    )
}
