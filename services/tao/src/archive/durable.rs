//! Files that are there whole, or not at all, also after the machine has failed.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::commands::Failure;

/// What can't be done with a file.
pub fn failed(path: &Path, error: impl Display) -> Failure {
    Failure::other(format!("{}: {error}", path.display()))
}

/// The name under which a file is written until it is whole.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Gives a file that was written under its unfinished name, and synced, its own.
pub fn finish(path: &Path) -> io::Result<()> {
    std::fs::rename(unfinished(path), path)?;
    // So that the name is there after a power failure, too.
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a small file.
pub fn write(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = File::create(unfinished(path))?;
        file.write_all(text)?;
        file.sync_all()?;
        finish(path)
    };
    write().map_err(|error| failed(path, error))
}
