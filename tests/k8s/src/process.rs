//! The programs in pods, as this machine sees them: processes of its own.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Pod;

/// Kills the program that a pod runs, without a word.
pub fn kill(pod: &Pod) -> Result<()> {
    let pid = program(pod).with_context(|| format!("{} runs no tao", pod.name))?;
    kill_process(pid, Signal::KILL).with_context(|| format!("cannot kill the program of {}", pod.name))
}

/// The process named tao in a control group of the pod.
fn program(pod: &Pod) -> Option<Pid> {
    let is_its = |pid: i32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("comm").trim() == "tao" && read("cgroup").contains(&format!("pod{}", pod.uid))
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| is_its(*pid)).and_then(Pid::from_raw)
}
