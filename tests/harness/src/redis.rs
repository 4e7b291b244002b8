//! A Redis of the tests' own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::watcher::EndBy;
use crate::{Process, TempDir, free_port, programs};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A Redis server on a free port of 127.0.0.1 that keeps nothing on disk. Ends when it is dropped.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts one, and returns when it takes connections.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with more settings, as in redis.conf: `[("maxmemory", "10mb")]`.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        let program = programs::find("redis-server", &["/usr/local/bin".into(), "/opt/homebrew/bin".into()])
            .context("redis-server is not installed: `apt-get install redis-server` or `brew install redis`")?;
        let port = free_port()?;
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        for (name, value) in settings {
            command.args([&format!("--{name}"), *value]);
        }
        let mut redis = Self { process: Process::new(command, TempDir::new()?, EndBy::Kill)?, port };
        redis.wait_ready()?;
        Ok(redis)
    }

    /// `redis://127.0.0.1:PORT/`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; an error when it was killed.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// Starts it on the same port, kills it first if it runs. It is empty, unless there is a [snapshot](Redis::snapshot) to load.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.pid().is_ok() {
            self.process.end(Signal::KILL)?;
        }
        self.process.start_again()?;
        self.wait_ready()
    }

    /// Where it keeps a snapshot: what `SAVE` writes, and what a restart loads if it is there.
    pub fn snapshot(&self) -> PathBuf {
        self.process.folder().join("dump.rdb")
    }

    /// Runs a command that is answered in one line, such as `FLUSHALL` or `SAVE`, and returns that line.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).context("Redis can't be reached")?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n") {
            ensure!(stream.read(&mut byte)? == 1, "Redis hung up");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        ensure!(!answer.starts_with('-'), "Redis refused {words:?}: {answer}");
        Ok(answer)
    }

    /// Stops it in its tracks: connections stay open and nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on after a pause.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    fn wait_ready(&mut self) -> Result<()> {
        self.process.wait_line("eady to accept connections", READY_WITHIN)?;
        Ok(())
    }
}
