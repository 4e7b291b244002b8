//! Stores whose PostgreSQL is not there yet, and those that it will never be there for.

use std::sync::Arc;
use std::time::Duration;

use tao_harness::Postgres;
use tao_model::{IdLayout, Schema};
use tao_store::{OpenError, OpenOptions, Store, open_when_reachable};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

type Opening = (JoinHandle<Result<Arc<dyn Store>, OpenError>>, UnboundedReceiver<String>);

/// Begins to open, and hands out what is told meanwhile.
fn begin(url: &str) -> Opening {
    let options = OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD);
    let (told, reasons) = unbounded_channel();
    let opening = open_when_reachable(options, move |why| {
        // Whoever has heard enough needs no more.
        let _ = told.send(why);
    });
    (tokio::spawn(opening), reasons)
}

async fn told(reasons: &mut UnboundedReceiver<String>) -> String {
    tokio::time::timeout(WITHIN, reasons.recv()).await.expect("a reason in time").expect("it goes on waiting")
}

async fn opened((opening, _): Opening) {
    let opened = tokio::time::timeout(WITHIN, opening).await.expect("in time").unwrap();
    opened.expect("it opens").close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_when_its_database_starts_or_has_room() {
    let mut postgres = Postgres::start().unwrap();
    let url = postgres.create_database("late").unwrap();
    let server = format!("waiting for PostgreSQL at 127.0.0.1:{}: ", postgres.port());
    postgres.stop_immediate().unwrap();
    let mut late = begin(&url);
    for _ in 0..2 {
        let why = told(&mut late.1).await;
        assert!(why.starts_with(&server) && why.contains("refused"), "{why}");
    }
    postgres.start_again().unwrap();
    opened(late).await;

    // Full, for whoever is no superuser.
    postgres.execute("postgres", "CREATE ROLE tao LOGIN; ALTER DATABASE late OWNER TO tao").unwrap();
    postgres.execute("late", "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION tao").unwrap();
    postgres.execute("postgres", "ALTER DATABASE late CONNECTION LIMIT 0").unwrap();
    let mut full = begin(&url.replace("postgres@", "tao@"));
    let why = told(&mut full.1).await;
    assert!(why.starts_with(&server) && why.contains("too many connections"), "{why}");
    postgres.execute("postgres", "ALTER DATABASE late CONNECTION LIMIT -1").unwrap();
    opened(full).await;
}

#[tokio::test]
async fn a_name_that_is_not_known_yet_is_waited_for() {
    let (opening, mut reasons) = begin("postgres://tao:s3cret@no-such-host.invalid/tao");
    let why = told(&mut reasons).await;
    assert!(why.starts_with("waiting for PostgreSQL at no-such-host.invalid:5432: "), "{why}");
    assert!(!why.contains("s3cret"), "{why}");
    opening.abort();
}

#[tokio::test]
async fn a_wrong_password_and_a_database_that_is_not_there_are_errors_at_once() {
    let postgres = Postgres::start().unwrap();
    let url = postgres.create_protected("tao", "s3cret", "tao").unwrap();
    let with = |password: &str| url.replace("tao@", &format!("tao:{password}@"));
    for (url, word) in [
        (with("wr0ng"), "password authentication failed"),
        (format!("postgres://postgres@127.0.0.1:{}/nowhere", postgres.port()), "does not exist"),
    ] {
        let (opening, _reasons) = begin(&url);
        let error = tokio::time::timeout(WITHIN, opening).await.expect("in time").unwrap().err().expect("refused");
        let text = error.to_string();
        assert!(text.contains(word) && !text.contains("wr0ng"), "{text}");
    }
    opened(begin(&with("s3cret"))).await;
}
