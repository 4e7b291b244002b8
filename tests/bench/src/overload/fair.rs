//! One that asks for several times what there is, among ten that together ask for half of it: what the ten keep.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::generator::{Generator, Load};
use super::{Bench, report};

const POLITE: u8 = 10;
/// Of the peak, each.
const SHARE: f64 = 0.05;
/// Connections of each.
const CONNECTIONS: usize = 2;

/// Whoever comes from this loopback address.
fn from(number: u8, connections: usize) -> Vec<Option<IpAddr>> {
    vec![Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))); connections]
}

pub fn run(bench: &Bench, peak: f64) -> Result<Value> {
    let options = &bench.options;
    let generator = Generator::new(&bench.tao, &bench.requests, options);
    let mut loads: Vec<_> = (0..POLITE).map(|n| Load { rate: peak * SHARE, from: from(11 + n, CONNECTIONS) }).collect();
    bench.bar.say("ten polite callers");
    let alone = generator.run(&loads, options.trial.max(Duration::from_secs(10)))?;
    loads.push(Load { rate: peak * options.factor, from: from(100, options.setup.connections) });
    bench.bar.say("and a greedy one");
    let mut beside = generator.run(&loads, options.overload)?;
    let Some(greedy) = beside.pop() else { anyhow::bail!("no record of the greedy one") };
    let mut kept = Vec::new();
    for (n, (alone, beside)) in alone.iter().zip(&beside).enumerate() {
        // As shares of what was offered: the two loads are not of the same length.
        let share = |record: &super::Record| record.sum().good as f64 / record.sum().offered.max(1) as f64;
        kept.push(share(beside) / share(alone).max(1e-9));
        println!("{}", report::line(&format!("polite {}, alone", n + 1), alone));
        println!("{}", report::line(&format!("polite {}, beside", n + 1), beside));
    }
    println!("{}", report::line("greedy", &greedy));
    let worst = kept.iter().copied().fold(f64::INFINITY, f64::min);
    println!("the polite keep {:.1} % at the least", 100.0 * worst);
    Ok(json!({
        "kept": kept.iter().map(|kept| report::rounded(*kept)).collect::<Vec<_>>(), "kept_at_least": report::rounded(worst),
        "polite": beside.iter().map(report::json).collect::<Vec<_>>(), "greedy": report::json(&greedy),
    }))
}
