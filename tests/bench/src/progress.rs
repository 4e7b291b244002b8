//! Progress, on a terminal only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line on standard error that says what is going on. Where that is no terminal, nothing is shown.
#[derive(Debug)]
pub struct Bar {
    line: ProgressBar,
}

impl Bar {
    /// Shows itself at once.
    pub fn new() -> Self {
        let line = ProgressBar::new_spinner();
        // The template is a constant, and a bar in another style would do as well.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {elapsed_precise} {msg} {wide_bar} {human_pos} of {human_len}")
        {
            line.set_style(style);
        }
        line.enable_steady_tick(Duration::from_millis(200));
        Self { line }
    }

    /// What is being done.
    pub fn say(&self, what: &str) {
        self.line.set_message(what.to_owned());
    }

    /// Progress of something that has so many parts.
    pub fn of(&self, total: u64) -> impl Fn(u64) + Sync + use<'_> {
        let begun = AtomicBool::new(false);
        move |done| {
            if !begun.swap(true, Ordering::Relaxed) {
                self.line.set_length(total);
            }
            self.line.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}
