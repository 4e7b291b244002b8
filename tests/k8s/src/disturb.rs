//! What happens to a store that runs on Kubernetes, each with its end: all is as it was, or as it was asked to be.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tao_harness::eventually;

use crate::cluster::{self, Cluster, NAMESPACE, Pod, Tier};
use crate::process;

/// Until clients notice what changed: a few seconds, and generous on a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// All pods of a tier, one after the other.
pub fn rolling_restart(cluster: &Cluster, tier: Tier) -> Result<()> {
    let before = cluster.pods(tier)?;
    cluster.run(&["rollout", "restart", tier.controller()])?;
    cluster.wait_rollout(tier)?;
    cluster.wait_replaced(tier, &before).map(drop)
}

/// One pod is deleted, politely, and comes back.
pub fn delete_pod(cluster: &Cluster, tier: Tier) -> Result<()> {
    let before = cluster.pods(tier)?;
    let lost = before.first().with_context(|| format!("there is no {}", tier.component()))?;
    cluster.run(&["delete", "pod", &lost.name, "--wait=true"])?;
    cluster.wait_for(tier, |pods| pods.len() == before.len() && pods.iter().all(|pod| pod.uid != lost.uid)).map(drop)
}

/// The pod of what the tiers stand on is deleted, and comes back.
pub fn delete_server(cluster: &Cluster, pod: &str) -> Result<()> {
    cluster.run(&["delete", "pod", pod, "--wait=true"])?;
    // It is made anew under the same name.
    eventually(NOTICED_WITHIN, || cluster.run(&["wait", "--for=condition=Ready", "--timeout=5s", "pod", pod]).map(drop))
}

/// The program in one pod is killed (SIGKILL), and started again in it: the one restart that is not a crash.
pub fn kill_program(cluster: &Cluster, tier: Tier) -> Result<()> {
    let before = cluster.pods(tier)?;
    let killed = before.first().with_context(|| format!("there is no {}", tier.component()))?;
    process::kill(killed)?;
    let is_back = |pod: &Pod| pod.uid != killed.uid || pod.restarts > killed.restarts;
    cluster.wait_for(tier, |pods| pods.len() == before.len() && pods.iter().all(is_back)).map(drop)
}

/// More followers, and then fewer than there were. Each that comes is found and asked by clients that were there before.
pub fn scale_followers(cluster: &Cluster, up: usize, down: usize) -> Result<()> {
    let controller = Tier::Follower.controller();
    cluster.run(&["scale", controller, &format!("--replicas={up}")])?;
    let pods = cluster.wait_pods(Tier::Follower, up)?;
    for pod in &pods {
        let before = cluster::reads(pod)?;
        let busy = || {
            let now = cluster::reads(pod)?;
            ensure!(now >= before + 50.0, "{} answered {} reads", pod.name, now - before);
            Ok(())
        };
        eventually(NOTICED_WITHIN, busy).context("a follower that came gets no load")?;
    }
    cluster.run(&["scale", controller, &format!("--replicas={down}")])?;
    cluster.wait_pods(Tier::Follower, down).map(drop)
}

/// A line of the configuration file changes: every pod that reads it is replaced.
pub fn change_config(cluster: &Cluster, tag: &str) -> Result<()> {
    let file = cluster.manifest("overlays/test/tao.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let changed = text.replace("[server]\n", "[server]\nlog = \"info,tao_cache=debug\"\n");
    ensure!(changed != text, "{} has no [server]", file.display());
    fs::write(&file, changed)?;
    replace_all(cluster, tag)
}

/// Applies the manifests with this image, or as they have changed, and waits until all pods are others.
pub fn replace_all(cluster: &Cluster, tag: &str) -> Result<()> {
    let before = Tier::ALL.into_iter().map(|tier| cluster.pods(tier)).collect::<Result<Vec<_>>>()?;
    cluster.apply(tag)?;
    cluster.wait_rollouts()?;
    for (tier, before) in Tier::ALL.into_iter().zip(before) {
        cluster.wait_replaced(tier, &before)?;
    }
    Ok(())
}

/// A node is drained by evictions: one pod of a tier goes, and the budget keeps the other until that one is back.
pub fn evict(cluster: &Cluster, tier: Tier) -> Result<()> {
    let before = cluster.pods(tier)?;
    let [first, second, ..] = &before[..] else { bail!("there is one {} alone", tier.component()) };
    eviction(cluster, &first.name)?;
    let refused = eviction(cluster, &second.name).err().context("two of a tier were evicted at once")?;
    let said = format!("{refused:#}");
    ensure!(said.contains("disruption budget"), "the second eviction failed otherwise: {said}");
    cluster.wait_for(tier, |pods| pods.len() == before.len() && pods.iter().all(|pod| pod.uid != first.uid)).map(drop)
}

fn eviction(cluster: &Cluster, pod: &str) -> Result<()> {
    let file = cluster.manifest("eviction.json");
    let body = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": NAMESPACE },
    });
    fs::write(&file, body.to_string())?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
    cluster.run(&["create", "--raw", &path, "-f", &file.to_string_lossy()]).map(drop)
}
