//! What Grafana and Prometheus are given in deploy/ works on a running cluster: every panel's and every alert's query has an answer, and
//! every metric is described.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value as Json;
use tao_client::{Client, ClientOptions, Session};
use tao_harness::{Postgres, Process, Prometheus, Redis, http_get, promtool, repository};
use tao_proto::v1::*;

use crate::cluster::{TAO, ready};
use crate::security::{Files, tier_flags};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(90);
const ALERTS: &str = "deploy/prometheus/alerts.yaml";

/// Runs a tier; its addresses of the admin port and of gRPC.
fn tier(args: &[&str]) -> (Process, String, String) {
    let args = [args, &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]].concat();
    let mut process = Process::spawn(TAO, &args, &[]).unwrap();
    let mut address = |line: &str| {
        let line = process.wait_line(line, WITHIN).unwrap();
        line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (admin, grpc) = (address("listening for probes and metrics"), address("listening for gRPC"));
    (process, admin, grpc)
}

/// Every query of the dashboard, with the title of its panel.
fn panels() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("deploy/grafana/tao.json")).unwrap();
    let dashboard: Json = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // As Grafana does it, for a scrape every second.
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "20s");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(queries.len() >= 40, "{queries:?}");
    queries
}

/// Every alert with its query: whole, and without the bound at its end, since none is to fire.
fn alerts() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(repository().join(ALERTS)).unwrap();
    let mut alerts = Vec::new();
    for rule in text.split("- alert: ").skip(1) {
        let (name, rest) = rule.split_once('\n').unwrap();
        let lines = rest.lines().skip_while(|line| !line.trim_start().starts_with("expr:"));
        let mut lines = lines.map(str::trim);
        let first = lines.next().unwrap().trim_start_matches("expr:").trim_start_matches(" >-").trim();
        let more = lines.take_while(|line| !["for:", "labels:"].iter().any(|key| line.starts_with(key)));
        let whole = std::iter::once(first).chain(more).collect::<Vec<_>>().join(" ");
        let bound = whole.rfind([' ']).and_then(|end| whole[..end].rfind(' ')).unwrap();
        assert!([" > ", " < "].iter().any(|sign| whole[bound..].starts_with(sign)), "{name} has no bound: {whole}");
        alerts.push((name.to_owned(), whole.clone(), whole[..bound].to_owned()));
    }
    assert!(alerts.len() >= 15, "{alerts:?}");
    alerts
}

