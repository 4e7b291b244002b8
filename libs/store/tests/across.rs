//! The conformance suite of two logs, on every store.

use std::sync::Arc;

use tao_harness::{Postgres, TempDir};
use tao_model::{ClusterId, IdLayout, LogId, Schema, ShardSet};
use tao_store::{OpenOptions, conformance, open};

/// Runs the suite on the stores at these addresses.
async fn conforms_across(urls: [String; 2]) {
    let first = conformance::first_shards();
    let rest = ShardSet::all(&IdLayout::STANDARD).difference(&first);
    let mut stores = Vec::new();
    for (n, (url, shards)) in (0u32..).zip(urls.into_iter().zip([first, rest])) {
        let options = OpenOptions::new(url, Arc::new(Schema::social()), IdLayout::STANDARD);
        let cluster = Some(ClusterId([7; 16]));
        stores.push(open(OpenOptions { cluster, log: LogId(n), shards, ..options }).await.unwrap());
    }
    conformance::run_across(stores[0].clone(), stores[1].clone()).await;
    for store in stores {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_across_databases() {
    let postgres = Postgres::start().unwrap();
    conforms_across(["one", "other"].map(|name| postgres.create_database(name).unwrap())).await;
}

#[tokio::test]
async fn sqlite_conforms_across_databases() {
    let folder = TempDir::new().unwrap();
    conforms_across(["one", "other"].map(|name| format!("sqlite:{}", folder.join(name).display()))).await;
}

#[tokio::test]
async fn memory_conforms_across_logs() {
    conforms_across(["memory:", "memory:"].map(str::to_owned)).await;
}
