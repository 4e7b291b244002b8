//! Every decoder that reads what a stranger, a peer or a disk can write, as a function of raw bytes: it must end, never panic, and
//! what it takes must come back the same when it is written again. `make test` runs them on mutated valid input, libFuzzer on what it
//! finds by itself (docs/fuzzing.md).

mod access;
mod archive;
mod commands;
mod files;
mod peers;
mod public;
mod stored;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As in `tests/fuzz/libfuzzer/fuzz_targets`.
    pub name: &'static str,
    /// Reads raw bytes, and says whether it took them; panics when a property does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Input to begin with; some of it is taken.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 20] = [
    Target { name: "frames", run: public::frames, seeds: public::frame_seeds },
    Target { name: "bearer", run: access::bearer, seeds: access::bearer_seeds },
    Target { name: "keys", run: access::keys, seeds: access::key_seeds },
    Target { name: "policy", run: access::policy, seeds: access::policy_seeds },
    Target { name: "pipeline", run: public::pipeline, seeds: public::pipeline_seeds },
    Target { name: "watch", run: public::watch, seeds: public::watch_seeds },
    Target { name: "token", run: public::token, seeds: public::token_seeds },
    Target { name: "cursor", run: public::cursor, seeds: public::cursor_seeds },
    Target { name: "tier_calls", run: peers::calls, seeds: peers::call_seeds },
    Target { name: "tier_replies", run: peers::replies, seeds: peers::reply_seeds },
    Target { name: "change_log", run: stored::log, seeds: stored::log_seeds },
    Target { name: "intents", run: stored::intents, seeds: stored::intent_seeds },
    Target { name: "data", run: stored::data, seeds: stored::data_seeds },
    Target { name: "redis_value", run: stored::shared, seeds: stored::shared_seeds },
    Target { name: "edge_list", run: files::edges, seeds: files::edge_seeds },
    Target { name: "archive_row", run: archive::rows, seeds: archive::row_seeds },
    Target { name: "manifest", run: archive::manifests, seeds: archive::manifest_seeds },
    Target { name: "schema", run: files::schema, seeds: files::schema_seeds },
    Target { name: "topology", run: files::topology, seeds: files::topology_seeds },
    Target { name: "config", run: files::config, seeds: files::config_seeds },
];

/// Runs the target of this name.
pub fn run(name: &str, raw: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"));
    let _taken = (target.run)(raw);
}
