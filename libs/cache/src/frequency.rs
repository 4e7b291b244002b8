//! How often keys are read, about: in a byte for each cached key, and in a sketch for those that are not cached.

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

/// A counting sketch: of three bytes that a key shares with others, the smallest tells best.
pub(crate) struct Sketch(Box<[Frequency]>);

impl Sketch {
    /// Of about so many bytes.
    pub fn new(bytes: usize) -> Self {
        // Zeros that nobody has touched take no memory yet.
        Self(vec![Frequency(0); bytes.next_power_of_two().max(64)].into())
    }

    /// What it takes.
    pub const fn bytes(&self) -> usize {
        self.0.len()
    }

    fn places(&self, hash: u64) -> [usize; 3] {
        let mask = self.0.len() - 1;
        [0, 21, 42].map(|turn| hash.rotate_right(turn) as usize & mask)
    }

    /// How often a key was read.
    pub fn get(&self, hash: u64) -> Frequency {
        self.places(hash).map(|place| self.0[place]).into_iter().min().unwrap_or_default()
    }

    /// A key was read at least so often.
    pub fn raise(&mut self, hash: u64, to: Frequency) {
        for place in self.places(hash) {
            self.0[place] = self.0[place].max(to);
        }
    }

    /// A key was read once more.
    pub fn add(&mut self, hash: u64, random: u32) -> Frequency {
        let frequency = self.get(hash).raised(random);
        self.raise(hash, frequency);
        frequency
    }

    /// What was long ago counts half.
    pub fn halve(&mut self) {
        self.0.iter_mut().for_each(|frequency| *frequency = frequency.halved());
    }

    /// Everything is forgotten.
    pub fn clear(&mut self) {
        self.0.fill(Frequency(0));
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
    fn a_sketch_knows_keys_apart() {
        let mut sketch = Sketch::new(4096);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 1..=100 {
            for _ in 0..n % 10 {
                sketch.add(hash(n), 0);
            }
        }
        let off = (1..=100).filter(|n| sketch.get(hash(*n)) != Frequency((n % 10) as u8)).count();
        assert!(off <= 2, "{off} of 100");
        sketch.raise(hash(1), Frequency(9));
        sketch.halve();
        assert_eq!(sketch.get(hash(1)), Frequency(4));
        sketch.clear();
        assert_eq!(sketch.get(hash(1)), Frequency(0));
    }
}
