//! The change stream's transport.

use futures::StreamExt as _;
use tao_model::Error;
use tao_proto::internal::{self, Heartbeat, SubscribeResponse, subscribe_response::Event};
use tao_rpc::ServerLimits;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::support::*;

fn beat(time_ms: u64) -> SubscribeResponse {
    SubscribeResponse { event: Some(Event::Heartbeat(Heartbeat { position: None, time_ms })) }
}

#[tokio::test]
async fn events_arrive_in_order_and_the_end_is_seen() {
    let handler = Handler::subscribing(|name| match name.as_str() {
        "refused" => Err(Error::WrongShard { shard: 3 }),
        "fails" => {
            let error = Error::HistoryUndone { seen: tao_model::Position::new(1, 2), epoch: 5 };
            Ok(futures::stream::iter([Ok(beat(1)), Err(error)]).boxed())
        }
        _ => Ok(futures::stream::iter((0..1_000).map(|n| Ok(beat(n)))).boxed()),
    });
    let server = Server::start(handler, ServerLimits::default()).await;
    let client = server.client();
    let events: Vec<_> = client.subscribe(listener("me")).await.unwrap().collect().await;
    assert_eq!(events, (0..1_000).map(|n| Ok(beat(n))).collect::<Vec<_>>());
    assert_eq!(client.subscribe(listener("refused")).await.err(), Some(Error::WrongShard { shard: 3 }));
    let events: Vec<_> = client.subscribe(listener("fails")).await.unwrap().collect().await;
    let error = Error::HistoryUndone { seen: tao_model::Position::new(1, 2), epoch: 5 };
    assert_eq!(events, [Ok(beat(1)), Err(error)]);
}

fn open_ended() -> (Handler, mpsc::UnboundedReceiver<mpsc::UnboundedSender<tao_model::Result<SubscribeResponse>>>) {
    let (opened, streams) = mpsc::unbounded_channel();
    let handler = Handler::subscribing(move |_| {
        let (send, events) = mpsc::unbounded_channel::<tao_model::Result<internal::SubscribeResponse>>();
        let _ = opened.send(send);
        Ok(UnboundedReceiverStream::new(events).boxed())
    });
    (handler, streams)
}

#[tokio::test]
async fn a_drain_ends_change_streams_and_a_kill_breaks_them() {
    let (handler, mut streams) = open_ended();
    let server = Server::start(handler, ServerLimits::default()).await;
    let mut events = server.client().subscribe(listener("me")).await.unwrap();
    let send = streams.recv().await.unwrap();
    send.send(Ok(beat(1))).unwrap();
    assert_eq!(events.next().await, Some(Ok(beat(1))));
    server.stop().await;
    assert_eq!(events.next().await, None);

    let (handler, mut streams) = open_ended();
    let server = Server::start(handler, ServerLimits::default()).await;
    let address = server.address.to_string();
    let client = server.client();
    let mut events = client.subscribe(listener("me")).await.unwrap();
    let _send = streams.recv().await.unwrap();
    server.kill().await;
    match events.next().await {
        Some(Err(Error::Unavailable { what, .. })) => assert!(what.contains(&address), "{what}"),
        other => panic!("{other:?}"),
    }
    match client.subscribe(listener("me")).await.err() {
        Some(Error::Unavailable { what, .. }) => assert!(what.contains(&address), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subscriber_that_goes_away_is_noticed() {
    let (handler, mut streams) = open_ended();
    let server = Server::start(handler, ServerLimits::default()).await;
    let events = server.client().subscribe(listener("me")).await.unwrap();
    let send = streams.recv().await.unwrap();
    drop(events);
    send.closed().await;
}
