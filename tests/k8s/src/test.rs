//! The test: the manifests applied, the API used, and everything disturbed that Kubernetes disturbs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tao_harness::{grpcurl, repository};

use crate::cluster::{Cluster, FOLLOWERS, SERVICE, Tier};
use crate::disturb;
use crate::images::{CURRENT, PREVIOUS};
use crate::load::Load;
use crate::node::Node;
use crate::report::{Report, Row};
use crate::volumes;

/// Undisturbed, for comparison.
const QUIET: Duration = Duration::from_secs(15);
/// After each disturbance, what comes of it is still counted to it.
const AFTER: Duration = Duration::from_secs(2);

/// Everything, in its order; the report is printed as it grows.
pub fn all(node: &Node, has_previous: bool) -> Result<ExitCode> {
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
    step("the API suite through the Service", api_suite)?;
    reports.push(under_load(&cluster, disturbances)?);

    let clean = reports.iter().all(Report::is_clean);
    for report in &reports {
        println!("{}", report.json());
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Watch<'a> = &'a mut dyn FnMut(&str, &dyn Fn(&Cluster) -> Result<()>) -> Result<()>;

fn disturbances(watch: Watch) -> Result<()> {
    watch("quiet", &|_| Ok(()))?;
    for tier in Tier::ALL {
        watch(&format!("rolling restart: {}s", tier.component()), &|cluster| disturb::rolling_restart(cluster, tier))?;
    }
    for tier in Tier::ALL {
        watch(&format!("pod deleted: {}", tier.component()), &|cluster| disturb::delete_pod(cluster, tier))?;
        watch(&format!("pod killed: {}", tier.component()), &|cluster| disturb::kill_pod(cluster, tier))?;
    }
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
    let restarts = cluster.restarts()?;
    let mut load = Load::start(FOLLOWERS)?;
    load.take();
    let mut watch = |what: &str, disturb: &dyn Fn(&Cluster) -> Result<()>| {
        let began = Instant::now();
        let done = disturb(cluster).with_context(|| what.to_owned());
        let settle = if report.rows.is_empty() { QUIET } else { AFTER };
        std::thread::sleep(settle);
        report.rows.push(Row { what: what.to_owned(), took: began.elapsed(), tally: load.take() });
        eprintln!("{what}: {:.0} s", began.elapsed().as_secs_f64());
        done
    };
    let done = disturbances(&mut watch);
    report.restarts = cluster.restarts()?.saturating_sub(restarts);
    report.lost = load.finish()?;
    println!("{}", report.table());
    done.map(|()| report)
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

/// The cases that every deployment passes, as `cargo test` has built them.
fn api_suite() -> Result<()> {
    let suite = std::env::var_os("TAO_E2E").map(PathBuf::from).context("TAO_E2E does not name the program e2e")?;
    let output = Command::new(&suite)
        .args(["--exact", "api::given_addresses", "--nocapture"])
        .current_dir(repository().join("services/tao"))
        .env("TAO_E2E_ADDRESSES", SERVICE)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", suite.display()))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// The images' folder of a place.
pub fn images(folder: &Path) -> PathBuf {
    folder.join("images")
}
