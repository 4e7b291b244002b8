//! What the process takes of its machine, under the names that all Prometheus clients give it.

use std::fmt::Write as _;
use std::fs;

/// Clock ticks a second, as Linux tells them to programs on every architecture.
const TICKS: f64 = 100.0;

/// In Prometheus's text format; what the system does not tell is left out, and so all of it where there is no `/proc`.
pub(crate) fn render() -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    put("process_cpu_seconds_total", "counter", "CPU time of the process, user and system.", cpu_seconds(&stat));
    put("process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM.", resident_bytes(&status));
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    put("process_open_fds", "gauge", "Open file descriptors.", open);
    put("process_start_time_seconds", "gauge", "When the process began, since 1970.", start_seconds(&stat));
    text
}

/// The fields after the name, which may hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// It is told in ticks since the machine began.
fn start_seconds(stat: &str) -> Option<f64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let began: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(began + field(stat, 22)? / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 3 0 12345 1000 200";
        assert_eq!((cpu_seconds(stat), field(stat, 22)), (Some(2.0), Some(12_345.0)));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1_048_576.0));
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }

    #[test]
    fn the_process_knows_itself() {
        let text = render();
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
    }
}
