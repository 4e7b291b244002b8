//! Calls that are refused before they are decoded: to decode one, and to answer it as any other, costs a good part of what it costs to
//! do what it asks for, and whoever is asked for several times what it can do has nothing left for that.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEAD, HEADERS, Head, PADDED, PRIORITY, RST_STREAM,
    WINDOW_UPDATE,
};
use crate::hpack::leaves_table;

/// Decides on the calls of a connection by their number alone.
pub trait Turnstile: Debug + Send + Sync {
    /// Whether it may refuse any now. Looked at whenever something is read.
    fn is_pressed(&self) -> bool;

    /// Takes in one more call; or refuses it, by this header block (see [`crate::response_block`]).
    fn refuse(&self) -> Option<&[u8]>;
}

/// Longer header blocks are decoded, and shorter ones, which no request has: answers to those would be far longer.
const MAX_BLOCK: usize = 4 * 1024;
const MIN_BLOCK: usize = 8;
/// Refused calls of a connection that are known not to have come to their end: the last of them.
const MAX_OPEN: usize = 1_024;
/// Bytes that nobody took, after which the peer is told that it may send as many more.
const UNTAKEN: u32 = 32 * 1024;
/// Why a stream is reset whose answer is complete.
const NO_ERROR: u32 = 0;
/// Bytes of what comes before a block with a priority.
const PRIORITY_BYTES: usize = 5;

/// How far a connection is. Only in the middle of its life are calls refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// HTTP/2 has not sent a header block: with the first, it agrees to the size of the table that the peer would like.
    Begun,
    Answering,
    /// What HTTP/2 has not heard of when it ends, it tells the peer to make elsewhere.
    Ending,
}

/// Lets frames through to HTTP/2, but for those of refused calls. Off, it has nothing to do with what is read.
#[derive(Debug)]
pub(crate) struct Sieve {
    turnstile: Arc<dyn Turnstile>,
    is_on: bool,
    /// What has come and is not decided on: less than a frame.
    raw: Vec<u8>,
    /// What goes on to HTTP/2, and how much of it has.
    passed: Vec<u8>,
    taken: usize,
    /// Bytes left of a frame that is decided on, and how.
    left: usize,
    passes: bool,
    /// The last call that came, and the last that went on: those between were refused, and HTTP/2 knows nothing of them.
    last_stream: u32,
    last_passed: u32,
    /// Refused calls whose callers have not ended them, in order.
    open: VecDeque<u32>,
    /// Content of frames that were dropped and that the peer believes to be on its way.
    untaken: u32,
    /// Frames for the peer.
    pub(crate) answers: Vec<u8>,
    stage: Stage,
}

impl Sieve {
    pub(crate) fn new(turnstile: Arc<dyn Turnstile>) -> Self {
        Self {
            turnstile,
            is_on: false,
            raw: Vec::new(),
            passed: Vec::new(),
            taken: 0,
            left: 0,
            passes: true,
            last_stream: 0,
            last_passed: 0,
            open: VecDeque::new(),
            untaken: 0,
            answers: Vec::new(),
            stage: Stage::Begun,
        }
    }

    /// Refuses nothing from now on.
    pub(crate) fn end_soon(&mut self) {
        self.stage = Stage::Ending;
    }

    /// Looks at a frame that HTTP/2 begins to write.
    pub(crate) fn writes(&mut self, frame: &[u8]) {
        if self.stage == Stage::Begun && frame.get(3) == Some(&HEADERS) {
            self.stage = Stage::Answering;
        }
    }

    /// Whether what is read next is to be given to it. Turns on where a frame's head begins, and off when nothing is left of what it did.
    pub(crate) fn is_on(&mut self, frames: &Frames) -> bool {
        let is_pressed = self.turnstile.is_pressed();
        if !self.is_on
            && is_pressed
            && let Some(left) = frames.left()
        {
            (self.is_on, self.left, self.passes) = (true, left, true);
            self.last_stream = frames.last_stream();
            self.last_passed = self.last_stream;
        } else if self.is_on && !is_pressed {
            let is_decided = self.raw.is_empty() && self.passed.is_empty() && (self.passes || self.left == 0);
            // What is said of the last calls late must not get to HTTP/2 as long as it takes them for calls to come.
            self.is_on = !(is_decided && self.open.is_empty() && self.last_passed == self.last_stream);
        }
        self.is_on
    }

