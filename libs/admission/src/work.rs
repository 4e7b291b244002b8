//! How much work a second is taken in, by how long calls wait for the event loop: for calls that are answered at once, and so are never
//! under way in any number that could be limited.

use std::time::Duration;

/// How a [`WorkLimit`] adapts.
#[derive(Debug, Clone, Copy)]
pub struct WorkOptions {
    /// How long calls may wait for the event loop on average.
    pub target: Duration,
    /// By which share it grows in a second without any waiting.
    pub growth: f64,
    /// By which share it falls in a second of waiting twice as long as may be.
    pub decline: f64,
    /// Work a second that is taken in whatever happens.
    pub floor: f64,
    /// The share of the best of late below which it does not fall: what waiting goes on then is not of its making.
    pub least: f64,
    /// There is no limit again after so long without need of one.
    pub release: Duration,
}

impl Default for WorkOptions {
    fn default() -> Self {
        Self {
            target: Duration::from_millis(15),
            growth: 0.4,
            decline: 0.6,
            floor: 100.0,
            least: 0.25,
            release: Duration::from_secs(1),
        }
    }
}

/// No limit until calls wait for longer than the target; then one that keeps them there, and none again when less is asked for.
#[derive(Debug)]
pub struct WorkLimit {
    options: WorkOptions,
    limit: Option<f64>,
    /// Smoothed, seconds.
    wait: f64,
    /// Smoothed, work a second.
    done: f64,
    /// The most that was done, fading.
    best: f64,
    idle: Duration,
}

/// Over which waiting and work are smoothed, seconds.
const SMOOTHING: f64 = 0.4;
/// In which the best fades, seconds.
const FADING: f64 = 60.0;
/// Steps that were late themselves don't count for more.
const LONGEST_STEP: f64 = 0.5;

impl WorkLimit {
    /// Without a limit.
    pub const fn new(options: WorkOptions) -> Self {
        Self { options, limit: None, wait: 0.0, done: 0.0, best: 0.0, idle: Duration::ZERO }
    }

    /// A step of so long: how long calls waited in it, what work was asked for and what was taken in, both a second. The limit from now
    /// on, in work a second; none when all may be taken in.
    pub fn step(&mut self, elapsed: Duration, wait: Duration, asked: f64, taken: f64) -> Option<f64> {
        let seconds = elapsed.as_secs_f64();
        let weight = 1.0 - (-seconds / SMOOTHING).exp();
        self.wait += weight * (wait.as_secs_f64() - self.wait);
        self.done += weight * (taken - self.done);
        self.best = self.done.max(self.best * (-seconds / FADING).exp());
        let target = self.options.target.as_secs_f64();
        let seconds = seconds.min(LONGEST_STEP);
        let limit = match self.limit {
            None if self.wait <= target => return None,
            // What was got through with in time, at the most.
            None => self.done,
            Some(limit) => limit,
        };
        let spare = 1.0 - self.wait / target;
        let change = if spare > 0.0 { spare * self.options.growth } else { spare.max(-2.0) * self.options.decline };
        // Room that nobody asks for tells nothing of whether there is more.
        let is_used = asked >= 0.8 * limit;
        let limit = if change > 0.0 && !is_used { limit } else { limit * (change * seconds).exp() };
        let limit = limit.max(self.options.floor).max(self.options.least * self.best);
        self.idle = if is_used || spare < 0.5 { Duration::ZERO } else { self.idle + elapsed };
        self.limit = (self.idle < self.options.release).then_some(limit);
        if self.limit.is_none() {
            self.idle = Duration::ZERO;
        }
        self.limit
    }

    /// How long calls wait for the event loop, lately.
    pub fn wait(&self) -> Duration {
        Duration::from_secs_f64(self.wait.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    /// A server that gets through `capacity` of work a second, where refusing costs `refusal` of a unit: calls wait for what it is behind.
    /// What it takes in a second, on average.
    fn run(limit: &mut WorkLimit, behind: &mut f64, capacity: f64, offered: f64, refusal: f64, steps: usize) -> f64 {
        let mut taken_in = 0.0;
        for _ in 0..steps {
            let taken = offered.min(limit.limit.unwrap_or(f64::INFINITY));
            let work = taken + (offered - taken) * refusal;
            *behind = (*behind + (work - capacity) * 0.1).max(0.0);
            let wait = Duration::from_secs_f64((*behind / capacity).min(0.5));
            limit.step(STEP, wait, offered, taken.min(capacity));
            taken_in += taken;
        }
        taken_in / steps as f64
    }

    #[test]
    fn nothing_is_limited_below_capacity() {
        let (mut limit, mut behind) = (WorkLimit::new(WorkOptions::default()), 0.0);
        let taken = run(&mut limit, &mut behind, 10_000.0, 9_000.0, 0.1, 100);
        assert!((taken - 9_000.0).abs() < 1e-6, "{taken}");
        assert_eq!(limit.limit, None);
    }

    #[test]
    fn overload_leaves_what_refusing_leaves_and_ends_with_it() {
        let (mut limit, mut behind) = (WorkLimit::new(WorkOptions::default()), 0.0);
        run(&mut limit, &mut behind, 10_000.0, 50_000.0, 0.05, 300);
        let taken = run(&mut limit, &mut behind, 10_000.0, 50_000.0, 0.05, 100);
        // (1 − 5 × 0.05) / (1 − 0.05) of the capacity.
        assert!((0.65..0.85).contains(&(taken / 10_000.0)), "{taken}");
        assert!(behind < 1_000.0, "{behind}");
        run(&mut limit, &mut behind, 10_000.0, 5_000.0, 0.05, 30);
        assert_eq!(limit.limit, None);
    }

    #[test]
    fn a_little_is_taken_in_whatever_happens() {
        let mut limit = WorkLimit::new(WorkOptions::default());
        let last = (0..1_000).map(|_| limit.step(STEP, Duration::from_secs(9), 500.0, 1.0)).last();
        assert_eq!(last, Some(Some(100.0)));
    }
}
