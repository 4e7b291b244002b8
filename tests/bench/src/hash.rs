//! Chance that is a function of its arguments: the same on every machine, in any order of asking, and held nowhere.

/// A finalizer that spreads every bit of its argument over all 64 (the one of MurmurHash3 with the constants of "mix 13").
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 64 random bits for a seed, a purpose and a place.
pub const fn bits(seed: u64, purpose: u64, place: u64) -> u64 {
    mix(mix(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(place.wrapping_mul(0xd1b5_4a32_d192_ed03)))
}

/// From 0 up to, but without, `n`.
pub const fn below(bits: u64, n: u32) -> u32 {
    (((bits >> 32) * n as u64) >> 32) as u32
}

/// In (0, 1).
pub fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// Log-normal, from 64 random bits.
pub fn log_normal(bits: u64, median: f64, sigma: f64) -> f64 {
    let (radius, angle) = ((-2.0 * unit(bits).ln()).sqrt(), std::f64::consts::TAU * unit(mix(bits)));
    median * (sigma * radius * angle.cos()).exp()
}

/// A random order of 0 to n − 1 that takes no memory: a Feistel network over the next even power of two, walked until it lands below n.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u32,
    half_bits: u32,
    seed: u64,
}

impl Permutation {
    /// One of the orders of `n` places.
    pub fn new(n: u32, seed: u64) -> Self {
        let bits = 32 - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), seed }
    }

    /// How many places there are.
    pub fn len(&self) -> u32 {
        self.n
    }

    /// What comes at this place, which is below n.
    pub fn get(&self, place: u32) -> u32 {
        debug_assert!(place < self.n);
        let mask = (1_u32 << self.half_bits) - 1;
        let mut at = place;
        loop {
            let (mut left, mut right) = (at >> self.half_bits, at & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (bits(self.seed, round, u64::from(right)) as u32 & mask));
            }
            at = (left << self.half_bits) | right;
            if at < self.n {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_names_every_place_once() {
        for n in [1, 2, 3, 5, 64, 65, 10_007] {
            let permutation = Permutation::new(n, 7);
            let mut seen = vec![false; n as usize];
            (0..n).for_each(|place| seen[permutation.get(place) as usize] = true);
            assert!(seen.iter().all(|seen| *seen), "{n}");
        }
    }

    #[test]
    fn log_normal_has_its_median_and_mean() {
        let values: Vec<f64> = (0..100_000).map(|place| log_normal(bits(1, 2, place), 128.0, 1.0)).collect();
        let below = values.iter().filter(|value| **value < 128.0).count();
        let mean = values.iter().sum::<f64>() / 1e5;
        assert!((49_000..51_000).contains(&below), "{below}");
        assert!((mean / (128.0 * 0.5_f64.exp()) - 1.0).abs() < 0.03, "{mean}");
    }
}
