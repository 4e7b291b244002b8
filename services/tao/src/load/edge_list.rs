//! Reads edge lists: `src dst [time]` a line, separated by blanks, tabs, commas or semicolons.

use std::collections::HashMap;
use std::io::{self, BufRead};

use tao_model::StableHash;

/// Examples that are kept of what was skipped, for each reason.
const EXAMPLES: usize = 3;
/// Characters of an example.
const EXAMPLE: usize = 80;

/// A graph as a file has it. Ids are kept once, edges point to them by place: 12 bytes an edge, twice that while it is read.
#[derive(Debug, Default)]
pub struct EdgeList {
    /// The file's ids, in the order in which they came.
    pub ids: Vec<u64>,
    /// From, to, time: one a pair, with the newest time, ordered by ends.
    pub edges: Vec<(u32, u32, u32)>,
    /// What was left out.
    pub skipped: Skipped,
    /// Lines that are no edges and need none: comments, empty ones, a header.
    pub passed_over: u64,
    /// Bytes, and a hash of all of them: tells one input from another.
    pub fingerprint: (u64, u64),
}

/// Why something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A pair that came again; its newest time is kept.
    Repeated,
    /// An edge from an id to itself.
    ToItself,
    /// A line without two ids.
    NotTwoIds,
    /// A line whose third field is no time.
    BadTime,
    /// A line that goes on after the time.
    TooMuch,
}

/// How much was left out for one reason.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Lines.
    pub count: u64,
    /// The first few: number and text. Of pairs that came again none are kept.
    pub examples: Vec<(u64, String)>,
}

/// What was left out of a graph, by reason.
#[derive(Debug, Default)]
pub struct Skipped([Tally; Reason::ALL.len()]);

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Repeated, Self::ToItself, Self::NotTwoIds, Self::BadTime, Self::TooMuch];

    /// For programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::ToItself => "to_itself",
            Self::NotTwoIds => "not_two_ids",
            Self::BadTime => "bad_time",
            Self::TooMuch => "too_many_fields",
        }
    }

    /// For people, after a number.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Repeated => "pairs that came again; their newest time is kept",
            Self::ToItself => "edges from an id to itself",
            Self::NotTwoIds => "lines that don't begin with two ids (whole numbers from 0)",
            Self::BadTime => "lines whose time is no whole number of seconds from 0 to 4294967295",
            Self::TooMuch => "lines that go on after the time",
        }
    }
}

impl Skipped {
    /// Of one reason.
    pub const fn tally(&self, reason: Reason) -> &Tally {
        &self.0[reason as usize]
    }

    fn add(&mut self, reason: Reason, number: u64, line: &str) {
        let tally = &mut self.0[reason as usize];
        tally.count += 1;
        if tally.examples.len() < EXAMPLES {
            tally.examples.push((number, line.chars().take(EXAMPLE).collect()));
        }
    }
}

/// Reads a whole list. Without direction, `a b` and `b a` are one pair.
pub fn read(mut input: impl BufRead, undirected: bool) -> io::Result<EdgeList> {
    let mut list = EdgeList::default();
    let mut hash = StableHash::default();
    let mut places: HashMap<u64, u32> = HashMap::new();
    let (mut raw, mut number, mut at_top) = (Vec::new(), 0, true);
    loop {
        raw.clear();
        if input.read_until(b'\n', &mut raw)? == 0 {
            list.fingerprint.1 = hash.get();
            break;
        }
        number += 1;
        list.fingerprint.0 += raw.len() as u64;
        hash.update(&raw);
        let line = String::from_utf8_lossy(&raw);
        // Some programs begin a file with a byte order mark.
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with(['#', '%']) {
            list.passed_over += 1;
            continue;
        }
        let may_be_header = std::mem::take(&mut at_top);
        match parse(line) {
            Ok((a, b, _)) if a == b => list.skipped.add(Reason::ToItself, number, line),
            Ok((a, b, time)) => {
                let (a, b) = (place(&mut list.ids, &mut places, a)?, place(&mut list.ids, &mut places, b)?);
                let (a, b) = if undirected && a > b { (b, a) } else { (a, b) };
                list.edges.push((a, b, time));
            }
            Err(_) if may_be_header && is_header(line) => list.passed_over += 1,
            Err(reason) => list.skipped.add(reason, number, line),
        }
    }
    // The newest of a pair comes first, and stays.
    list.edges.sort_unstable_by_key(|&(a, b, time)| (a, b, u32::MAX - time));
    let all = list.edges.len();
    list.edges.dedup_by_key(|&mut (a, b, _)| (a, b));
    list.edges.shrink_to_fit();
    list.skipped.0[Reason::Repeated as usize].count = (all - list.edges.len()) as u64;
    Ok(list)
}

/// Where an id is among those of the file; new ones come last.
fn place(ids: &mut Vec<u64>, places: &mut HashMap<u64, u32>, id: u64) -> io::Result<u32> {
    if let Some(place) = places.get(&id) {
        return Ok(*place);
    }
    let place = u32::try_from(ids.len()).map_err(|_| io::Error::other("more than 4 billion ids: split the file"))?;
    ids.push(id);
    places.insert(id, place);
    Ok(place)
}

fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|field| !field.is_empty())
}

fn parse(line: &str) -> Result<(u64, u64, u32), Reason> {
    let mut fields = fields(line);
    let mut id = || fields.next().and_then(|field| field.parse().ok()).ok_or(Reason::NotTwoIds);
    let (a, b) = (id()?, id()?);
    let time = fields.next().map_or(Ok(0), str::parse).map_err(|_| Reason::BadTime)?;
    if fields.next().is_some() { Err(Reason::TooMuch) } else { Ok((a, b, time)) }
}

