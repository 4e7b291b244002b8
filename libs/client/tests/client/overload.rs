//! What the client does about a follower that refuses calls.

use std::time::{Duration, Instant};

use tao_client::{ClientError, ClientOptions};
use tao_model::Error;
use tao_proto::error::to_status;

use crate::scripted::{Act, Scripted, get};

/// By then what must happen has happened.
const WITHIN: Duration = Duration::from_secs(30);

fn refusing(times: usize) -> Scripted {
    let refused = || {
        let error = Error::Overloaded { what: "work".to_owned(), retry_after: Duration::from_millis(1) };
        Act::Fail(to_status(&error))
    };
    (0..times).fold(Scripted::default(), |server, _| server.then(refused()))
}

#[tokio::test]
async fn calls_are_held_back_from_a_follower_that_refuses_them_until_it_takes_them_again() {
    let server = refusing(2_000);
    let session = server.client(ClientOptions { attempts: 1, ..crate::options() }).session();
    let begun = Instant::now();
    let held_back = loop {
        let error = session.object_get(get(1)).await.unwrap_err();
        assert!(error.is_overload() && error.is_not_applied(), "{error:?}");
        if let ClientError::Throttled { .. } = error {
            break error;
        }
        assert!(begun.elapsed() < WITHIN && server.calls() < 2_000, "never held back");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(held_back.reason(), "OVERLOADED");
    assert!(held_back.retry_after().is_some());

    // Another follower's client is not held back.
    let taking = Scripted::default();
    taking.client(crate::options()).session().object_get(get(1)).await.unwrap();
}

#[tokio::test]
async fn refused_calls_are_repeated_out_of_a_budget() {
    let server = refusing(2_000);
    let session = server.client(crate::options()).session();
    for _ in 0..50 {
        session.object_get(get(1)).await.unwrap_err();
    }
    assert!(server.calls() <= 70, "{} for 50", server.calls());
}
