//! Reads that show what they must not.

use tao_model::Key;

use super::world::*;
use crate::check::{Among, Filter, Kind, Level, Page, Seen, Shape, edge_hash};

/// Object 1 in versions 1, 2, 3 at positions 1, 2, 3, acknowledged by follower A at 20, 40, 60 ms.
fn versions() -> World {
    let mut world = World::default();
    for n in 1..=3u32 {
        let start = n * 20_000;
        world.wrote_object((start - 10_000, start), i64::from(n), u64::from(n));
    }
    world
}

#[test]
fn without_a_token_any_state_will_do_but_only_states() {
    for n in 0..=3u32 {
        let mut world = versions();
        world.read_object(1, 70_000, B, Level::Cached, i64::from(n), u64::from(n));
        world.passes();
    }
    let mut world = versions();
    world.read_object(1, 70_000, B, Level::Cached, 2, 3);
    world.fails_with(Kind::NeverWas);
}

#[test]
fn a_follower_shows_what_it_acknowledged() {
    let mut world = versions();
    world.read_object(1, 70_000, A, Level::Cached, 2, 2);
    world.fails_with(Kind::FollowerForgot);
}

#[test]
fn a_token_is_a_floor() {
    let mut world = versions();
    let read = world.read_object(1, 70_000, B, Level::Cached, 2, 2);
    (read.floored, read.floor) = (true, 2);
    world.passes();
    let read = world.read_object(1, 80_000, B, Level::Cached, 2, 2);
    (read.floored, read.floor) = (true, 3);
    world.fails_with(Kind::BehindToken);
}

#[test]
fn a_session_sees_its_own_writes_and_never_goes_back() {
    let mut world = versions();
    world.read_object(0, 70_000, B, Level::Cached, 2, 2).floored = true;
    world.fails_with(Kind::SessionWentBack);
    let mut world = versions();
    world.read_object(1, 70_000, B, Level::Cached, 3, 3).floored = true;
    world.read_object(1, 80_000, B, Level::Cached, 2, 2).floored = true;
    world.fails_with(Kind::SessionWentBack);
}

#[test]
fn strong_reads_show_what_was_acknowledged_or_seen() {
    let mut world = versions();
    world.read_object(1, 55_000, B, Level::Strong, 2, 2);
    world.passes();
    world.read_object(1, 61_000, B, Level::Strong, 2, 2);
    world.fails_with(Kind::NotStrong);
    let mut world = versions();
    // Not acknowledged yet, but another session has seen it.
    world.read_object(2, 52_000, B, Level::Cached, 3, 3);
    world.read_object(1, 55_000, B, Level::Strong, 2, 2);
    world.fails_with(Kind::NotStrong);
}

#[test]
fn bounded_reads_are_no_older_than_they_may_be() {
    let mut world = versions();
    world.read_object(1, 69_000, B, Level::Bounded(10), 2, 2);
    world.passes();
    world.read_object(1, 71_000, B, Level::Bounded(10), 2, 2);
    world.fails_with(Kind::TooStale);
}

#[test]
fn when_all_is_quiet_nothing_stale_is_left() {
    let mut world = versions();
    world.read_object(1, 99_000, B, Level::Settled, 3, 3);
    world.passes();
    world.read_object(1, 99_000, B, Level::Settled, 2, 2);
    world.fails_with(Kind::StaleForEver);
}

#[test]
fn a_claim_of_freshness_is_held_to() {
    let mut world = versions();
    world.read_object(1, 70_000, B, Level::Cached, 2, 2).claim = 2;
    world.passes();
    world.read_object(1, 70_000, B, Level::Cached, 2, 2).claim = 3;
    world.fails_with(Kind::FalseFreshness);
    let mut world = versions();
    world.read_object(1, 70_000, B, Level::Cached, 3, 3).claim = 4;
    world.fails_with(Kind::FromFuture);
}

#[test]
fn what_comes_later_is_not_seen_before() {
    let mut world = versions();
    // Version 3 was asked for at 50 ms.
    world.read_object(1, 48_000, B, Level::Cached, 3, 3);
    world.fails_with(Kind::FromFuture);
}

/// 1 follows 2, 3 and 4, then no longer 3.
fn follows() -> World {
    let mut world = World::default();
    for (n, to) in (0..).zip(2..=4) {
        let start = n * 20_000 + 10_000;
        world.linked((start, start + 10_000), edge(1, FOLLOWS, to), 100 + to as u32, to as u64, n + 1);
    }
    world.unlinked((70_000, 80_000), edge(1, FOLLOWS, 3), 2);
    world
}

fn shown(ids: &[i64]) -> Vec<tao_proto::v1::Assoc> {
    ids.iter().map(|to| assoc(*to, 100 + *to as u32, *to as u64)).collect()
}

