//! Volumes for those who claim them: folders of this machine, since no provisioner runs here.

use std::fs;

use anyhow::Result;

use crate::node::Node;

/// Makes so many volumes that nobody has claimed yet, numbered from `first`.
pub fn make(node: &Node, first: usize, count: usize) -> Result<()> {
    for number in first..first + count {
        let folder = node.path(&format!("volumes/{number}"));
        fs::create_dir_all(&folder)?;
        let volume = serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("volume-{number}") },
            "spec": {
                "capacity": { "storage": "100Gi" }, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"] }
                ]}]}}
            }
        });
        node.kubectl().apply_text(&node.path("volume.json"), &volume.to_string())?;
    }
    Ok(())
}
