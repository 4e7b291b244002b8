//! A real Prometheus that scrapes what is under test.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::Process;
use crate::{free_port, programs};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A Prometheus of its own; dropped, it ends.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    _process: Process,
}

impl Prometheus {
    /// Scrapes these addresses every second as the job `job`, and evaluates a file of rules.
    pub fn start(job: &str, targets: &[impl Display], rules: &Path) -> Result<Self> {
        let targets = targets.iter().map(|target| format!("'{target}'")).collect::<Vec<_>>().join(", ");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs: [{{job_name: {job}, static_configs: [{{targets: [{targets}]}}]}}]\n",
            rules.display()
        );
        let port = free_port()?;
        let folder = crate::TempDir::new()?;
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).context("cannot write Prometheus' configuration")?;
        let mut command = Command::new(program("prometheus")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::new(command, folder, crate::watcher::EndBy::Kill)?;
        process.wait_line("Server is ready to receive web requests", READY_WITHIN)?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), _process: process })
    }

    /// What a query gives now, as JSON; an error when it is no query.
    pub fn query(&self, query: &str) -> Result<String> {
        promtool(&["query", "--format=json", "instant", &self.url, query], "")
    }
}

/// Runs promtool with some input, and returns what it printed; an error has what it complained about.
pub fn promtool(args: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program("promtool")?);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run promtool")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("promtool does not read its input")?;
    }
    let output = child.wait_with_output()?;
    let [printed, complaints] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if !output.status.success() {
        bail!("promtool {args:?} failed ({}): {complaints}{printed}", output.status);
    }
    ensure!(complaints.is_empty(), "promtool {args:?} complained: {complaints}");
    Ok(printed)
}

fn program(name: &str) -> Result<PathBuf> {
    programs::find(name, &[]).with_context(|| format!("there is no {name}: run tests/tools/install.sh tests"))
}