    /// What HTTP/2 gets, up to so many bytes.
    pub(crate) fn pass(&mut self, most: usize) -> &[u8] {
        if self.taken == self.passed.len() {
            self.passed.clear();
            self.taken = 0;
        }
        let from = self.taken;
        self.taken = self.passed.len().min(from.saturating_add(most));
        &self.passed[from..self.taken]
    }

    /// Has what is not decided on go on as it is: nothing comes after it.
    pub(crate) fn finish(&mut self) {
        self.passed.append(&mut self.raw);
    }

    /// Decides on bytes that have come.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let mut raw = std::mem::take(&mut self.raw);
        raw.extend_from_slice(bytes);
        let mut rest = raw.as_slice();
        loop {
            let (now, later) = rest.split_at(self.left.min(rest.len()));
            if self.passes {
                self.passed.extend_from_slice(now);
            }
            self.left -= now.len();
            rest = later;
            let Some((head, content)) = rest.split_first_chunk::<HEAD>() else { break };
            let head = Head::read(head);
            let Some(passes) = self.decide(head, content) else { break };
            (self.passes, self.left) = (passes, HEAD + head.length);
        }
        let undecided = rest.len();
        raw.drain(..raw.len() - undecided);
        self.raw = raw;
    }

    /// Whether a frame goes on to HTTP/2; none as long as too little of it is there to tell.
    fn decide(&mut self, head: Head, content: &[u8]) -> Option<bool> {
        if head.kind == HEADERS && head.stream > self.last_stream {
            let block = match content.get(..head.length) {
                Some(content) => block(head, content),
                None if head.length <= MAX_BLOCK => return None,
                None => None,
            };
            self.last_stream = head.stream;
            let is_refused = self.refuses(head, block);
            if !is_refused {
                self.last_passed = head.stream;
            }
            return Some(!is_refused);
        }
        let open = self.open.binary_search(&head.stream);
        let is_unknown = (self.last_passed + 1..=self.last_stream).contains(&head.stream);
        if open.is_err() && !is_unknown {
            return Some(true);
        }
        let ends = match head.kind {
            DATA => {
                self.untaken += head.length as u32;
                let ends = head.flags & END_STREAM != 0;
                if !ends {
                    // There is more, for which it would wait for room.
                    Head { length: 4, kind: RST_STREAM, flags: 0, stream: head.stream }.write(&mut self.answers);
                    self.answers.extend_from_slice(&NO_ERROR.to_be_bytes());
                }
                ends
            }
            RST_STREAM => true,
            // No client of gRPC sends trailers. They may change the table, and HTTP/2 knows what to say.
            HEADERS | CONTINUATION => return Some(true),
            _ => false,
        };
        if let (true, Ok(place)) = (ends, open) {
            self.open.remove(place);
        }
        if self.untaken >= UNTAKEN {
            let more = std::mem::take(&mut self.untaken);
            Head { length: 4, kind: WINDOW_UPDATE, flags: 0, stream: 0 }.write(&mut self.answers);
            self.answers.extend_from_slice(&more.to_be_bytes());
        }
        Some(false)
    }

    fn refuses(&mut self, head: Head, block: Option<&[u8]>) -> bool {
        if self.stage != Stage::Answering || !block.is_some_and(|block| block.len() >= MIN_BLOCK && leaves_table(block))
        {
            return false;
        }
        let Some(answer) = self.turnstile.refuse() else { return false };
        let (length, flags) = (answer.len(), END_STREAM | END_HEADERS);
        Head { length, kind: HEADERS, flags, stream: head.stream }.write(&mut self.answers);
        self.answers.extend_from_slice(answer);
        if head.flags & END_STREAM == 0 {
            if self.open.len() == MAX_OPEN {
                self.open.pop_front();
            }
            self.open.push_back(head.stream);
        }
        true
    }
}

