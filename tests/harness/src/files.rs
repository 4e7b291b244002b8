//! Temporary folders.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::watcher;

/// A folder that is removed with all that is in it when the value is dropped, or when the test process ends.
#[derive(Debug)]
pub struct TempDir {
    inner: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl TempDir {
    /// Makes an empty folder, readable by this user only, in the system's place for temporary files.
    pub fn new() -> Result<Self> {
        let inner = tempfile::Builder::new().prefix("tao-test-").tempdir().context("cannot make a temporary folder")?;
        let path = inner.path().to_path_buf();
        watcher::folder_made(&path)?;
        Ok(Self { inner: Some(inner), path })
    }

    /// Where it is: an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, which need not exist.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What can't be removed now (a server that ignores its end) is left to the watcher.
        if self.inner.take().is_some_and(|inner| inner.close().is_ok()) {
            watcher::folder_gone(&self.path).ok();
        }
    }
}
