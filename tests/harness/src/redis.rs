//! A Redis of the tests' own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
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

    /// Starts it on the same port, empty; kills it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.pid().is_ok() {
            self.process.end(Signal::KILL)?;
        }
        self.process.start_again()?;
        self.wait_ready()
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