/// Words, no numbers.
fn is_header(line: &str) -> bool {
    fields(line).all(|field| field.trim_matches('"').parse::<f64>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All lines of a text, by what became of them.
    fn accounted(list: &EdgeList) -> u64 {
        let skipped: u64 = Reason::ALL.iter().map(|reason| list.skipped.tally(*reason).count).sum();
        list.edges.len() as u64 + list.passed_over + skipped
    }

    #[test]
    fn headers_comments_repeats_and_broken_lines() {
        let text = "\u{feff}# a comment\nfrom,to,time\n1,2,10\n% another\n2;1;5\n1 2 30\r\n1\t2\t20\n3 3 1\n4 x\n5 6 7 8\n7 -8\n\n9 10\n1 9 -1\n1 9 4294967296\nlate,header";
        let list = read(text.as_bytes(), false).unwrap();
        assert_eq!(list.ids, [1, 2, 9, 10]);
        assert_eq!(list.edges, [(0, 1, 30), (1, 0, 5), (2, 3, 0)]);
        let count = |reason| list.skipped.tally(reason).count;
        assert_eq!(Reason::ALL.map(count), [2, 1, 3, 2, 1]);
        let examples = |reason| list.skipped.tally(reason).examples.clone();
        assert_eq!(examples(Reason::NotTwoIds)[..2], [(9, "4 x".to_owned()), (11, "7 -8".to_owned())]);
        assert_eq!(examples(Reason::ToItself), [(8, "3 3 1".to_owned())]);
        assert_eq!(examples(Reason::BadTime)[0], (14, "1 9 -1".to_owned()));
        assert_eq!((list.passed_over, accounted(&list)), (4, text.lines().count() as u64));
        let list = read(text.as_bytes(), true).unwrap();
        assert_eq!(list.edges, [(0, 1, 30), (2, 3, 0)]);
        assert_eq!(list.skipped.tally(Reason::Repeated).count, 3);
    }

    #[test]
    fn only_the_first_line_may_be_a_header_and_only_without_numbers() {
        let skipped = |text: &str| read(text.as_bytes(), false).unwrap().skipped.tally(Reason::NotTwoIds).count;
        for header in ["nd nw\n1 2", "# c\n\n\"from\",\"to\"\n1 2", "id\n1 2", "~ ~\n"] {
            assert_eq!(skipped(header), 0, "{header}");
        }
        for none in ["1 b\n1 2", "-1 -2\n1 2", "1.5 2.5\n", "1 2\na b", "x 1"] {
            assert_eq!(skipped(none), 1, "{none}");
        }
    }

    #[test]
    fn inputs_are_told_apart_by_all_of_their_bytes() {
        let long = "1 2\n".repeat(100_000);
        let fingerprint = |text: &str| read(text.as_bytes(), false).unwrap().fingerprint;
        let other = format!("{}1 3\n", &long[..long.len() - 4]);
        assert_ne!(fingerprint(&long), fingerprint(&other));
        assert_eq!(fingerprint(&long), fingerprint(&long.clone()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_every_line_is_accounted_for(
            lines in prop::collection::vec("[0-9]{1,2}[ ,\t;]{1,2}[0-9]{1,2}( [0-9]{1,12})?|[#% a-z0-9.,-]{0,12}|\\PC{0,12}", 0..40),
            end in "\n|\r\n",
            undirected: bool,
        ) {
            let text = lines.iter().map(|line| format!("{line}{end}")).collect::<String>();
            let list = read(text.as_bytes(), undirected).unwrap();
            prop_assert_eq!(accounted(&list), text.matches('\n').count() as u64);
            for (a, b, _) in &list.edges {
                prop_assert!(a != b && (*a.max(b) as usize) < list.ids.len());
                prop_assert!(!undirected || a < b);
            }
            prop_assert!(list.edges.is_sorted_by(|x, y| (x.0, x.1) < (y.0, y.1)));
            for reason in Reason::ALL {
                let tally = list.skipped.tally(reason);
                prop_assert!(reason == Reason::Repeated || tally.examples.len() as u64 == tally.count.min(EXAMPLES as u64));
            }
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let list = read(bytes.as_slice(), false).unwrap();
            prop_assert_eq!(list.fingerprint.0, bytes.len() as u64);
        }

        /// Against a map that keeps the newest time of each pair.
        #[test]
        fn the_newest_time_of_a_pair_is_kept(edges in prop::collection::vec((0u64..6, 0u64..6, any::<u32>()), 0..60), undirected: bool) {
            let text: String = edges.iter().map(|(a, b, time)| format!("{a} {b} {time}\n")).collect();
            let list = read(text.as_bytes(), undirected).unwrap();
            let mut newest = std::collections::BTreeMap::new();
            let order = |a: u64, b: u64| if undirected && a > b { (b, a) } else { (a, b) };
            for (a, b, time) in edges.into_iter().filter(|(a, b, _)| a != b) {
                let kept: &mut u32 = newest.entry(order(a, b)).or_default();
                *kept = time.max(*kept);
            }
            let got: std::collections::BTreeMap<_, _> = list
                .edges
                .iter()
                .map(|(a, b, time)| (order(list.ids[*a as usize], list.ids[*b as usize]), *time))
                .collect();
            prop_assert_eq!(got, newest);
        }
    }
}
