//! What is repeated, what is not, and what the caller is told.

use std::time::{Duration, Instant};

use tao_client::v1::batch_item::Call;
use tao_client::{Client, ClientError, ClientOptions, v1};
use tao_model::Error;
use tao_proto::error::to_status;
use tonic::{Code, Status};

use crate::scripted::{Act, Scripted, get, update};

/// A write may have happened.
fn in_doubt() -> Act {
    let error =
        Error::Unavailable { what: "a leader".to_owned(), not_applied: false, retry_after: Duration::from_millis(1) };
    Act::Fail(to_status(&error))
}

/// Nothing was done.
fn refused() -> Act {
    Act::Fail(to_status(&Error::Overloaded { what: "work".to_owned(), retry_after: Duration::from_millis(1) }))
}

fn without_keys() -> ClientOptions {
    ClientOptions { generate_keys: false, ..crate::options() }
}

#[tokio::test]
async fn a_write_is_repeated_with_one_random_key_until_it_is_answered() {
    let server = Scripted::default().then(in_doubt()).then(refused()).then(in_doubt());
    let session = server.client(crate::options()).session();
    session.object_update(update(1)).await.unwrap();
    session.object_update(update(1)).await.unwrap();
    let keys = server.update_keys();
    assert!(keys.len() == 5 && keys[..4].iter().all(|k| k.len() == 32 && *k == keys[0]), "{keys:?}");
    assert_ne!(keys[3], keys[4], "another write, another key");
    assert!(keys[0].chars().all(|c| c.is_ascii_hexdigit()));
}

#[tokio::test]
async fn a_write_in_doubt_is_not_repeated_without_a_key() {
    let server = Scripted::default().then(refused()).then(in_doubt());
    let session = server.client(without_keys()).session();
    let error = session.object_update(update(1)).await.unwrap_err();
    assert_eq!(server.update_keys(), ["", ""], "the first surely did not happen");
    assert!(error.is_retryable() && !error.is_not_applied());

    let keyed = v1::WriteOptions { idempotency_key: "mine".to_owned(), ..Default::default() };
    let server = Scripted::default().then(in_doubt());
    let session = server.client(without_keys()).session();
    session.object_update(v1::ObjectUpdateRequest { options: Some(keyed), ..update(1) }).await.unwrap();
    assert_eq!(server.update_keys(), ["mine", "mine"]);
}

#[tokio::test]
async fn batches_are_repeated_when_their_writes_have_keys_and_reads_always() {
    let batch = |calls: &[Call]| v1::BatchRequest {
        items: calls.iter().map(|call| v1::BatchItem { call: Some(call.clone()) }).collect(),
        options: None,
    };
    let (read, write) = (Call::ObjectGet(get(1)), Call::ObjectUpdate(update(1)));
    let calls = |server: &Scripted| server.asked().len();

    let server = Scripted::default().then(in_doubt());
    server.client(without_keys()).session().batch(batch(&[write.clone(), read.clone()])).await.unwrap_err();
    assert_eq!(calls(&server), 1);
    server.client(without_keys()).session().batch(batch(std::slice::from_ref(&read))).await.unwrap();
    assert_eq!(calls(&server), 2);

    let server = Scripted::default().then(in_doubt());
    server.client(crate::options()).session().batch(batch(&[write, read])).await.unwrap();
    let asked = server.asked();
    assert!(asked.len() == 2 && asked[0].message == asked[1].message, "the same keys");

    let server = Scripted::default().then(in_doubt()).then(Act::Answer(String::new())).then(in_doubt());
    let session = server.client(without_keys()).session();
    session.object_get(get(1)).await.unwrap();
    session.allocate_ids(v1::AllocateIdsRequest::default()).await.unwrap();
    assert_eq!(calls(&server), 4);
}

