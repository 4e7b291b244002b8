//! Shows how far a load is: a bar for terminals, a line now and then for everything else.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines, at the least.
const REPORT: Duration = Duration::from_secs(5);

/// How far one phase of a load is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    total: usize,
    /// Before this run.
    before: usize,
    done: usize,
    begun: Instant,
    reported: Instant,
    complained: Option<Instant>,
}

impl Progress {
    /// Of `total` things, of which some are done already.
    pub fn new(what: &'static str, total: usize, before: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        let template = "{msg:>8} {wide_bar} {human_pos}/{human_len} {per_sec:.0} {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        bar.set_position(before as u64);
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, what, total, before, done: 0, begun: now, reported: now, complained: None }
    }

    /// So many more are done.
    pub fn add(&mut self, done: usize) {
        self.done += done;
        self.bar.inc(done as u64);
        if self.bar.is_hidden() && self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            eprintln!("{}", line(self.what, self.total, self.before, self.done, self.begun.elapsed()));
        }
    }

    /// Says that something is tried again, unless it was said a moment ago.
    pub fn complain(&mut self, problem: impl Display) {
        if self.complained.is_none_or(|at| at.elapsed() >= REPORT) {
            self.complained = Some(Instant::now());
            self.bar.suspend(|| eprintln!("{problem}; trying again"));
        }
    }

    /// What was done in this run, and in how much time.
    pub fn finish(self) -> (usize, Duration) {
        self.bar.finish_and_clear();
        (self.done, self.begun.elapsed())
    }
}

fn line(what: &str, total: usize, before: usize, done: usize, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(before + done) as f64 / rate.max(1e-3);
    format!("{what}: {} of {total}, {rate:.0}/s, {left:.0} s left", before + done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_the_rate_of_this_run_and_what_is_left() {
        assert_eq!(line("edges", 1_000, 400, 200, Duration::from_secs(2)), "edges: 600 of 1000, 100/s, 4 s left");
        assert!(line("edges", 0, 0, 0, Duration::ZERO).starts_with("edges: 0 of 0, 0/s, 0 s"));
    }
}
