//! Streams that end politely.

use std::sync::Arc;
use std::time::Duration;

use tao_rpc::{ServerLimits, TierClient};
use tokio::sync::Semaphore;

use crate::support::*;

/// Answers reads when the gate lets them, each after a permit.
fn gated(gate: &Arc<Semaphore>) -> Handler {
    let gate = gate.clone();
    Handler::new(move |_, op| {
        let gate = gate.clone();
        async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            Ok(echo_of(&op))
        }
    })
}

#[tokio::test]
async fn a_draining_stream_answers_what_was_sent_and_then_ends() {
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::start(gated(&gate), ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    caller.send(vec![raw_call(1, read(1))], vec![]);
    server.drain.begin();
    let told = caller.next().await;
    assert!(told.draining && told.replies.is_empty());
    // Sent before the caller could know.
    caller.send(vec![raw_call(2, read(2))], vec![]);
    caller.end();
    gate.add_permits(2);
    let mut seqs = Vec::new();
    while let Some(response) = caller.responses.message().await.unwrap() {
        assert!(!response.draining);
        seqs.extend(response.replies.into_iter().map(|r| r.seq));
    }
    assert_eq!(seqs, [1, 2]);
}

#[tokio::test]
async fn an_old_stream_is_drained() {
    let limits = ServerLimits { max_stream_age: Some(Duration::from_millis(20)), ..ServerLimits::default() };
    let server = Server::start(Handler::echo(), limits).await;
    let mut caller = RawCaller::connect(&server).await;
    assert!(caller.next().await.draining);
    caller.end();
    assert!(caller.responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_drain_loses_no_call() {
    let gate = Arc::new(Semaphore::new(0));
    let first = Server::start(gated(&gate), ServerLimits::default()).await;
    let second = Server::start(Handler::echo(), ServerLimits::default()).await;
    let names = Names::default();
    names.set("server", [first.address]);
    let client = TierClient::new("server:1", names.options()).unwrap();

    // Some calls are under way on the first when it is told to stop, and others are made all the while.
    let calls: Vec<_> = (0..500_i64)
        .map(|n| {
            let client = client.clone();
            let op = if n % 2 == 0 { read(n) } else { write() };
            tokio::spawn(async move { client.call(&soon(), op).await })
        })
        .collect();
    client.wait_connected(Duration::from_secs(10)).await.unwrap();
    names.set("server", [second.address]);
    let stopping = tokio::spawn(first.stop());
    let opening = tokio::spawn(async move {
        for _ in 0..1_000 {
            gate.add_permits(1);
            tokio::task::yield_now().await;
        }
    });
    for n in 0..500 {
        assert_eq!(ids_in(client.call(&soon(), read(n)).await.unwrap()), [n]);
    }
    opening.await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // Nobody is left on the first.
    stopping.await.unwrap();
}

#[tokio::test]
async fn streams_that_age_fail_no_call() {
    let limits = ServerLimits { max_stream_age: Some(Duration::from_millis(5)), ..ServerLimits::default() };
    let handler = Handler::new(|_, op| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(echo_of(&op))
    });
    let server = Server::start(handler, limits).await;
    let client = server.client();
    let callers = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                assert_eq!(ids_in(client.call(&soon(), read(n)).await.unwrap()), [n]);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn calls_during_a_drain_go_to_a_new_stream() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut old = server.stream().await;
    let call = |id| {
        let client = client.clone();
        tokio::spawn(async move { client.call(&soon(), read(id)).await })
    };
    let first = call(1);
    let sent = old.calls().await;
    old.send.send(Ok(tao_proto::internal::ExchangeResponse { replies: vec![], draining: true })).unwrap();
    let mut new = server.stream().await;
    // The caller has ended its half of the old one.
    assert!(old.requests.message().await.unwrap().is_none());
    let second = call(2);
    let more = new.calls().await;
    new.answer(more[0].seq, 2);
    assert_eq!(ids_in(second.await.unwrap().unwrap()), [2]);
    old.answer(sent[0].seq, 1);
    assert_eq!(ids_in(first.await.unwrap().unwrap()), [1]);
    // The old one's end, even a rough one, concerns nobody any more.
    let third = call(3);
    let more = new.calls().await;
    old.send.send(Err(tonic::Status::unavailable("gone"))).unwrap();
    drop(old);
    new.answer(more[0].seq, 3);
    assert_eq!(ids_in(third.await.unwrap().unwrap()), [3]);
}
