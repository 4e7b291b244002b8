//! What serving costs a call, beside a bare HTTP/2 loop over the same service on the same runtimes: figures to read, so ignored.
//!
//! `cargo test --release -p tao-runtime --test cost -- --ignored --nocapture`; `COST_ROUNDS` and `COST_ONLY=bare|serve` narrow it
//! for a profiler.

mod bare;
mod echo;
mod load;

use std::num::NonZeroUsize;
use std::time::Duration;

use tao_runtime::{Door, Listener as _, MetricsHandle, ServeOptions, Shutdown, TcpAcceptor, Workers, serve};

use tonic::service::Routes;

use crate::echo::Echo;

const CONNECTIONS: usize = 4;
const CALLERS: usize = 64;
const ROUND: Duration = Duration::from_secs(2);

/// The processor time that the workers have used, in nanoseconds.
async fn used(workers: &Workers) -> u64 {
    let mut sum = 0;
    for handle in workers.handles() {
        let spent =
            handle.spawn(async { std::fs::read_to_string("/proc/thread-self/schedstat") }).await.unwrap().unwrap();
        sum += spent.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    sum
}

async fn measure(bare: bool, bytes: usize) -> f64 {
    let workers = Workers::new("cost", NonZeroUsize::new(2)).unwrap();
    let listener = TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_running, shutdown) = Shutdown::new();
    let handles = workers.handles();
    let workers = std::sync::Arc::new(workers);
    let server = if bare {
        tokio::spawn(bare::serve(listener, handles))
    } else {
        let workers = workers.clone();
        let door = Door::from(Routes::default()).direct(Echo);
        tokio::spawn(async move { serve(listener, &workers, door, ServeOptions::default(), shutdown).await })
    };
    let load = load::start(address, CONNECTIONS, CALLERS, bytes).await;
    let (calls, before) = (load.calls(), used(&workers).await);
    tokio::time::sleep(ROUND).await;
    let (calls, after) = (load.calls() - calls, used(&workers).await);
    load.stop().await;
    server.abort();
    (after - before) as f64 / 1e3 / calls as f64
}

#[tokio::test]
#[ignore = "prints figures"]
async fn processor_time_of_a_call() {
    let _metrics = MetricsHandle::install();
    let only = std::env::var("COST_ONLY").ok();
    let rounds = std::env::var("COST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for bytes in [100, 2_500] {
        for _ in 0..rounds {
            for (name, bare) in [("bare", true), ("serve", false)] {
                if only.as_deref().is_none_or(|only| only == name) {
                    println!(
                        "{bytes} B, {name}: {:.2} µs of the server's processor time a call",
                        measure(bare, bytes).await
                    );
                }
            }
        }
    }
}
