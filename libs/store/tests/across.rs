//! The conformance suite of two logs, on every durable store.

use std::sync::Arc;

use tao_harness::{Postgres, TempDir};
use tao_model::{IdLayout, Schema};
use tao_store::{OpenOptions, Store, conformance, open};

async fn opened(url: &str) -> Arc<dyn Store> {
    open(OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD)).await.unwrap()
}

/// Statements that leave one half of the shards.
const HALVES: [&str; 2] = ["DELETE FROM shards WHERE shard > 511", "DELETE FROM shards WHERE shard < 512"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_across_databases() {
    let postgres = Postgres::start().unwrap();
    let mut stores = Vec::new();
    for (name, half) in ["one", "other"].into_iter().zip(HALVES) {
        let url = postgres.create_database(name).unwrap();
        opened(&url).await.close().await;
        postgres.execute(name, half).unwrap();
        stores.push(opened(&url).await);
    }
    conformance::run_across(stores[0].clone(), stores[1].clone()).await;
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn sqlite_conforms_across_databases() {
    let folder = TempDir::new().unwrap();
    let mut stores = Vec::new();
    for (name, half) in ["one", "other"].into_iter().zip(HALVES) {
        let url = format!("sqlite:{}", folder.join(name).display());
        opened(&url).await.close().await;
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query(half).execute(&pool).await.unwrap();
        pool.close().await;
        stores.push(opened(&url).await);
    }
    conformance::run_across(stores[0].clone(), stores[1].clone()).await;
    for store in stores {
        store.close().await;
    }
}
