//! kubectl, as a person would use it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::run;

/// kubectl with an administrator's rights.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    config: PathBuf,
}

impl Kubectl {
    /// The one in `program`, as `config` says.
    pub const fn new(program: PathBuf, config: PathBuf) -> Self {
        Self { program, config }
    }

    /// Where it finds the API server.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What it prints; an error has what it complained about.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        run(command.arg("kubectl").args(args).env("KUBECONFIG", &self.config))
    }

    /// An object, or a list of some.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Applies a manifest, which is kept in `file`.
    pub fn apply_text(&self, file: &Path, text: &str) -> Result<String> {
        std::fs::write(file, text)?;
        self.run(&["apply", "-f", &file.to_string_lossy()])
    }
}