/// Reads and writes of all kinds, and some that fail, until told to stop.
async fn load(session: Session, stop: &AtomicBool) {
    let user = || ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    let mut users = Vec::new();
    for _ in 0..20 {
        users.push(session.object_add(user()).await.unwrap().object.unwrap().id);
    }
    while !stop.load(Ordering::Relaxed) {
        let one = |n: usize| {
            let (session, id1, id2) = (session.clone(), users[n % 20], users[(n * 7 + 1) % 20]);
            async move {
                let r#type = "follows".to_owned();
                let follow = AssocAddRequest { id1, r#type: r#type.clone(), id2, ..Default::default() };
                session.assoc_add(follow).await?;
                session.assoc_range(AssocRangeRequest { id1, r#type: r#type.clone(), ..Default::default() }).await?;
                session.assoc_count(AssocCountRequest { id1, r#type, ..Default::default() }).await?;
                session.object_get(ObjectGetRequest { id: id1, options: None }).await?;
                // Nobody has it.
                session.object_get(ObjectGetRequest { id: 1, options: None }).await.unwrap_err();
                Ok::<_, tao_client::ClientError>(())
            }
        };
        for done in futures::future::join_all((0..40).map(one)).await {
            done.unwrap();
        }
    }
}

/// What a query gives: the number of series and one of them. An error when there is none, or none with a number.
fn ask(prometheus: &Prometheus, query: &str) -> Result<(usize, String)> {
    let answer: Json = serde_json::from_str(&prometheus.query(query)?)?;
    let series = answer.as_array().context("not a list")?;
    let value = |series: &Json| series["value"][1].as_str().map(str::to_owned).filter(|value| value != "NaN");
    let (labels, value) = series
        .iter()
        .find_map(|one| Some((one["metric"].to_string(), value(one)?)))
        .with_context(|| format!("{query} has no data"))?;
    Ok((series.len(), format!("{labels} {value}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_alert_has_data() {
    let postgres = Postgres::start().unwrap();
    let redis = Redis::start().unwrap();
    let url = postgres.create_database("tao").unwrap();
    // Certificates have an end.
    let files = Files::new("ours");
    files.issue("tier", &["tao-tier"]);
    let secure = tier_flags(&files);
    let secured = |args: &[&str]| tier(&[args, &secure.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let (_shard, shard_admin, shard) = secured(&["shard", "--store", &url]);
    // Calls wait at its gate.
    let (_leader, leader_admin, leader) = secured(&["leader", "--shard", &shard, "--shard-concurrency", "1"]);
    let (_follower, follower_admin, follower) =
        secured(&["follower", "--leader", &leader, "--redis", &redis.url(), "--audit-per-second", "20"]);
    ready(&follower).await;
    let admins = [shard_admin, leader_admin, follower_admin];
    let prometheus = Prometheus::start("tao", &admins, &repository().join(ALERTS)).unwrap();

    let session = Client::connect(&follower, ClientOptions::default()).unwrap().session();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn({
        let stop = stop.clone();
        async move { load(session, &stop).await }
    });
    let (panels, alerts) = (panels(), alerts());
    let checking = tokio::task::spawn_blocking(move || {
        let wait = |what: &str, query: &str| {
            let answer = tao_harness::eventually(WITHIN, || ask(&prometheus, query));
            let (series, one) = answer.unwrap_or_else(|error| panic!("{what}: {error:#}"));
            println!("{what}: {query}\n    {series} series, such as {one}");
        };
        for (title, query) in &panels {
            wait(title, query);
        }
        for (name, whole, left) in &alerts {
            wait(name, left);
            prometheus.query(whole).unwrap();
        }
    });
    checking.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    loading.await.unwrap();

    let mut samples = BTreeMap::new();
    for admin in &admins {
        let text = http_get(admin, "/metrics").unwrap();
        // Names, units and descriptions, after Prometheus' conventions.
        promtool(&["check", "metrics"], &text).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let name = line.split(['{', ' ']).next().unwrap().to_owned();
            samples.entry(name).or_insert_with(|| line.to_owned());
        }
    }
    println!("{}", samples.into_values().collect::<Vec<_>>().join("\n"));
}

#[test]
fn alerts_fire_on_what_they_are_for() {
    let test = repository().join("deploy/prometheus/alerts_test.yaml");
    let text = std::fs::read_to_string(&test).unwrap();
    for (name, ..) in alerts() {
        assert!(text.contains(&format!("alertname: {name}\n")), "nothing fires {name}");
    }
    promtool(&["test", "rules", &test.to_string_lossy()], "").unwrap();
    promtool(&["check", "rules", &repository().join(ALERTS).to_string_lossy()], "").unwrap();
}

/// What is logged can be changed, and a profile be taken, while a server runs.
#[tokio::test]
async fn operators_change_logs_and_take_profiles() -> Result<()> {
    let folder = tao_harness::TempDir::new()?;
    let data = folder.path().to_string_lossy().into_owned();
    let (mut process, admin, address) = {
        let args = ["dev", "--no-sample", "--data", &data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut process = Process::spawn(TAO, args, &[])?;
        let line = process.wait_line("listening for probes and metrics", WITHIN)?;
        let admin = line.split("address=").nth(1).context("an address")?.trim().to_owned();
        let line = process.wait_line("tao is ready: gRPC on ", WITHIN)?;
        let address =
            line.split("gRPC on ").nth(1).context("an address")?.split(',').next().unwrap_or_default().to_owned();
        (process, admin, address)
    };
    let ask = |request: &str| -> Result<(String, Vec<u8>)> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&admin)?;
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no HTTP")?;
        let status = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
        Ok((status, answer[end + 4..].to_vec()))
    };
    assert_eq!(ask("GET /log-filter")?, ("HTTP/1.1 200 OK".to_owned(), b"info\n".to_vec()));
    assert!(!process.log()?.contains("TRACE"));
    let (status, _) = ask("PUT /log-filter?filter=info,tao_runtime=trace,h2=trace")?;
    assert!(status.contains(" 200 "), "{status}");
    crate::cluster::connect(&address).await;
    process.wait_line("TRACE", WITHIN)?;
    assert_eq!(ask("GET /log-filter")?.1, b"info,tao_runtime=trace,h2=trace\n");
    for (wrong, code) in [
        ("PUT /log-filter?filter=a=b=c", 400),
        ("PUT /log-filter", 400),
        ("POST /log-filter", 405),
        ("GET /debug/pprof/profile?seconds=0", 400),
    ] {
        let (status, _) = ask(wrong)?;
        assert!(status.contains(&format!(" {code} ")), "{wrong}: {status}");
    }

    let session = Client::connect(&address, ClientOptions::default())?.session();
    let busy =
        tokio::spawn(
            async move { while session.object_get(ObjectGetRequest { id: 1, options: None }).await.is_err() {} },
        );
    let (admin, repository) = (admin.clone(), repository());
    let profile = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new("go");
        command.args([
            "tool",
            "pprof",
            "-top",
            "-nodecount=500",
            // It looks names up when the time is over.
            "-timeout=80",
            &format!("http://{admin}/debug/pprof/profile?seconds=4"),
        ]);
        command.current_dir(repository).output()
    });
    let profile = profile.await??;
    busy.abort();
    let top = String::from_utf8_lossy(&profile.stdout);
    ensure!(
        profile.status.success() && top.contains("tao_follower::"),
        "{top}{}",
        String::from_utf8_lossy(&profile.stderr)
    );
    assert!(!top.contains("trace_unsynchronized"), "the profiler shows itself: {top}");
    println!("{}", top.lines().take(12).collect::<Vec<_>>().join("\n"));
    Ok(())
}
