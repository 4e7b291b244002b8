//! HTTP/2 frames that ask for nothing: pings, settings, resets, window updates, empty data; and calls that are reset as soon as they are
//! made. An honest peer sends such frames along with its requests, or a few a second, and gives few calls up at once; somebody who sends
//! them in floods makes the server work for nothing, and is told to calm down.

use std::time::Duration;

use tokio::time::Instant;

use crate::activity::Cause;

/// How an HTTP/2 connection begins, before its first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// Bytes of a frame's head: its length, type, flags and stream.
pub(crate) const HEAD: usize = 9;
/// Frames for nothing that may come at once.
const BURST: i64 = 1_024;
/// And so many more each second.
const PER_SECOND: i64 = 64;
/// And so many with each frame that carries something, since it will be answered, and the answer acknowledged.
const WITH_CONTENT: i64 = 4;

/// A call that is reset sooner than this was not meant: it is taken back with those made in the same stretch of so long.
const TOO_SOON: Duration = Duration::from_millis(10);
/// So many of those at once, and so many each second: what is more is no deadline that passes. (A busy server reads late, and finds calls
/// together with their resets; but an honest peer has only so many calls under way. And a flood may be no faster than a busy server reads.)
const MAX_RESETS: u32 = 4_096;
const RESETS_PER_SECOND: u32 = 1_024;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY: u8 = 32;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Bytes of content.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn read(&[a, b, c, kind, flags, ref stream @ ..]: &[u8; HEAD]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // The first bit is reserved, and says nothing.
        Self { length, kind, flags, stream: u32::from_be_bytes(*stream) & (u32::MAX >> 1) }
    }

    pub(crate) fn write(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        to.extend_from_slice(&[self.kind, self.flags]);
        to.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// What a peer sends, frame by frame.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes that are not looked at: of the preface, or of a frame's content.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    filled: usize,
    /// Of a head, the first.
    is_begun: bool,
    credit: i64,
    credited: Instant,
    last_stream: u32,
    /// When the present stretch of calls began, and the first of them.
    stretch: Instant,
    first_stream: u32,
    /// Calls that were reset too soon, less those that time has forgiven up to a moment.
    resets: u32,
    forgiven: Instant,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            filled: 0,
            is_begun: false,
            credit: BURST,
            credited: Instant::now(),
            last_stream: 0,
            stretch: Instant::now(),
            first_stream: 0,
            resets: 0,
            forgiven: Instant::now(),
        }
    }

    /// Whether the peer has sent its preface and a frame's head.
    pub(crate) const fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Looks at bytes that have come; fails when they are a flood.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Cause> {
        let now = Instant::now();
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                self.frame(now)?;
            }
        }
    }

    /// Bytes left until the next head begins; none when it has begun.
    pub(crate) fn left(&self) -> Option<usize> {
        (self.filled == 0).then_some(self.skip)
    }

    /// The last stream that the peer has opened.
    pub(crate) const fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Notes that something was sent that is more than the answer to a ping.
    pub(crate) fn sent(&mut self) {
        self.credit = (self.credit + 1).min(BURST);
    }

    fn frame(&mut self, now: Instant) -> Result<(), Cause> {
        self.is_begun = true;
        let Head { length, kind, flags, stream } = Head::read(&self.head);
        self.skip = length;
        let is_content = match kind {
            HEADERS => {
                self.call(stream, now);
                true
            }
            // How many of those a header may take, HTTP/2 itself looks after.
            CONTINUATION => true,
            DATA => length > 0 || flags & END_STREAM != 0,
            RST_STREAM => {
                self.reset(stream, now)?;
                false
            }
            _ => false,
        };
        if is_content {
            self.credit = (self.credit + WITH_CONTENT).min(BURST);
            return Ok(());
        }
        self.credit -= 1;
        if self.credit < 0 { self.spare(now) } else { Ok(()) }
    }

    fn call(&mut self, stream: u32, now: Instant) {
        self.last_stream = self.last_stream.max(stream);
        if now - self.stretch > TOO_SOON {
            (self.stretch, self.first_stream) = (now, stream);
        }
    }

    fn reset(&mut self, stream: u32, now: Instant) -> Result<(), Cause> {
        if stream >= self.first_stream && now - self.stretch <= 2 * TOO_SOON {
            self.resets += 1;
        }
        if self.resets <= MAX_RESETS {
            return Ok(());
        }
        let since = (now - self.forgiven).as_secs_f64();
        self.resets = self.resets.saturating_sub((since * f64::from(RESETS_PER_SECOND)) as u32);
        self.forgiven = now;
        if self.resets > MAX_RESETS { Err(Cause::Resets) } else { Ok(()) }
    }

    /// What time has given, which is looked at only when all else is used up.
    fn spare(&mut self, now: Instant) -> Result<(), Cause> {
        let since = (now - self.credited).min(Duration::from_secs(3_600));
        let more = since.as_millis() as i64 * PER_SECOND / 1_000;
        if more == 0 {
            return Err(Cause::Frames);
        }
        self.credit = (self.credit + more).min(BURST);
        self.credited = now;
        if self.credit < 0 { Err(Cause::Frames) } else { Ok(()) }
    }

    /// The frame that ends a connection, and says why.
    pub(crate) fn calm_down(&self, why: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        Head { length: 8 + why.len(), kind: GOAWAY, flags: 0, stream: 0 }.write(&mut frame);
        frame.extend_from_slice(&self.last_stream.to_be_bytes());
        frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend_from_slice(why.as_bytes());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        Head { length, kind, flags, stream: stream.into() }.write(&mut frame);
        frame.resize(HEAD + length, 7);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        assert!(frames.read(&[1; PREFACE]).is_ok() && !frames.is_begun());
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn pings_beyond_the_burst_are_a_flood_unless_they_are_spread() {
        let mut frames = begun();
        let ping = frame(PING, 0, 0, 8);
        for _ in 0..BURST {
            assert_eq!(frames.read(&ping), Ok(()));
        }
        assert_eq!(frames.read(&ping), Err(Cause::Frames));
        let mut patient = begun();
        for _ in 0..10 * BURST {
            tokio::time::advance(Duration::from_millis(16)).await;
            assert_eq!(patient.read(&ping), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_however_they_are_cut() {
        let call = [frame(HEADERS, 4, 1, 40), frame(DATA, 1, 1, 300)].concat();
        let one = [call, frame(PING, 0, 0, 8), frame(8, 0, 0, 4)].concat();
        let mut all = vec![9; PREFACE];
        (0..5 * BURST).for_each(|_| all.extend_from_slice(&one));
        for cut in [1, 2, 7, 64, 4_096] {
            let mut frames = Frames::new();
            assert!(all.chunks(cut).all(|bytes| frames.read(bytes).is_ok()), "{cut}");
            assert_eq!((frames.credit, frames.last_stream, frames.is_begun()), (BURST - 2, 1, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_carries_nothing_is_counted_and_what_is_sent_pays_for_it() {
        for (kind, flags, length) in [(DATA, 0, 0), (4, 0, 0), (8, 0, 4), (2, 0, 5), (77, 0, 3)] {
            let mut frames = begun();
            let idle = frame(kind, flags, 1, length);
            let taken = (0..2 * BURST).take_while(|_| frames.read(&idle).is_ok()).count();
            assert_eq!(taken as i64, BURST, "kind {kind}");
            let mut busy = begun();
            let paid = |_| {
                busy.sent();
                busy.read(&idle).is_ok()
            };
            assert!((0..2 * BURST).all(paid));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_reset_at_once_are_a_flood_and_late_ones_are_not() {
        let call = |stream: u8| frame(HEADERS, 4, stream, 40);
        let reset = |stream: u8| frame(RST_STREAM, 0, stream, 4);
        let mut rapid = begun();
        let taken = (0..4 * MAX_RESETS).take_while(|_| rapid.read(&[call(1), reset(1)].concat()).is_ok()).count();
        assert_eq!(taken as u32, MAX_RESETS);
        // Nor is a flood let go on since the server reads slowly.
        let mut slow = begun();
        let mut taken = 0;
        while slow.read(&[call(1), reset(1)].concat()).is_ok() && taken < 20 * MAX_RESETS {
            tokio::time::advance(Duration::from_micros(500)).await;
            taken += 1;
        }
        assert!(taken < 3 * MAX_RESETS, "{taken}");
        // A server that reads late finds a thousand calls with their resets each second.
        let mut busy = begun();
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!((0..1_000).all(|_| busy.read(&[call(1), reset(1)].concat()).is_ok()));
        }
        // As many deadlines as one likes may pass, all at once.
        let mut late = begun();
        for _ in 0..10 {
            (0..200).for_each(|_| late.read(&call(1)).unwrap());
            tokio::time::advance(Duration::from_millis(50)).await;
            (0..200).for_each(|_| late.read(&reset(1)).unwrap());
        }
        assert_eq!(late.resets, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_names_the_last_stream() {
        let mut frames = begun();
        frames.read(&frame(HEADERS, 5, 9, 10)).unwrap();
        let said = frames.calm_down("too_many_pings");
        assert_eq!(said.len(), HEAD + 8 + 14);
        assert_eq!((said[2], said[3]), (22, GOAWAY));
        assert_eq!(said[HEAD..HEAD + 8], [0, 0, 0, 9, 0, 0, 0, 0xb]);
    }
}
