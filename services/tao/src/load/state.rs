//! What a load has done so far, so that it can go on after an interruption: a text file that is only appended to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spans::Spans;
use crate::commands::Failure;

const VERSION: u32 = 2;
/// How the file begins, whatever its version.
const HEAD: &str = "{\"Job\":";

/// What is loaded, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    version: u32,
    bytes: u64,
    hash: u64,
    atype: String,
    object_type: String,
    undirected: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// The first.
    Job(Job),
    /// The ids of the objects from this place on, which need not exist yet.
    Ids { from: usize, ids: Vec<i64> },
    /// Objects that exist.
    Objects(Range<usize>),
    /// Edges that exist.
    Edges(Range<usize>),
    /// What the session has seen; binds the file to its cluster.
    Token(String),
    /// All is done.
    Done,
    /// All but the ids is done again.
    Again,
}

/// The state of a load.
#[derive(Debug)]
pub struct State {
    file: Option<(File, PathBuf)>,
    /// The object ids, by place; 0 where there is none yet.
    pub ids: Vec<i64>,
    /// Which of them are known.
    pub allocated: Spans,
    /// Which objects exist.
    pub objects: Spans,
    /// Which edges exist.
    pub edges: Spans,
    /// The session's token.
    pub token: String,
    /// Whether all is done.
    pub is_done: bool,
    /// Whether it goes on from before.
    pub is_resumed: bool,
}

impl Job {
    /// A load of the input with this fingerprint.
    pub fn new(fingerprint: (u64, u64), atype: &str, object_type: &str, undirected: bool) -> Self {
        let (bytes, hash) = fingerprint;
        Self { version: VERSION, bytes, hash, atype: atype.to_owned(), object_type: object_type.to_owned(), undirected }
    }
}

impl State {
    /// A load of so many objects that is kept nowhere.
    pub fn unkept(objects: usize) -> Self {
        Self {
            file: None,
            ids: vec![0; objects],
            allocated: Spans::default(),
            objects: Spans::default(),
            edges: Spans::default(),
            token: String::new(),
            is_done: false,
            is_resumed: false,
        }
    }

    /// Goes on with the state in `path`, or begins one there. A file that is something else is left as it is.
    pub fn open(path: &Path, job: &Job, objects: usize) -> Result<Self, Failure> {
        let say = |what: String| Failure::other(format!("the state file {} {what}", path.display()));
        let io = |error: io::Error| say(format!("can't be used: {error}"));
        let mut state = Self::unkept(objects);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(say("is in use by another tao load".to_owned()));
        }
        let (mut reader, mut line, mut whole, mut number) = (BufReader::new(&file), Vec::new(), 0_u64, 0);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
                break;
            }
            if number == 0 && !line.starts_with(HEAD.as_bytes()) && !HEAD.as_bytes().starts_with(&line) {
                return Err(say("is none of tao load: name another with --state".to_owned()));
            }
            // The last line may have been cut off when the program or the machine was.
            if line.last() != Some(&b'\n') {
                break;
            }
            number += 1;
            let parsed = serde_json::from_slice(&line).map_err(|error| match number {
                // Another version's lines need not be like ours; its first one tells which it is.
                1 => say(other_load()),
                _ => say(format!("is damaged in line {number}: {error}")),
            })?;
            state.take(parsed, job).map_err(say)?;
            whole += line.len() as u64;
        }
        file.set_len(whole).map_err(io)?;
        state.file = Some((file, path.to_owned()));
        if number == 0 {
            state.append(&Line::Job(job.clone()))?;
            state.sync()?;
        }
        Ok(state)
    }

    fn take(&mut self, line: Line, wanted: &Job) -> Result<(), String> {
        let foreign = || "names things that the input has not: remove it, or name another with --state".to_owned();
        match line {
            Line::Job(job) if job != *wanted => return Err(other_load()),
            Line::Job(_) => self.is_resumed = true,
            Line::Ids { from, ids } => {
                let span = from..from.checked_add(ids.len()).ok_or_else(foreign)?;
                self.ids.get_mut(span.clone()).ok_or_else(foreign)?.copy_from_slice(&ids);
                self.allocated.add(span);
            }
            Line::Objects(span) if span.end > self.ids.len() => return Err(foreign()),
            Line::Objects(span) => self.objects.add(span),
            Line::Edges(span) => self.edges.add(span),
            Line::Token(token) => self.token = token,
            Line::Done => self.is_done = true,
            Line::Again => self.forget(),
        }
        Ok(())
    }

    fn forget(&mut self) {
        (self.objects, self.edges, self.is_done) = (Spans::default(), Spans::default(), false);
    }

    /// Where it is kept.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(_, path)| path.as_path())
    }

    /// Forgets what is done, but not which id stands for which object: the same objects and edges are written once more.
    pub fn begin_again(&mut self) -> Result<(), Failure> {
        self.forget();
        self.append(&Line::Again)
    }

    /// Remembers the ids of objects to come. They must be on disk (see `sync`) before they are used: an object whose id was
    /// forgotten would be made twice.
    pub fn allocated(&mut self, from: usize, ids: Vec<i64>) -> Result<(), Failure> {
        let span = from..from + ids.len();
        self.ids[span.clone()].copy_from_slice(&ids);
        self.allocated.add(span);
        self.append(&Line::Ids { from, ids })
    }

    /// Remembers objects that were made.
    pub fn made(&mut self, span: Range<usize>) -> Result<(), Failure> {
        self.objects.add(span.clone());
        self.append(&Line::Objects(span))
    }

    /// Remembers edges that were written.
    pub fn wrote(&mut self, span: Range<usize>) -> Result<(), Failure> {
        self.edges.add(span.clone());
        self.append(&Line::Edges(span))
    }

    /// Remembers what the session has seen.
    pub fn saw(&mut self, token: String) -> Result<(), Failure> {
        if token.is_empty() || token == self.token {
            return Ok(());
        }
        self.token.clone_from(&token);
        self.append(&Line::Token(token))
    }

    /// Remembers that all is done.
    pub fn done(&mut self) -> Result<(), Failure> {
        self.is_done = true;
        self.append(&Line::Done)?;
        self.sync()
    }

    /// Whether no object and no edge is known to exist.
    pub fn has_made_nothing(&self) -> bool {
        self.objects.covered() == 0 && self.edges.covered() == 0
    }

    /// Forgets everything.
    pub fn remove(&mut self) -> Result<(), Failure> {
        let Some((_, path)) = self.file.take() else { return Ok(()) };
        std::fs::remove_file(&path)
            .map_err(|error| Failure::other(format!("can't remove the state file {}: {error}", path.display())))
    }

    /// Makes sure that everything remembered is on disk.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.file.as_ref().map_or(Ok(()), |(file, path)| file.sync_all().map_err(|error| cant_write(path, &error)))
    }

    fn append(&mut self, line: &Line) -> Result<(), Failure> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line).map_err(Failure::other)?;
        text.push(b'\n');
        file.write_all(&text).map_err(|error| cant_write(path, &error))
    }
}

