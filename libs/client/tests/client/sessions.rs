//! What a session remembers.

use tao_client::v1;
use tao_model::Error;
use tao_proto::error::to_status;
use tao_proto::metadata::SESSION_TOKEN;

use crate::scripted::{Act, Scripted, floors, get, token, update};

#[tokio::test]
async fn a_session_brings_back_what_every_answer_has_seen() {
    let mut not_found = to_status(&Error::NotFound { what: "it".to_owned() });
    not_found.metadata_mut().insert(SESSION_TOKEN, token(&[(2, 7)]).parse().unwrap());
    let server = Scripted::default()
        .then(Act::Answer(token(&[(1, 10)])))
        .then(Act::Answer(token(&[(1, 5)])))
        .then(Act::Fail(not_found))
        .then(Act::Answer(token(&[(3, 1)])));
    let session = server.client(crate::options()).session();
    session.object_get(get(1)).await.unwrap();
    session.object_get(get(1)).await.unwrap();
    assert_eq!(floors(&session.token()), floors(&token(&[(1, 10)])), "an older answer takes nothing away");
    session.clone().object_get(get(404)).await.unwrap_err();
    assert_eq!(
        floors(&session.token()),
        floors(&token(&[(1, 10), (2, 7)])),
        "errors teach too, and clones are the same session"
    );
    session.object_get(get(1)).await.unwrap();
    let came: Vec<_> = server.read_tokens().iter().map(|token| floors(token)).collect();
    assert_eq!(came, [&[][..], &[(1, 10)], &[(1, 10)], &[(1, 10), (2, 7)]].map(|seen| floors(&token(seen))));
    assert_eq!(floors(&session.token()), floors(&token(&[(1, 10), (2, 7), (3, 1)])));
    assert!(server.asked().iter().all(|asked| asked.has_deadline));
}

#[tokio::test]
async fn answers_side_by_side_each_know_a_part() {
    let server = (0..40).fold(Scripted::default(), |server, n| server.then(Act::Answer(token(&[(n, 1)]))));
    let session = server.client(crate::options()).session();
    let calls = (0..40).map(|n| {
        let session = session.clone();
        tokio::spawn(async move { session.object_get(get(n + 1)).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let all: Vec<_> = (0..40).map(|n| (n, 1)).collect();
    assert!(floors(&session.token()).iter().zip(floors(&token(&all))).all(|(got, seen)| *got >= seen));
}

#[tokio::test]
async fn sessions_are_their_own_and_can_be_handed_on() {
    let server = Scripted::default().then(Act::Answer(token(&[(1, 10)])));
    let session = server.client(crate::options()).session();
    session.object_get(get(1)).await.unwrap();
    session.new_session().object_get(get(1)).await.unwrap();
    session.with_token(&token(&[(9, 9)])).object_get(get(1)).await.unwrap();
    let own = v1::ReadOptions { session_token: token(&[(5, 5)]), ..Default::default() };
    session.object_get(v1::ObjectGetRequest { id: 1, options: Some(own) }).await.unwrap();
    assert_eq!(
        server.read_tokens(),
        [String::new(), String::new(), token(&[(9, 9)]), token(&[(1, 10), (5, 5)])],
        "a token of the caller's own goes along with the session's"
    );
    assert_eq!(session.token(), token(&[(1, 10), (5, 5)]));
}

#[tokio::test]
async fn a_retry_brings_what_was_seen_meanwhile() {
    let mut unavailable = to_status(&Error::unavailable("a leader"));
    unavailable.metadata_mut().insert(SESSION_TOKEN, token(&[(6, 6)]).parse().unwrap());
    let server = Scripted::default().then(Act::Fail(unavailable));
    let session = server.client(crate::options()).session();
    session.object_get(get(1)).await.unwrap();
    assert_eq!(server.read_tokens(), [String::new(), token(&[(6, 6)])]);
}

#[tokio::test]
async fn writes_carry_the_token_too_and_answers_come_without_it() {
    let server = Scripted::default().then(Act::Answer(token(&[(1, 1)]))).then(Act::Answer(token(&[(1, 2)])));
    let session = server.client(crate::options()).session();
    let answer = session.object_update(update(1)).await.unwrap();
    assert_eq!(answer.session_token, "");
    session.allocate_ids(v1::AllocateIdsRequest::default()).await.unwrap();
    session.batch(v1::BatchRequest::default()).await.unwrap();
    let names: Vec<_> = server.asked().iter().map(|asked| asked.name).collect();
    assert_eq!(names, ["object_update", "allocate_ids", "batch"]);
    assert_eq!(floors(&session.token()), floors(&token(&[(1, 2)])));
}
