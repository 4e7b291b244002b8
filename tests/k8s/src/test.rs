//! The test: the manifests applied, the API used, and everything disturbed that Kubernetes disturbs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tao_harness::{grpcurl, repository};

use crate::cluster::{Cluster, FOLLOWERS, SERVICE, Tier};
use crate::disturb;
use crate::guide;
use crate::images::{CURRENT, PREVIOUS};
use crate::load::Load;
use crate::node::Node;
use crate::production;
use crate::report::{DATABASE_GONE, Report, Row};
use crate::secured;
use crate::volumes;

/// Undisturbed, for comparison.
const QUIET: Duration = Duration::from_secs(15);
/// After each disturbance, what comes of it is still counted to it.
const AFTER: Duration = Duration::from_secs(2);

/// Everything, in its order; the report is printed as it grows.
pub fn all(node: &Node, has_previous: bool, cargo: &[String]) -> Result<ExitCode> {
    volumes::make(node, 0, 4)?;
    let cluster = Cluster::new(node, "test")?;
    let mut reports = Vec::new();

    let first = if has_previous { PREVIOUS } else { CURRENT };
    step("apply the overlay `test`", || {
        cluster.apply(first)?;
        cluster.wait_rollouts()
    })?;
    println!("{}", cluster.run(&["get", "pods", "-o", "wide"])?);
    step("grpcurl through the Service", first_edge)?;
    if has_previous {
        let report = under_load(&cluster, |watch| {
            watch("quiet, the version before", &|_| Ok(()))?;
            watch("upgrade", &|cluster| disturb::replace_all(cluster, CURRENT))?;
            watch("rollback", &|cluster| disturb::replace_all(cluster, PREVIOUS))?;
            watch("upgrade again", &|cluster| disturb::replace_all(cluster, CURRENT))
        })?;
        reports.push(report);
    }
    step("the API suite through the Service", || api_suite(cargo))?;
    reports.push(under_load(&cluster, disturbances)?);
    step("delete the overlay `test`", || cluster.delete())?;

    volumes::make(node, 4, 4)?;
    step("the guide's first edge, with the overlay `dev`", || guide::first_edge(node))?;
    let files = node.path("tls");
    step("production's manifests", || {
        guide::before_production(node, &files)?;
        production::admitted(node)
    })?;
    step("TLS, with the overlay `dev` and production's certificates", || secured::runs(node, &files))?;

    let clean = reports.iter().all(Report::is_clean);
    for report in &reports {
        println!("{}", report.json());
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Disturbances that have one program of a pod started again.
const KILLED: &str = "SIGKILL";

type Watch<'a> = &'a mut dyn FnMut(&str, &dyn Fn(&Cluster) -> Result<()>) -> Result<()>;

fn disturbances(watch: Watch) -> Result<()> {
    watch("quiet", &|_| Ok(()))?;
    for tier in Tier::ALL {
        watch(&format!("rolling restart: {}s", tier.component()), &|cluster| disturb::rolling_restart(cluster, tier))?;
    }
    for tier in Tier::ALL {
        watch(&format!("pod deleted: {}", tier.component()), &|cluster| disturb::delete_pod(cluster, tier))?;
        watch(&format!("{KILLED}: {}", tier.component()), &|cluster| disturb::kill_program(cluster, tier))?;
    }
    watch("pod deleted: redis-0", &|cluster| disturb::delete_server(cluster, "redis-0"))?;
    watch(DATABASE_GONE, &|cluster| disturb::delete_server(cluster, "postgres-0"))?;
    for tier in Tier::ALL {
        watch(&format!("evictions: {}s", tier.component()), &|cluster| disturb::evict(cluster, tier))?;
    }
    watch("followers 2 to 4 to 1", &|cluster| disturb::scale_followers(cluster, 4, 1))?;
    watch("followers 1 to 2", &|cluster| disturb::scale_followers(cluster, 2, 2))?;
    watch("config change", &|cluster| disturb::change_config(cluster, CURRENT))
}

/// Runs a load, and disturbances one after the other, each a row of the report.
fn under_load(cluster: &Cluster, disturbances: impl FnOnce(Watch) -> Result<()>) -> Result<Report> {
    let mut report = Report::default();
    let mut load = Load::start(FOLLOWERS)?;
    load.take();
    let mut watch = |what: &str, disturb: &dyn Fn(&Cluster) -> Result<()>| {
        let (began, before) = (Instant::now(), cluster.restarts()?);
        let done = disturb(cluster).with_context(|| what.to_owned());
        let settle = if report.rows.is_empty() { QUIET } else { AFTER };
        std::thread::sleep(settle);
        let more = |(pod, now): (String, u64)| now - before.get(&pod).copied().unwrap_or(0).min(now);
        let restarts: u64 = cluster.restarts()?.into_iter().map(more).sum();
        let restarts = restarts.saturating_sub(u64::from(what.starts_with(KILLED)));
        report.rows.push(Row { what: what.to_owned(), took: began.elapsed(), tally: load.take(), restarts });
        eprintln!("{what}: {:.0} s", began.elapsed().as_secs_f64());
        done
    };
    let done = disturbances(&mut watch);
    // What was seen until something failed is told as well.
    let finished = load.finish().map(|lost| report.lost = lost);
    println!("{}", report.table());
    done.and(finished).map(|()| report)
}

fn step(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    act().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Two users and an edge between them, by the tool that people use.
fn first_edge() -> Result<()> {
    let call = |method: &str, request: &str| {
        let method = format!("tao.v1.GraphService/{method}");
        let answer = grpcurl(["-plaintext", "-max-time", "20", "-d", request, SERVICE, &method])?;
        serde_json::from_str::<serde_json::Value>(&answer).context("grpcurl printed no JSON")
    };
    let user = || -> Result<String> {
        let added = call("ObjectAdd", r#"{"type": "user"}"#)?;
        Ok(added["object"]["id"].as_str().context("no id")?.to_owned())
    };
    let (ann, bob) = (user()?, user()?);
    let added = call("AssocAdd", &format!(r#"{{"id1": {ann}, "type": "follows", "id2": {bob}}}"#))?;
    ensure!(added["count"] == "1", "the answer is {added}");
    println!("grpcurl … {SERVICE} tao.v1.GraphService/AssocAdd\n{added:#}");
    Ok(())
}

/// The cases that every deployment passes, as `cargo test` has built them with these flags.
fn api_suite(cargo: &[String]) -> Result<()> {
    let output = Command::new("cargo")
        .args(["test", "--offline"])
        .args(cargo)
        .args(["--package", "tao", "--test", "e2e", "--", "--exact", "api::given_addresses"])
        .current_dir(repository())
        .env("TAO_E2E_ADDRESSES", SERVICE)
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// The images' folder of a place.
pub fn images(folder: &Path) -> PathBuf {
    folder.join("images")
}
