//! The last of what happened, kept for when a run fails.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::now_us;

/// The newest lines of the log.
#[derive(Clone)]
pub struct Trace {
    lines: Arc<Mutex<VecDeque<String>>>,
    most: usize,
    echo: bool,
}

/// Milliseconds of the simulation.
struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let now = now_us();
        write!(writer, "{}.{:03} ms", now / 1_000, now % 1_000)
    }
}

impl Trace {
    /// Collects from now on what this process logs: at most so many lines, each printed at once when `echo` is set.
    pub fn install(filter: &str, most: usize, echo: bool) -> Self {
        let trace = Self { lines: Arc::default(), most, echo };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_ansi(false)
            .with_timer(SimTime)
            .with_target(false)
            .with_writer(trace.clone())
            .finish();
        // Another subscriber can't be there: this is the program's first act.
        tracing::subscriber::set_global_default(subscriber).ok();
        trace
    }

    /// The last lines, oldest first.
    pub fn last(&self, lines: usize) -> Vec<String> {
        let kept = self.lines.lock();
        kept.iter().skip(kept.len().saturating_sub(lines)).cloned().collect()
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if self.echo {
            writeln!(io::stderr(), "{line}")?;
        }
        let mut lines = self.lines.lock();
        if lines.len() >= self.most {
            lines.pop_front();
        }
        lines.push_back(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Trace {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
