//! Max-min fairness: nobody gets more than it asks for, and who asks for more than can be had gets as much as any other.

/// The level up to which everybody's demand is met, so that all together get no more than `capacity`. Infinite when all can be met. Sorts
/// the demands.
pub fn fair_level(capacity: f64, demands: &mut [f64]) -> f64 {
    demands.sort_by(f64::total_cmp);
    let mut left = capacity;
    for (place, demand) in demands.iter().enumerate() {
        let level = left / (demands.len() - place) as f64;
        if *demand > level {
            return level.max(0.0);
        }
        left -= demand;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn the_greedy_get_what_the_modest_leave() {
        assert_eq!(fair_level(100.0, &mut [10.0, 500.0, 20.0]), 70.0);
        assert_eq!(fair_level(100.0, &mut [500.0, 500.0]), 50.0);
        assert_eq!(fair_level(100.0, &mut [50.0, 50.0]), f64::INFINITY);
        assert_eq!(fair_level(100.0, &mut []), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn capacity_is_used_up_and_not_exceeded(
            capacity in 1.0..1e6_f64,
            mut demands in proptest::collection::vec(0.0..1e6_f64, 1..50),
        ) {
            let wanted: f64 = demands.iter().sum();
            let level = fair_level(capacity, &mut demands);
            let got: f64 = demands.iter().map(|demand| demand.min(level)).sum();
            prop_assert!((got - wanted.min(capacity)).abs() < 1e-6 * wanted.max(capacity));
        }
    }
}
