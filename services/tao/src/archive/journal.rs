//! What a long command has done so far: a file of JSON lines that is only appended to, and locked while it is in use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable::failed;
use crate::commands::Failure;

/// An open journal of lines `L`.
#[derive(Debug)]
pub struct Journal<L> {
    file: File,
    path: PathBuf,
    lines: PhantomData<fn(L)>,
}

impl<L: Serialize + DeserializeOwned> Journal<L> {
    /// Opens a journal, or begins one, and gives what it holds; a last line that was cut off is dropped.
    pub fn open(path: &Path) -> Result<(Self, Vec<L>), Failure> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(|error| failed(path, error))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(failed(path, "is in use by another tao"));
        }
        let (mut reader, mut line, mut lines, mut whole) = (BufReader::new(&file), Vec::new(), Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(|error| failed(path, error))?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let parsed = serde_json::from_slice(&line);
            lines.push(parsed.map_err(|error| failed(path, format!("is no state of this command: {error}")))?);
            whole += read as u64;
        }
        file.set_len(whole).map_err(|error| failed(path, error))?;
        Ok((Self { file, path: path.to_owned(), lines: PhantomData }, lines))
    }

    /// Adds a line. What ends this process does not take it away; what ends the machine may.
    pub fn append(&mut self, line: &L) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(line).map_err(Failure::other)?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| failed(&self.path, error))
    }

    /// Makes what was added last.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.file.sync_data().map_err(|error| failed(&self.path, error))
    }

    /// Removes the file.
    pub fn remove(self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path).map_err(|error| failed(&self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_harness::TempDir;

    #[test]
    fn lines_are_kept_but_for_one_that_was_cut_off() {
        let folder = TempDir::new().unwrap();
        let path = folder.join("state");
        let (mut journal, lines) = Journal::<u32>::open(&path).unwrap();
        assert!(lines.is_empty() && Journal::<u32>::open(&path).is_err(), "locked");
        journal.append(&7).unwrap();
        journal.append(&8).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"9"].concat()).unwrap();
        let (mut journal, lines) = Journal::<u32>::open(&path).unwrap();
        assert_eq!(lines, [7, 8]);
        journal.append(&10).unwrap();
        drop(journal);
        assert_eq!(Journal::<u32>::open(&path).unwrap().1, [7, 8, 10]);
        std::fs::write(&path, "a letter\n").unwrap();
        assert!(Journal::<u32>::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter\n", "what is not ours is left alone");
    }
}
