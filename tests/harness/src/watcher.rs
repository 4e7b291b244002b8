//! Cleans up after a test process that could not do it itself.
//!
//! A shell waits on a pipe whose other end only this process holds. It is told of every server and folder as it
//! comes and goes. When the pipe closes, this process is gone, however it ended: the shell then ends the servers
//! that are left and removes the folders. (The kernel's parent-death signal would not do: it fires when the
//! *thread* that started the server ends, and every Rust test is a thread.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::process::Signal;

/// Reads `run SIGNAL PID`, `end PID`, `folder PATH` and `gone PATH`, one a line, until the end of its input.
/// Servers get five seconds to obey the signal before they are killed.
const SCRIPT: &str = r#"
live=
while read -r what a; do
  case $what in
    run) live="$live ${a% *}:${a#* }" ;;
    end) kept=; for p in $live; do [ "${p#*:}" = "$a" ] || kept="$kept $p"; done; live=$kept ;;
    folder) set -- "$@" "$a" ;;
    gone) n=$#; while [ "$n" -gt 0 ]; do d=$1; shift; [ "$d" = "$a" ] || set -- "$@" "$d"; n=$((n - 1)); done ;;
  esac
done
for p in $live; do kill -s "${p%:*}" "${p#*:}"; done
for p in $live; do
  n=0
  while kill -0 "${p#*:}" && [ "$n" -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
  kill -s KILL "${p#*:}"
done
for d do n=0; until rm -rf -- "$d" || [ "$n" -ge 50 ]; do sleep 0.1; n=$((n + 1)); done; done
"#;

static PIPE: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// The signal that the watcher sends to a server that outlives its test.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EndBy {
    /// SIGKILL: for programs that have no children.
    Kill,
    /// SIGQUIT: a PostgreSQL postmaster ends its children first.
    Quit,
}

impl EndBy {
    pub(crate) fn signal(self) -> Signal {
        match self {
            EndBy::Kill => Signal::KILL,
            EndBy::Quit => Signal::QUIT,
        }
    }
}

pub(crate) fn running(pid: u32, end_by: EndBy) -> Result<()> {
    let name = match end_by {
        EndBy::Kill => "KILL",
        EndBy::Quit => "QUIT",
    };
    tell(&format!("run {name} {pid}\n"))
}

pub(crate) fn ended(pid: u32) -> Result<()> {
    tell(&format!("end {pid}\n"))
}

pub(crate) fn folder_made(path: &Path) -> Result<()> {
    tell(&format!("folder {}\n", path.display()))
}

pub(crate) fn folder_gone(path: &Path) -> Result<()> {
    tell(&format!("gone {}\n", path.display()))
}

fn tell(line: &str) -> Result<()> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        *pipe = Some(start()?);
    }
    let pipe = pipe.as_mut().context("the watcher has no pipe")?;
    pipe.write_all(line.as_bytes()).context("the shell that cleans up after the tests is gone")
}

fn start() -> Result<ChildStdin> {
    // A process group of its own, so that Ctrl-C at the terminal ends the tests but not what cleans up after them.
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT, "tao-test-watcher"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .context("cannot start `sh`, which cleans up after the tests")?;
    shell.stdin.take().context("the watcher has no pipe")
}
