//! A Redis Cluster of the tests' own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Redis, eventually, free_port, programs};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// Three Redis servers on free ports of 127.0.0.1 that share the slots, without replicas. They end when this is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one, and returns when it takes commands for every slot.
    pub fn start() -> Result<Self> {
        let server = |_| {
            let bus = free_port()?.to_string();
            Redis::start_with(&[
                ("cluster-enabled", "yes"),
                ("cluster-port", &bus),
                // One that is gone takes its own slots with it, and no others.
                ("cluster-require-full-coverage", "no"),
                ("cluster-node-timeout", "1000"),
            ])
        };
        let cluster = Self { servers: (0..3).map(server).collect::<Result<_>>()? };
        let mut create = vec!["--cluster".to_owned(), "create".to_owned(), "--cluster-yes".to_owned()];
        create.extend(cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())));
        cli(&create)?;
        for server in &cluster.servers {
            eventually(READY_WITHIN, || {
                let info = cli(&["-p".into(), server.port().to_string(), "cluster".into(), "info".into()])?;
                ensure!(info.contains("cluster_state:ok"), "{info}");
                Ok(())
            })?;
        }
        Ok(cluster)
    }

    /// `redis-cluster://127.0.0.1:PORT,127.0.0.1:PORT`: two of them, by which the third is found.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", self.servers[0].port(), self.servers[1].port())
    }

    /// The servers.
    pub fn servers(&mut self) -> &mut [Redis] {
        &mut self.servers
    }
}

fn cli(args: &[String]) -> Result<String> {
    let program = programs::find("redis-cli", &["/usr/local/bin".into(), "/opt/homebrew/bin".into()])
        .context("redis-cli is not installed: `apt-get install redis-tools` or `brew install redis`")?;
    let output = Command::new(program).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "redis-cli {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}
