//! What every metric is, for `/metrics` to tell; docs/observability.md has the same list.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Those that are recorded through the process's recorder.
const DESCRIBED: &[(&str, Kind, &str)] = &[
    (
        "server_answers_refused_total",
        Counter,
        "Large answers that were not given, since as many as may wait for callers to take them.",
    ),
    ("access_key_fetches_total", Counter, "Times that the keys of tokens were fetched, by result."),
    ("access_key_reloads_total", Counter, "Times that the keys of tokens were read anew from their file, by result."),
    ("access_policy_reloads_total", Counter, "Times that the grants were read anew, by result."),
    ("access_refusals_total", Counter, "Calls that were refused, by reason: who asks is not known, or may not."),
    ("access_tokens_verified_total", Counter, "Tokens whose signature was verified; those seen a moment ago are not."),
    ("server_connections", Gauge, "Connections to the gRPC port."),
    ("server_connections_ended_total", Counter, "Connections that were ended since they did harm, by reason."),
    (
        "server_connections_refused_total",
        Counter,
        "Connections that were closed since there were too many, of all or of one address.",
    ),
    (
        "server_messages_refused_total",
        Counter,
        "Messages of requests that were not waited for or not taken, by reason.",
    ),
    ("server_unfinished_messages_bytes", Gauge, "Large messages that have begun and have not come to their end."),
    ("server_untaken_answers_bytes", Gauge, "Large answers that their callers have not taken yet."),
    ("server_tls_handshakes_total", Counter, "TLS handshakes at the gRPC port, by result."),
    ("tao_audit_checked_total", Counter, "Cached keys that were compared with the database."),
    ("tao_audit_inconclusive_total", Counter, "Comparisons that said nothing, since the key changed meanwhile."),
    (
        "tao_audit_inconsistency_ratio",
        Gauge,
        "Share of the cached keys that were not as the database has them, of the last hour's.",
    ),
    ("tao_audit_inconsistent_total", Counter, "Cached keys that were not as the database has them."),
    ("tao_build_info", Gauge, "Always 1; the version is a label."),
    ("tao_cache_applied_lsn", Gauge, "Position in its log up to which a cache has applied every change."),
    ("tao_cache_bytes", Gauge, "Memory that cached entries take, with all that keeping them costs."),
    ("tao_cache_entries", Gauge, "Cached entries."),
    ("tao_cache_evictions_total", Counter, "Entries that had to go for others."),
    (
        "tao_cache_fills_refused_total",
        Counter,
        "Values that were not cached, since changes are known that they may lack.",
    ),
    (
        "tao_cache_fresh_timestamp_seconds",
        Gauge,
        "Moment of the storage shard's clock, since 1970, up to which a cache has every change.",
    ),
    ("tao_cache_hits_total", Counter, "Reads that a level of a tier's caches answered."),
    ("tao_cache_misses_total", Counter, "Reads that it could not answer."),
    ("tao_cache_redis_duration_seconds", Histogram, "Seconds that a command to Redis took."),
    ("tao_cache_redis_errors_total", Counter, "Commands to Redis that failed."),
    ("tao_cache_redis_writes_dropped_total", Counter, "Values that were not stored in Redis, since too many waited."),
    ("tao_cache_resets_total", Counter, "Times that a cache dropped all entries, by cause: first, again, epoch."),
    ("tao_cache_resumes_total", Counter, "Change streams that went on where the one before them broke."),
    (
        "tao_cache_stream_delay_seconds",
        Histogram,
        "Seconds from when a storage shard vouched for its log to when a cache had applied it.",
    ),
    ("tao_follower_identities", Gauge, "Callers that limits are kept for."),
    (
        "tao_follower_leader_calls_limit",
        Gauge,
        "Calls to leaders that may be under way; falls when they take longer than usual.",
    ),
    ("tao_follower_leader_calls_under_way", Gauge, "Calls to leaders that are under way."),
    (
        "tao_follower_loop_wait_seconds",
        Gauge,
        "How long calls wait until the follower looks at them, on average of late.",
    ),
    ("tao_follower_shed_total", Counter, "Calls that were refused: rate, share or leaders; by share also undecoded."),
    (
        "tao_follower_work_limit",
        Gauge,
        "Work a second that an overloaded follower takes in, a hit in memory being 1; 0: all.",
    ),
    (
        "tao_leader_queue_seconds",
        Histogram,
        "Seconds that calls waited for a place at their storage shard; only those that had to.",
    ),
    ("tao_leader_shed_total", Counter, "Calls that were refused, since too many of their logical shard waited."),
    ("tao_shard_intent_failures_total", Counter, "Attempts in vain to do in another log what was left to it."),
    ("tao_shard_intents", Gauge, "Writes that are left to be done in other logs."),
    ("tao_shard_intents_delivered_total", Counter, "Writes that were done in other logs."),
    ("tao_shard_intents_oldest_seconds", Gauge, "Age of the oldest of those that are left."),
    ("tao_shard_servers", Gauge, "Storage shards of the database that run, by version of its tables."),
    ("tao_slow_requests_total", Counter, "Requests that took longer than slow_request_ms."),
    ("tao_store_batch_writes", Histogram, "Writes in a commit."),
    ("tao_store_commit_duration_seconds", Histogram, "Seconds that a commit took, its durability included."),
    ("tao_store_connection_wait_seconds", Histogram, "Seconds until a connection to the database was had."),
    ("tao_store_connections_in_use", Gauge, "Connections to the database that are in use."),
    ("tao_store_connections_limit", Gauge, "Connections to the database that there may be."),
    ("tao_store_log_lsn", Gauge, "Position at which the log ends."),
    ("tao_store_queue_seconds", Histogram, "Seconds that writes waited for their commit to begin."),
    ("tao_stream_history_reads_total", Counter, "Reads of changes that were too old to be in memory."),
    ("tao_watch_changes_total", Counter, "Changes that were sent to Watch streams."),
    ("tao_watch_resumes_total", Counter, "Times that the stream behind a Watch broke and went on."),
    ("tao_watch_streams", Gauge, "Watch streams."),
    ("tier_client_calls_total", Counter, "Calls that were sent to the tier behind."),
    ("tier_client_messages_total", Counter, "Messages that they were sent in."),
    ("tier_client_versions_total", Counter, "Streams that were opened to the tier behind, by its version."),
    ("tier_client_streams_total", Counter, "Streams that were opened to it."),
    ("tier_server_cancelled_total", Counter, "Calls of the tier in front that it gave up."),
    (
        "tier_server_duration_seconds",
        Histogram,
        "Seconds from when a call of the tier in front was read to its answer.",
    ),
    ("tier_server_errors_total", Counter, "Calls of the tier in front that failed."),
    ("tier_server_messages_total", Counter, "Messages of the tier in front."),
    ("tls_certificate_expiry_timestamp_seconds", Gauge, "When the first certificate of a file ends, since 1970."),
    ("tls_reloads_total", Counter, "Times that certificates were read anew, by result."),
    ("tier_server_versions_total", Counter, "Streams of the tier in front, by its version."),
];

