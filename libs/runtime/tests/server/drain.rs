//! Shutting down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tao_runtime::{ServeOptions, Workers};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;
use tonic::service::Routes;

use crate::service::*;

#[tokio::test]
async fn what_is_under_way_is_finished_and_nothing_new_begins() {
    for workers in [threads(2), Workers::inline()] {
        let (begun, mut begins) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let service = Service::new(move |_| {
            begun.send(()).unwrap();
            let gate = held.clone();
            async move {
                let _ = gate.acquire().await;
                Status::ok("")
            }
        });
        let server = Server::start(Routes::new(service), workers, ServeOptions::default()).await;
        let channel = server.connect().await.unwrap();
        let running = tokio::spawn(async move { call(&channel).await });
        begins.recv().await.unwrap();
        server.shutdown.trigger();
        // The listener is gone before the drain ends.
        while tokio::net::TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!server.task.is_finished());
        gate.add_permits(1);
        running.await.unwrap().unwrap();
        server.task.await.unwrap().unwrap();
    }
}

/// Says so when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn what_is_left_at_the_drain_deadline_is_dropped() {
    for workers in [threads(2), Workers::inline()] {
        let (begun, mut begins) = mpsc::unbounded_channel();
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let service = Service::new(move |_| {
            begun.send(()).unwrap();
            let held = Dropped(dropped.clone());
            async move {
                let _held = held;
                std::future::pending().await
            }
        });
        let options = ServeOptions { drain_timeout: Duration::from_millis(100), ..ServeOptions::default() };
        let server = Server::start(Routes::new(service), workers, options).await;
        let channel = server.connect().await.unwrap();
        let running = tokio::spawn(async move { call(&channel).await });
        begins.recv().await.unwrap();
        let began = Instant::now();
        server.shutdown.trigger();
        server.task.await.unwrap().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
        running.await.unwrap().unwrap_err();
        drops.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_server_drops_its_connections() {
    let service = Service::new(|_| std::future::pending());
    let server = Server::start(Routes::new(service), threads(1), ServeOptions::default()).await;
    let channel = server.connect().await.unwrap();
    let running = tokio::spawn(async move { call(&channel).await });
    server.task.abort();
    running.await.unwrap().unwrap_err();
}
