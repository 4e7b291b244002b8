//! One trace from a client through all tiers to the databases and back, as a real receiver of OTLP gets it.

mod collector;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tao_client::{Client, ClientOptions, Session};
use tao_harness::{Postgres, Process, Redis};
use tao_proto::v1::*;
use tao_runtime::{TelemetryOptions, telemetry};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::cluster::{TAO, ready};
use collector::Collector;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

/// A write, in whose commit SQL is spoken twice.
const WRITE: &str = "\
- a write [example]
  - tao.v1.GraphService/AssocAdd client [example]
    - tao.v1.GraphService/AssocAdd server [tao-follower]
      - TierService/write client [tao-follower]
        - TierService/write server [tao-leader]
          - TierService/write client [tao-leader]
            - TierService/write server [tao-shard]
              - lane queue [tao-shard]
              - lane commit [tao-shard]
                - SELECT client [tao-shard] db.system.name=postgresql
                - COMMIT client [tao-shard] db.system.name=postgresql
";

/// A read that no cache can answer.
const MISS: &str = "\
- a miss [example]
  - tao.v1.GraphService/AssocRange client [example]
    - tao.v1.GraphService/AssocRange server [tao-follower]
      - cache list [tao-follower] tao.cache.found_in=none
        - GET client [tao-follower] db.system.name=redis tao.found=false
        - TierService/list_read client [tao-follower]
          - TierService/list_read server [tao-leader]
            - cache list [tao-leader] tao.cache.found_in=none
              - TierService/list_read client [tao-leader]
                - TierService/list_read server [tao-shard]
                  - SELECT assocs client [tao-shard] db.system.name=postgresql
";

/// The same once more.
const HIT: &str = "\
- a hit [example]
  - tao.v1.GraphService/AssocRange client [example]
    - tao.v1.GraphService/AssocRange server [tao-follower] tao.cache.found_in=memory
";

/// Runs a tier that exports to the collector, and only what its callers sample.
fn tier(args: &[&str], collector: &Collector) -> (Process, String) {
    let endpoint = collector.url();
    let more = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let traces = ["--otlp-endpoint", &endpoint, "--trace-ratio", "0"];
    let args = [args, &more, &traces].concat();
    let mut process = Process::spawn(TAO, &args, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).unwrap();
    let line = process.wait_line("listening for gRPC", WITHIN).unwrap();
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (process, address)
}

async fn add_user(session: &Session) -> i64 {
    let user = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    session.object_add(user).await.unwrap().object.unwrap().id
}

/// On one thread, so that the subscriber sees what the client does.
#[tokio::test]
async fn a_trace_goes_through_all_tiers_and_only_if_it_is_sampled() {
    let collector = Arc::new(Collector::start().await);
    let postgres = Postgres::start().unwrap();
    let redis = Redis::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    let (_shard, shard) = tier(&["shard", "--store", &url], &collector);
    let (_leader, leader) = tier(&["leader", "--shard", &shard], &collector);
    let (mut front, follower) = tier(&["follower", "--leader", &leader, "--redis", &redis.url()], &collector);
    ready(&follower).await;

    let mut options = TelemetryOptions::new("example");
    options.otlp_endpoint = Some(collector.url());
    let (layer, mut guard) = telemetry::traces(&options).unwrap();
    let subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let piped = Client::connect(&follower, ClientOptions::default()).unwrap().session();
    let single = ClientOptions { pipeline: false, ..ClientOptions::default() };
    let single = Client::connect(&follower, single).unwrap().session();
    // Without a span of theirs.
    let users = [add_user(&piped).await, add_user(&single).await, add_user(&piped).await];
    let follow = |id1: i64, id2: i64| AssocAddRequest { id1, r#type: "follows".to_owned(), id2, ..Default::default() };
    piped.assoc_add(follow(users[2], users[0])).await.unwrap();

    let mut traces = Vec::new();
    for (session, id1, id2) in [(&piped, users[0], users[1]), (&single, users[1], users[0])] {
        let range = AssocRangeRequest { id1, r#type: "follows".to_owned(), ..Default::default() };
        let write = tao_trace::begin("a write", || None);
        write.around(session.assoc_add(follow(id1, id2))).await.unwrap();
        let miss = tao_trace::begin("a miss", || None);
        miss.around(session.assoc_range(range.clone())).await.unwrap();
        let hit = tao_trace::begin("a hit", || None);
        hit.around(session.assoc_range(range)).await.unwrap();
        for (span, tree) in [(write, WRITE), (miss, MISS), (hit, HIT)] {
            traces.push((span.context().trace_id().to_string(), tree));
        }
    }
    drop(subscriber);
    tokio::task::spawn_blocking(move || guard.flush()).await.unwrap();
    let mut shown = Vec::new();
    for (trace, tree) in &traces {
        let seen = tao_harness::eventually_async(WITHIN, async || {
            let seen = collector.tree(trace, false);
            ensure!(seen == *tree, "{seen}\ninstead of\n{tree}");
            Ok(())
        });
        seen.await.unwrap();
        shown.push(collector.tree(trace, true));
    }
    println!("{}", shown[..3].join("\n"));
    // Whatever was to be exported is, at the end.
    assert!(front.terminate().unwrap().success());
    let mut known: Vec<_> = traces.into_iter().map(|(trace, _)| trace).collect();
    known.sort();
    assert_eq!(collector.traces(), known, "what nobody samples has no spans");
}

/// What a process logs of a call says which trace it is of; what takes long is logged.
#[tokio::test]
async fn slow_requests_are_logged_with_their_trace() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start().await;
    let folder = tao_harness::TempDir::new().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let endpoint = collector.url();
    let args = ["dev", "--no-sample", "--data", &data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let more = ["--otlp-endpoint", &endpoint, "--log-format", "json", "--slow-request-ms", "0.001"];
    let mut process = Process::spawn(TAO, [&args[..], &more].concat(), &[]).unwrap();
    let address = process.wait_line("tao is ready: gRPC on ", WITHIN).unwrap();
    let address = address.split("gRPC on ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let mut graph = crate::cluster::connect(&address).await;
    let mut request = tonic::Request::new(ObjectGetRequest { id: 1, options: None });
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    graph.object_get(request).await.unwrap_err();
    let line = process.wait_line(TRACE, WITHIN).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["message"], &line["trace_id"]), (&"slow request".into(), &TRACE.into()), "{line}");
    assert!(line["seconds"].as_f64().unwrap() > 0.0, "{line}");
}
