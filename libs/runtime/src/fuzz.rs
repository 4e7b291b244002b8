//! This crate's decoders for tests/fuzz: no part of its API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::frames::Frames;
use crate::turnstile::{Sieve, Turnstile};

#[derive(Debug, Default)]
struct EveryOther(AtomicUsize);

impl Turnstile for EveryOther {
    fn is_pressed(&self) -> bool {
        true
    }

    fn refuse(&self) -> Option<&[u8]> {
        (self.0.fetch_add(1, Ordering::Relaxed) % 2 == 1).then_some(b"\x88")
    }
}

/// What HTTP/2 and the peer get when a connection's bytes come in pieces of so many, and every other call is refused.
pub fn sift(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut frames, mut sieve) = (Frames::new(), Sieve::new(Arc::<EveryOther>::default()));
    sieve.writes(&[0, 0, 0, 1]);
    let mut passed = Vec::new();
    let mut drain = |sieve: &mut Sieve| {
        loop {
            let some = sieve.pass(usize::MAX);
            if some.is_empty() {
                break;
            }
            passed.extend_from_slice(some);
        }
    };
    for piece in bytes.chunks(piece.max(1)) {
        sieve.is_on(&frames);
        // A flood ends a connection; what it is made of goes on as anything else.
        let _flood = frames.read(piece);
        sieve.take(piece);
        drain(&mut sieve);
    }
    sieve.finish();
    drain(&mut sieve);
    (passed, sieve.answers)
}
