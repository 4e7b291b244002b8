//! Followers that come and go, as names say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tao_client::{Client, ClientError, ClientOptions};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::names::{BOUND, Names};
use crate::scripted::{Act, Scripted, get, update};

/// Sessions that call all the time, and stop at the first error.
struct Load {
    ends: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    sessions: Vec<JoinHandle<Result<(), ClientError>>>,
}

impl Load {
    fn start(client: &Client, sessions: usize) -> Self {
        let (ends, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let session = |n| {
            let (session, ends, calls) = (client.session(), ends.clone(), calls.clone());
            tokio::spawn(async move {
                while !ends.load(Ordering::SeqCst) {
                    session.object_get(get(n)).await?;
                    session.object_update(update(n)).await?;
                    calls.fetch_add(2, Ordering::SeqCst);
                }
                Ok(())
            })
        };
        let sessions = (1..=sessions as i64).map(session).collect();
        Self { ends, calls, sessions }
    }

    /// Ends it; every call must have been answered.
    async fn end(self) -> u64 {
        self.ends.store(true, Ordering::SeqCst);
        for ended in join_all(self.sessions).await {
            ended.unwrap().unwrap();
        }
        self.calls.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_followers_are_added_drained_killed_and_back() {
    let names = Names::default();
    let more_calls = async |what: &str, server: &Scripted| {
        let before = server.calls();
        names.until(&format!("{what} is called"), || server.calls() > before).await;
    };
    let [a, b, c, d] = [(); 4].map(|()| Scripted::default());
    let (a_serves, b_serves) = (a.serve_politely("127.0.0.1:0").await, b.serve_politely("127.0.0.1:0").await);
    let (at_a, at_b) = (a_serves.address, b_serves.address);
    names.set("followers", [at_a]);
    let client = names.client("followers:50051", &crate::options());
    let load = Load::start(&client, 40);
    more_calls("the first", &a).await;

    names.set("followers", [at_a, at_b]);
    more_calls("one that is new", &b).await;

    // It is still named when it is told to end, as a pod is for a moment.
    timeout(BOUND, a_serves.stop()).await.unwrap();
    more_calls("the other", &b).await;
    names.set("followers", [at_b]);

    let (c_serves, d_serves) = (c.serve(), d.serve_politely("127.0.0.1:0").await);
    let (at_c, at_d) = (c_serves.address.parse().unwrap(), d_serves.address);
    names.set("followers", [at_b, at_c, at_d]);
    more_calls("the third", &c).await;
    more_calls("the fourth", &d).await;

    // With all its connections, as if it were killed; the name says so later.
    drop(c_serves);
    more_calls("the second", &b).await;
    more_calls("the fourth", &d).await;
    names.set("followers", [at_b, at_d]);

    let a_serves = a.serve_politely(&at_a.to_string()).await;
    names.set("followers", [at_a, at_b, at_d]);
    more_calls("one that is back", &a).await;

    names.set("followers", [at_b]);
    let mut before = client.stats();
    let is_settled = || {
        let (now, then) = (client.stats(), before);
        if now.moved != then.moved {
            before = now;
        }
        now.moved == then.moved && now.attempts > then.attempts + 400
    };
    names.until("all sessions are at the one that is left", is_settled).await;
    // Nobody is connected to them any more, or is when they are told.
    timeout(BOUND, async { tokio::join!(a_serves.stop(), d_serves.stop()) }).await.unwrap();

    let calls = load.end().await;
    let stats = client.stats();
    assert!(stats.attempts >= calls && stats.moved > 0 && stats.retries < stats.attempts, "{calls} calls, {stats:?}");
    drop(client);
    timeout(BOUND, b_serves.stop()).await.unwrap();
}

#[tokio::test]
async fn a_name_that_moves_takes_its_sessions_along() {
    let [old, new] = [(); 2].map(|()| Scripted::default());
    let (old_serves, new_serves) = (old.serve_politely("127.0.0.1:0").await, new.serve_politely("127.0.0.1:0").await);
    let names = Names::default();
    names.set("follower", [old_serves.address]);
    let client = names.client("follower:50051", &crate::options());
    let session = client.session();
    session.object_get(get(1)).await.unwrap();
    assert_eq!(old.calls(), 1);
    // The old one lives on, and nothing but the name says that it is not meant any more.
    names.set("follower", [new_serves.address]);
    let moved = async {
        while new.calls() == 0 {
            session.object_update(update(1)).await.unwrap();
        }
    };
    timeout(BOUND, moved).await.unwrap();
    timeout(BOUND, old_serves.stop()).await.unwrap();
    session.object_get(get(1)).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.retries, stats.moved), (0, 0), "it is the same follower, elsewhere");
    assert_eq!(stats.attempts as usize, old.calls() + new.calls());
}

#[tokio::test]
async fn sessions_spread_and_keep_to_their_follower() {
    let servers = [(); 3].map(|()| Scripted::default());
    let mut serving = Vec::new();
    for server in &servers {
        serving.push(server.serve_politely("127.0.0.1:0").await);
    }
    let names = Names::default();
    names.set("followers", serving.iter().map(|server| server.address));
    let client = names.client("followers:1", &crate::options());
    let sessions: Vec<_> = (0..60).map(|_| client.session()).collect();
    // Until each is where it will stay: a follower that is connected to stands in for one that is not yet.
    let mut moved = None;
    while moved != Some(client.stats().moved) {
        moved = Some(client.stats().moved);
        for server in &servers {
            let before = server.calls();
            while server.calls() == before {
                for session in &sessions {
                    session.object_get(get(1)).await.unwrap();
                }
            }
        }
    }
    let before = servers.each_ref().map(Scripted::calls);
    for session in &sessions {
        for _ in 0..5 {
            session.clone().object_get(get(1)).await.unwrap();
        }
    }
    let share: Vec<_> = servers.iter().zip(before).map(|(server, before)| server.calls() - before).collect();
    assert!(
        share.iter().all(|calls| *calls >= 25 && calls % 5 == 0) && share.iter().sum::<usize>() == 300,
        "{share:?}"
    );
    assert_eq!(client.stats().moved, moved.unwrap());
    assert_eq!(client.stats().retries, 0);
}

#[tokio::test]
async fn a_name_that_nobody_knows_yet_is_waited_for() {
    let names = Names::default();
    let options = ClientOptions { deadline: Duration::from_millis(1_500), ..crate::options() };
    let session = names.client("followers:50051", &options).session();
    let error = session.object_get(get(1)).await.unwrap_err();
    assert!(error.to_string().contains("nobody has heard of it") && error.is_retryable(), "{error}");
    assert!(error.is_not_applied());
    let server = Scripted::default();
    let serving = server.serve_politely("127.0.0.1:0").await;
    let asked = tokio::spawn(async move { session.with_deadline(BOUND).object_update(update(1)).await });
    names.set("followers", [serving.address]);
    asked.await.unwrap().unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_follower_that_says_nothing_is_not_waited_for_to_the_end() {
    let servers = [(); 2].map(|()| Scripted::default().then(Act::Hang));
    let serving = servers.each_ref().map(Scripted::serve);
    let addresses = serving.each_ref().map(|server| server.address.clone()).join(",");
    let patience = Duration::from_millis(50);
    let client = |generate_keys| {
        let options = ClientOptions { patience, generate_keys, ..crate::options() };
        Client::connect(&addresses, options).unwrap()
    };
    // A write whose fate is not known is not repeated.
    let session = client(false).session().with_deadline(Duration::from_secs(2));
    let error = session.object_update(update(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { not_applied: false, .. }), "{error:?}");
    // One of them hangs still; where the call is repeated, the other answers.
    let client = client(true);
    let sessions: Vec<_> = (0..40).map(|_| client.session()).collect();
    for session in &sessions {
        session.object_get(get(1)).await.unwrap();
        session.object_update(update(1)).await.unwrap();
    }
    let stats = client.stats();
    // One at the least: on a busy machine others may be late, too.
    assert!(stats.retries >= 1 && stats.attempts == 80 + stats.retries, "{stats:?}");
}

#[tokio::test]
async fn a_call_that_is_slow_at_every_follower_is_answered() {
    let slow = || (0..100).fold(Scripted::default(), |server, _| server.then(Act::Late(Duration::from_millis(500))));
    let servers = [(); 3].map(|()| slow());
    let serving = servers.each_ref().map(Scripted::serve);
    let addresses = serving.each_ref().map(|server| server.address.clone()).join(",");
    // Enough attempts for the deadline to end it, if none of them may take longer than the first.
    let options = ClientOptions { patience: Duration::from_millis(50), attempts: u32::MAX, ..crate::options() };
    let client = Client::connect(&addresses, options).unwrap();
    let session = client.session();
    session.object_get(get(1)).await.unwrap();
    session.object_update(update(1)).await.unwrap();
    let stats = client.stats();
    assert!(stats.retries >= 8, "50, 100, 200 and 400 ms are too short for both: {stats:?}");
}

#[tokio::test]
async fn attempts_are_counted() {
    let refused = tao_proto::error::to_status(&tao_model::Error::unavailable("a leader"));
    let servers = [(); 2].map(|()| Scripted::default().then(Act::Fail(refused.clone())));
    let serving = servers.each_ref().map(Scripted::serve);
    let client = Client::connect(&serving.each_ref().map(|s| s.address.clone()).join(","), crate::options()).unwrap();
    client.session().object_get(get(1)).await.unwrap();
    let stats = client.stats();
    assert_eq!((stats.attempts, stats.retries, stats.moved), (3, 2, 2), "a retry prefers another follower");
    assert_eq!(servers.each_ref().map(Scripted::calls).iter().sum::<usize>(), 3);
}
