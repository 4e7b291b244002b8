//! docs/kubernetes.md, followed literally.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tao_harness::repository;

use crate::node::Node;
use crate::run::run;

const GUIDE: &str = "docs/kubernetes.md";
/// A port of the user's own machine that the guide forwards.
const FORWARDED: &str = "127.0.0.1:50051";

/// What a section of the guide tells to run, block by block.
pub fn blocks(section: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join(GUIDE)).context("there is no guide")?;
    let begin =
        text.find(&format!("\n## {section}\n")).with_context(|| format!("{GUIDE} has no section {section:?}"))?;
    let section = &text[begin + 1..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let mut blocks: Vec<String> = Vec::new();
    let mut is_within = false;
    for line in section.lines() {
        let Some(command) = line.strip_prefix("    ") else {
            is_within = false;
            continue;
        };
        match blocks.last_mut().filter(|_| is_within) {
            Some(block) => *block = format!("{block}\n{command}"),
            None => blocks.push(command.to_owned()),
        }
        is_within = true;
    }
    ensure!(!blocks.is_empty(), "{GUIDE} has no commands there");
    Ok(blocks)
}

/// From an empty cluster to a first edge, and back to an empty cluster. The image is in the cluster already: what makes and loads it
/// needs a container engine.
pub fn first_edge(node: &Node) -> Result<()> {
    let mut script = String::from("set -euo pipefail\nset -o xtrace\n");
    for block in blocks("From an empty cluster to a first edge")? {
        if block.contains("make image") {
            continue;
        }
        if block.contains("port-forward") {
            // Of another terminal, which is closed at the end.
            script.push_str(&format!(
                "{block} >/dev/null & forwarding=$!\ntrap 'kill $forwarding' EXIT\n\
                 for try in $(seq 200); do (</dev/tcp/{}) 2>/dev/null && break; sleep 0.1; done\n",
                FORWARDED.replace(':', "/")
            ));
        } else {
            script.push_str(&format!("{block}\n"));
        }
    }
    let printed = shell(node, &script)?;
    println!("{printed}");
    for expected in ["\"created\": true", "\"type\": \"followed_by\"", "\"Ann\""] {
        ensure!(printed.contains(expected), "the guide's commands did not print {expected}");
    }
    Ok(())
}

/// What the guide tells to do before production's manifests are applied. The certificates and keys that it makes are kept in a folder.
pub fn before_production(node: &Node, files: &Path) -> Result<()> {
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks("Production")?.iter().filter(|block| block.contains("create secret")) {
        script.push_str(&format!("{block}\n"));
    }
    script.push_str(&format!("mv \"$TLS\" '{}'\n", files.display()));
    shell(node, &script).map(drop)
}

/// In the repository's folder, with kubectl as people have it.
fn shell(node: &Node, script: &str) -> Result<String> {
    let path = format!("{}:{}", node.programs()?.display(), std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(repository());
    run(bash.env("KUBECONFIG", node.kubectl().config()).env("PATH", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_commands_that_are_followed() {
        let first = blocks("From an empty cluster to a first edge").unwrap();
        assert!(first.iter().any(|block| block.contains("kubectl apply -k k8s/overlays/dev")), "{first:?}");
        assert!(first.iter().any(|block| block.starts_with("kubectl -n tao port-forward")), "{first:?}");
        // A block is the lines that belong together.
        assert!(first.iter().any(|block| block.lines().count() > 2), "{first:?}");
        assert!(blocks("Production").unwrap().iter().any(|block| block.contains("create secret generic tao-tls")));
        assert!(blocks("No such section").is_err());
    }
}
