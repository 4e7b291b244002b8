//! A control group that holds processes to a share of the machine's cores: version 1 or 2, whichever has the CPU controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Over which the kernel sees to it, microseconds: its default.
const PERIOD_US: u64 = 100_000;
/// Until processes that have ended have left.
const LEAVE_WITHIN: u32 = 100;

/// Made for this run; goes when it is dropped, by when its processes must have ended.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// For so many cores.
    pub fn new(cores: f64) -> Result<Self> {
        let quota = (cores * PERIOD_US as f64) as u64;
        let mounts =
            fs::read_to_string("/proc/mounts").context("control groups are Linux's: there is no /proc/mounts")?;
        let name = format!("tao-bench-{}", std::process::id());
        let can_not = |root: &Path| {
            format!(
                "no control group can be made in {}: it takes root, and a container that may write there",
                root.display()
            )
        };
        if let Some(root) = with_controller(&mounts, "cgroup") {
            let made = Self { folder: root.join(&name) };
            fs::create_dir(&made.folder).with_context(|| can_not(&root))?;
            made.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            made.set("cpu.cfs_quota_us", &quota.to_string())?;
            return Ok(made);
        }
        let Some(root) = mounted(&mounts, "cgroup2").next() else { bail!("no control groups are mounted") };
        fs::write(root.join("cgroup.subtree_control"), "+cpu").with_context(|| can_not(&root))?;
        let made = Self { folder: root.join(&name) };
        fs::create_dir(&made.folder).with_context(|| can_not(&root))?;
        made.set("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        Ok(made)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let file = self.folder.join(file);
        fs::write(&file, value).with_context(|| format!("can't write {}", file.display()))
    }

    /// Puts a process with all its threads into it.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..LEAVE_WITHIN {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left over: remove it with rmdir", self.folder.display());
    }
}

/// Where file systems of a kind are mounted, with their options: `device place kind options …` a line.
fn mounted<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    fields(mounts, kind).map(|(place, _)| place)
}

fn with_controller(mounts: &str, kind: &str) -> Option<PathBuf> {
    fields(mounts, kind).find(|(_, options)| options.split(',').any(|option| option == "cpu")).map(|(place, _)| place)
}

fn fields<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = (PathBuf, &'a str)> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (place, is, options) = (fields.next()?, fields.next()?, fields.next()?);
        (is == kind).then(|| (PathBuf::from(place), options))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_controller_is_found_in_either_version() {
        let old = "cgroup /sys/fs/cgroup/cpuacct cgroup rw,cpuacct 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n";
        assert_eq!(with_controller(old, "cgroup"), Some(PathBuf::from("/sys/fs/cgroup/cpu")));
        let new = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(with_controller(new, "cgroup"), None);
        assert_eq!(mounted(new, "cgroup2").next(), Some(PathBuf::from("/sys/fs/cgroup")));
    }
}
