//! A ratio over the last minutes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Parts that a window moves by.
const PARTS: u32 = 30;

/// Counts what was found in a window of time that slides along.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    began: Instant,
    all: u64,
    bad: u64,
}

impl Window {
    /// That looks back so far.
    pub const fn new(length: Duration) -> Self {
        Self { length, parts: VecDeque::new() }
    }

    /// Something was found, good or bad.
    pub fn add(&mut self, now: Instant, is_bad: bool) {
        match self.parts.back_mut() {
            Some(part) if now.duration_since(part.began) < self.length / PARTS => {
                part.all += 1;
                part.bad += u64::from(is_bad);
            }
            _ => self.parts.push_back(Part { began: now, all: 1, bad: u64::from(is_bad) }),
        }
    }

    /// The bad share of all; 0 when there was nothing.
    pub fn ratio(&mut self, now: Instant) -> f64 {
        while self.parts.front().is_some_and(|part| now.duration_since(part.began) >= self.length) {
            self.parts.pop_front();
        }
        let (all, bad) = self.parts.iter().fold((0, 0), |(all, bad), part| (all + part.all, bad + part.bad));
        if all == 0 { 0.0 } else { bad as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (length, begun) = (Duration::from_secs(300), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut window = Window::new(length);
        assert_eq!(window.ratio(at(0)).to_bits(), 0.0_f64.to_bits());
        (0..3).for_each(|n| window.add(at(n), n == 0));
        window.add(at(200), false);
        assert_eq!(window.ratio(at(299)).to_bits(), 0.25_f64.to_bits());
        assert_eq!(window.ratio(at(301)).to_bits(), 0.0_f64.to_bits());
        assert_eq!(window.parts.len(), 1);
        (0..3_000).for_each(|n| window.add(at(300 + n), false));
        window.ratio(at(3_300));
        assert!(window.parts.len() <= PARTS as usize);
    }
}
