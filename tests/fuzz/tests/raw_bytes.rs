//! Every decoder, on raw bytes and on valid input with a few bytes changed, put in, taken out or repeated.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tao_fuzz::{TARGETS, Target};

#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index, u8),
    Repeat(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (place(), 1u8..20).prop_map(|(at, n)| Change::Cut(at, n)),
        (place(), 1u8..60).prop_map(|(at, n)| Change::Repeat(at, n)),
    ]
}

fn changed(mut raw: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if raw.is_empty() {
            break;
        }
        let end = |at: usize, n: u8| (at + usize::from(n)).min(raw.len());
        match change {
            Change::Flip(at, byte) => *at.get_mut(&mut raw) = *byte,
            Change::Insert(at, byte) => raw.insert(at.index(raw.len()), *byte),
            Change::Cut(at, n) => {
                let at = at.index(raw.len());
                drop(raw.drain(at..end(at, *n)));
            }
            Change::Repeat(at, n) => {
                let at = at.index(raw.len());
                let part = raw[at..end(at, *n)].to_vec();
                raw.splice(at..at, part);
            }
        }
    }
    raw
}

fn input(target: &Target) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = (target.seeds)();
    let near = (prop::sample::select(seeds), prop::collection::vec(change(), 0..4));
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        9 => near.prop_map(|(seed, changes)| changed(seed, &changes)),
    ]
}

#[test]
fn no_decoder_breaks() {
    for target in TARGETS {
        let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
        let checked = runner.run(&input(&target), |raw| {
            let _taken = (target.run)(&raw);
            Ok(())
        });
        checked.unwrap_or_else(|e| panic!("{}: {e}", target.name));
    }
}

/// A decoder that refuses all that it is given would pass the other test.
#[test]
fn every_decoder_takes_a_seed() {
    for target in TARGETS {
        assert!((target.seeds)().iter().filter(|seed| (target.run)(seed)).count() > 0, "{}", target.name);
    }
}
