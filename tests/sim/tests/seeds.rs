//! Runs seeds of the simulation, each in a process of its own. `TAO_SEED` is the first one (default: the same few every time),
//! `TAO_CASES` how many (default: as many as half a minute takes); TAO_SEED=7 TAO_CASES=1 repeats a failure.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long seeds are run for when nobody says how many.
const TIME: Duration = Duration::from_secs(25);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn simulation(seed: u64, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tao-sim"));
    command.arg(seed.to_string()).args(more);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn no_promise_is_broken() {
    let (first, cases) = (number("TAO_SEED").unwrap_or(1), number("TAO_CASES"));
    let began = Instant::now();
    let more = |n: u64| cases.map_or(n < 2 || began.elapsed() < TIME, |cases| n < cases);
    let mut n = 0;
    while more(n) {
        // Two at a time: a run has one thread.
        let last = cases.map_or(n + 2, |cases| cases.min(n + 2));
        let runs: Vec<_> = (n..last)
            .map(|n| {
                let mut command = simulation(first + n, &[]);
                std::thread::spawn(move || command.output().expect("the simulation can be run"))
            })
            .collect();
        for (n, run) in (n..last).zip(runs) {
            let output = run.join().expect("the thread only waits");
            let seed = first + n;
            assert!(output.status.success(), "{}\nagain: TAO_SEED={seed} TAO_CASES=1", text(&output));
            print!("{}", text(&output));
        }
        n = last;
    }
}

#[test]
fn a_seed_decides_everything() {
    let seed = number("TAO_SEED").unwrap_or(11);
    let run = || simulation(seed, &["--seconds", "4"]).output().expect("the simulation can be run");
    let (first, second) = (run(), run());
    assert!(text(&first).contains("hash "), "{}", text(&first));
    assert_eq!(text(&first), text(&second), "two runs of seed {seed} differ");
}