#[test]
fn lists_show_one_of_their_states() {
    for ids in [&[][..], &[2], &[3, 2], &[4, 3, 2], &[4, 2]] {
        let mut world = follows();
        world.read_list(1, 90_000, (1, FOLLOWS), &shown(ids));
        world.passes();
    }
    for ids in [&[4][..], &[3], &[2, 4], &[4, 3], &[4, 2, 2]] {
        let mut world = follows();
        world.read_list(1, 90_000, (1, FOLLOWS), &shown(ids));
        world.fails_with(Kind::NeverWas);
    }
}

#[test]
fn an_edge_that_was_removed_is_not_shown_again() {
    let mut world = follows();
    let read = world.read_list(1, 90_000, (1, FOLLOWS), &shown(&[4, 3, 2]));
    (read.floored, read.floor) = (true, 7);
    world.fails_with(Kind::BehindToken);
    // Nor on the other side.
    let mut world = follows();
    let back = tao_proto::v1::Assoc { id2: id(1).get(), ..shown(&[3]).remove(0) };
    let read = world.read_list(1, 90_000, (3, FOLLOWED_BY), &[back]);
    (read.floored, read.floor) = (true, 8);
    world.fails_with(Kind::BehindToken);
}

#[test]
fn counts_are_those_of_a_state() {
    for (count, passes) in [(0, true), (1, true), (2, true), (3, true), (4, false)] {
        let mut world = follows();
        world.read(1, 90_000, B, Level::Cached, Key::List(id(1), FOLLOWS), Seen::Count(count));
        if passes { world.passes() } else { world.fails_with(Kind::NeverWas) }
    }
    let mut world = follows();
    let read = world.read(1, 90_000, B, Level::Strong, Key::List(id(1), FOLLOWS), Seen::Count(3));
    read.claim = 5;
    world.fails_with(Kind::NotStrong);
}

#[test]
fn pages_and_look_ups_are_parts_of_a_state() {
    let page = |after, offset, low, limit, ids: &[i64], ended| {
        let mut world = follows();
        let edges = world.history.sessions[1].arena.keep(shown(ids).iter().map(edge_hash));
        let filter = Filter { after, offset, low, high: u32::MAX, limit };
        let seen = Seen::Page(Page { filter, edges, ended });
        world.read(1, 90_000, B, Level::Strong, Key::List(id(1), FOLLOWS), seen);
        world
    };
    page(None, 0, 0, 1, &[4], false).passes();
    page(None, 0, 0, 1, &[4], true).fails_with(Kind::NeverWas);
    page(None, 1, 0, 1, &[2], true).passes();
    page(Some((104, id(4).get())), 0, 0, 5, &[2], true).passes();
    page(Some((102, id(2).get())), 0, 0, 5, &[], true).passes();
    page(None, 0, 103, 5, &[4], true).passes();
    page(None, 0, 103, 5, &[4, 2], true).fails_with(Kind::NeverWas);
    let among = |asked: &[i64], ids: &[i64]| {
        let mut world = follows();
        let arena = &mut world.history.sessions[1].arena;
        let asked = arena.keep(asked.iter().map(|n| id(*n).get() as u64));
        let edges = arena.keep(shown(ids).iter().map(edge_hash));
        let seen = Seen::Among(Among { ids: asked, low: 0, high: u32::MAX, edges });
        world.read(1, 90_000, B, Level::Strong, Key::List(id(1), FOLLOWS), seen);
        world
    };
    among(&[2, 3], &[2]).passes();
    among(&[3], &[]).passes();
    among(&[3], &[3]).fails_with(Kind::NotStrong);
    among(&[2, 4], &[2]).fails_with(Kind::NotStrong);
}

#[test]
fn long_histories_are_searched_from_any_state() {
    let mut world = World::default();
    for n in 0..400u32 {
        let times = (n * 100 + 10, n * 100 + 20);
        let (to, w) = (i64::from(n % 7) + 2, u64::from(n) + 1);
        if n % 2 == 0 {
            world.linked(times, edge(1, FOLLOWS, to), n, w, 1);
        } else {
            let to = i64::from((n - 1) % 7) + 2;
            world.unlinked(times, edge(1, FOLLOWS, to), 0);
        }
    }
    for n in (0..400u32).step_by(2) {
        let seen = [assoc(i64::from(n % 7) + 2, n, u64::from(n) + 1)];
        let read = world.read_list(1, n * 100 + 15, (1, FOLLOWS), &seen);
        read.claim = n * 2 + 1;
    }
    world.passes();
}

#[test]
fn one_side_of_every_edge_is_canonical() {
    let shape = Shape::one_log(tao_model::Schema::social());
    for edge in [edge(1, FOLLOWS, 2), edge(9, FRIEND, 3), edge(3, FOLLOWED_BY, 3), edge(3, FRIEND, 3)] {
        let canonical = shape.canonical(edge);
        assert!(shape.is_canonical(canonical));
        assert_eq!(shape.inverse(edge).map(|other| shape.canonical(other)), shape.inverse(edge).map(|_| canonical));
    }
}
