//! Logs and tables that are wrong by themselves.

use tao_model::{ChangeKind, Position};

use super::world::*;
use crate::check::{AssocRow, CountRow, Kind, ObjectRow, Tables};
use prost::Message as _;
use tao_proto::v1;

fn two_commits() -> World {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.linked((30, 40), edge(1, FOLLOWS, 2), 100, 2, 1);
    world
}

fn tables() -> Tables {
    let bytes = |w, n| v1::Object { data: data(w, n), ..Default::default() }.encode_to_vec();
    let row = |edge| AssocRow { edge, time: 100, data: bytes(2, 0) };
    Tables {
        objects: vec![],
        assocs: vec![row(edge(1, FOLLOWS, 2)), row(edge(2, FOLLOWED_BY, 1))],
        counts: vec![
            CountRow { id1: id(1), atype: FOLLOWS, count: 1, lsn: 1 },
            CountRow { id1: id(2), atype: FOLLOWED_BY, count: 1, lsn: 2 },
        ],
        head: 2,
        intents: 0,
    }
}

fn one_edge(change: impl FnOnce(&mut Tables)) -> World {
    let mut world = World::default();
    world.linked((30, 40), edge(1, FOLLOWS, 2), 100, 2, 1);
    let mut tables = tables();
    change(&mut tables);
    world.tables = Some(tables);
    world
}

#[test]
fn a_right_log_passes() {
    two_commits().passes();
    one_edge(|_| {}).passes();
}

#[test]
fn tables_that_differ_from_the_log_are_caught() {
    one_edge(|t| t.head = 3).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.intents = 1).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.counts[0].count = 2).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.counts[1].lsn = 1).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.counts.truncate(1)).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.assocs.truncate(1)).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.assocs[0].time = 99).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.assocs[1].data.clear()).fails_with(Kind::TablesDiffer);
    one_edge(|t| t.assocs.push(AssocRow { edge: edge(1, FOLLOWS, 3), ..t.assocs[0].clone() }))
        .fails_with(Kind::TablesDiffer);
    let object = ObjectRow {
        id: id(1),
        otype: tao_model::TypeId(1),
        version: 1,
        created_ms: 0,
        updated_ms: 0,
        data: Vec::new(),
    };
    one_edge(|t| t.objects.push(object)).fails_with(Kind::TablesDiffer);
}

#[test]
fn a_gap_in_the_log_is_caught() {
    let mut world = two_commits();
    for row in &mut world.rows[1..] {
        row.first += 1;
        row.last += 1;
        row.changes.iter_mut().for_each(|c| c.position.lsn += 1);
    }
    assert!(world.verdict().by_kind().contains_key(&Kind::LogGap));
    let mut world = two_commits();
    world.rows[1].last += 1;
    world.fails_with(Kind::LogGap);
}

#[test]
fn an_epoch_that_goes_down_is_caught() {
    let mut world = two_commits();
    world.rows[0].epoch = EPOCH + 1;
    world.rows[0].changes[0].position.epoch = EPOCH + 1;
    world.fails_with(Kind::LogGap);
}

#[test]
fn a_count_that_is_off_by_one_is_caught() {
    let mut world = two_commits();
    let ChangeKind::List { count, .. } = &mut world.rows[1].changes[0].kind else { panic!() };
    *count = 2;
    assert!(world.verdict().by_kind().contains_key(&Kind::BrokenChange));
}

#[test]
fn a_broken_chain_is_caught() {
    let mut world = two_commits();
    let ChangeKind::List { prev, .. } = &mut world.rows[1].changes[1].kind else { panic!() };
    *prev = Position::new(EPOCH, 1);
    world.fails_with(Kind::BrokenChange);
}

#[test]
fn a_version_that_is_skipped_is_caught() {
    let mut world = World::default();
    world.wrote_object((10, 20), 1, 1);
    world.wrote_object((30, 40), 3, 2);
    assert!(world.verdict().by_kind().contains_key(&Kind::BrokenChange));
}

#[test]
fn a_missing_inverse_is_caught() {
    let mut world = World::default();
    let change = world.list(edge(1, FOLLOWS, 2), 1, Some((5, 3)), 1);
    world.commit(vec![change]);
    assert!(world.verdict().by_kind().contains_key(&Kind::InverseMissing));
    // Removed on one side only.
    let mut world = two_commits();
    let change = world.list(edge(1, FOLLOWS, 2), -1, None, 1);
    world.commit(vec![change]);
    assert!(world.verdict().by_kind().contains_key(&Kind::InverseMissing));
}

#[test]
fn a_resurrected_edge_is_caught() {
    let mut world = two_commits();
    world.unlinked((50, 60), edge(1, FOLLOWS, 2), 0);
    // The same write once more.
    world.both(edge(1, FOLLOWS, 2), 1, Some((100, 2)));
    world.fails_with(Kind::Duplicate);
}
