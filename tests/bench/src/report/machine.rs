//! Where it was measured, and with what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tao_harness::built_program;

/// The machine, the versions of what was measured, and the flags.
pub fn machine() -> Value {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find_map(|line| Some(line.strip_prefix(key)?.split_once(':')?.1.trim().to_owned()));
        value.unwrap_or_default()
    };
    json!({
        "processor": line("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": line("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "tao": built_program("tao").map_or_else(|_| String::new(), |tao| version(&tao)),
        "postgres": version(&newest_postgres()),
        "redis": version(Path::new("redis-server")),
        "debug_build": cfg!(debug_assertions),
        "flags": std::env::args().skip(1).collect::<Vec<_>>(),
    })
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// PATH's, unless Debian's place has one.
fn newest_postgres() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/postgres"));
    let number = |path: &PathBuf| path.iter().nth_back(2).and_then(|name| name.to_str()?.parse::<u32>().ok());
    installed.filter(|path| path.is_file()).max_by_key(number).unwrap_or_else(|| "postgres".into())
}
