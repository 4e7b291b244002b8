//! A Kubernetes of one node: etcd, API server, controllers, scheduler, containerd, kubelet, kube-proxy and DNS, each a process.

use std::fs;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::distr::{Alphanumeric, SampleString as _};
use tao_harness::{Process, eventually};

use crate::kubectl::Kubectl;
use crate::outside::{self, Place};
use crate::run::run;

/// Until a part of the control plane answers, on a machine that does other things, too.
const START_WITHIN: Duration = Duration::from_secs(120);
const API: &str = "https://127.0.0.1:6443";

/// Who talks to the API server: user name and group.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controllers", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kubelet", "system:node:node1", "system:nodes"),
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Files of the node, and what they are called in its folder.
const FILES: &[(&str, &str)] = &[
    ("containerd.toml", include_str!("../node/containerd.toml")),
    ("cni/pods.conflist", include_str!("../node/cni.conflist")),
    ("kubelet.yaml", include_str!("../node/kubelet.yaml")),
    ("proxy.yaml", include_str!("../node/proxy.yaml")),
    ("Corefile", include_str!("../node/Corefile")),
    ("resolv.conf", include_str!("../node/resolv.conf")),
];

/// What kubelet 1.35 sets for the whole machine, below /proc/sys (its setupKernelTunables): no namespace has values of its own.
const TUNABLES: &[(&str, u32)] = &[
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// The running parts. They end with the namespace of processes that this runs in.
#[derive(Debug)]
pub struct Node {
    folder: PathBuf,
    parts: Vec<(&'static str, Process)>,
}

impl Node {
    /// Starts everything, and waits until the node takes pods. Inside of the place's namespaces.
    pub fn start(place: &Place) -> Result<Self> {
        let folder = place.folder.clone();
        mount(&folder)?;
        spare_the_kernel(&folder)?;
        network()?;
        for (name, text) in FILES {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap_or(&folder))?;
            let text = text.replace("@FOLDER@", &folder.to_string_lossy());
            fs::write(&file, text.replace("@CGROUP@", &format!("/{}", place.cgroup)))?;
        }
        run(Command::new("mount").args(["--bind", &path(&folder, "resolv.conf"), "/etc/resolv.conf"]))?;
        let key = path(&folder, "accounts.key");
        run(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]))?;
        users(&folder)?;

        let mut node = Self { folder, parts: Vec::new() };
        node.control_plane(&key)?;
        node.workers()?;
        Ok(node)
    }

    /// The administrator's way in.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(outside::kube(), self.folder.join("admin.kubeconfig"))
    }

    /// A folder with `kubectl` in it, as people call it.
    pub fn programs(&self) -> Result<PathBuf> {
        let folder = self.folder.join("bin");
        let file = folder.join("kubectl");
        fs::create_dir_all(&folder)?;
        fs::write(&file, format!("#!/bin/sh\nexec '{}' kubectl \"$@\"\n", outside::kube().display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// A file or folder of the node.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes the images of an archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let args = ["--address", "/run/containerd.sock", "--namespace", "k8s.io", "images", "import"];
        let imported = run(Command::new("ctr").args(args).arg(archive));
        imported.with_context(|| self.log_tails()).map(drop)
    }

    /// The ends of all logs, for a failure's sake.
    pub fn log_tails(&self) -> String {
        self.parts.iter().map(|(name, part)| format!("== {name}\n{}\n", part.log_tail())).collect()
    }

    fn control_plane(&mut self, key: &str) -> Result<()> {
        let etcd = path(&self.folder, "etcd");
        self.part("etcd", &["etcd", &etcd, "http://127.0.0.1:2379", "http://127.0.0.1:2380"])?;
        let (tokens, certificates) = (path(&self.folder, "tokens.csv"), path(&self.folder, "certificates"));
        self.part(
            "apiserver",
            &[
                "apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                "--advertise-address=10.99.0.1",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--allow-privileged=true",
                "--authorization-mode=Node,RBAC",
                &format!("--token-auth-file={tokens}"),
                &format!("--cert-dir={certificates}"),
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-key-file={key}"),
                &format!("--service-account-signing-key-file={key}"),
                // The node's name is not known to any resolver.
                "--kubelet-preferred-address-types=InternalIP",
            ],
        )?;
        let kubectl = self.kubectl();
        let answers = || kubectl.run(&["get", "--raw", "/readyz"]).map(drop);
        eventually(START_WITHIN, answers).with_context(|| self.log_tails())?;
        self.part(
            "controllers",
            &[
                "controllers",
                &self.kubeconfig("controllers"),
                "--leader-elect=false",
                "--use-service-account-credentials",
                &format!("--service-account-private-key-file={key}"),
                &format!("--root-ca-file={certificates}/apiserver.crt"),
            ],
        )?;
        self.part("scheduler", &["scheduler", &self.kubeconfig("scheduler"), "--leader-elect=false"])
    }

    fn workers(&mut self) -> Result<()> {
        let mut containerd = Command::new("containerd");
        containerd.args(["--config", &path(&self.folder, "containerd.toml")]).env("PATH", programs());
        self.parts.push(("containerd", Process::from_command(containerd)?));
        let images = || {
            run(Command::new("ctr").args([
                "--address",
                "/run/containerd.sock",
                "--namespace",
                "k8s.io",
                "images",
                "ls",
            ]))
        };
        eventually(START_WITHIN, images).with_context(|| self.log_tails())?;
        self.part(
            "kubelet",
            &[
                "kubelet",
                &self.kubeconfig("kubelet"),
                &format!("--config={}", path(&self.folder, "kubelet.yaml")),
                &format!("--root-dir={}", path(&self.folder, "kubelet")),
                &format!("--cert-dir={}", path(&self.folder, "kubelet-certificates")),
                "--hostname-override=node1",
                "--node-ip=10.99.0.1",
                "--node-labels=topology.kubernetes.io/zone=zone1",
            ],
        )?;
        self.part("proxy", &["proxy", &format!("--config={}", path(&self.folder, "proxy.yaml"))])?;
        self.part("dns", &["dns", "-conf", &path(&self.folder, "Corefile")])?;
        let kubectl = self.kubectl();
        let ready = || kubectl.run(&["wait", "--for=condition=Ready", "--timeout=1s", "node/node1"]).map(drop);
        eventually(START_WITHIN, ready).with_context(|| self.log_tails())?;
        let resolves = || Ok(("kubernetes.default.svc.cluster.local", 443).to_socket_addrs().map(drop)?);
        eventually(START_WITHIN, resolves).with_context(|| self.log_tails())
    }

    fn part(&mut self, name: &'static str, args: &[&str]) -> Result<()> {
        let mut command = Command::new(outside::kube());
        command.args(args).env("PATH", programs());
        self.parts.push((name, Process::from_command(command)?));
        Ok(())
    }

    fn kubeconfig(&self, user: &str) -> String {
        format!("--kubeconfig={}", path(&self.folder, &format!("{user}.kubeconfig")))
    }
}

/// Everything that is written outside of the folder goes to memory, and with the namespace of mounts.
fn mount(folder: &Path) -> Result<()> {
    for hidden in ["/run", "/var/log"] {
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", hidden]))?;
    }
    for layer in ["/run/upper", "/run/work"] {
        fs::create_dir(layer)?;
    }
    let layers = "lowerdir=/var/lib,upperdir=/run/upper,workdir=/run/work";
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", layers, "/var/lib"]))?;
    // What kubelet mounts into pods is to be seen in theirs, and what pods' runtimes mount in kubelet's.
    let folder = folder.to_string_lossy();
    run(Command::new("mount").args(["--bind", &folder, &folder]))?;
    run(Command::new("mount").args(["--make-rshared", &folder])).map(drop)
}

/// Has kubelet find the kernel's settings as it wants them, so that it leaves the machine's alone: it reads files that lie over them.
fn spare_the_kernel(folder: &Path) -> Result<()> {
    let settings = folder.join("sysctl");
    fs::create_dir(&settings)?;
    for (name, value) in TUNABLES {
        let file = settings.join(name.replace('/', "."));
        fs::write(&file, format!("{value}\n"))?;
        run(Command::new("mount").arg("--bind").arg(file).arg(Path::new("/proc/sys").join(name)))?;
    }
    Ok(())
}

/// A network that ends at this machine: the node's address, and one for DNS, on a bridge that leads nowhere.
fn network() -> Result<()> {
    for args in [
        "link set lo up",
        "link add node0 type bridge",
        "address add 10.99.0.1/24 dev node0",
        "address add 10.99.0.53/24 dev node0",
        "link set node0 up",
        "route add default via 10.99.0.1",
    ] {
        run(Command::new("ip").args(args.split(' ')))?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward between pods")
}

/// A token for everybody who talks to the API server, and a file that says how.
fn users(folder: &Path) -> Result<()> {
    let mut tokens = String::new();
    for (name, user, group) in USERS {
        let token = Alphanumeric.sample_string(&mut rand::rng(), 32);
        tokens.push_str(&format!("{token},{user},{user},\"{group}\"\n"));
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: {API:?}, insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: {user:?}, user: {{token: {token}}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: {user:?}}}}}]\n"
        );
        fs::write(folder.join(format!("{name}.kubeconfig")), config)?;
    }
    fs::write(folder.join("tokens.csv"), tokens).context("cannot write the tokens")
}

/// Where programs are, also those that only root uses.
fn programs() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}
