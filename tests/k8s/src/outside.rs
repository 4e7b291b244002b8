//! The machine, and the namespaces in which everything runs: nothing of it can be reached from outside, and all of it ends with
//! the first process in it.

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tao_harness::{TempDir, repository};
use tokio::signal::unix::{SignalKind, signal};

/// Where the folder of everything is, for the process inside.
const FOLDER: &str = "TAO_K8S_FOLDER";
/// The name of the control groups, for the process inside.
const CGROUP: &str = "TAO_K8S_CGROUP";

/// How the names of control groups begin; the process that made them follows.
const GROUPS: &str = "tao-k8s-";

/// Programs that are needed, and Debian's packages of them.
const NEEDED: &[(&str, &str)] = &[
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("buildah", "buildah"),
    ("openssl", "openssl"),
    ("gcc", "gcc"),
];

/// What the process inside was given.
#[derive(Debug, Clone)]
pub struct Place {
    /// A folder that goes when all ends.
    pub folder: PathBuf,
    /// The control group under which pods' groups are.
    pub cgroup: String,
}

impl Place {
    /// The place that this process is in, if it is inside.
    pub fn inside() -> Option<Self> {
        Some(Self { folder: env::var_os(FOLDER)?.into(), cgroup: env::var(CGROUP).ok()? })
    }
}

/// Why this machine can't do it; nothing if it can.
pub fn lacking() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a kubelet runs on Linux alone".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("a kubelet runs as root alone".to_owned());
    }
    let missing: Vec<_> = NEEDED.iter().filter(|(program, _)| !in_path(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        return Some(format!("not installed: {} (tests/tools/install.sh k8s installs them)", missing.join(", ")));
    }
    let kube = kube();
    (!kube.exists()).then(|| format!("there is no {} (tests/tools/install.sh k8s builds it)", kube.display()))
}

/// The program with all parts of Kubernetes in it.
pub fn kube() -> PathBuf {
    repository().join(".tools/bin/kube")
}

fn in_path(program: &str) -> bool {
    // Debian keeps some of them where only root looks.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).any(|file| file.is_file())
}

/// Runs this program once more, with the same arguments, in namespaces of its own: network, mounts and processes.
/// The images are made before, with the program of the version before if there is one.
pub fn enter(previous: Option<&Path>) -> Result<ExitCode> {
    let folder = TempDir::new()?;
    let temporary = folder.join("tmp");
    fs::create_dir(&temporary)?;
    crate::images::make(&crate::test::images(folder.path()), previous)?;
    let groups = ControlGroups::make(&format!("{GROUPS}{}", std::process::id()))?;
    // It ends when this one does, however that ends.
    let mut inside = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare"])
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(env::current_exe().context("cannot tell where this program is")?)
        .args(env::args_os().skip(1))
        .env(FOLDER, folder.path())
        .env(CGROUP, &groups.name)
        // What inside would remove at its end is removed with the rest when that end is a sudden one.
        .env("TMPDIR", &temporary)
        .spawn()
        .context("cannot run unshare")?;
    end_on_signal(inside.id());
    Ok(code(inside.wait()?))
}

/// Ctrl-C and SIGTERM end what runs inside, and what is left of it is cleaned up here.
fn end_on_signal(pid: u32) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted?,
                _ = terminate.recv() => {}
            }
            // The first process inside is killed with it, and all others with that one.
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL)?;
            }
            std::io::Result::Ok(())
        })
    });
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// One control group in every hierarchy; dropped, they go with all below them.
struct ControlGroups {
    name: String,
    folders: Vec<PathBuf>,
}

impl ControlGroups {
    fn make(name: &str) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies: Vec<PathBuf> = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            let entries = fs::read_dir(root).context("there are no control groups")?.flatten();
            entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
        };
        let mut groups = Self { name: name.to_owned(), folders: Vec::new() };
        for hierarchy in hierarchies {
            remove_orphans(&hierarchy);
            let folder = hierarchy.join(name);
            fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            groups.folders.push(folder);
        }
        Ok(groups)
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The last processes in them may still be on their way out.
            let gone = tao_harness::eventually(std::time::Duration::from_secs(10), || Ok(remove(folder)?));
            if let Err(error) = gone {
                eprintln!("cannot remove {}: {error:#}", folder.display());
            }
        }
    }
}

/// Removes the groups of runs that were killed before they could do it.
fn remove_orphans(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(GROUPS));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // One with a process in it stays.
            remove(&entry.path()).ok();
        }
    }
}

/// Removes a control group and those below it: folders in which only the kernel has files.
fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove(&path)?;
        }
    }
    fs::remove_dir(folder)
}
