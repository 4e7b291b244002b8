//! How fast numbered calls go, in one process over loopback. Run by hand:
//! `cargo test --release -p tao-rpc --test tier rate -- --ignored --nocapture`

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tao_runtime::Workers;

use crate::support::*;

#[test]
#[ignore = "a measurement"]
fn rate_of_pipelined_echo() {
    for in_flight in [1, 64, 1_024] {
        let workers = Workers::new("server", NonZeroUsize::new(1)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rate = runtime.block_on(async {
            let server = Server::on_workers(Handler::echo(), workers).await;
            let client = server.client();
            client.wait_connected(Duration::from_secs(10)).await.unwrap();
            let done = Arc::new(AtomicU64::new(0));
            let callers: Vec<_> = (0..in_flight)
                .map(|n| {
                    let (client, done) = (client.clone(), done.clone());
                    tokio::spawn(async move {
                        let context = soon();
                        loop {
                            client.call(&context, read(n)).await.unwrap();
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
            tokio::time::sleep(Duration::from_secs(3)).await;
            let rate = (done.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
            callers.iter().for_each(tokio::task::JoinHandle::abort);
            rate
        });
        println!("{in_flight} in flight: {:.0}k calls/s", rate / 1_000.0);
    }
}
