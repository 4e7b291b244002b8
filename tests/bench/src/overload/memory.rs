//! The memory of processes, looked at every second.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use crate::target::Role;

/// Megabytes that are resident.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Resident {
    pub first: f64,
    pub most: f64,
    pub last: f64,
}

impl Resident {
    pub fn json(&self) -> Value {
        let Self { first, most, last } = self;
        json!({ "start_mb": first.round(), "max_mb": most.round(), "end_mb": last.round() })
    }

    fn see(&mut self, mb: f64) {
        if self.most == 0.0 {
            self.first = mb;
        }
        self.most = self.most.max(mb);
        self.last = mb;
    }
}

/// Looks until it is told to end.
pub struct Watch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<Role, Resident>>,
}

impl Watch {
    pub fn start(processes: Vec<(Role, u32)>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = thread::spawn(move || {
            let mut seen = BTreeMap::<Role, Resident>::new();
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                for (role, pid) in &processes {
                    if let Some(mb) = resident(*pid) {
                        seen.entry(*role).or_default().see(mb);
                    }
                }
                if is_last {
                    return seen;
                }
                thread::park_timeout(Duration::from_secs(1));
            }
        });
        Self { end, thread }
    }

    pub fn end(self) -> BTreeMap<Role, Resident> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default()
    }
}

fn resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let seen = Watch::start(vec![(Role::Client, std::process::id())]).end();
        let resident = seen[&Role::Client];
        assert!(resident.first > 1.0 && resident.most >= resident.last, "{resident:?}");
    }
}
