//! CPU time and memory of processes, from /proc.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

use crate::target::Role;

/// The kernel counts in these, whatever its own tick is.
const TICKS_A_SECOND: u64 = 100;

/// The processes of a target.
#[derive(Debug, Clone)]
pub struct Watched {
    roots: Vec<(Role, u32)>,
}

impl Watched {
    /// These, and this process as the client.
    pub fn new(mut roots: Vec<(Role, u32)>) -> Self {
        roots.push((Role::Client, std::process::id()));
        Self { roots }
    }

    /// CPU time by role.
    pub fn cpu(&self) -> Result<BTreeMap<Role, u64>> {
        let children = if self.roots.iter().any(|(role, _)| *role == Role::Postgres) { parents()? } else { Vec::new() };
        let mut used = BTreeMap::new();
        for (role, pid) in &self.roots {
            let root = Stat::read(*pid).with_context(|| format!("{} (process {pid}) has ended", role.name()))?;
            let mut ticks = root.own;
            if *role == Role::Postgres {
                let living = children.iter().filter(|(_, parent)| parent == pid);
                // One that ends meanwhile is counted with the root's ended children the next time.
                ticks +=
                    root.ended_children + living.filter_map(|(child, _)| Some(Stat::read(*child)?.own)).sum::<u64>();
            }
            *used.entry(*role).or_default() += ticks * 1_000_000 / TICKS_A_SECOND;
        }
        Ok(used)
    }

    /// Memory by role. Takes milliseconds: not while measuring.
    pub fn memory(&self) -> Result<BTreeMap<Role, u64>> {
        let parents = parents()?;
        let mut used = BTreeMap::new();
        for (role, pid) in &self.roots {
            let family = parents.iter().filter(|(_, parent)| *role == Role::Postgres && parent == pid);
            let bytes: u64 = family.map(|(child, _)| memory(*child)).sum::<u64>() + memory(*pid);
            *used.entry(*role).or_default() += bytes;
        }
        Ok(used)
    }
}

struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// After the name, which may hold anything: state, parent, …; from the 12th: user, system, and both of ended children.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let mut ticks = fields.skip(9).map_while(|field| field.parse::<u64>().ok());
        Some(Self { parent, own: ticks.next()? + ticks.next()?, ended_children: ticks.next()? + ticks.next()? })
    }
}

/// `(process, its parent)` of all that live.
fn parents() -> Result<Vec<(u32, u32)>> {
    let folder = fs::read_dir("/proc").context("CPU time is read from /proc, which is not there")?;
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Some((pid, Stat::read(pid)?.parent))).collect())
}

/// The process's share of what it has in memory; 0 when it is gone.
fn memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let share =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    share.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_process_used() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 33, 77));
        assert!(Stat::parse("42 (a) S 7").is_none());
    }

    #[test]
    fn this_process_is_the_client() {
        let watched = Watched::new(Vec::new());
        assert!(watched.cpu().unwrap().contains_key(&Role::Client));
        assert!(watched.memory().unwrap()[&Role::Client] > 1 << 20);
    }
}
