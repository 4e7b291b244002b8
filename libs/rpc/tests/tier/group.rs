//! Several servers that can answer the same calls.

use std::collections::HashMap;
use std::time::Duration;

use tao_model::{Error, Position};
use tao_proto::internal;
use tao_rpc::{CallContext, LinkOptions, Op, ReplyBody, ServerLimits, TierGroup, TierReply};
use tokio::time::timeout;

use crate::support::*;

/// Its answer.
pub fn numbered_answer(number: u64) -> TierReply {
    let body = ReplyBody::Object(internal::ObjectState { object: None });
    TierReply { as_of: Position::new(1, number), body }
}

/// A server that answers everything with its own number.
pub async fn numbered(number: u64) -> Server {
    let answer = move |_, _| async move { Ok(numbered_answer(number)) };
    Server::start(Handler::new(answer), ServerLimits::default()).await
}

pub async fn who(group: &TierGroup, key: u64) -> Result<u64, Error> {
    let context = CallContext::within(Duration::from_secs(10));
    group.call(key, &context, read(1)).await.map(|reply| reply.as_of.lsn)
}

pub async fn connected(group: &TierGroup, keys: u64) {
    for key in 0..keys {
        group.first(key).unwrap().wait_connected(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_server_s_keys_move_to_the_next_and_the_others_stay() {
    let servers = [numbered(1).await, numbered(2).await, numbered(3).await];
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let group = TierGroup::new(&addresses, &LinkOptions::default()).unwrap();
    connected(&group, 64).await;
    let mut before = HashMap::new();
    for key in 0..64 {
        before.insert(key, who(&group, key).await.unwrap());
    }
    let [first, second, third] = servers;
    first.kill().await;
    for key in 0..64 {
        let now = who(&group, key).await.unwrap();
        if before[&key] == 1 { assert_ne!(now, 1) } else { assert_eq!(now, before[&key]) }
    }
    assert!((1..=3).all(|n| before.values().any(|server| *server == n)), "{before:?}");
    drop((second, third));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_passed_by_reads_and_not_by_writes() {
    let deaf = Handler::new(|_, _| futures::future::pending());
    let deaf = Server::start(deaf, ServerLimits::default()).await;
    let able = numbered(2).await;
    let addresses = [deaf.address.to_string(), able.address.to_string()];
    let group = TierGroup::new(&addresses, &LinkOptions::default()).unwrap();
    connected(&group, 64).await;
    let deafs = (0..64).find(|key| group.first(*key).unwrap().place().name().port_u16() == Some(deaf.address.port()));
    let key = deafs.expect("a key of the deaf server's");
    // What became of it is not known: sent elsewhere it might be done twice.
    let context = CallContext::within(Duration::from_millis(200));
    let error = group.call(key, &context, write()).await.unwrap_err();
    assert_eq!(error, Error::DeadlineExceeded { not_applied: false });
    assert_eq!(who(&group, key).await, Ok(2));
    // It failed: it is asked last for a while.
    assert_eq!(timeout(Duration::from_millis(400), who(&group, key)).await, Ok(Ok(2)));
}

#[tokio::test]
async fn a_caller_in_a_hurry_takes_no_keys_from_a_server_and_long_silence_does() {
    let never_writes = |number| {
        Handler::new(move |_, op| async move {
            if matches!(op, Op::Write(_)) {
                std::future::pending::<()>().await;
            }
            Ok(numbered_answer(number))
        })
    };
    let one = Server::start(never_writes(1), ServerLimits::default()).await;
    let two = Server::start(never_writes(2), ServerLimits::default()).await;
    let group = TierGroup::new(&[one.address, two.address].map(|a| a.to_string()), &LinkOptions::default()).unwrap();
    connected(&group, 64).await;
    let is_ones = |key| group.first(key).unwrap().place().now() == [one.address];
    let ones: Vec<_> = (0..64).filter(|key| is_ones(*key)).collect();
    let write_within = async |within| {
        let error = group.call(ones[0], &CallContext::within(within), write()).await.unwrap_err();
        assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error:?}");
    };
    for _ in 0..20 {
        write_within(Duration::from_millis(5)).await;
        assert!(ones.iter().all(|key| is_ones(*key)), "it is a healthy server");
    }
    assert_eq!(who(&group, ones[0]).await, Ok(1));
    let lost = async {
        while is_ones(ones[0]) {
            write_within(Duration::from_millis(1_100)).await;
        }
    };
    timeout(Duration::from_secs(30), lost).await.expect("it is asked last for a while");
}

#[tokio::test]
async fn a_refusal_is_an_answer() {
    let refusing = || Handler::new(|_, _| async { Err(Error::WrongShard { shard: 5 }) });
    let servers = [
        Server::start(refusing(), ServerLimits::default()).await,
        Server::start(refusing(), ServerLimits::default()).await,
    ];
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let group = TierGroup::new(&addresses, &LinkOptions::default()).unwrap();
    assert_eq!(who(&group, 1).await, Err(Error::WrongShard { shard: 5 }));
    let op = Op::AllocateIds(internal::AllocateIds { count: 1 });
    let answer = group.call(1, &CallContext::within(Duration::from_secs(5)), op).await;
    assert_eq!(answer.unwrap_err(), Error::WrongShard { shard: 5 });
}
