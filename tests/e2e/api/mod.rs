//! The API suite over real gRPC, on SQLite without Redis (`tao dev`) and on PostgreSQL with Redis (four processes, two followers).

mod bad_input;
mod sessions;
mod suite;

use crate::cluster::Cluster;

/// Runs every case of the suite against one cluster, started once.
async fn run(cluster: Cluster) {
    let mut failed = Vec::new();
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$(
            let a = cluster.connect(0).await;
            let b = cluster.connect(1).await;
            if tokio::spawn($case(a, b)).await.is_err() {
                failed.push(stringify!($case));
            }
        )*};
    }
    cases!(
        suite::objects,
        suite::updates,
        suite::upserts_and_allocated_ids,
        suite::placement,
        suite::edges_and_inverses,
        suite::symmetric_edges,
        suite::change_type,
        suite::edges_keep_their_order,
        suite::pages_neither_skip_nor_repeat,
        suite::time_ranges,
        suite::given_edges,
        suite::objects_at_the_other_ends,
        suite::long_lists,
        suite::large_answers_end_early,
        suite::batches,
        suite::multi_get,
        suite::idempotent_writes,
        suite::consistency_levels,
        suite::tokens_in_metadata,
        suite::own_writes_through_the_other_follower,
        suite::without_a_token_within_a_second,
        suite::concurrent_writers_keep_counts,
        sessions::a_batch_of_large_updates,
        sessions::a_forged_token_fails_alone,
        sessions::a_batch_of_large_lists,
        sessions::items_bring_tokens_of_their_own,
        sessions::a_write_that_changes_nothing_has_been_seen,
        bad_input::ids,
        bad_input::types,
        bad_input::data_limits,
        bad_input::lists,
        bad_input::updates,
        bad_input::options,
        bad_input::batches,
        bad_input::ends_of_the_wrong_type,
        bad_input::deadlines_and_sizes,
        bad_input::every_violation_at_once,
    );
    assert!(failed.is_empty(), "failed: {failed:?}; logs in {}", cluster.keep_logs().display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_in_one_process() {
    run(Cluster::dev().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_and_redis_in_four_processes() {
    run(Cluster::processes().await).await;
}

/// Whatever runs at the addresses in `TAO_E2E_ADDRESSES`, with commas between them; nothing where that is not set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_addresses() {
    if let Ok(addresses) = std::env::var("TAO_E2E_ADDRESSES") {
        run(Cluster::at(&addresses).await).await;
    }
}
