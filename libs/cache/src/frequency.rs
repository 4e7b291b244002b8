//! How often keys are read, about: in a byte for each cached key, and in two for some of those that are not.

/// A number of reads in a byte: exact up to 16, then with 8 steps to a doubling, as a floating-point number has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Frequency(pub u8);

impl Frequency {
    const EXACT: u8 = 16;
    const STEPS: u8 = 8;

    /// Doublings above the exact numbers, and steps above that.
    const fn parts(self) -> (u8, u8) {
        ((self.0 - Self::EXACT) / Self::STEPS, self.0 % Self::STEPS)
    }

    /// About how many reads.
    pub const fn reads(self) -> u64 {
        if self.0 < Self::EXACT {
            return self.0 as u64;
        }
        let (doublings, steps) = self.parts();
        (16 + 2 * steps as u64) << doublings
    }

    /// After one more read. Steps are taken as rarely as they are large, by random bits: what is read often is hardly ever written.
    #[must_use]
    pub const fn raised(self, random: u32) -> Self {
        if self.0 < Self::EXACT {
            return Self(self.0 + 1);
        }
        let (doublings, _) = self.parts();
        let is_taken = doublings < 31 && random & ((2 << doublings) - 1) == 0;
        if is_taken { Self(self.0.saturating_add(1)) } else { self }
    }

    /// Half as many.
    #[must_use]
    pub const fn halved(self) -> Self {
        match self.0 {
            0..Self::EXACT => Self(self.0 / 2),
            // 16 and two for each step, halved.
            16..24 => Self(self.0 - 8),
            _ => Self(self.0 - Self::STEPS),
        }
    }

    /// Halved so many times.
    #[must_use]
    pub fn aged(self, times: u8) -> Self {
        (0..times.min(64)).fold(self, |frequency, _| frequency.halved())
    }
}

/// Keys that share the cells of a row.
const ROW: usize = 8;

/// A key that is not cached, known by eight bits of its hash; empty when its frequency is none.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    print: u8,
    frequency: Frequency,
}

/// How often keys were read that are not cached. Each has a cell of its own until it is cached, or has to make room for another: two
/// bytes tell more of it than as many of a sketch, where all that was ever asked for shares the counters.
pub(crate) struct Recall {
    rows: Box<[[Cell; ROW]]>,
    /// Which cell of several that are worth as little is taken: another one each time.
    turn: usize,
}

impl Recall {
    /// Of about so many bytes.
    pub fn new(bytes: usize) -> Self {
        let rows = (bytes / size_of::<[Cell; ROW]>()).max(1);
        Self { rows: vec![[Cell::default(); ROW]; rows].into(), turn: 0 }
    }

    /// What it takes.
    pub const fn bytes(&self) -> usize {
        self.rows.len() * size_of::<[Cell; ROW]>()
    }

    /// The key's cell, if it has one.
    fn find(&mut self, hash: u64) -> Option<&mut Cell> {
        self.row(hash).iter_mut().find(|cell| cell.frequency.0 > 0 && cell.print == hash as u8)
    }

    fn row(&mut self, hash: u64) -> &mut [Cell; ROW] {
        // The upper half of a product is spread over the rows as the hash is over all numbers.
        let row = (u128::from(hash) * self.rows.len() as u128) >> 64;
        &mut self.rows[row as usize]
    }

    /// A key was read so often, and is not cached any more.
    pub fn put(&mut self, hash: u64, frequency: Frequency) {
        if let Some(cell) = self.find(hash) {
            cell.frequency = cell.frequency.max(frequency);
            return;
        }
        self.turn += 1;
        let turn = self.turn;
        let row = self.row(hash);
        row.rotate_left(turn % ROW);
        if let Some(cell) = row.iter_mut().min_by_key(|cell| cell.frequency) {
            *cell = Cell { print: hash as u8, frequency };
        }
    }

    /// A key that is not cached was read once more.
    pub fn add(&mut self, hash: u64, random: u32) -> Frequency {
        if let Some(cell) = self.find(hash) {
            cell.frequency = cell.frequency.raised(random);
            return cell.frequency;
        }
        self.put(hash, Frequency(1));
        Frequency(1)
    }

    /// It is cached now, and counted there.
    pub fn free(&mut self, hash: u64) {
        if let Some(cell) = self.find(hash) {
            *cell = Cell::default();
        }
    }

    /// What was long ago counts half.
    pub fn halve(&mut self) {
        self.rows.iter_mut().flatten().for_each(|cell| cell.frequency = cell.frequency.halved());
    }

    /// Everything is forgotten.
    pub fn clear(&mut self) {
        self.rows.fill([Cell::default(); ROW]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_far_and_halve_well() {
        for code in 1..=u8::MAX {
            let (frequency, before) = (Frequency(code), Frequency(code - 1));
            assert!(frequency.reads() > before.reads(), "{code}");
            let off = (2 * frequency.halved().reads()).abs_diff(frequency.reads());
            assert!(off <= 1 + frequency.reads() / 16, "{code}");
        }
        assert_eq!(Frequency(u8::MAX).raised(0), Frequency(u8::MAX));
        assert_eq!(Frequency(200).aged(u8::MAX), Frequency(0));
    }

    #[test]
    fn reads_are_counted_about_right() {
        let mut random = 1u64;
        let mut frequency = Frequency(0);
        for n in 1..=1_000_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            frequency = frequency.raised((random >> 33) as u32);
            assert!(n <= 16 || (n / 2..n * 2).contains(&frequency.reads()), "{} of {n}", frequency.reads());
        }
    }

    #[test]
    fn keys_are_known_apart_until_others_need_their_cells() {
        let mut recall = Recall::new(4096);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27).wrapping_mul(0xd6e8_feb8_6659_fd93);
        for n in 1..=500 {
            for _ in 0..n % 10 {
                recall.add(hash(n), 0);
            }
        }
        let mut known = |n: u64| recall.find(hash(n)).map_or(0, |cell| cell.frequency.0);
        let off = (1..=500).filter(|n| known(*n) != (n % 10) as u8).count();
        assert!(off <= 30, "{off} of 500");
        // What was read often stays longer than what was read once.
        (1_000..9_000).for_each(|n| recall.put(hash(n), Frequency(1)));
        let left = |recall: &mut Recall, expected: u8| {
            let is_left = |n: &u64| recall.find(hash(*n)).is_some_and(|cell| cell.frequency.0 == expected);
            (1..=500).filter(|n| n % 10 == 9).filter(is_left).count()
        };
        assert!(left(&mut recall, 9) >= 40);
        recall.halve();
        assert!(left(&mut recall, 9) == 0 && left(&mut recall, 4) >= 40);
        recall.put(hash(1), Frequency(7));
        recall.free(hash(1));
        assert!(recall.find(hash(1)).is_none());
        recall.clear();
        assert_eq!(left(&mut recall, 4), 0);
    }
}
