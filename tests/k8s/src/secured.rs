//! TLS as production has it, running: the overlay `dev` with the component `tls`, and the Secret that the guide makes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tao_harness::{grpcurl, grpcurl_output};

use crate::kubectl::Kubectl;
use crate::node::Node;

const FOLLOWERS: &str = "tao.tao.svc.cluster.local:50051";
const LEADERS: &str = "tao-leaders.tao.svc.cluster.local:50052";
const TIERS: [&str; 3] = ["statefulset/tao-shard", "statefulset/tao-leader", "deployment/tao-follower"];

/// Lets in who has the right certificate, and nobody else. The namespace and its Secret are there; `files` has what clients are given.
pub fn runs(node: &Node, files: &Path) -> Result<()> {
    let kubectl = node.kubectl();
    let overlay = node.path("k8s/overlays/secured");
    fs::create_dir_all(&overlay)?;
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: tao\n\
                         resources: [../dev]\ncomponents: [../../components/tls]\n";
    fs::write(overlay.join("kustomization.yaml"), kustomization)?;
    kubectl.run(&["apply", "-k", &overlay.to_string_lossy()])?;
    for tier in TIERS {
        let waited = kubectl.run(&["--namespace", "tao", "rollout", "status", tier, "--timeout=240s"]);
        waited.with_context(|| story(&kubectl))?;
    }

    let file = |name: &str| files.join(name).to_string_lossy().into_owned();
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let add = ["-max-time", "20", "-d", r#"{"type": "user"}"#];
    let call = [FOLLOWERS, "tao.v1.GraphService/ObjectAdd"];
    let (trust, proof) = (["-cacert", ca.as_str()], ["-cert", cert.as_str(), "-key", key.as_str()]);
    let added = grpcurl([&add[..], &trust, &proof, &call].concat()).with_context(|| story(&kubectl))?;
    ensure!(added.contains("\"sessionToken\""), "the answer is {added}");
    println!("with a certificate, at {FOLLOWERS}: an object was added");

    let internal = ["-max-time", "20", "-servername", "tao-tier"];
    let list = [LEADERS, "list"];
    for (what, args, why) in [
        ("no certificate", [&add[..], &trust, &call].concat(), "certificate required"),
        ("plain text", [&add[..], &["-plaintext"], &call].concat(), "Failed to dial"),
        ("a client's certificate, at a leader", [&internal[..], &trust, &proof, &list].concat(), "access denied"),
    ] {
        let output = grpcurl_output(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{what}: {said}");
        println!("{what}: {}", said.trim());
    }

    // In the pod, the command knows its files from the environment.
    let add = ["exec", "deployment/tao-follower", "--", "/usr/bin/tao", "add", "user", "name=Ann"];
    let printed = kubectl.run(&[&["--namespace", "tao"], &add[..]].concat())?;
    ensure!(printed.contains("name = \"Ann\""), "{printed}");
    Ok(())
}

/// What went on, for a failure's sake.
fn story(kubectl: &Kubectl) -> String {
    let pods = kubectl.run(&["--namespace", "tao", "get", "pods", "-o", "wide"]);
    let selector = ["logs", "--selector", "app.kubernetes.io/name=tao", "--prefix", "--tail=30"];
    let logs = kubectl.run(&[&["--namespace", "tao"], &selector[..]].concat());
    pods.into_iter().chain(logs).collect::<Vec<_>>().join("\n")
}
