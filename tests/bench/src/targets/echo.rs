//! The limit: servers that answer with ready bytes, the same that this store would send, and do nothing else.

mod answers;
mod pipeline;
mod service;
mod streams;
mod unary;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::{Process, TempDir};

use answers::Answers;
#[cfg(test)]
pub(super) use answers::id;
pub use streams::EchoStreams;
pub use unary::EchoUnary;

use super::{bare, baseline};
use crate::graph::Graph;

/// Reading the answers takes a while when there are millions.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// Serves answers until the process ends: one call a request, and many calls over a stream.
pub fn serve(answers: &Path, threads: usize, listening: impl FnOnce(SocketAddr)) -> Result<()> {
    let answers = Arc::new(Answers::read(answers)?);
    bare::serve(threads, &async move || Ok(service::server(answers.clone())), listening)
}

/// A server that is started when there is a graph to have answers about.
#[derive(Debug, Default)]
struct Server {
    running: OnceLock<Running>,
}

#[derive(Debug)]
struct Running {
    address: String,
    process: Process,
    _answers: TempDir,
}

impl Server {
    fn load(&self, graph: &Graph) -> Result<()> {
        let folder = TempDir::new()?;
        let file = folder.join("answers");
        Answers::write(graph, &file)?;
        let file = file.display().to_string();
        let (process, address) = baseline::start(&["serve-echo", "--answers", &file], STARTS_WITHIN)?;
        self.running.set(Running { address, process, _answers: folder }).ok().context("loaded twice")
    }

    fn address(&self) -> Result<&str> {
        Ok(&self.running.get().context("not loaded")?.address)
    }

    fn pid(&self) -> Option<u32> {
        self.running.get()?.process.pid().ok()
    }
}
