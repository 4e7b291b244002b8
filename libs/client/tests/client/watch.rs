//! Streams of changes, and how they go on.

use tao_client::{Client, ClientOptions, v1};
use tao_model::{Error, Position};
use tao_proto::error::to_status;
use tonic::{Code, Status};

use crate::scripted::{Asked, Scripted, token};
use prost::Message as _;

fn answer(lsn: u64, deleted: &[i64]) -> Result<v1::WatchResponse, Status> {
    let change = |id: &i64| v1::Change { kind: Some(v1::change::Kind::ObjectDeleted(*id)) };
    Ok(v1::WatchResponse { changes: deleted.iter().map(change).collect(), session_token: token(&[(1, lsn)]) })
}

fn ids(changes: Vec<v1::Change>) -> Vec<i64> {
    let id = |change: v1::Change| match change.kind {
        Some(v1::change::Kind::ObjectDeleted(id)) => id,
        other => panic!("{other:?}"),
    };
    changes.into_iter().map(id).collect()
}

/// The beginnings that were asked for: token and `since_ms`.
fn begins(server: &Scripted) -> Vec<(String, i64)> {
    let request = |asked: &Asked| v1::WatchRequest::decode(asked.message.as_slice()).unwrap();
    server.asked().iter().map(request).map(|r| (r.session_token, r.since_ms)).collect()
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_whatever_ended_it() {
    let server = Scripted::default()
        .watched([answer(1, &[]), answer(3, &[7, 8]), answer(4, &[]), Err(to_status(&Error::unavailable("stopping")))])
        .watched([Err(Status::unknown("a proxy"))])
        .watched([answer(4, &[]), answer(5, &[9])]);
    let session = server.client(ClientOptions::default()).session();
    let mut watch = session.watch(v1::WatchRequest { since_ms: 60_000, ..Default::default() });
    watch.begin().await.unwrap();
    assert_eq!(watch.token(), token(&[(1, 1)]));
    assert_eq!(ids(watch.next().await.unwrap()), [7, 8]);
    assert_eq!(watch.token(), token(&[(1, 3)]));
    assert_eq!(ids(watch.next().await.unwrap()), [9]);
    assert_eq!((watch.token(), session.token()), (token(&[(1, 5)]).as_str(), token(&[(1, 5)])));
    assert_eq!(begins(&server), [(String::new(), 60_000), (token(&[(1, 4)]), 0), (token(&[(1, 4)]), 0)]);
    assert!(server.asked().iter().all(|asked| !asked.has_deadline), "a watch has no end");
}

#[tokio::test]
async fn a_watch_ends_with_what_trying_again_can_not_mend() {
    let expired = to_status(&Error::ChangesExpired { after: Position::new(1, 1) });
    let server =
        Scripted::default().watched([answer(1, &[]), Err(expired)]).watched([answer(9, &[]), answer(10, &[5])]);
    let session = server.client(ClientOptions::default()).session();
    let mut watch = session.watch(v1::WatchRequest::default());
    let error = watch.next().await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::OutOfRange, "CHANGES_EXPIRED"));
    assert_eq!(ids(watch.next().await.unwrap()), [5], "a later call tries again");
}

#[tokio::test]
async fn a_watch_moves_to_another_follower() {
    let serve = || Scripted::default().watched([answer(1, &[1])]).watched([answer(2, &[2])]);
    let (one, two) = (serve(), serve());
    let (one_serves, two_serves) = (one.serve(), two.serve());
    let addresses = format!("{},{}", one_serves.address, two_serves.address);
    let session = Client::connect(&addresses, ClientOptions::default()).unwrap().session();
    let mut watch = session.watch(v1::WatchRequest::default());
    assert_eq!(ids(watch.next().await.unwrap()), [1]);
    let mut both = [(one, one_serves), (two, two_serves)];
    both.sort_by_key(|(server, _)| server.asked().len());
    let [(second, _second_serves), (first, first_serves)] = both;
    drop(first_serves);
    assert_eq!(ids(watch.next().await.unwrap()), [1]);
    assert_eq!((first.asked().len(), begins(&second)), (1, vec![(token(&[(1, 1)]), 0)]));
}