/// Tells the recorder what all of them are, and sets what never changes.
pub fn describe() {
    for (name, kind, help) in DESCRIBED {
        let unit = unit(name);
        match (kind, unit) {
            (Counter, _) => describe_counter!(*name, *help),
            (Gauge, Some(unit)) => describe_gauge!(*name, unit, *help),
            (Gauge, None) => describe_gauge!(*name, *help),
            (Histogram, Some(unit)) => describe_histogram!(*name, unit, *help),
            (Histogram, None) => describe_histogram!(*name, *help),
        }
    }
    gauge!("tao_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

fn unit(name: &str) -> Option<Unit> {
    [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)]
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that are not recorded through the recorder, and so describe themselves.
    const OWN: [&str; 5] = [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "rpc_server_duration_seconds",
    ];

    #[test]
    fn names_say_what_they_are_and_the_documentation_lists_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/observability.md");
        let page = std::fs::read_to_string(page).unwrap();
        let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        let mut listed: Vec<String> = page.lines().filter_map(row).filter(|name| name.contains('_')).collect();
        listed.sort();
        let mut names: Vec<_> = DESCRIBED.iter().map(|(name, ..)| (*name).to_owned()).collect();
        for (name, kind, help) in DESCRIBED {
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
        names.extend(OWN.map(str::to_owned));
        names.sort();
        assert_eq!(listed, names);
    }
}
