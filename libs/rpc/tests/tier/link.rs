//! The calling side, against a server that shows what it was sent.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::future::join_all;
use tao_model::Error;
use tao_proto::internal::{EdgesRead, ExchangeResponse, Reply};
use tao_rpc::{CallContext, LinkOptions, Op, TierClient};
use tao_runtime::Workers;
use tao_trace::TraceContext;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::*;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn calls_that_queue_up_travel_together() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    client.wait_connected(Duration::from_secs(10)).await.unwrap();
    let context = soon();
    let calling = join_all((0..1_000).map(|n| client.call(&context, read(n))));
    let serving = async {
        let (mut messages, mut answered) = (0, 0);
        while answered < 1_000 {
            let calls = stream.calls().await;
            assert!(calls.len() <= 256);
            messages += 1;
            answered += calls.len();
            for call in calls {
                stream.answer(call.seq, id_of(&call.op.unwrap()));
            }
        }
        messages
    };
    let (answers, messages) = tokio::join!(calling, serving);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(ids_in(answer.unwrap()), [n as i64]);
    }
    assert_eq!(messages, 4);
}

#[tokio::test]
async fn messages_are_limited_in_bytes_too() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    client.wait_connected(Duration::from_secs(10)).await.unwrap();
    // About 9 KB each.
    let op = Op::EdgesRead(EdgesRead { id1: 1, id2s: vec![i64::MAX; 1_000], ..EdgesRead::default() });
    let context = soon();
    let calling = join_all((0..100).map(|_| client.call(&context, op.clone())));
    let serving = async {
        let mut counts = Vec::new();
        while counts.iter().sum::<usize>() < 100 {
            let message = stream.requests.message().await.unwrap().unwrap();
            assert!(prost::Message::encoded_len(&message) <= 256 * 1024);
            counts.push(message.calls.len());
            message.calls.iter().for_each(|call| stream.answer(call.seq, 0));
        }
        counts
    };
    let (_, counts) = tokio::join!(calling, serving);
    assert_eq!(counts.len(), 4, "{counts:?}");
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_over_there() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    let context = soon();
    let seq = tokio::select! {
        _ = client.call(&context, read(1)) => panic!("nobody answers"),
        calls = stream.calls() => calls[0].seq,
    };
    let message = stream.requests.message().await.unwrap().unwrap();
    assert_eq!((message.calls, message.cancels), (vec![], vec![seq]));
    // An answer that was on its way, and one to nothing, do no harm.
    stream.answer(seq, 1);
    stream.answer(12_345, 1);
    let (answer, ()) = tokio::join!(client.call(&context, read(2)), async {
        let calls = stream.calls().await;
        stream.answer(calls[0].seq, 2);
    });
    assert_eq!(ids_in(answer.unwrap()), [2]);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_wherever_it_is() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    client.wait_connected(Duration::from_secs(10)).await.unwrap();
    let passed = client.call(&CallContext::new(Instant::now()), write()).await.unwrap_err();
    assert_eq!(passed, Error::DeadlineExceeded { not_applied: true });
    for (op, not_applied) in [(read(1), true), (write(), false)] {
        let context = CallContext::within(Duration::from_millis(20));
        let (answer, calls) = tokio::join!(client.call(&context, op), stream.calls());
        assert_eq!(answer.unwrap_err(), Error::DeadlineExceeded { not_applied });
        assert!(calls[0].timeout_us > 0 && calls[0].timeout_us <= 20_000, "{calls:?}");
        let message = stream.requests.message().await.unwrap().unwrap();
        assert_eq!(message.cancels, [calls[0].seq]);
    }
}

