//! The manifests of production: the API server takes all of them, and admits the pods that they make.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tao_harness::repository;

use crate::node::Node;

/// Applies everything without keeping it. The namespace and the Secrets are there.
pub fn admitted(node: &Node) -> Result<()> {
    let kubectl = node.kubectl();
    let overlay = repository().join("k8s/overlays/production");
    let overlay = overlay.to_string_lossy();
    let printed = kubectl.run(&["apply", "--dry-run=server", "-o", "json", "-k", &overlay])?;
    let list: Value = serde_json::from_str(&printed).context("kubectl printed no JSON")?;
    let objects = list["items"].as_array().context("no list of objects")?;
    let mut pods = 0;
    for object in objects {
        // Workloads are taken whatever their pods want; pods are refused, so each workload's is tried.
        let template = &object["spec"]["template"];
        if template["spec"]["containers"].is_null() {
            continue;
        }
        let name = object["metadata"]["name"].as_str().context("an object without a name")?;
        let mut spec = template["spec"].clone();
        // Made by the controller or for a claim, which is not there.
        spec["serviceAccountName"] = json!("default");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": { "name": name, "namespace": "tao", "labels": template["metadata"]["labels"] },
        });
        let file = node.path("pod.json");
        std::fs::write(&file, pod.to_string())?;
        kubectl.run(&["create", "--dry-run=server", "-f", &file.to_string_lossy()]).with_context(|| name.to_owned())?;
        pods += 1;
    }
    ensure!(pods == 3, "{pods} workloads instead of one a tier");
    println!("production: {} objects and the pods of {pods} workloads were admitted", objects.len());
    Ok(())
}
