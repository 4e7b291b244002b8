//! Edge lists in files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::NEWEST;

/// The lists of all nodes, one after the other, each newest first.
pub(super) struct Lists {
    /// Where a node's list begins; one more at the end.
    pub starts: Vec<u32>,
    /// `(id2, time)`.
    pub edges: Vec<(u32, u32)>,
}

/// Reads `src dst [time]` lines; `#` begins a comment. Nodes are numbered as they come. Loops and repeats are left out. Edges of a list
/// that have no time, or the same as another, get the next older one, so that every target lists them in the same order.
pub(super) fn read(path: &Path) -> Result<Lists> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut numbers = HashMap::new();
    let mut seen = HashSet::new();
    let mut lists: Vec<Vec<(u32, u32)>> = Vec::new();
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let mut words =
            line.split(['#', '%']).next().unwrap_or_default().split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let Some(source) = words.next() else { continue };
        let place = || format!("{}, line {}", path.display(), at + 1);
        let target = words.next().with_context(|| format!("{}: an edge is `src dst [time]`", place()))?;
        let time = match words.next() {
            None => NEWEST - 1,
            Some(word) => {
                let time: u32 =
                    word.parse().with_context(|| format!("{}: time {word:?} is not a number of seconds", place()))?;
                ensure!(time < NEWEST, "{}: time {time} is not before {NEWEST}", place());
                time
            }
        };
        let mut number = |word: &str| {
            let next = lists.len() as u32;
            let number = *numbers.entry(word.to_owned()).or_insert(next);
            if number == next {
                lists.push(Vec::new());
            }
            number
        };
        let (id1, id2) = (number(source), number(target));
        if id1 != id2 && seen.insert((id1, id2)) {
            lists[id1 as usize].push((id2, time));
        }
    }
    let (mut starts, mut edges) = (vec![0], Vec::with_capacity(seen.len()));
    for (node, mut list) in lists.into_iter().enumerate() {
        list.sort_by_key(|(id2, time)| std::cmp::Reverse((*time, *id2)));
        let mut newest = NEWEST;
        for (id2, time) in list {
            newest = newest.checked_sub(1).with_context(|| format!("node {node}: no time is left before 0"))?.min(time);
            edges.push((id2, newest));
        }
        starts.push(edges.len() as u32);
    }
    Ok(Lists { starts, edges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_newest_first() {
        let folder = tao_harness::TempDir::new().unwrap();
        let path = folder.join("edges");
        std::fs::write(&path, "# who whom when\na b 10\na c 20\na b 30\n\na a 5\na d 20\nb\ta\n").unwrap();
        let lists = read(&path).unwrap();
        assert_eq!(lists.starts, [0, 3, 4, 4, 4]);
        assert_eq!(lists.edges, [(3, 20), (2, 19), (1, 10), (0, NEWEST - 1)]);
        std::fs::write(&path, "a b\na\n").unwrap();
        let message = format!("{:#}", read(&path).err().unwrap());
        assert!(message.contains("line 2: an edge is"), "{message}");
    }
}
