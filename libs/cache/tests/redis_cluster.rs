//! The second level on a real Redis Cluster: keys are spread over its servers, and those of one that is gone are read past it.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use tao_cache::{Entry, RedisCache, SharedCache};
use tao_harness::{Redis, RedisCluster, eventually_async};
use tao_model::{ClusterId, Key, ObjectId, Position};

const SOON: Duration = Duration::from_secs(30);
const KEYS: i64 = 60;

fn key(n: i64) -> Key {
    Key::Object(ObjectId::new(n).expect("positive"))
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn value(n: i64) -> Entry {
    Entry::Object(Some(Bytes::from(format!("value {n}"))))
}

/// Writes until it is there.
async fn put(redis: &RedisCache, n: i64, as_of: Position) {
    eventually_async(SOON, async || {
        redis.set(key(n), as_of, &value(n));
        let found = redis.get(key(n)).await;
        ensure!(found == Some((as_of, value(n))), "key {n}: {found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn size(server: &Redis) -> u64 {
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_cluster_holds_values_and_outlives_a_server() {
    let mut cluster = RedisCluster::start().unwrap();
    let redis = RedisCache::connect(&cluster.url(), &[]).unwrap();
    redis.meet(ClusterId([5; 16]));
    for n in 1..=KEYS {
        put(&redis, n, at(10)).await;
    }
    let mut sizes = Vec::new();
    for server in cluster.servers() {
        sizes.push(size(server).await);
    }
    assert!(sizes.iter().all(|size| *size > 0), "spread: {sizes:?}");
    assert_eq!(sizes.iter().sum::<u64>(), KEYS as u64);

    // The scripts, on whatever server a key has.
    for n in 1..=KEYS {
        redis.set(key(n), at(9), &Entry::Object(None));
        redis.raise(key(n), at(10), at(5_000));
        redis.raise(key(n), at(9), at(6_000));
    }
    // They are done in order.
    put(&redis, 1_000, at(1)).await;
    for n in 1..=KEYS {
        assert_eq!(redis.get(key(n)).await, Some((at(5_000), value(n))), "key {n}");
    }

    cluster.servers()[2].kill().unwrap();
    eventually_async(SOON, async || {
        let mut there = 0;
        for n in 1..=KEYS {
            there += u64::from(redis.get(key(n)).await.is_some());
        }
        ensure!(there == sizes[0] + sizes[1], "{there} of {sizes:?}");
        Ok(())
    })
    .await
    .unwrap();
    cluster.servers()[2].restart().unwrap();
    for n in 1..=KEYS {
        put(&redis, n, at(7_000)).await;
    }
    assert!(size(&cluster.servers()[2]).await > 0, "used again");
}
