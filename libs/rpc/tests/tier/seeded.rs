//! Many callers on several threads, calls of every fate: each gets its own answer, or its own error.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroUsize;
use std::time::Duration;

use tao_model::Error;
use tao_rpc::CallContext;
use tao_runtime::Workers;

use crate::support::*;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What becomes of a call is in its id.
async fn handle(id: i64) -> tao_model::Result<tao_rpc::TierReply> {
    match id % 8 {
        0..=2 => Ok(ids(vec![id])),
        3 | 4 => {
            for _ in 0..id % 5 {
                tokio::task::yield_now().await;
            }
            Ok(ids(vec![id]))
        }
        5 => {
            tokio::time::sleep(Duration::from_micros(id as u64 % 3_000)).await;
            Ok(ids(vec![id]))
        }
        6 => Err(Error::NotFound { what: id.to_string() }),
        _ => std::future::pending().await,
    }
}

#[test]
fn every_call_gets_its_own_answer() {
    let seed = std::env::var("TAO_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("run again with TAO_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let workers = Workers::new("seeded", NonZeroUsize::new(2)).unwrap();
        let server = Server::on_workers(Handler::new(|_, op| handle(id_of(&op))), workers).await;
        let client = server.client();
        let callers: Vec<_> = (0..32_u64)
            .map(|n| {
                let client = client.clone();
                let mut random = Random(seed ^ n.wrapping_mul(0x5851_f42d_4c95_7f2d));
                tokio::spawn(async move {
                    for _ in 0..200 {
                        let id = (random.next() >> 1) as i64;
                        if random.next().is_multiple_of(10) {
                            // Gives up, sooner or later.
                            let patience = Duration::from_micros(random.next() % 500);
                            let _ = tokio::time::timeout(patience, client.call(&soon(), read(id))).await;
                            continue;
                        }
                        let time = if id % 8 == 7 { Duration::from_millis(2) } else { Duration::from_secs(30) };
                        let answer = client.call(&CallContext::within(time), read(id)).await;
                        match id % 8 {
                            6 => assert_eq!(answer.unwrap_err(), Error::NotFound { what: id.to_string() }),
                            7 => assert_eq!(answer.unwrap_err(), Error::DeadlineExceeded { not_applied: true }),
                            _ => assert_eq!(ids_in(answer.unwrap()), [id]),
                        }
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        drop(client);
        server.stop().await;
    });
}
