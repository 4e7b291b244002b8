//! Servers that come and go, as names say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tao_rpc::{CallContext, Op, ServerLimits, TierGroup};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::group::{numbered, numbered_answer, who};
use crate::support::*;

/// Until something is seen that must come; no test waits so long.
const BOUND: Duration = Duration::from_secs(30);

/// Who has each of 64 keys.
async fn owners(group: &TierGroup) -> BTreeMap<u64, u64> {
    let mut owners = BTreeMap::new();
    for key in 0..64 {
        owners.insert(key, who(group, key).await.unwrap());
    }
    owners
}

/// Asks until exactly these servers answer, and then once more: while one was being connected to, others had its keys.
async fn until_answered_by(group: &TierGroup, servers: &[u64]) -> BTreeMap<u64, u64> {
    let wanted: BTreeSet<_> = servers.iter().copied().collect();
    let answered = async {
        loop {
            let now = owners(group).await;
            if now.values().copied().collect::<BTreeSet<_>>() == wanted {
                return owners(group).await;
            }
        }
    };
    timeout(BOUND, answered).await.unwrap_or_else(|_| panic!("{servers:?} never had all keys between them"))
}

fn of(names: &Names, group: &[&str]) -> TierGroup {
    let group: Vec<_> = group.iter().map(ToString::to_string).collect();
    TierGroup::new(&group, &names.options()).unwrap()
}

