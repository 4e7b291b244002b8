//! Tells people who wait how far it is: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const EVERY: Duration = Duration::from_secs(10);

/// How far a run is.
pub struct Progress {
    began: Instant,
    total: Duration,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of something that takes so long.
    pub fn new(total: Duration) -> Self {
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}").ok();
        let terminal = std::io::stderr().is_terminal();
        let bar = style.filter(|_| terminal).map(|s| ProgressBar::new(total.as_millis() as u64).with_style(s));
        let began = Instant::now();
        Self { began, total, told: began, bar }
    }

    /// What was done so far.
    pub fn tell(&mut self, done: u64, failed: u64, faults: usize) {
        let elapsed = self.began.elapsed();
        let text = format!("{done} calls answered, {failed} not, {faults} faults");
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed.as_millis() as u64);
            bar.set_message(text);
        } else if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            eprintln!("{:>4} of {} s: {text}", elapsed.as_secs(), self.total.as_secs());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
