//! Reads edge lists: `src dst [time]` a line, separated by blanks, tabs, commas or semicolons.

use std::collections::HashMap;
use std::io::BufRead;

/// Examples that are kept of what was skipped, for each reason.
const EXAMPLES: usize = 3;

/// A graph as a file has it. Ids are kept once, edges point to them by place: 12 bytes an edge and about 30 an id.
#[derive(Debug, Default)]
pub struct EdgeList {
    /// The file's ids, in the order in which they came.
    pub ids: Vec<u64>,
    /// From, to, time: one a pair, with the newest time, ordered by ends.
    pub edges: Vec<(u32, u32, u32)>,
    /// What was left out.
    pub skipped: Skipped,
}

/// What was left out of a graph, by reason.
#[derive(Debug, Default)]
pub struct Skipped {
    /// A pair that came again; its newest time is kept.
    pub repeated: u64,
    /// An edge from an id to itself.
    pub to_itself: u64,
    /// Not two ids and perhaps a time.
    pub malformed: u64,
    /// The first few malformed lines: number and text.
    pub examples: Vec<(u64, String)>,
}

/// Reads a whole list. Without direction, `a b` and `b a` are one pair.
pub fn read(mut input: impl BufRead, undirected: bool) -> std::io::Result<EdgeList> {
    let mut list = EdgeList::default();
    let mut places: HashMap<u64, u32> = HashMap::new();
    let (mut raw, mut number, mut saw_edge) = (Vec::new(), 0, false);
    loop {
        raw.clear();
        if input.read_until(b'\n', &mut raw)? == 0 {
            break;
        }
        number += 1;
        let line = String::from_utf8_lossy(&raw);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '%']) {
            continue;
        }
        let Some((a, b, time)) = parse(line) else {
            // The first line that is no comment may be a header.
            if saw_edge || list.skipped.malformed > 0 || !is_header(line) {
                list.skipped.malformed += 1;
                if list.skipped.examples.len() < EXAMPLES {
                    list.skipped.examples.push((number, line.chars().take(80).collect()));
                }
            }
            saw_edge = true;
            continue;
        };
        saw_edge = true;
        if a == b {
            list.skipped.to_itself += 1;
            continue;
        }
        let mut place = |id| {
            *places.entry(id).or_insert_with(|| {
                list.ids.push(id);
                (list.ids.len() - 1) as u32
            })
        };
        let (a, b) = (place(a), place(b));
        let (a, b) = if undirected && a > b { (b, a) } else { (a, b) };
        list.edges.push((a, b, time));
    }
    // The newest of a pair comes first, and stays.
    list.edges.sort_unstable_by_key(|&(a, b, time)| (a, b, u32::MAX - time));
    let all = list.edges.len();
    list.edges.dedup_by_key(|&mut (a, b, _)| (a, b));
    list.skipped.repeated = (all - list.edges.len()) as u64;
    Ok(list)
}

fn parse(line: &str) -> Option<(u64, u64, u32)> {
    let mut fields = line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|f| !f.is_empty());
    let (a, b) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let time = match fields.next() {
        Some(time) => time.parse().ok()?,
        None => 0,
    };
    fields.next().is_none().then_some((a, b, time))
}

/// Words, no numbers.
fn is_header(line: &str) -> bool {
    line.starts_with(|c: char| c.is_alphabetic() || c == '"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_comments_repeats_and_broken_lines() {
        let text = "# a comment\nfrom,to,time\n1,2,10\n% another\n2;1;5\n1 2 30\n1\t2\t20\n3 3 1\n4 x\n5 6 7 8\n7 -8\n\n9 10\n";
        let list = read(text.as_bytes(), false).unwrap();
        assert_eq!(list.ids, [1, 2, 9, 10]);
        assert_eq!(list.edges, [(0, 1, 30), (1, 0, 5), (2, 3, 0)]);
        let skipped = list.skipped;
        assert_eq!((skipped.repeated, skipped.to_itself, skipped.malformed), (2, 1, 3));
        assert_eq!(skipped.examples[0], (9, "4 x".to_owned()));
        let list = read(text.as_bytes(), true).unwrap();
        assert_eq!((list.edges.as_slice(), list.skipped.repeated), ([(0, 1, 30), (2, 3, 0)].as_slice(), 3));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_everything_is_accounted_for(text in "([0-9]{1,2} [0-9]{1,2}( [0-9]{1,12})?\n|.{0,12}\n){0,40}", undirected: bool) {
            let list = read(text.as_bytes(), undirected).unwrap();
            let skipped = list.skipped.repeated + list.skipped.to_itself + list.skipped.malformed;
            prop_assert!(list.edges.len() as u64 + skipped <= text.lines().count() as u64);
            for (a, b, _) in &list.edges {
                prop_assert!(a != b && (*a.max(b) as usize) < list.ids.len());
            }
            prop_assert!(list.edges.is_sorted_by(|x, y| (x.0, x.1) < (y.0, y.1)));
        }
    }
}
