//! Turns single coherence rules off, in the real tiers, and shows in how many seeds the simulation notices:
//! `cargo test -p tao-sim --features mutations --test mutations -- --nocapture`.

use std::process::Command;

use tao_model::mutation::Rule;

/// Seeds that a broken rule may survive.
const SEEDS: u64 = 12;

/// The rules that can be broken without being seen here, and why.
const UNSEEN: &[(Rule, &str)] = &[
    (Rule::AppliedLoadedFirst, "a race of threads, and there is one: libs/cache's thread stress sees it"),
    (Rule::RedisTested, "there is no Redis here"),
    (Rule::RaiseTested, "there is no Redis here"),
    (Rule::EpochResets, "no database is put back here"),
    (Rule::DeltaBaseEpoch, "no database is put back here"),
    (Rule::FreshnessSent, "breaks no promise: the receiver refuses what it can't use, and asks again for ever"),
    (
        Rule::FlightFloor,
        "needs a write between two asks of one flight; 12 seeds had none: libs/cache's properties see it",
    ),
    (
        Rule::ResetKeepsMemory,
        "needs a reply that is late over a reset; 12 seeds had none: libs/cache's properties see it",
    ),
    (Rule::ResetRaisesW0, "the same"),
    (Rule::Gapless, "guards against a sender that skips changes, and the real ones don't"),
    (
        Rule::HeartbeatClaimsNothing,
        "guards against a sender that claims more than it has sent, and the real ones don't",
    ),
];

/// What one seed says of a program in which this rule is off: what kind of promise was broken first.
fn run(rule: Rule, seed: u64) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tao-sim"))
        .args([&seed.to_string(), "--last", "0"])
        .env("TAO_MUTATION", rule.name())
        .output()
        .expect("the simulation can be run");
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kind = text.split("Violation { kind: ").nth(1).and_then(|rest| rest.split(',').next());
    Some(kind.unwrap_or("it could not go on").to_owned())
}

#[test]
fn broken_rules_are_noticed() {
    let only = std::env::var("TAO_RULES").ok();
    let first: u64 = std::env::var("TAO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut survived = Vec::new();
    for rule in Rule::ALL {
        if let Some((_, why)) = UNSEEN.iter().find(|(unseen, _)| unseen == rule) {
            println!("{:26} not tried: {why}", rule.name());
            continue;
        }
        if only.as_ref().is_some_and(|only| !only.split(',').any(|name| name == rule.name())) {
            continue;
        }
        let caught = (0..SEEDS).find_map(|n| run(*rule, first + n).map(|kind| (n + 1, kind)));
        match caught {
            Some((seeds, kind)) => println!("{:26} {seeds:2} seeds, {kind}", rule.name()),
            None => survived.push(rule.name()),
        }
    }
    assert!(survived.is_empty(), "not noticed within {SEEDS} seeds: {}", survived.join(", "));
}
