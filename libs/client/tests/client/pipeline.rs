//! What is particular to calls that share a stream.

use futures::future::join_all;
use tao_client::{Client, ClientOptions, v1};

use crate::scripted::{Act, Scripted, get, token};

#[tokio::test]
async fn a_call_that_is_given_up_holds_up_no_other() {
    let server = Scripted::default().then(Act::Hang);
    let session = server.client(ClientOptions::default()).session();
    let mut hanging = Box::pin(session.object_get(get(1)));
    assert!(futures::poll!(&mut hanging).is_pending());
    while server.asked().is_empty() {
        assert!(futures::poll!(&mut hanging).is_pending());
        tokio::task::yield_now().await;
    }
    drop(hanging);
    session.object_get(get(2)).await.unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn many_sessions_share_a_stream_and_keep_their_tokens_apart() {
    let server = Scripted::default();
    let client = server.client(ClientOptions::default());
    let sessions: Vec<_> = (0..50).map(|n| client.session().with_token(&token(&[(n, 1)]))).collect();
    join_all(sessions.iter().map(|session| session.object_get(get(1))))
        .await
        .into_iter()
        .for_each(|got| drop(got.unwrap()));
    let mut came = server.read_tokens();
    let mut went: Vec<_> = sessions.iter().map(tao_client::Session::token).collect();
    came.sort();
    went.sort();
    assert_eq!(came, went);
}

#[tokio::test]
async fn a_client_finds_its_server_again() {
    let server = Scripted::default();
    let serving = server.serve();
    let address = serving.address.clone();
    let session = Client::connect(&address, ClientOptions::default()).unwrap().session();
    session.object_get(get(1)).await.unwrap();
    drop(serving);
    let error = session.with_deadline(std::time::Duration::from_millis(300)).object_get(get(2)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let _serving = server.serve_at(&address);
    let update = v1::ObjectUpdateRequest { id: 3, ..Default::default() };
    session.object_update(update).await.unwrap();
    assert_eq!(server.asked().len(), 2);
}
