//! What a caller does about a server that refuses: send less, and repeat little. A refusal costs the server about as much as an answer, so
//! it is at its callers that most of an overload has to end.

use std::time::Duration;

/// Which calls are worth sending: all, until some are refused; then a little more a second than were taken lately, and more and more as soon
/// as none are refused.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Calls a second that are sent; none: all.
    rate: Option<f64>,
    /// Calls that may be sent now.
    tokens: f64,
    /// Smoothed, a second.
    taken_rate: f64,
    /// When the present window began, and up to when tokens were given.
    since: Duration,
    filled: Duration,
    /// In the present window.
    asked: u32,
    taken: u32,
    refused: u32,
    /// Windows in a row in which next to nothing was refused.
    clean: u32,
}

/// How long outcomes are gathered before anything is made of them.
const WINDOW: Duration = Duration::from_millis(250);
/// Calls that are sent for one that is taken: what is more than one finds out whether there is room again.
const SENT_FOR_TAKEN: f64 = 1.1;
/// By which share the rate grows in a window in which next to nothing was refused, the more the more such windows there were in a row; it
/// doubles at the most.
const GROWTH: f64 = 0.15;
/// The share of refusals that is next to nothing.
const NEXT_TO_NOTHING: f64 = 0.02;
/// How much of a window's rate is taken over.
const TAKEN_OVER: f64 = 0.4;
/// Calls a second that are always sent, so that an end of overload is noticed.
const FLOOR: f64 = 20.0;
/// Seconds of the rate that may be sent at once.
const BURST: f64 = 0.1;

impl Throttle {
    /// Whether a call is to be sent at the time `now`.
    pub fn may_send(&mut self, now: Duration) -> bool {
        if now >= self.since + WINDOW {
            self.turn(now);
        }
        self.asked += 1;
        let Some(rate) = self.rate else { return true };
        self.tokens += rate * now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = self.tokens.min((rate * BURST).max(2.0));
        self.filled = now;
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }

    /// A call was taken: it was answered, whatever the answer.
    pub fn taken(&mut self) {
        self.taken += 1;
    }

    /// A call was refused for want of room.
    pub fn refused(&mut self) {
        self.refused += 1;
    }

    /// A call was not answered in time. By itself that may have any reason; of a server that refuses calls, it is as good as a refusal.
    pub fn late(&mut self) {
        if self.rate.is_some() || self.refused > 0 {
            self.refused += 1;
        }
    }

    /// The time after which it is worth trying again.
    pub const fn retry_after(&self) -> Duration {
        WINDOW
    }

    fn turn(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let (asked, taken) = (f64::from(self.asked) / seconds, f64::from(self.taken) / seconds);
        let answers = f64::from(self.taken + self.refused);
        let weight = if self.rate.is_none() && self.refused > 0 { 1.0 } else { TAKEN_OVER };
        self.taken_rate += weight * (taken - self.taken_rate);
        let is_refused = f64::from(self.refused) > NEXT_TO_NOTHING * answers && self.refused > 1;
        self.clean = if is_refused { 0 } else { self.clean.saturating_add(1) };
        self.rate = match self.rate {
            _ if is_refused => Some((self.taken_rate * SENT_FOR_TAKEN).max(FLOOR)),
            None => None,
            // Nobody needs it any more.
            Some(rate) if asked < rate * 0.9 => None,
            Some(rate) => Some(rate * (1.0 + GROWTH * f64::from(self.clean)).min(2.0)),
        };
        (self.since, self.asked, self.taken, self.refused) = (now, 0, 0, 0);
    }
}

/// How many refused calls may be repeated: a tenth of those that are answered, so that repeats never make an overload (as gRPC's
/// retry throttling, A6).
#[derive(Debug)]
pub struct Budget {
    tokens: f64,
}

/// Repeats that may be made before any call is answered.
const MOST: f64 = 20.0;
/// Of a repeat, for each answer.
const EARNED: f64 = 0.1;

impl Budget {
    /// Full.
    pub const fn new() -> Self {
        Self { tokens: MOST }
    }

    /// A call was answered.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + EARNED).min(MOST);
    }

    /// Whether a call that was refused may be repeated; it is counted as if it were.
    pub fn spend(&mut self) -> bool {
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that are sent, in the last of ten seconds at a rate of `offered`, to a server that takes `capacity` a second.
    fn sent(throttle: &mut Throttle, from: u64, offered: u64, capacity: u64) -> u64 {
        let mut last = 0;
        for second in from..from + 10 {
            let (mut sent, mut taken) = (0, 0);
            for n in 0..offered {
                let now = Duration::from_secs(second) + Duration::from_secs(1) * n as u32 / offered as u32;
                if !throttle.may_send(now) {
                    continue;
                }
                sent += 1;
                if taken < (n + 1) * capacity / offered {
                    taken += 1;
                    throttle.taken();
                } else {
                    throttle.refused();
                }
            }
            last = sent;
        }
        last
    }

    #[test]
    fn all_is_sent_to_a_server_that_takes_it() {
        assert_eq!(sent(&mut Throttle::default(), 0, 1_000, 2_000), 1_000);
    }

    #[test]
    fn little_more_is_sent_than_is_taken_and_all_again_soon_after() {
        let mut throttle = Throttle::default();
        let under_load = sent(&mut throttle, 0, 5_000, 1_000);
        assert!((900..1_300).contains(&under_load), "{under_load}");
        assert_eq!(sent(&mut throttle, 10, 500, 1_000), 500);
        assert_eq!(sent(&mut throttle, 20, 5_000, 50_000), 5_000);
    }

    #[test]
    fn a_server_that_takes_nothing_is_asked_now_and_then() {
        let mut throttle = Throttle::default();
        let asked = sent(&mut throttle, 0, 5_000, 0);
        assert!((10..40).contains(&asked), "{asked}");
        assert_eq!(sent(&mut throttle, 10, 5_000, 50_000), 5_000);
    }

    #[test]
    fn repeats_are_a_tenth_of_answers() {
        let mut budget = Budget::new();
        let first = (0..1_000).filter(|_| budget.spend()).count();
        (0..100).for_each(|_| budget.earn());
        let then = (0..1_000).filter(|_| budget.spend()).count();
        assert_eq!(first, 20);
        assert!((9..=10).contains(&then), "{then}");
    }
}