#[tokio::test]
async fn bad_input_is_told_whole_and_not_repeated() {
    let mut violations = tao_model::Violations::default();
    violations.add("type", "required");
    violations.add("data", "too many fields");
    let server = Scripted::default().then(Act::Fail(to_status(&violations.check().unwrap_err())));
    let session = server.client(crate::options()).session();
    let error = session.object_add(v1::ObjectAddRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    assert_eq!(error.violations(), [pair("type", "required"), pair("data", "too many fields")]);
    assert!(!error.is_retryable() && error.is_not_applied());
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_attempt_that_may_have_done_the_write_is_not_forgotten() {
    let conflict = to_status(&Error::VersionMismatch { id: 1, expected: 1, actual: 2 });
    let server = Scripted::default().then(in_doubt()).then(Act::Fail(conflict.clone()));
    let error = server.client(crate::options()).session().object_update(update(1)).await.unwrap_err();
    assert_eq!((error.reason(), error.is_not_applied()), ("VERSION_MISMATCH", false));
    let server = Scripted::default().then(refused()).then(Act::Fail(conflict));
    let error = server.client(crate::options()).session().object_update(update(1)).await.unwrap_err();
    assert!(error.is_not_applied());
}

#[tokio::test]
async fn attempts_are_counted_and_one_attempt_is_no_retries() {
    let server = Scripted::default().then(in_doubt()).then(in_doubt()).then(in_doubt());
    let options = ClientOptions { attempts: 3, ..crate::options() };
    let error = server.client(options).session().object_get(get(1)).await.unwrap_err();
    assert_eq!((server.asked().len(), error.code()), (3, Code::Unavailable));
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1)));

    let server = Scripted::default().then(in_doubt());
    let options = ClientOptions { attempts: 1, ..crate::options() };
    server.client(options).session().object_update(update(1)).await.unwrap_err();
    assert_eq!(server.update_keys(), [""], "nothing to repeat, no key");
}

#[tokio::test]
async fn the_server_says_when_to_come_back_and_the_deadline_bounds_it() {
    let after = |ms| {
        let retry_after = Duration::from_millis(ms);
        Act::Fail(to_status(&Error::Overloaded { what: "work".to_owned(), retry_after }))
    };
    let server = Scripted::default().then(after(150)).then(after(60_000));
    let session = server.client(crate::options()).session();
    let begun = Instant::now();
    let error = session.object_get(get(1)).await.unwrap_err();
    assert_eq!(
        (server.asked().len(), error.reason()),
        (2, "OVERLOADED"),
        "a minute is beyond the deadline: told at once"
    );
    assert!((Duration::from_millis(150)..Duration::from_secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_call_without_an_answer_ends_with_its_deadline() {
    let server = Scripted::default().then(Act::Hang);
    let session = server.client(crate::options()).session().with_deadline(Duration::from_millis(100));
    let error = session.object_update(update(1)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Deadline { within, .. } if within.as_millis() == 100), "{error:?}");
    assert!(error.code() == Code::DeadlineExceeded && !error.is_not_applied());
}

#[tokio::test]
async fn a_status_without_details_is_taken_for_what_its_code_says() {
    let server = Scripted::default().then(Act::Fail(Status::internal("boom")));
    let error = server.client(crate::options()).session().object_get(get(1)).await.unwrap_err();
    assert_eq!((error.code(), error.reason(), error.is_retryable()), (Code::Internal, "", false));
    // As proxies say that nobody is behind them: of a request by itself.
    let server = Scripted::default().then(Act::Fail(Status::unavailable("no upstream")));
    let session = server.client(ClientOptions { pipeline: false, ..crate::options() }).session();
    session.object_get(get(1)).await.unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn what_is_too_large_is_refused_here() {
    let server = Scripted::default();
    let options = ClientOptions { max_message: 1_000, ..crate::options() };
    let session = server.client(options).session();
    let request = v1::ObjectUpdateRequest { unset: vec!["x".repeat(2_000)], ..update(1) };
    let error = session.object_update(request).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { bytes: 2_000.., limit: 1_000 }), "{error:?}");
    assert!(!error.is_retryable() && error.is_not_applied() && server.asked().is_empty());
    let server = server.then(Act::Answer("x".repeat(2_000)));
    let session = server.client(ClientOptions { pipeline: false, max_message: 1_000, ..crate::options() }).session();
    let error = session.object_update(update(1)).await.unwrap_err();
    assert!(!error.is_retryable() && !error.is_not_applied(), "{error:?}");
    assert_eq!((server.asked().len(), error.code()), (1, Code::OutOfRange));
}

#[tokio::test]
async fn nobody_there_is_no_doubt() {
    let incoming = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = incoming.local_addr().unwrap().to_string();
    drop(incoming);
    let options = ClientOptions { attempts: 3, generate_keys: false, ..crate::options() };
    let error = Client::connect(&address, options).unwrap().session().object_update(update(1)).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable(), error.is_not_applied()), (Code::Unavailable, true, true));
    assert!(error.to_string().starts_with(&format!("can't reach {address}: ")), "{error}");
}