fn cant_write(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("can't write the state file {}: {error}", path.display()))
}

fn other_load() -> String {
    "is of another load (another input, type or version): remove it, or name another with --state".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_harness::TempDir;

    fn job(text: &str) -> Job {
        let list = super::super::edge_list::read(text.as_bytes(), false).unwrap();
        Job::new(list.fingerprint, "follows", "user", false)
    }

    #[test]
    fn a_load_goes_on_where_it_was_cut_off_even_in_the_middle_of_a_line() {
        let folder = TempDir::new().unwrap();
        let path = folder.join("state");
        let mut state = State::open(&path, &job("1 2\n"), 3).unwrap();
        assert!(!state.is_resumed && State::open(&path, &job("1 2\n"), 3).is_err(), "locked");
        state.allocated(0, vec![11, 12]).unwrap();
        state.made(0..1).unwrap();
        state.wrote(0..1).unwrap();
        state.saw("token".to_owned()).unwrap();
        drop(state);
        for torn in ["{\"Edges\":{\"start\":5", "{\"Ids\":{\"from\":2,\"ids\":[1"] {
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, [whole.as_slice(), torn.as_bytes()].concat()).unwrap();
            let state = State::open(&path, &job("1 2\n"), 3).unwrap();
            assert!(state.is_resumed && !state.is_done);
            assert_eq!((state.ids.as_slice(), state.token.as_str()), ([11, 12, 0].as_slice(), "token"));
            assert_eq!((state.allocated.covered(), state.objects.covered(), state.edges.covered()), (2, 1, 1));
            drop(state);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "what was cut off is gone");
        }
        State::open(&path, &job("1 2\n"), 3).unwrap().done().unwrap();
        let mut state = State::open(&path, &job("1 2\n"), 3).unwrap();
        assert!(state.is_done);
        state.begin_again().unwrap();
        drop(state);
        let state = State::open(&path, &job("1 2\n"), 3).unwrap();
        assert_eq!((state.is_done, state.ids[0], state.objects.covered(), state.edges.covered()), (false, 11, 0, 0));
    }

    #[test]
    fn what_is_not_this_loads_state_is_refused_and_left_as_it_is() {
        let folder = TempDir::new().unwrap();
        let path = folder.join("state");
        State::open(&path, &job("1 2\n"), 2).unwrap().allocated(0, vec![11, 12]).unwrap();
        let ours = std::fs::read_to_string(&path).unwrap();
        let version = ours.replacen("\"version\":2", "\"version\":9", 1);
        let older = "{\"Job\":{\"job\":{\"version\":1},\"run\":\"x\"}}\n".to_owned();
        let damaged = ours.replacen("\"Ids\"", "\"Isd\"", 1);
        let letter = "my only copy of a letter\n".to_owned();
        for (text, says) in [
            (version, "another load"),
            (older, "another load"),
            (damaged, "damaged in line 2"),
            (letter, "is none of tao load"),
            ("no line end".to_owned(), "is none of tao load"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = State::open(&path, &job("1 2\n"), 2).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::write(&path, &ours).unwrap();
        assert!(State::open(&path, &job("1 3\n"), 2).unwrap_err().to_string().contains("another load"));
        assert!(State::open(&path, &job("1 2\n"), 1).unwrap_err().to_string().contains("has not"));
        for begun in ["", "{\"Jo"] {
            std::fs::write(&path, begun).unwrap();
            assert!(!State::open(&path, &job("1 2\n"), 2).unwrap().is_resumed, "cut off before it was a state");
        }
    }
}
