//! Writes whose answers do not fit the log.

use super::world::*;
use crate::check::{Asked, Done, Kind, Level, Outcome, Process, Step, edge_hash};

#[test]
fn right_writes_pass() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.wrote_object((30, 40), 2, 2);
    world.linked((50, 60), edge(1, FOLLOWS, 2), 9, 3, 1);
    world.linked((70, 80), edge(2, FRIEND, 1), 9, 4, 1);
    world.unlinked((90, 95), edge(2, FOLLOWED_BY, 1), 0);
    // A move: both sides leave their lists and come into others.
    let (old, new) = (edge(2, FRIEND, 1), edge(2, MESSAGED, 1));
    let (old2, new2) = (world.shape.inverse(old).unwrap(), world.shape.inverse(new).unwrap());
    let kinds = vec![
        world.list(old, -1, None, 1),
        world.list(old2, -1, None, 2),
        world.list(new, 1, Some((9, 4)), 3),
        world.list(new2, 1, Some((9, 4)), 4),
    ];
    let lsn = world.commit(kinds);
    let done =
        Done { applied: true, hash: edge_hash(&assoc(1, 9, 4)), count: 1, covered: [lsn - 1, lsn], pending: false };
    world.wrote(1, (100, 110), B, 5, Asked::Retype(old, MESSAGED), Outcome::Done(done));
    // Nothing to delete.
    let done = Done { covered: [lsn, 0], ..Default::default() };
    world.wrote(1, (120, 130), B, 6, Asked::Unlink(old), Outcome::Done(done));
    world.wrote(1, (120, 130), B, 7, Asked::Delete(id(9)), Outcome::Done(done));
    world.passes();
    let verdict = world.verdict();
    assert_eq!((verdict.acknowledged, verdict.acknowledged_lost, verdict.in_doubt), (8, 0, 0));
}

#[test]
fn a_lost_write_is_caught() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.rows.pop();
    world.fails_with(Kind::LostWrite);
    assert_eq!(world.verdict().acknowledged_lost, 1);
    let mut world = World::default();
    world.linked((10, 20), edge(1, FOLLOWS, 2), 9, 3, 1);
    world.unlinked((30, 40), edge(1, FOLLOWS, 2), 0);
    world.rows.pop();
    world.fails_with(Kind::LostWrite);
}

#[test]
fn a_write_that_was_done_twice_is_caught() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.put(1, 2, 1, 0);
    world.fails_with(Kind::Duplicate);
    // A deletion bears no mark, but nobody asked for the second one.
    let mut world = World::default();
    world.linked((10, 20), edge(1, FOLLOWS, 2), 9, 3, 1);
    world.unlinked((30, 40), edge(1, FOLLOWS, 2), 0);
    world.linked((50, 60), edge(1, FOLLOWS, 2), 9, 4, 1);
    world.both(edge(1, FOLLOWS, 2), -1, None);
    world.fails_with(Kind::FromNowhere);
    // Unless a write in doubt explains it.
    world.wrote(1, (70, 80), B, 99, Asked::Unlink(edge(2, FOLLOWED_BY, 1)), Outcome::InDoubt);
    world.passes();
}

#[test]
fn a_write_in_doubt_may_be_there_or_not() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    let asked = Asked::Put { id: Some(id(1)), adds: true, expected: None };
    world.wrote(1, (30, 40), B, 2, asked, Outcome::InDoubt);
    world.passes();
    world.put(1, 2, 2, 1);
    world.passes();
    let Some(Step::Write(write)) = world.history.sessions[1].steps.last_mut() else { panic!() };
    write.outcome = Outcome::NotApplied;
    world.fails_with(Kind::SaidNotApplied);
}

#[test]
fn what_nobody_wrote_is_caught() {
    let mut world = World::default();
    world.put(1, 1, 77, 0);
    world.fails_with(Kind::FromNowhere);
}

#[test]
fn a_lost_update_is_caught() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.put(1, 2, 2, 0);
    let asked = Asked::Put { id: Some(id(1)), adds: true, expected: None };
    world.wrote(1, (30, 40), B, 2, asked, Outcome::InDoubt);
    world.fails_with(Kind::BrokenChange);
}

#[test]
fn a_version_that_was_not_the_expected_one_is_caught() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.put(1, 2, 2, 1);
    let asked = |expected| Asked::Put { id: Some(id(1)), adds: true, expected: Some(expected) };
    world.wrote(1, (30, 40), B, 2, asked(1), Outcome::InDoubt);
    world.passes();
    let Some(Step::Write(write)) = world.history.sessions[1].steps.last_mut() else { panic!() };
    write.asked = asked(2);
    world.fails_with(Kind::BrokenChange);
}

#[test]
fn wrong_answers_are_caught() {
    type Change = fn(&mut Done);
    let mut change: Vec<(Kind, Change)> = vec![(Kind::WrongAnswer, |d| d.count = 2)];
    change.push((Kind::WrongAnswer, |d| d.hash += 1));
    change.push((Kind::WrongAnswer, |d| d.applied = false));
    change.push((Kind::TokenBehind, |d| d.covered[0] = 0));
    change.push((Kind::TokenBehind, |d| d.covered[1] = 1));
    for (kind, change) in change {
        let mut world = World::default();
        world.linked((10, 20), edge(1, FOLLOWS, 2), 9, 3, 1);
        let Some(Step::Write(write)) = world.history.sessions[0].steps.last_mut() else { panic!() };
        let Outcome::Done(done) = &mut write.outcome else { panic!() };
        change(done);
        world.fails_with(kind);
    }
    let mut world = World::default();
    let lsn = world.linked((10, 20), edge(1, FOLLOWS, 2), 9, 3, 1);
    let done = Done { covered: [lsn, 0], ..Default::default() };
    world.wrote(1, (30, 40), B, 8, Asked::Unlink(edge(1, FOLLOWS, 2)), Outcome::Done(done));
    world.fails_with(Kind::WrongAnswer);
}

#[test]
fn writes_out_of_order_are_caught() {
    let mut world = World::default();
    // Acknowledged before the other began, and after it in the log.
    world.wrote_object((100, 110), 1, 1);
    world.wrote_object((10, 20), 2, 2);
    world.fails_with(Kind::OrderReversed);
}

#[test]
fn an_unknown_life_of_a_follower_promises_nothing() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.wrote_object((30, 40), 2, 2);
    let Some(Step::Write(write)) = world.history.sessions[0].steps.last_mut() else { panic!() };
    write.process = Process::UNKNOWN;
    world.read_object(1, 50, A, Level::Cached, 1, 1);
    world.passes();
}
