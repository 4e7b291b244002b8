//! What a read of Redis costs, by hand, beside GETs that the same client pipelines:
//! `cargo test --release -p tao-cache --test redis_cost -- --ignored --nocapture`

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use redis::{Client, pipe};
use tao_cache::{Entry, RedisCache, SharedCache};
use tao_harness::{Redis, eventually_async};
use tao_model::{ClusterId, Key, ObjectId, Position};

const CALLERS: usize = 256;
const ROUNDS: usize = 400;
const SOON: Duration = Duration::from_secs(10);

fn key(n: usize) -> Key {
    Key::Object(ObjectId::new(n as i64 + 1).expect("positive"))
}

/// Microseconds of this process's CPU, in ticks of 10 ms.
fn cpu_us() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("fields");
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks") * 10_000).sum()
}

async fn measured(what: &str, round: impl AsyncFn()) {
    let (begun, cpu) = (Instant::now(), cpu_us());
    for _ in 0..ROUNDS {
        round().await;
    }
    let n = (ROUNDS * CALLERS) as f64;
    let rate = n / begun.elapsed().as_secs_f64();
    println!("{what:32} {rate:9.0} per second, {:5.2} microseconds of CPU here", (cpu_us() - cpu) as f64 / n);
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn cost() {
    let server = Redis::start().unwrap();
    let cache = RedisCache::connect(&server.url(), &[]).unwrap();
    cache.meet(ClusterId([5; 16]));
    let object = Entry::Object(Some(Bytes::from(vec![7; 200])));
    for n in 0..CALLERS {
        eventually_async(SOON, async || {
            cache.set(key(n), Position::new(1, 1), &object);
            cache.get(key(n)).await.ok_or_else(|| anyhow::anyhow!("not yet"))
        })
        .await
        .unwrap();
    }
    let client = Client::open(server.url()).unwrap();
    let raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut names: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut raw.clone()).await.unwrap();
    names.truncate(CALLERS);
    measured("one pipeline of 256 GETs", async || {
        let mut gets = pipe();
        for name in &names {
            gets.get(name);
        }
        let values: Vec<Vec<u8>> = gets.query_async(&mut raw.clone()).await.unwrap();
        assert_eq!(values.len(), CALLERS);
    })
    .await;
    measured("256 GETs at once", async || {
        let get = async |name: &Vec<u8>| {
            let value: Vec<u8> = redis::Cmd::get(name).query_async(&mut raw.clone()).await.unwrap();
            assert!(!value.is_empty());
        };
        join_all(names.iter().map(get)).await;
    })
    .await;
    measured("256 reads of the cache at once", async || {
        let found = join_all((0..CALLERS).map(|n| cache.get(key(n)))).await;
        assert!(found.iter().all(Option::is_some));
    })
    .await;
}