/// The header block of a frame that has all of it.
fn block(head: Head, content: &[u8]) -> Option<&[u8]> {
    if head.flags & END_HEADERS == 0 || head.flags & PADDED != 0 || head.length > MAX_BLOCK {
        return None;
    }
    let before = if head.flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
    content.get(before..)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

    use super::*;

    const PREFACE: usize = 24;
    const SETTINGS: u8 = 4;
    /// All of the static table.
    const BLOCK: &[u8] = &[0x83, 0x86, 0x84, 0x83, 0x86, 0x84, 0x83, 0x86];
    const ANSWER: &[u8] = b"\x88no";

    /// Takes in every third call.
    #[derive(Debug, Default)]
    struct EveryThird {
        is_off: AtomicBool,
        calls: AtomicU32,
    }

    impl Turnstile for EveryThird {
        fn is_pressed(&self) -> bool {
            !self.is_off.load(Relaxed)
        }

        fn refuse(&self) -> Option<&[u8]> {
            (!self.calls.fetch_add(1, Relaxed).is_multiple_of(3)).then_some(ANSWER)
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        Head { length: content.len(), kind, flags, stream }.write(&mut frame);
        frame.extend_from_slice(content);
        frame
    }

    fn call(n: u32, block: &[u8]) -> Vec<u8> {
        let headers = frame(HEADERS, END_HEADERS, 2 * n + 1, block);
        [headers, frame(DATA, END_STREAM, 2 * n + 1, &vec![n as u8; 300])].concat()
    }

    struct Reading {
        turnstile: Arc<EveryThird>,
        frames: Frames,
        sieve: Sieve,
        passed: Vec<u8>,
    }

    impl Reading {
        fn new() -> Self {
            let turnstile = Arc::new(EveryThird::default());
            let mut sieve = Sieve::new(turnstile.clone());
            sieve.writes(&frame(HEADERS, END_HEADERS, 1, ANSWER));
            Self { turnstile, frames: Frames::new(), sieve, passed: Vec::new() }
        }

        fn read(&mut self, bytes: &[u8]) {
            let is_on = self.sieve.is_on(&self.frames);
            self.frames.read(bytes).unwrap();
            if !is_on {
                self.passed.extend_from_slice(bytes);
                return;
            }
            self.sieve.take(bytes);
            loop {
                let passed = self.sieve.pass(100);
                if passed.is_empty() {
                    break;
                }
                self.passed.extend_from_slice(passed);
            }
        }
    }

    fn answer(n: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, ANSWER)
    }

    #[test]
    fn refused_calls_are_answered_and_left_out_however_they_are_cut() {
        let begin = [vec![1; PREFACE], frame(SETTINGS, 0, 0, &[0; 6])].concat();
        let calls: Vec<_> = (0..300).map(|n| call(n, BLOCK)).collect();
        let all = [begin.clone(), calls.concat(), frame(SETTINGS, 1, 0, &[])].concat();
        let taken_in: Vec<_> = calls.iter().step_by(3).flatten().copied().collect();
        let wanted = [begin, taken_in, frame(SETTINGS, 1, 0, &[])].concat();
        for cut in [1, 2, 8, 9, 10, 333, 5_000, all.len()] {
            let mut reading = Reading::new();
            all.chunks(cut).for_each(|bytes| reading.read(bytes));
            assert!(reading.passed == wanted, "{cut}");
            assert!(reading.sieve.open.is_empty() && reading.sieve.raw.is_empty());
            // Each is told once, and may send again what was dropped.
            let (mut answers, mut given_back) = (Vec::new(), 0);
            let mut rest = reading.sieve.answers.as_slice();
            while let Some((head, content)) = rest.split_first_chunk::<HEAD>() {
                let head = Head::read(head);
                let (content, later) = content.split_at(head.length);
                rest = later;
                match head.kind {
                    WINDOW_UPDATE => given_back += u32::from_be_bytes(content.try_into().unwrap()),
                    _ => answers.extend(frame(head.kind, head.flags, head.stream, content)),
                }
            }
            let refused: Vec<_> = (0..300).filter(|n| n % 3 != 0).flat_map(answer).collect();
            assert_eq!((answers == refused, given_back + reading.sieve.untaken), (true, 200 * 300));
        }
    }

    #[test]
    fn what_others_build_upon_goes_by() {
        let mut reading = Reading::new();
        let begin = vec![1; PREFACE];
        let remembered = frame(HEADERS, END_HEADERS, 3, b"\x40\x01a\x01b");
        let padded = frame(HEADERS, END_HEADERS | PADDED, 5, &[1, 0x82, 0]);
        let unfinished = [frame(HEADERS, 0, 7, BLOCK), frame(CONTINUATION, END_HEADERS, 7, BLOCK)].concat();
        let long = frame(HEADERS, END_HEADERS, 9, &[0x82; MAX_BLOCK + 1]);
        let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK);
        let all = [begin, first, remembered, padded, unfinished, long].concat();
        reading.read(&all);
        assert!(reading.passed == all && reading.sieve.answers.is_empty());
        // One with a priority is told from one without.
        reading.read(&frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY, 11, &[b"\0\0\0\0\x40", BLOCK].concat()));
        assert_eq!((reading.passed.len(), reading.sieve.answers.as_slice()), (all.len(), answer(5).as_slice()));
    }

    #[test]
    fn it_is_off_when_nobody_presses_and_refused_calls_have_ended() {
        let mut reading = Reading::new();
        reading.turnstile.is_off.store(true, Relaxed);
        let [begin, calls] = [vec![1; PREFACE], (0..3).flat_map(|n| call(n, BLOCK)).collect()];
        reading.read(&begin);
        reading.read(&calls[..4]);
        reading.turnstile.is_off.store(false, Relaxed);
        // Not within a head.
        assert!(!reading.sieve.is_on(&reading.frames));
        reading.read(&calls[4..]);
        assert_eq!(reading.passed, [begin, calls.clone()].concat());

        reading.turnstile.calls.store(1, Relaxed);
        let (headers, data) = (frame(HEADERS, END_HEADERS, 7, BLOCK), frame(DATA, 0, 7, &[0; 10]));
        reading.read(&[headers, data].concat());
        reading.turnstile.is_off.store(true, Relaxed);
        assert!(reading.sieve.is_on(&reading.frames), "7 has not ended");
        reading.read(&frame(RST_STREAM, 0, 7, &[0; 4]));
        assert!(reading.sieve.is_on(&reading.frames), "HTTP/2 would take 7 for one to come");
        reading.read(&frame(RST_STREAM, 0, 7, &[0; 4]));
        assert_eq!(reading.passed.len(), PREFACE + calls.len());
        reading.turnstile.calls.store(0, Relaxed);
        let next = call(4, BLOCK);
        reading.read(&next);
        assert!(!reading.sieve.is_on(&reading.frames));
        // By now it is one of old.
        let late = frame(RST_STREAM, 0, 7, &[0; 4]);
        reading.read(&late);
        assert_eq!(reading.passed.len(), PREFACE + calls.len() + next.len() + late.len());
    }

    #[test]
    fn calls_that_do_not_end_are_remembered_up_to_a_number() {
        let mut reading = Reading::new();
        reading.read(&[1; PREFACE]);
        for n in 0..3 * MAX_OPEN as u32 {
            reading.turnstile.calls.store(1, Relaxed);
            reading.read(&frame(HEADERS, END_HEADERS, 2 * n + 1, BLOCK));
        }
        assert_eq!((reading.sieve.open.len(), reading.passed.len()), (MAX_OPEN, PREFACE));
    }

    #[test]
    fn a_long_message_is_told_to_stop_and_what_comes_of_it_all_the_same_is_given_back() {
        let mut reading = Reading::new();
        reading.read(&[1; PREFACE]);
        reading.turnstile.calls.store(1, Relaxed);
        reading.read(&frame(HEADERS, END_HEADERS, 1, BLOCK));
        reading.sieve.answers.clear();
        reading.read(&frame(DATA, 0, 1, &vec![0; UNTAKEN as usize]));
        let (reset, room) = (frame(RST_STREAM, 0, 1, &[0; 4]), frame(WINDOW_UPDATE, 0, 0, &UNTAKEN.to_be_bytes()));
        assert_eq!(reading.sieve.answers, [reset, room].concat());
    }

    #[test]
    fn nothing_is_refused_before_the_first_answer_nor_when_the_connection_is_to_end() {
        for stage in [Stage::Begun, Stage::Ending] {
            let mut reading = Reading::new();
            reading.sieve.stage = stage;
            reading.turnstile.calls.store(1, Relaxed);
            let all = [vec![1; PREFACE], call(0, BLOCK)].concat();
            reading.read(&all);
            assert!(reading.passed == all && reading.sieve.answers.is_empty());
        }
    }

    #[test]
    fn what_is_too_short_for_a_request_is_decoded() {
        let mut reading = Reading::new();
        reading.turnstile.calls.store(1, Relaxed);
        let all = [vec![1; PREFACE], call(0, &BLOCK[..MIN_BLOCK - 1])].concat();
        reading.read(&all);
        assert_eq!(reading.passed, all);
    }
}
