//! What a load has done so far, so that it can go on after an interruption: a text file that is only appended to.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// Bytes of the input that its fingerprint covers, beside its size.
const HEAD: u64 = 1 << 20;

/// The first line: what is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    version: u32,
    /// Of the input.
    fingerprint: String,
    atype: String,
    object_type: String,
    undirected: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Job {
        job: Job,
        run: String,
    },
    /// The ids of the objects from this place on.
    Objects {
        from: usize,
        ids: Vec<i64>,
    },
    /// Edges from this place on, one batch.
    Edges {
        from: usize,
    },
    Done,
}

/// The state of a load.
pub struct State {
    file: Option<File>,
    /// Makes the idempotency keys of this load's objects.
    pub run: String,
    /// By place; what is missing is still to be made.
    pub objects: Vec<Option<i64>>,
    /// Where the batches of edges that are done begin.
    pub edges: HashSet<usize>,
    /// Whether all is done.
    pub is_done: bool,
    /// Whether it goes on from before.
    pub is_resumed: bool,
}

impl Job {
    /// Of a file's content.
    pub fn new(content: &[u8], atype: &str, object_type: &str, undirected: bool) -> Self {
        let head = content.iter().take(HEAD as usize);
        let hash = head.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        let fingerprint = format!("{}-{hash:016x}", content.len());
        Self { version: VERSION, fingerprint, atype: atype.to_owned(), object_type: object_type.to_owned(), undirected }
    }
}

impl State {
    /// Goes on with the state in `path`, or begins one. Without a path nothing is kept.
    pub fn open(path: Option<&Path>, job: &Job, objects: usize) -> Result<Self> {
        let mut state = Self {
            file: None,
            run: format!("{:016x}", rand::random::<u64>()),
            objects: vec![None; objects],
            edges: HashSet::new(),
            is_done: false,
            is_resumed: false,
        };
        let Some(path) = path else { return Ok(state) };
        let name = path.display();
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("can't open the state file {name}"))?;
        let mut whole = 0;
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("can't read the state file {name}"))?;
        for line in BufReader::new(text.as_slice()).split(b'\n') {
            let line = line?;
            // The last line may have been cut off in the middle.
            let Ok(parsed) = serde_json::from_slice::<Line>(&line) else { break };
            if whole + line.len() + 1 > text.len() {
                break;
            }
            whole += line.len() + 1;
            state.take(parsed, job).with_context(|| format!("the state file {name}"))?;
        }
        file.set_len(whole as u64)?;
        state.file = Some(file);
        if whole == 0 {
            ensure!(
                text.is_empty() || text.starts_with(b"{\"Job\""),
                "{name} is not a state file of tao load: name another with --state"
            );
            state.append(&Line::Job { job: job.clone(), run: state.run.clone() }, true)?;
        }
        Ok(state)
    }

    fn take(&mut self, line: Line, wanted: &Job) -> Result<()> {
        match line {
            Line::Job { job, .. } if job != *wanted => {
                bail!("is of another load (another input, type or version): remove it, or name another with --state")
            }
            Line::Job { run, .. } => {
                self.run = run;
                self.is_resumed = true;
            }
            Line::Objects { from, ids } => {
                let places =
                    self.objects.get_mut(from..from + ids.len()).context("names objects that the input has not")?;
                places.iter_mut().zip(ids).for_each(|(place, id)| *place = Some(id));
            }
            Line::Edges { from } => drop(self.edges.insert(from)),
            Line::Done => self.is_done = true,
        }
        Ok(())
    }

    /// Remembers objects that were made.
    pub fn made(&mut self, from: usize, ids: Vec<i64>) -> Result<()> {
        self.objects[from..from + ids.len()].iter_mut().zip(&ids).for_each(|(place, id)| *place = Some(*id));
        self.append(&Line::Objects { from, ids }, false)
    }

    /// Remembers a batch of edges that was written.
    pub fn wrote(&mut self, from: usize) -> Result<()> {
        self.edges.insert(from);
        self.append(&Line::Edges { from }, false)
    }

    /// Remembers that all is done.
    pub fn done(&mut self) -> Result<()> {
        self.is_done = true;
        self.append(&Line::Done, true)
    }

    /// Makes sure that everything remembered is on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data).context("can't write the state file")
    }

    fn append(&mut self, line: &Line, durably: bool) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        file.write_all(&text).context("can't write the state file")?;
        if durably { self.sync() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_harness::TempDir;

    #[test]
    fn a_load_goes_on_where_it_was_cut_off_even_in_the_middle_of_a_line() {
        let folder = TempDir::new().unwrap();
        let path = folder.join("state");
        let job = Job::new(b"1 2\n", "follows", "user", false);
        let mut state = State::open(Some(&path), &job, 3).unwrap();
        assert!(!state.is_resumed);
        state.made(0, vec![11, 12]).unwrap();
        state.wrote(0).unwrap();
        let run = state.run.clone();
        drop(state);
        let mut text = std::fs::read(&path).unwrap();
        text.extend(b"{\"Edges\":{\"fr");
        std::fs::write(&path, &text).unwrap();
        let mut state = State::open(Some(&path), &job, 3).unwrap();
        assert!(state.is_resumed && !state.is_done && state.run == run);
        assert_eq!((state.objects.as_slice(), state.edges.len()), ([Some(11), Some(12), None].as_slice(), 1));
        state.done().unwrap();
        assert!(State::open(Some(&path), &job, 3).unwrap().is_done);
        let other = Job::new(b"1 3\n", "follows", "user", false);
        assert!(State::open(Some(&path), &other, 3).is_err());
        std::fs::write(&path, "something else\n").unwrap();
        assert!(State::open(Some(&path), &job, 3).is_err());
    }
}
