//! What was known by when: lower and upper bounds on what a read may show.

use std::collections::HashMap;

use tao_model::Key;

use crate::check::{Lsn, Process, Time};

/// Events in time, each of which makes known that a position was reached.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<(Time, Lsn)>);

impl Known {
    fn add(&mut self, time: Time, lsn: Lsn) {
        self.0.push((time, lsn));
    }

    /// Orders the events, so that each says the highest position up to its time.
    fn settle(&mut self) {
        self.0.sort_unstable();
        let mut highest = 0;
        for (_, lsn) in &mut self.0 {
            highest = highest.max(*lsn);
            *lsn = highest;
        }
        self.0.shrink_to_fit();
    }

    /// The highest position that was known before a time.
    pub fn before(&self, time: Time) -> Lsn {
        self.0.partition_point(|(t, _)| *t < time).checked_sub(1).map_or(0, |i| self.0[i].1)
    }
}

/// Known positions, by what they are positions of.
#[derive(Debug)]
pub(crate) struct KnownBy<K>(HashMap<K, Known>);

impl<K> Default for KnownBy<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq> KnownBy<K> {
    pub fn add(&mut self, of: K, time: Time, lsn: Lsn) {
        self.0.entry(of).or_default().add(time, lsn);
    }

    pub fn settle(&mut self) {
        self.0.values_mut().for_each(Known::settle);
    }

    pub fn before(&self, of: &K, time: Time) -> Lsn {
        self.0.get(of).map_or(0, |known| known.before(time))
    }
}

/// What acknowledged writes make known.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    /// Of each key: when which change of it was acknowledged.
    pub acknowledged: KnownBy<Key>,
    /// The same by the follower process that acknowledged it.
    pub by_process: KnownBy<(Process, Key)>,
    /// By log: when writes began, and where they ended up; ordered so that each says the lowest position from its time on.
    pub begun: Vec<Vec<(Time, Lsn)>>,
}

impl Bounds {
    pub fn settle(&mut self) {
        self.acknowledged.settle();
        self.by_process.settle();
        for begun in &mut self.begun {
            begun.sort_unstable();
            let mut lowest = Lsn::MAX;
            for (_, lsn) in begun.iter_mut().rev() {
                lowest = lowest.min(*lsn);
                *lsn = lowest;
            }
        }
    }

    /// The first position of what began after a time.
    pub fn first_after(&self, log: usize, time: Time) -> Lsn {
        let begun = &self.begun[log];
        begun.get(begun.partition_point(|(t, _)| *t <= time)).map_or(Lsn::MAX, |(_, lsn)| *lsn)
    }
}
