//! The serving side, against a caller that speaks the protocol by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tao_model::Error;
use tao_proto::internal::{Call, ExchangeResponse, ObjectState, Reply};
use tao_rpc::{ReplyBody, ServerLimits, TierReply};
use tokio::sync::{Semaphore, mpsc};
use tonic::codegen::http::uri::PathAndQuery;

use crate::support::*;

#[tokio::test]
async fn answers_that_are_ready_together_travel_together() {
    let server = Server::start(Handler::echo(), ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    caller.send((0..100).map(|n| raw_call(n, read(n as i64))).collect(), vec![]);
    let response = caller.next().await;
    assert_eq!(response.replies.len(), 100);
    for reply in response.replies {
        assert_eq!(
            reply,
            Reply { as_of: Some(tao_model::Position::new(1, 2).into()), ..raw_reply(reply.seq, reply.seq as i64) }
        );
    }
}

#[tokio::test]
async fn a_slow_call_holds_up_no_other() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = Handler::new(move |_, op| {
        let gate = held.clone();
        async move {
            if id_of(&op) == 1 {
                let _ = gate.acquire().await;
            }
            Ok(echo_of(&op))
        }
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    caller.send(vec![raw_call(1, read(1)), raw_call(2, read(2))], vec![]);
    assert_eq!(caller.one().await.seq, 2);
    gate.add_permits(1);
    assert_eq!(caller.one().await.seq, 1);
}

/// Sends its number when it is dropped.
struct Dropped(mpsc::UnboundedSender<i64>, i64);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[tokio::test]
async fn a_cancelled_call_is_dropped_where_it_runs_or_waits() {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let handler = Handler::new(move |_, op| {
        let guard = Dropped(dropped.clone(), id_of(&op));
        async move {
            // All of it, or only the number would move in here.
            let guard = guard;
            if guard.1 < 3 {
                std::future::pending::<()>().await;
            }
            Ok(echo_of(&op))
        }
    });
    let server = Server::start(handler, ServerLimits { max_in_flight: 2, ..ServerLimits::default() }).await;
    let mut caller = RawCaller::connect(&server).await;
    // The third waits for room, and is given up before there is any.
    caller.send((1..=3).map(|n| raw_call(n, read(n as i64))).collect(), vec![]);
    caller.send(vec![raw_call(4, read(4))], vec![3]);
    caller.send(vec![], vec![1]);
    assert_eq!(caller.one().await.seq, 4);
    let mut gone = [drops.recv().await, drops.recv().await];
    gone.sort_unstable();
    assert_eq!(gone, [Some(1), Some(4)]);
    // A caller that goes away cancels all it has asked.
    drop(caller);
    assert_eq!(drops.recv().await, Some(2));
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let handler = Handler::new(move |_, _| {
        let guard = Dropped(dropped.clone(), 7);
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(ids(vec![]))
        }
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    for (op, not_applied) in [(read(1), true), (write(), false)] {
        caller.send(vec![Call { timeout_us: 2_000, ..raw_call(1, op) }], vec![]);
        let reply = caller.one().await;
        assert_eq!(error_in(&reply), Error::DeadlineExceeded { not_applied });
        assert_eq!(drops.recv().await, Some(7));
    }
}

#[tokio::test]
async fn malformed_calls_are_answered_and_the_stream_goes_on() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = Handler::new(move |_, op| {
        let gate = held.clone();
        async move {
            if id_of(&op) == 1 {
                let _ = gate.acquire().await;
            }
            Ok(echo_of(&op))
        }
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    caller.send(vec![raw_call(1, read(1))], vec![]);
    let wrong = [
        (Call { op: None, ..raw_call(2, read(2)) }, "op"),
        (Call { timeout_us: 0, ..raw_call(3, read(3)) }, "timeout_us"),
        (raw_call(1, read(4)), "seq"),
    ];
    for (call, field) in wrong {
        caller.send(vec![call], vec![99]);
        match error_in(&caller.one().await) {
            Error::InvalidArgument { violations } => assert_eq!(violations[0].field, field),
            other => panic!("{other:?}"),
        }
    }
    // The largest timeout there is must not overflow anything.
    caller.send(vec![Call { timeout_us: u64::MAX, ..raw_call(5, read(5)) }], vec![]);
    assert_eq!(caller.one().await.seq, 5);
    gate.add_permits(1);
    assert_eq!(caller.one().await, Reply { as_of: Some(tao_model::Position::new(1, 2).into()), ..raw_reply(1, 1) });
}

#[tokio::test]
async fn bytes_that_are_no_message_end_their_stream_only() {
    let server = Server::start(Handler::echo(), ServerLimits::default()).await;
    let mut good = RawCaller::connect(&server).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    // A `Vec<u8>` is encoded as field 1, which is where calls are.
    let codec = tonic_prost::ProstCodec::<Vec<u8>, ExchangeResponse>::default();
    let path = PathAndQuery::from_static("/tao.internal.v1.TierService/Exchange");
    let garbage = tokio_stream::iter([vec![0xff_u8; 40]]);
    let mut responses = grpc.streaming(tonic::Request::new(garbage), path, codec).await.unwrap().into_inner();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal, "{status:?}");
    good.send(vec![raw_call(1, read(1))], vec![]);
    assert_eq!(good.one().await.seq, 1);
}

#[tokio::test]
async fn a_panic_is_the_error_of_its_call() {
    let handler = Handler::new(|_, op| async move {
        match id_of(&op) {
            1 => panic!("at once"),
            2 => {
                tokio::task::yield_now().await;
                panic!("later")
            }
            _ => Ok(echo_of(&op)),
        }
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let client = server.client();
    for id in 1..=2 {
        let error = client.call(&soon(), read(id)).await.unwrap_err();
        assert_eq!(error.reason(), "INTERNAL", "{error:?}");
    }
    assert_eq!(ids_in(client.call(&soon(), read(3)).await.unwrap()), [3]);
}

#[tokio::test]
async fn no_more_calls_are_begun_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let handler = Handler::new(move |_, op| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..id_of(&op) % 7 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(echo_of(&op))
        }
    });
    let server = Server::start(handler, ServerLimits { max_in_flight: 4, ..ServerLimits::default() }).await;
    let mut caller = RawCaller::connect(&server).await;
    for part in 0..4 {
        caller.send((0..50).map(|n| raw_call(part * 50 + n, read(n as i64))).collect(), vec![]);
    }
    let mut answered = std::collections::HashSet::new();
    while answered.len() < 200 {
        for reply in caller.next().await.replies {
            assert!(answered.insert(reply.seq));
        }
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_call_that_waited_past_its_deadline_is_not_begun() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let handler = Handler::new(move |_, op| {
        let gate = held.clone();
        let _ = begun.send(id_of(&op));
        async move {
            let _ = gate.acquire().await;
            Ok(echo_of(&op))
        }
    });
    let server = Server::start(handler, ServerLimits { max_in_flight: 1, ..ServerLimits::default() }).await;
    let mut caller = RawCaller::connect(&server).await;
    // The first ends by its deadline, by when the second's has passed too.
    let first = Call { timeout_us: 20_000, ..raw_call(1, read(1)) };
    let second = Call { timeout_us: 1, ..raw_call(2, write()) };
    caller.send(vec![first, second], vec![]);
    let mut replies = Vec::new();
    while replies.len() < 2 {
        replies.extend(caller.next().await.replies);
    }
    replies.sort_by_key(|r| r.seq);
    assert_eq!(error_in(&replies[1]), Error::DeadlineExceeded { not_applied: true });
    assert_eq!((begins.recv().await, begins.try_recv().is_err()), (Some(1), true));
}

#[tokio::test]
async fn large_answers_are_split_over_messages() {
    const MIB: usize = 1 << 20;
    let handler = Handler::new(|_, op| async move {
        let object = Some(vec![7_u8; id_of(&op) as usize].into());
        Ok(TierReply { as_of: tao_model::Position::ZERO, body: ReplyBody::Object(ObjectState { object }) })
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let mut caller = RawCaller::connect(&server).await;
    caller.send((0..10).map(|n| raw_call(n, read(MIB as i64))).collect(), vec![]);
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < 10 {
        let response = caller.next().await;
        assert!(prost::Message::encoded_len(&response) <= 3_500 * 1024);
        counts.push(response.replies.len());
    }
    assert_eq!(counts, [3, 3, 3, 1]);
    // One that is larger than a message should be goes alone; one that no message can hold is an error.
    let client = server.client();
    match client.call(&soon(), read(5 * MIB as i64)).await.unwrap().body {
        ReplyBody::Object(state) => assert_eq!(state.object.unwrap().len(), 5 * MIB),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.call(&soon(), read(17 * MIB as i64)).await.unwrap_err(), Error::AnswerTooLarge);
}
