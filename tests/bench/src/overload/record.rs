//! What became of calls, by the second in which they were due.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

/// What became of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Answered in time.
    Good,
    /// Refused by the server, or failed, with what it said.
    Refused(String),
    /// Not sent: the client library has held it back.
    HeldBack,
    /// Not answered in time.
    Late,
}

/// Of the calls that were due in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Second {
    pub offered: u64,
    pub good: u64,
    pub refused: u64,
    pub held_back: u64,
    pub late: u64,
}

/// Of a whole load.
#[derive(Debug)]
pub struct Record {
    pub seconds: Vec<Second>,
    /// From when they were due to their answers, microseconds, of those that were good.
    pub latency: Histogram<u64>,
    /// From when calls were due to when they were begun, microseconds: how far the generator itself was behind.
    pub lag: Histogram<u64>,
    /// Of those that were not good.
    pub said: BTreeMap<String, u64>,
}

impl Record {
    pub fn new(lasts: Duration) -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        let seconds = lasts.as_secs_f64().ceil() as usize;
        Ok(Self {
            seconds: vec![Second::default(); seconds.max(1)],
            lag: histogram.clone(),
            latency: histogram,
            said: BTreeMap::new(),
        })
    }

    /// A call that was due so long after the beginning.
    pub fn add(&mut self, due: Duration, lag: Duration, took: Duration, fate: Fate) {
        let last = self.seconds.len() - 1;
        let second = &mut self.seconds[(due.as_secs() as usize).min(last)];
        second.offered += 1;
        self.lag.saturating_record(lag.as_micros() as u64);
        match fate {
            Fate::Good => {
                second.good += 1;
                self.latency.saturating_record(took.as_micros() as u64);
            }
            Fate::Refused(said) => {
                second.refused += 1;
                *self.said.entry(said).or_default() += 1;
            }
            Fate::HeldBack => second.held_back += 1,
            Fate::Late => second.late += 1,
        }
    }

    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.offered += theirs.offered;
            mine.good += theirs.good;
            mine.refused += theirs.refused;
            mine.held_back += theirs.held_back;
            mine.late += theirs.late;
        }
        self.latency.add(&other.latency)?;
        self.lag.add(&other.lag)?;
        other.said.iter().for_each(|(said, n)| *self.said.entry(said.clone()).or_default() += n);
        Ok(())
    }

    /// Of all seconds together.
    pub fn sum(&self) -> Second {
        self.seconds.iter().fold(Second::default(), |sum, second| Second {
            offered: sum.offered + second.offered,
            good: sum.good + second.good,
            refused: sum.refused + second.refused,
            held_back: sum.held_back + second.held_back,
            late: sum.late + second.late,
        })
    }

    /// Answered in time a second, from a second on.
    pub fn good_from(&self, second: usize) -> f64 {
        let seconds = &self.seconds[second.min(self.seconds.len() - 1)..];
        seconds.iter().map(|second| second.good).sum::<u64>() as f64 / seconds.len() as f64
    }

    /// Answered in time a second, in the worst so many seconds in a row.
    pub fn worst(&self, seconds: usize) -> f64 {
        let seconds = seconds.min(self.seconds.len());
        let good = |row: &[Second]| row.iter().map(|second| second.good).sum::<u64>();
        self.seconds.windows(seconds).map(good).min().unwrap_or(0) as f64 / seconds as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_for_the_second_in_which_they_were_due() {
        let mut record = Record::new(Duration::from_secs(3)).unwrap();
        let ms = Duration::from_millis;
        record.add(ms(999), ms(1), ms(5), Fate::Good);
        record.add(ms(1_000), ms(1), ms(5), Fate::Good);
        record.add(ms(1_500), ms(1), ms(5), Fate::Refused("no".to_owned()));
        record.add(ms(2_900), ms(1), ms(5), Fate::Late);
        assert_eq!(record.seconds.iter().map(|s| s.good).collect::<Vec<_>>(), [1, 1, 0]);
        assert_eq!((record.sum().offered, record.said["no"], record.worst(2)), (4, 1, 0.5));
        assert_eq!(record.latency.len(), 2);
    }
}
