//! The store as it is deployed: what the manifests say, applied, watched and disturbed with kubectl.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tao_harness::{eventually, http_get, repository};

use crate::kubectl::Kubectl;
use crate::node::Node;

/// The namespace of everything.
pub const NAMESPACE: &str = "tao-test";
/// Where clients find all followers.
pub const FOLLOWERS: &str = "tao-followers.tao-test.svc.cluster.local:50051";
/// The address that stays the same.
pub const SERVICE: &str = "tao.tao-test.svc.cluster.local:50051";
/// A rollout of all tiers, with images that are there.
const ROLLOUT_WITHIN: &str = "--timeout=240s";
const SOON: Duration = Duration::from_secs(120);

/// What runs a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Storage shards.
    Shard,
    /// Leaders.
    Leader,
    /// Followers.
    Follower,
}

impl Tier {
    /// All, from the database to the clients.
    pub const ALL: [Self; 3] = [Self::Shard, Self::Leader, Self::Follower];

    /// The label `app.kubernetes.io/component` of its pods.
    pub const fn component(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Leader => "leader",
            Self::Follower => "follower",
        }
    }

    /// Its controller, as kubectl takes it.
    pub const fn controller(self) -> &'static str {
        match self {
            Self::Shard => "statefulset/tao-shard",
            Self::Leader => "statefulset/tao-leader",
            Self::Follower => "deployment/tao-follower",
        }
    }
}

/// A pod that is not on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Differs between two pods that have the same name after each other.
    pub uid: String,
    /// Its address; empty until it has one.
    pub ip: String,
    /// Whether it takes requests.
    pub is_ready: bool,
    /// How often its container came back.
    pub restarts: u64,
}

/// The manifests, as they are changed by the tests, and the cluster that they are applied to.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    manifests: PathBuf,
    overlay: String,
}

impl Cluster {
    /// Of an overlay of the repository's manifests; nothing is applied yet.
    pub fn new(node: &Node, overlay: &str) -> Result<Self> {
        let manifests = node.path("k8s");
        if manifests.exists() {
            fs::remove_dir_all(&manifests)?;
        }
        copy(&repository().join("k8s"), &manifests)?;
        Ok(Self { kubectl: node.kubectl(), manifests, overlay: overlay.to_owned() })
    }

    /// kubectl, in the store's namespace.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(&[&["--namespace", NAMESPACE], args].concat())
    }

    /// Where a manifest is, to be changed.
    pub fn manifest(&self, path: &str) -> PathBuf {
        self.manifests.join(path)
    }

    /// Applies the overlay with the image of this tag.
    pub fn apply(&self, tag: &str) -> Result<()> {
        let folder = self.manifests.join("overlays/applied");
        fs::create_dir_all(&folder)?;
        let kustomization = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../{}]\n\
             images: [{{name: tao, newTag: {tag:?}}}]\n",
            self.overlay
        );
        fs::write(folder.join("kustomization.yaml"), kustomization)?;
        self.run(&["apply", "-k", &folder.to_string_lossy()]).map(drop)
    }

    /// Deletes all that was applied, and waits until it is gone.
    pub fn delete(&self) -> Result<()> {
        self.kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).map(drop)
    }

    /// Waits until all pods of a tier are as its controller says now.
    pub fn wait_rollout(&self, tier: Tier) -> Result<()> {
        let waited = self.run(&["rollout", "status", tier.controller(), ROLLOUT_WITHIN]);
        waited.with_context(|| self.story()).map(drop)
    }

    /// The same of all tiers.
    pub fn wait_rollouts(&self) -> Result<()> {
        Tier::ALL.into_iter().try_for_each(|tier| self.wait_rollout(tier))
    }

    /// The pods of a tier, by name.
    pub fn pods(&self, tier: Tier) -> Result<Vec<Pod>> {
        let selector = format!("app.kubernetes.io/component={}", tier.component());
        let list = self.kubectl.get(&["--namespace", NAMESPACE, "pods", "--selector", &selector])?;
        let items = list["items"].as_array().context("no list of pods")?;
        let mut pods: Vec<Pod> =
            items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(pod).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pods)
    }

    /// Waits until a tier has exactly so many pods, and all of them are ready.
    pub fn wait_pods(&self, tier: Tier, count: usize) -> Result<Vec<Pod>> {
        self.wait_for(tier, |pods| pods.len() == count)
    }

    /// Waits until these pods are gone and as many others are ready.
    pub fn wait_replaced(&self, tier: Tier, before: &[Pod]) -> Result<Vec<Pod>> {
        self.wait_for(tier, |pods| {
            pods.len() == before.len() && pods.iter().all(|pod| before.iter().all(|old| old.uid != pod.uid))
        })
    }

    /// Waits until a tier's pods are as wanted, all of them ready.
    pub fn wait_for(&self, tier: Tier, wanted: impl Fn(&[Pod]) -> bool) -> Result<Vec<Pod>> {
        let probe = || {
            let pods = self.pods(tier)?;
            ensure!(wanted(&pods) && pods.iter().all(|pod| pod.is_ready), "the pods are {pods:?}");
            Ok(pods)
        };
        eventually(SOON, probe).with_context(|| self.story())
    }

    /// By pod of the tiers, how often its container came back.
    pub fn restarts(&self) -> Result<BTreeMap<String, u64>> {
        let pods = Tier::ALL.into_iter().map(|tier| self.pods(tier)).collect::<Result<Vec<_>>>()?;
        Ok(pods.into_iter().flatten().map(|pod| (pod.uid, pod.restarts)).collect())
    }

    /// What went on, for a failure's sake.
    pub fn story(&self) -> String {
        let mut story = String::new();
        let pods = self.run(&["get", "pods", "-o", "wide"]);
        let events = self.run(&["get", "events", "--sort-by=.lastTimestamp"]);
        for text in [pods, events].into_iter().flatten() {
            let lines: Vec<_> = text.lines().collect();
            story.push_str(&lines[lines.len().saturating_sub(40)..].join("\n"));
            story.push('\n');
        }
        for tier in Tier::ALL {
            let selector = format!("app.kubernetes.io/component={}", tier.component());
            if let Ok(logs) = self.run(&["logs", "--selector", &selector, "--prefix", "--tail=30"]) {
                story.push_str(&logs);
            }
        }
        story
    }
}

fn pod(pod: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    let containers = pod["status"]["containerStatuses"].as_array();
    Pod {
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        ip: text(&pod["status"]["podIP"]),
        is_ready,
        restarts: containers.map_or(0, |all| all.iter().filter_map(|c| c["restartCount"].as_u64()).sum()),
    }
}

/// How many reads a follower has answered since it started.
pub fn reads(pod: &Pod) -> Result<f64> {
    let metrics = http_get(&format!("{}:9464", pod.ip), "/metrics")?;
    let counted = ["tao_cache_hits_total", "tao_cache_misses_total"];
    let lines = metrics.lines().filter(|line| counted.iter().any(|name| line.starts_with(name)));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