#[tokio::test]
async fn a_name_s_servers_come_and_go_and_fail_no_call() {
    let (one, two, three) = (numbered(1).await, numbered(2).await, numbered(3).await);
    let names = Names::default();
    names.set("servers", [one.address]);
    let group = of(&names, &["servers:50052"]);
    until_answered_by(&group, &[1]).await;
    names.set("servers", [two.address, one.address]);
    let halves = until_answered_by(&group, &[1, 2]).await;
    assert_eq!(group.len(), 2);
    // Whatever the order in which the resolver says it.
    names.set("servers", [three.address, one.address, two.address]);
    let thirds = until_answered_by(&group, &[1, 2, 3]).await;
    let is_right = |(key, owner): (&u64, &u64)| *owner == 3 || halves[key] == *owner;
    assert!(thirds.iter().all(is_right), "a new server takes its share and moves nothing else: {halves:?} {thirds:?}");
    names.set("servers", [three.address, one.address]);
    let rest = until_answered_by(&group, &[1, 3]).await;
    assert!(rest.iter().all(|(key, owner)| thirds[key] == 2 || thirds[key] == *owner));
    names.set("servers", [three.address]);
    until_answered_by(&group, &[3]).await;
    // Nobody holds those that are not named any more.
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_name_keeps_its_keys_when_its_address_changes() {
    let (one, two, three) = (numbered(1).await, numbered(2).await, numbered(3).await);
    let names = Names::default();
    names.set("leader-0", [one.address]);
    names.set("leader-1", [two.address]);
    let group = of(&names, &["leader-0:50052", "leader-1:50052"]);
    let before = until_answered_by(&group, &[1, 2]).await;
    // The old one lives on: only the name says that it is not meant any more.
    names.set("leader-0", [three.address]);
    let after = until_answered_by(&group, &[2, 3]).await;
    let is_right = |(key, owner): (&u64, &u64)| if before[key] == 1 { *owner == 3 } else { *owner == 2 };
    assert!(after.iter().all(is_right), "{before:?} {after:?}");
    one.stop().await;
    // Callers who have never seen the old one agree.
    let other = of(&names, &["leader-0:50052", "leader-1:50052"]);
    assert_eq!(until_answered_by(&other, &[2, 3]).await, after);
}

#[tokio::test]
async fn calls_under_way_end_where_they_were_sent() {
    for is_one_of_two in [false, true] {
        let gate = Arc::new(Semaphore::new(0));
        let (begun, mut begins) = mpsc::unbounded_channel();
        let held = gate.clone();
        let old = Handler::new(move |_, op| {
            let gate = held.clone();
            let is_read = matches!(op, Op::ObjectRead(_));
            if !is_read {
                begun.send(()).unwrap();
            }
            async move {
                if !is_read {
                    gate.acquire().await.unwrap().forget();
                }
                Ok(numbered_answer(1))
            }
        });
        let old = Server::start(old, ServerLimits::default()).await;
        let (new, more) = (numbered(2).await, numbered(3).await);
        let beside: Vec<SocketAddr> = is_one_of_two.then_some(more.address).into_iter().collect();
        let name = |address| beside.iter().copied().chain([address]).collect::<Vec<_>>();
        let names = Names::default();
        names.set("server", name(old.address));
        let group = of(&names, &["server:1"]);
        let is_old = |key| group.first(key).unwrap().place().now() == [old.address];
        let found = async {
            while group.len() != name(old.address).len() || !(0..64).any(is_old) {
                names.wait_asked(1).await;
            }
        };
        timeout(BOUND, found).await.unwrap();
        let key = (0..64).find(|key| is_old(*key)).unwrap();
        group.first(key).unwrap().wait_connected(BOUND).await.unwrap();
        // Writes: they are not asked for twice.
        let call = |_| {
            let group = group.clone();
            tokio::spawn(async move { group.call(key, &CallContext::within(BOUND), write()).await })
        };
        let under_way: Vec<_> = (0..20).map(call).collect();
        for _ in 0..20 {
            begins.recv().await.unwrap();
        }
        names.set("server", name(new.address));
        until_answered_by(&group, if is_one_of_two { &[2, 3] } else { &[2] }).await;
        assert_ne!(call(20).await.unwrap().unwrap().as_of.lsn, 1);
        assert!(begins.try_recv().is_err(), "no new call goes there");
        gate.add_permits(20);
        for call in under_way {
            assert_eq!(call.await.unwrap().unwrap().as_of.lsn, 1);
        }
        old.stop().await;
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_yet_is_waited_for() {
    let names = Names::default();
    let group = of(&names, &["leader-0.leaders:50052"]);
    names.wait_asked(3).await;
    let error = who(&group, 1).await.unwrap_err().to_string();
    assert!(error.contains("leader-0.leaders:50052 can't be reached") && error.contains("nobody has heard"), "{error}");
    let server = numbered(1).await;
    names.set("leader-0.leaders", [server.address]);
    let answered = async { while who(&group, 1).await != Ok(1) {} };
    timeout(BOUND, answered).await.unwrap();
}

#[tokio::test]
async fn a_resolver_that_fails_takes_nothing_away() {
    let (one, two) = (numbered(1).await, numbered(2).await);
    let names = Names::default();
    names.set("servers", [one.address, two.address]);
    let group = of(&names, &["servers:1"]);
    let before = until_answered_by(&group, &[1, 2]).await;
    names.fail(true);
    names.wait_asked(3).await;
    assert_eq!(owners(&group).await, before);
    names.fail(false);
    names.set("servers", []);
    names.wait_asked(3).await;
    assert_eq!(owners(&group).await, before, "no address at all is no answer either");
}

#[tokio::test]
async fn a_change_stream_outlives_its_server_s_name() {
    let streams = || Handler::subscribing(|_| Ok(futures::stream::pending().boxed()));
    let one = Server::start(streams(), ServerLimits::default()).await;
    let two = Server::start(streams(), ServerLimits::default()).await;
    let names = Names::default();
    names.set("servers", [one.address]);
    let group = of(&names, &["servers:1"]);
    let (mut events, follows) = group.subscribe(7, listener("test")).await.unwrap();
    names.set("servers", [two.address]);
    names.wait_asked(3).await;
    assert!(futures::poll!(events.next()).is_pending(), "nobody but its server ends it");
    // The server is politely told to end.
    let stopping = tokio::spawn(one.stop());
    assert!(timeout(BOUND, events.next()).await.unwrap().is_none());
    follows.broke();
    drop(events);
    stopping.await.unwrap();
    let (events, follows) = group.subscribe(7, listener("test")).await.unwrap();
    assert_eq!(follows.server(), "servers:1");
    let ended = tokio::spawn(two.stop());
    drop(events);
    ended.await.unwrap();
}