#[tokio::test]
async fn a_broken_connection_says_what_is_in_doubt_and_is_replaced() {
    let mut server = RawServer::start().await;
    let address = server.address;
    let client = client(address);
    let mut stream = server.stream().await;
    let context = soon();
    let (reading, writing, calls) = tokio::join!(
        async { client.call(&context, read(1)).await },
        async { client.call(&context, write()).await },
        async {
            let mut calls = stream.calls().await;
            while calls.len() < 2 {
                calls.extend(stream.calls().await);
            }
            server.kill().await;
            calls.len()
        },
    );
    assert_eq!(calls, 2);
    for (answer, expected) in [(reading, true), (writing, false)] {
        match answer.unwrap_err() {
            Error::Unavailable { what, not_applied, .. } => {
                assert!(what.contains(&address.to_string()), "{what}");
                assert_eq!(not_applied, expected);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut server = RawServer::at(address).await;
    let (answer, _stream) = tokio::join!(client.call(&context, write()), async {
        let mut stream = server.stream().await;
        let calls = stream.calls().await;
        stream.answer(calls[0].seq, 9);
        stream
    });
    assert_eq!(ids_in(answer.unwrap()), [9]);
}

#[tokio::test]
async fn a_stream_that_ends_without_its_answers_is_a_broken_one() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    let context = soon();
    let (answer, ()) = tokio::join!(client.call(&context, write()), async {
        stream.calls().await;
        drop(stream);
    });
    assert!(matches!(answer.unwrap_err(), Error::Unavailable { not_applied: false, .. }));
    let mut stream = server.stream().await;
    let (answer, ()) = tokio::join!(client.call(&context, read(4)), async {
        let calls = stream.calls().await;
        stream.answer(calls[0].seq, 4);
    });
    assert_eq!(ids_in(answer.unwrap()), [4]);
}

#[tokio::test]
async fn without_a_server_calls_wait_a_little_and_name_the_address() {
    // Reserved, and not one that the system hands out: nobody else listens there, and no connection can meet itself.
    let address = SocketAddr::from(([127, 0, 0, 1], tao_harness::free_port().unwrap()));
    let options = LinkOptions { connect_wait: Duration::from_millis(100), ..LinkOptions::default() };
    let client = TierClient::new(&address.to_string(), options).unwrap();
    let began = Instant::now();
    match client.call(&soon(), write()).await.unwrap_err() {
        Error::Unavailable { what, not_applied, .. } => {
            assert!(what.contains(&address.to_string()) && what.to_lowercase().contains("refused"), "{what}");
            assert!(not_applied && began.elapsed() >= Duration::from_millis(100));
        }
        other => panic!("{other:?}"),
    }
    let context = CallContext::within(Duration::from_millis(20));
    assert_eq!(client.call(&context, write()).await.unwrap_err(), Error::DeadlineExceeded { not_applied: true });
    assert!(!client.is_connected());
    // A call that is made before its server is there is answered when it comes.
    let options = LinkOptions { connect_wait: Duration::from_secs(20), ..LinkOptions::default() };
    let client = TierClient::new(&address.to_string(), options).unwrap();
    let context = soon();
    let (answer, _server) = tokio::join!(client.call(&context, read(1)), async {
        let mut server = RawServer::at(address).await;
        let mut stream = server.stream().await;
        let calls = stream.calls().await;
        stream.answer(calls[0].seq, 1);
        (server, stream)
    });
    assert_eq!(ids_in(answer.unwrap()), [1]);
}

#[tokio::test]
async fn too_many_calls_are_refused() {
    let mut server = RawServer::start().await;
    let options = LinkOptions { max_in_flight: 3, max_queued_bytes: 1_000, ..LinkOptions::default() };
    let client = TierClient::new(&server.address.to_string(), options).unwrap();
    let mut stream = server.stream().await;
    client.wait_connected(Duration::from_secs(10)).await.unwrap();
    let context = soon();
    let large = Op::EdgesRead(EdgesRead { id2s: vec![i64::MAX; 1_000], ..EdgesRead::default() });
    let refused = client.call(&context, large).await.unwrap_err();
    assert!(matches!(&refused, Error::Overloaded { what, .. } if what.contains("bytes")), "{refused:?}");
    assert!(refused.is_not_applied());
    let calling = join_all((0..5).map(|n| client.call(&context, read(n))));
    let serving = async {
        let mut calls = Vec::new();
        while calls.len() < 3 {
            calls.extend(stream.calls().await);
        }
        calls.iter().for_each(|call| stream.answer(call.seq, 0));
        calls.len()
    };
    let (answers, served) = tokio::join!(calling, serving);
    let refused = answers.iter().filter(|a| matches!(a, Err(Error::Overloaded { .. }))).count();
    assert_eq!((refused, served), (2, 3));
    // There is room again.
    let (answer, ()) = tokio::join!(client.call(&context, read(1)), async {
        let calls = stream.calls().await;
        stream.answer(calls[0].seq, 1);
    });
    answer.unwrap();
}

#[tokio::test]
async fn an_answer_that_can_not_be_read_is_an_error() {
    let mut server = RawServer::start().await;
    let client = client(server.address);
    let mut stream = server.stream().await;
    let context = soon();
    let (answer, ()) = tokio::join!(client.call(&context, read(1)), async {
        let seq = stream.calls().await[0].seq;
        let replies = vec![Reply { seq, as_of: None, result: None }];
        stream.send.send(Ok(ExchangeResponse { replies, draining: false })).unwrap();
    });
    assert_eq!(answer.unwrap_err().reason(), "INTERNAL");
}

#[tokio::test]
async fn what_travels_with_a_call_arrives() {
    let handler = Handler::new(|context, _| async move {
        assert_eq!((context.trace, context.identity.as_str()), (TraceContext::from_wire(TRACE), "someone"));
        assert_eq!((context.idempotency_key.as_str(), context.max_staleness_ms), ("key", 70));
        assert!(context.strong && context.floor == tao_model::Position::new(3, 4));
        let left = context.deadline - Instant::now();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(3), "{left:?}");
        Err(Error::NotFound { what: "it".to_owned() })
    });
    let server = Server::start(handler, tao_rpc::ServerLimits::default()).await;
    let context = CallContext {
        trace: TraceContext::from_wire(TRACE),
        identity: "someone".to_owned(),
        idempotency_key: "key".to_owned(),
        floor: tao_model::Position::new(3, 4),
        strong: true,
        max_staleness_ms: 70,
        ..CallContext::within(Duration::from_secs(5))
    };
    let error = server.client().call(&context, read(1)).await.unwrap_err();
    assert_eq!(error, Error::NotFound { what: "it".to_owned() });
}

#[tokio::test]
async fn several_connections_share_the_calls() {
    let mut server = RawServer::start().await;
    let options = LinkOptions { connections: 2, ..LinkOptions::default() };
    let client = TierClient::new(&server.address.to_string(), options).unwrap();
    let (mut one, mut two) = (server.stream().await, server.stream().await);
    // Until both take calls, turns go to the one that does.
    let context = soon();
    let serve = async |stream: &mut RawStream| loop {
        for call in stream.calls().await {
            stream.answer(call.seq, 0);
        }
    };
    let mut counted = [0, 0];
    while counted.contains(&0) {
        tokio::select! {
            answer = client.call(&context, read(1)) => { answer.unwrap(); }
            calls = one.calls() => { counted[0] += calls.len(); calls.iter().for_each(|c| one.answer(c.seq, 0)); }
            calls = two.calls() => { counted[1] += calls.len(); calls.iter().for_each(|c| two.answer(c.seq, 0)); }
        }
    }
    // With one gone the other carries on.
    drop(one);
    let many = async {
        for _ in 0..50 {
            // The one that is gone may have been chosen just before it went.
            let _ = client.call(&context, read(1)).await;
        }
        client.call(&context, read(1)).await.unwrap();
    };
    let mut again = None;
    tokio::select! {
        () = many => {}
        () = serve(&mut two) => {}
        () = async {
            let mut stream = server.stream().await;
            serve(&mut stream).await;
            again = Some(stream);
        } => {}
    }
    drop(again);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = LinkOptions {
        connect_timeout: Duration::from_millis(50),
        connect_wait: Duration::from_millis(500),
        ..LinkOptions::default()
    };
    let client = TierClient::new(&listener.local_addr().unwrap().to_string(), options).unwrap();
    let context = soon();
    let (answer, ()) = tokio::join!(client.call(&context, write()), async {
        // Its connection is closed, not forgotten.
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        let _ = connection.read_to_end(&mut all).await;
        drop(listener);
    });
    assert!(matches!(answer.unwrap_err(), Error::Unavailable { not_applied: true, .. }));
}

#[test]
fn a_client_whose_runtime_has_ended_says_so() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server_runtime, client_runtime) = (runtime(), runtime());
    let mut server = server_runtime.block_on(RawServer::start());
    let options = LinkOptions {
        runtimes: vec![client_runtime.handle().clone()],
        connect_wait: Duration::from_millis(50),
        ..LinkOptions::default()
    };
    let client = TierClient::new(&server.address.to_string(), options).unwrap();
    server_runtime.block_on(async {
        let mut stream = server.stream().await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.call(&soon(), write()).await }
        });
        stream.calls().await;
        client_runtime.shutdown_background();
        for (answer, expected) in [(waiting.await.unwrap(), false), (client.call(&soon(), write()).await, true)] {
            match answer.unwrap_err() {
                Error::Unavailable { not_applied, .. } => assert_eq!(not_applied, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(client.subscribe(listener("me")).await.is_err());
    });
}

#[tokio::test]
async fn a_call_takes_the_connection_of_its_thread() {
    let mut server = RawServer::start().await;
    let workers = Workers::new("links", NonZeroUsize::new(2)).unwrap();
    let options = LinkOptions { runtimes: workers.handles(), ..LinkOptions::default() };
    let client = TierClient::new(&server.address.to_string(), options).unwrap();
    // Each connection answers with its own number.
    for number in 1..=2 {
        let mut stream = server.stream().await;
        tokio::spawn(async move {
            loop {
                stream.calls().await.iter().for_each(|call| stream.answer(call.seq, number));
            }
        });
    }
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut taken = Vec::new();
        for worker in workers.handles() {
            let client = client.clone();
            let calling = worker.spawn(async move {
                let mut taken = Vec::new();
                for id in 0..4 {
                    taken.extend(ids_in(client.call(&soon(), read(id)).await.unwrap()));
                }
                taken
            });
            taken.push(calling.await.unwrap());
        }
        taken.sort_unstable();
        if taken == [[1; 4], [2; 4]] {
            return;
        }
        // The second connection may not be open yet.
        assert!(Instant::now() < until, "{taken:?}");
    }
}
