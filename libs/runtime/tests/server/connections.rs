//! Where connections go, and what ends them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tao_runtime::{Door, Listener, ServeOptions, Shutdown, Workers, serve};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::service::*;

#[tokio::test]
async fn connections_are_spread_over_the_workers() {
    let server = Server::start(Routes::new(Service::ok()), threads(3), ServeOptions::default()).await;
    let (mut channels, mut names) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let channel = server.connect().await.unwrap();
        names.push(call(&channel).await.unwrap());
        channels.push(channel);
    }
    assert_eq!(server.workers.connections(), [2, 2, 2]);
    names.sort();
    assert_eq!(names, ["worker-0", "worker-0", "worker-1", "worker-1", "worker-2", "worker-2"]);
    // The same connection stays where it is.
    assert_eq!(call(&channels[0]).await.unwrap(), call(&channels[0]).await.unwrap());
}

#[tokio::test]
async fn inline_everything_runs_where_it_is_called() {
    let server = Server::simple(Service::ok()).await;
    let here = std::thread::current().name().unwrap().to_owned();
    assert_eq!(call(&server.connect().await.unwrap()).await.unwrap(), here);
}

#[tokio::test]
async fn connections_past_the_limit_are_closed_at_once() {
    let options = ServeOptions { max_connections: 2, ..ServeOptions::default() };
    let server = Server::start(Routes::new(Service::ok()), Workers::inline(), options).await;
    let (one, two) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    call(&one).await.unwrap();
    call(&two).await.unwrap();
    let refused = async {
        match server.connect().await {
            Ok(third) => call(&third).await.is_err(),
            Err(_) => true,
        }
    };
    assert!(refused.await);
    call(&one).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_one_call_s_error() {
    // Where the handler is made, in its first poll, and when it has waited.
    let service = Service::new(|request| {
        let path = request.uri().path().to_owned();
        assert!(!path.ends_with("Make"), "on purpose");
        async move {
            assert!(!path.ends_with("Panic"), "on purpose");
            tokio::task::yield_now().await;
            assert!(!path.ends_with("Later"), "on purpose");
            Status::ok("")
        }
    });
    let doors = [Door::from(Routes::new(service.clone())), Door::from(Routes::default()).direct(service)];
    for door in doors {
        let server = Server::start(door, Workers::inline(), ServeOptions::default()).await;
        let channel = server.connect().await.unwrap();
        for path in ["/test.Service/Make", "/test.Service/Panic", "/test.Service/Later"] {
            let status = call_with(&channel, path, None).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{path}: {status:?}");
            assert!(!status.message().contains("on purpose"));
        }
        call(&channel).await.unwrap();
    }
}

#[tokio::test]
async fn direct_services_and_routes_share_a_port() {
    let (other, called) = (Service::new(async |_| Status::not_found("the other")), Service::ok());
    // The direct one comes first, whatever the routes say.
    let door = Door::from(Routes::new(other)).direct(called);
    let server = Server::start(door, Workers::inline(), ServeOptions::default()).await;
    let channel = server.connect().await.unwrap();
    call(&channel).await.unwrap();
    for path in ["/test.Servic/Call", "/test.ServiceToo/Call", "/"] {
        assert_eq!(call_with(&channel, path, None).await.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn handlers_that_wait_do_not_hold_up_their_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let service = Service::new(move |request| {
        let gate = held.clone();
        async move {
            if request.uri().path().ends_with("Wait") {
                let _ = gate.acquire().await;
            }
            Status::ok("")
        }
    });
    let server = Server::simple(service).await;
    let channel = server.connect().await.unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { call_with(&channel, "/test.Service/Wait", None).await })
        })
        .collect();
    for _ in 0..10 {
        call(&channel).await.unwrap();
    }
    gate.add_permits(1);
    for call in waiting {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_old_connection_finishes_what_runs_and_is_replaced() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let service = Service::new(move |request| {
        let gate = held.clone();
        async move {
            if request.uri().path().ends_with("Wait") {
                let _ = gate.acquire().await;
            }
            Status::ok("")
        }
    });
    let options = ServeOptions { max_connection_age: Some(Duration::from_millis(20)), ..ServeOptions::default() };
    let server = Server::start(Routes::new(service), threads(2), options).await;
    let channel = server.connect().await.unwrap();
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { call_with(&channel, "/test.Service/Wait", None).await }
    });
    // By turns, a new connection goes to the other worker: when both have answered, there has been a second one.
    let mut names = std::collections::HashSet::new();
    while names.len() < 2 {
        match call(&channel).await {
            Ok(name) => _ = names.insert(name),
            // hyper's client gives up a request that meets the end of its connection, even when it has not sent it.
            Err(status) => assert_eq!(status.code(), Code::Cancelled, "{status:?}"),
        }
    }
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_of_an_old_connection_ends() {
    let options = ServeOptions {
        max_connection_age: Some(Duration::from_millis(20)),
        max_connection_age_grace: Some(Duration::from_millis(20)),
        ..ServeOptions::default()
    };
    let service = Service::new(|_| std::future::pending());
    let server = Server::start(Routes::new(service), Workers::inline(), options).await;
    let channel = server.connect().await.unwrap();
    call(&channel).await.unwrap_err();
}

#[tokio::test]
async fn an_idle_connection_is_ended_politely_and_a_busy_one_is_not() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let service = Service::new(move |request| {
        let gate = held.clone();
        async move {
            if request.uri().path().ends_with("Wait") {
                let _ = gate.acquire().await;
            }
            Status::ok("")
        }
    });
    let options = ServeOptions { max_connection_idle: Some(Duration::from_millis(40)), ..ServeOptions::default() };
    let server = Server::start(Routes::new(service), threads(1), options).await;
    let (idle, busy) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    call(&idle).await.unwrap();
    let waiting = tokio::spawn(async move { call_with(&busy, "/test.Service/Wait", None).await });
    // Of the two the idle one goes.
    let gone = async {
        while server.workers.connections() != [1] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    assert!(!waiting.is_finished());
    gate.add_permits(1);
    waiting.await.unwrap().unwrap();
    // Its channel connects again.
    call(&idle).await.unwrap();
}

struct Broken;

impl Listener for Broken {
    type Conn = std::net::TcpStream;
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    async fn attach(conn: Self::Conn) -> io::Result<TcpStream> {
        TcpStream::from_std(conn)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 1).into())
    }
}

#[tokio::test]
async fn a_broken_listener_is_an_error() {
    let (_trigger, shutdown) = Shutdown::new();
    let served = serve(Broken, &Workers::inline(), Routes::default(), ServeOptions::default(), shutdown).await;
    assert_eq!(served.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
