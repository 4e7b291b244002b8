//! A program under test, run as a process of its own.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::poll::eventually;
use crate::watcher::{self, EndBy};
use crate::{TempDir, programs};

/// How long a program may take to end after it was asked to, before it is killed and the test fails.
const END_WITHIN: Duration = Duration::from_secs(30);
const TAIL_BYTES: u64 = 8 * 1024;

/// A running (or ended) program. What it prints goes to a log file in a temporary folder of its own, which is also its
/// working directory. Dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: Command,
    child: Option<Child>,
    log: PathBuf,
    /// Where in the log the present run began.
    run_start: u64,
    end_by: EndBy,
    folder: TempDir,
}

impl Process {
    /// Runs `program` with these arguments, and these variables on top of the environment of the tests.
    pub fn spawn<A: AsRef<OsStr>>(
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = A>,
        envs: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Command::new(program.as_ref());
        command.args(args).envs(envs.iter().copied()).env("NO_COLOR", "1");
        Self::from_command(command)
    }

    /// Runs a command as it is. Its input, output and working directory (unless it names one) are set here.
    pub fn from_command(command: Command) -> Result<Self> {
        Self::new(command, TempDir::new()?, EndBy::Kill)
    }

    pub(crate) fn new(mut command: Command, folder: TempDir, end_by: EndBy) -> Result<Self> {
        let name = programs::name_of(Path::new(command.get_program()));
        let log = folder.join("log");
        if command.get_current_dir().is_none() {
            command.current_dir(folder.path());
        }
        // Ctrl-C is for the tests; the programs under test are ended by whoever started them.
        command.stdin(Stdio::null()).process_group(0);
        let mut process = Self { name, command, child: None, log, run_start: 0, end_by, folder };
        process.start_again()?;
        Ok(process)
    }

    /// Runs the same command again, in the same folder, after it has ended. The log is appended to.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} is still running", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("cannot open the log file")?;
        self.run_start = log.metadata()?.len();
        self.command.stdout(log.try_clone()?).stderr(log);
        let child = self.command.spawn().with_context(|| format!("cannot run {}", self.command_line()))?;
        let pid = child.id();
        self.child = Some(child);
        watcher::running(pid, self.end_by)
    }

    /// Its process id; an error when it is not running (any more).
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().with_context(|| format!("{} is not running", self.name))?.id())
    }

    /// The folder in which it runs, unless its command named another. Removed when this is dropped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything that the present run has printed so far.
    pub fn log(&self) -> Result<String> {
        self.log_from(self.run_start)
    }

    /// The last few kilobytes of its log, for error messages.
    pub fn log_tail(&self) -> String {
        let length = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        self.log_from(length.saturating_sub(TAIL_BYTES)).unwrap_or_else(|error| format!("(no log: {error:#})"))
    }

    /// Waits for a whole line that contains `pattern` among what the present run prints, from its beginning, and
    /// returns it. Fails at once when the program ends before it prints such a line.
    pub fn wait_line(&mut self, pattern: &str, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        loop {
            // Asked before the log is read, so that the last words of a program that ends are seen.
            let ended = self.try_ended()?;
            let log = self.log()?;
            let whole = log.rfind('\n').map_or("", |at| &log[..at]);
            if let Some(line) = whole.lines().find(|line| line.contains(pattern)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before it printed {pattern:?}. {}", self.name, self.last_words());
            }
            if Instant::now() >= end {
                bail!("{} did not print {pattern:?} within {deadline:?}. {}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, then waits until it is gone. Fails if it had ended by itself.
    pub fn kill9(&mut self) -> Result<()> {
        let status = self.end(Signal::KILL)?;
        ensure!(status.signal() == Some(9), "{} had ended ({status}) before it was killed", self.name);
        Ok(())
    }

    /// SIGTERM, the polite end; returns how the program ended. Fails when it takes more than 30 seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(Signal::TERM)
    }

    /// SIGINT, what Ctrl-C sends; otherwise like [`Process::terminate`].
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        self.end(Signal::INT)
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let waited = eventually(deadline, || self.try_ended()?.context("still running"));
        let status = waited.with_context(|| format!("{} goes on. {}", self.command_line(), self.last_words()))?;
        self.forget()?;
        Ok(status)
    }

    /// Stops it in its tracks (SIGSTOP): it keeps its connections, but no longer answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused program go on (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Signals the program's children (not theirs), those that are alive when asked.
    pub(crate) fn signal_children(&self, signal: Signal) -> Result<()> {
        let parent = self.pid()?;
        for entry in std::fs::read_dir("/proc").context("cannot list the processes")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // One that has ended by now is no child any more.
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            // After the name, which may hold anything: state, parent, …
            let its_parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
            if its_parent == Some(parent)
                && let Some(pid) = Pid::from_raw(pid)
            {
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(END_WITHIN)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // An ended child keeps its id until it is waited for, so this can't reach a stranger.
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().with_context(|| format!("{} is not running", self.name))?;
        Ok(child.try_wait()?)
    }

    fn forget(&mut self) -> Result<()> {
        self.child.take().map_or(Ok(()), |child| watcher::ended(child.id()))
    }

    fn log_from(&self, offset: u64) -> Result<String> {
        let mut file = File::open(&self.log).context("cannot open the log file")?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn last_words(&self) -> String {
        format!("Its last words:\n{}", self.log_tail())
    }

    fn command_line(&self) -> String {
        let args = self.command.get_args().map(OsStr::to_string_lossy);
        std::iter::once(self.name.as_str().into()).chain(args).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_none() || self.end(self.end_by.signal()).is_ok() {
            return;
        }
        if let Some(mut child) = self.child.take() {
            let gone = child.kill().and_then(|()| child.wait());
            if gone.is_ok() {
                watcher::ended(child.id()).ok();
            }
        }
    }
}
