//! Batches that are computed while the one before them is written.

use std::collections::BTreeMap;

use tao_model::{AssocRef, ChangeKind, ObjectUpdate, WriteOutcome};
use tokio::task::JoinHandle;

use super::*;

impl Faults {
    /// Holds swaps up before they get to the database, or their answers.
    fn hold(gate: &Semaphore) {
        gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    async fn until(count: &AtomicUsize, at_least: usize) {
        while count.load(Ordering::Relaxed) < at_least {
            tokio::task::yield_now().await;
        }
        // What follows from it in the lane.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

fn spawn(store: &Arc<dyn Store>, write: Write) -> JoinHandle<tao_model::Result<WriteOutcome>> {
    let store = store.clone();
    tokio::spawn(async move { store.write(write, WriteContext::default()).await })
}

fn count_up(id: ObjectId) -> Write {
    let update = ObjectUpdate { add: BTreeMap::from([("n".to_owned(), 1)]), ..ObjectUpdate::default() };
    Write::ObjectUpdate { id, update, expected_version: None }
}

async fn add_object(store: &Arc<dyn Store>) -> ObjectId {
    let outcome = store.write(add("n", Value::Int64(0)), WriteContext::default()).await.unwrap();
    outcome.changes[0].key().owner()
}

/// How often it was counted up, by its version and by its field.
fn counted(faults: &Faults, id: ObjectId) -> (i64, i64) {
    let dump = faults.memory.database.dump();
    let (_, version, _, _, data) = &dump.objects[&id];
    match tao_proto::data::decode(data).unwrap()["n"] {
        Value::Int64(n) => (version - 1, n),
        _ => panic!("not a number"),
    }
}

#[tokio::test]
async fn of_two_lanes_that_looked_at_the_same_log_the_second_looks_again() {
    let faults = Faults::new();
    let (one, two) = (faults.store().await, faults.store().await);
    let id = add_object(&one).await;
    // The second hears of it, and is no longer wary of others.
    for _ in 0..40 {
        write(&two, count_up(id)).await.unwrap();
    }
    write(&one, count_up(id)).await.unwrap();
    for _ in 0..40 {
        write(&one, count_up(id)).await.unwrap();
    }
    let three = faults.store().await;
    let swapping = faults.swapping.load(Ordering::Relaxed);
    Faults::hold(&faults.swaps);
    let writes = [spawn(&one, count_up(id)), spawn(&three, count_up(id))];
    Faults::until(&faults.swapping, swapping + 2).await;
    faults.swaps.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut positions = Vec::new();
    for write in writes {
        positions.push(write.await.unwrap().expect("both get on").position);
    }
    assert_ne!(positions[0], positions[1]);
    assert_eq!(counted(&faults, id), (83, 83), "neither has overwritten the other");
}

/// Two writes to one object and one list, the second looked up while the first is on its way; then the first ends as `fault` says.
async fn beside(
    held: fn(&Faults) -> &Semaphore,
    fault: Option<(Fault, bool)>,
) -> (Arc<Faults>, ObjectId, WriteOutcome) {
    let faults = Faults::new();
    let store = faults.store().await;
    let id = add_object(&store).await;
    let friends = [add_object(&store).await, add_object(&store).await];
    let link =
        |id2| Write::AssocAdd { edge: AssocRef { id1: id, atype: TypeId(5), id2 }, time: Some(1), data: Data::new() };
    *faults.commit.lock() = fault.map(|(fault, _)| fault);
    faults.happens.store(fault.is_some_and(|(_, happens)| happens), Ordering::Relaxed);
    Faults::hold(held(&faults));
    let (looked, swapping) = (faults.looked.load(Ordering::Relaxed), faults.swapping.load(Ordering::Relaxed));
    let first = [spawn(&store, count_up(id)), spawn(&store, link(friends[0]))];
    Faults::until(&faults.swapping, swapping + 1).await;
    let second = [spawn(&store, count_up(id)), spawn(&store, link(friends[1]))];
    Faults::until(&faults.looked, looked + 2).await;
    assert!(first.iter().chain(&second).all(|write| !write.is_finished()), "nobody is answered before the commit");
    assert_eq!(faults.swapping.load(Ordering::Relaxed), swapping + 1, "one is written after the other");
    held(&faults).add_permits(Semaphore::MAX_PERMITS / 2);
    for write in first {
        let answer = write.await.unwrap();
        match fault {
            None => drop(answer.expect("written")),
            Some((Fault::InDoubt, _)) => {
                assert!(matches!(answer, Err(Error::Unavailable { not_applied: false, .. })), "{answer:?}");
            }
            Some(_) => assert!(matches!(answer, Err(Error::Unavailable { not_applied: true, .. })), "{answer:?}"),
        }
    }
    let [counted, linked] = second;
    counted.await.unwrap().expect("the second gets on");
    let linked = linked.await.unwrap().expect("the second gets on");
    store.close().await;
    (faults, id, linked)
}

/// The count of the list, and the position of its change before.
fn list(outcome: &WriteOutcome) -> (u64, Position) {
    match &outcome.changes[0].kind {
        ChangeKind::List { count, prev, .. } => (*count, *prev),
        ChangeKind::Object(..) => panic!("not a list"),
    }
}

#[tokio::test]
async fn what_is_under_way_wins_over_a_snapshot_from_before_it() {
    let (faults, id, linked) = beside(|faults| &faults.swaps, None).await;
    assert_eq!(counted(&faults, id), (2, 2));
    assert_eq!(list(&linked), (2, START.plus(5)));
}

#[tokio::test]
async fn what_is_under_way_counts_once_in_a_snapshot_from_after_it() {
    let (faults, id, linked) = beside(|faults| &faults.answers, None).await;
    assert_eq!(counted(&faults, id), (2, 2));
    assert_eq!(list(&linked), (2, START.plus(5)));
}

#[tokio::test]
async fn a_batch_is_computed_anew_when_the_one_before_it_fails() {
    for fault in [Fault::InDoubt, Fault::Unreachable] {
        let (faults, id, linked) = beside(|faults| &faults.swaps, Some((fault, false))).await;
        assert_eq!(counted(&faults, id), (1, 1));
        assert_eq!(list(&linked), (1, Position::ZERO));
    }
}

#[tokio::test]
async fn a_batch_in_doubt_that_happened_is_under_the_next() {
    let gates: [fn(&Faults) -> &Semaphore; 2] = [|faults| &faults.swaps, |faults| &faults.answers];
    for held in gates {
        let (faults, id, linked) = beside(held, Some((Fault::InDoubt, true))).await;
        assert_eq!(counted(&faults, id), (2, 2));
        assert_eq!(list(&linked), (2, START.plus(5)));
    }
}
