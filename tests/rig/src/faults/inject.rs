//! Makes a fault, and makes it good again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::Network;

use crate::check::Time;
use crate::cluster::Cluster;
use crate::faults::Fault;

/// A fault that was made.
#[derive(Debug, Clone)]
pub struct Injection {
    /// What.
    pub name: String,
    /// When it began.
    pub start: Time,
    /// When all servers were ready again.
    pub end: Time,
}

/// Makes a fault, lets it last, and heals it; returns when everything says that it is ready again. Blocks.
pub fn inject(cluster: &mut Cluster, fault: Fault, lasts: Duration) -> Result<()> {
    let wait = || std::thread::sleep(lasts);
    match fault {
        Fault::Kill(node) => {
            cluster.kill(node)?;
            wait();
            cluster.start_again(node)?;
        }
        Fault::Pause(node) => {
            cluster.nodes[node].process.pause()?;
            wait();
            cluster.nodes[node].process.resume()?;
        }
        Fault::StopDatabase(log) => {
            cluster.databases[log].stop_immediate()?;
            wait();
            cluster.databases[log].start_again()?;
        }
        Fault::PauseDatabase(log) => {
            cluster.databases[log].pause()?;
            wait();
            cluster.databases[log].resume()?;
        }
        Fault::KillRedis => {
            let redis = cluster.redis.as_mut().context("no Redis")?;
            redis.kill()?;
            wait();
            redis.restart()?;
        }
        Fault::PauseRedis => {
            let redis = cluster.redis.as_mut().context("no Redis")?;
            redis.pause()?;
            wait();
            redis.resume()?;
        }
        Fault::FlushRedis => {
            cluster.redis.as_ref().context("no Redis")?.command(&["FLUSHALL"])?;
        }
        Fault::StaleRedis => {
            let redis = cluster.redis.as_mut().context("no Redis")?;
            redis.command(&["SAVE"])?;
            wait();
            redis.restart()?;
            // Only this once.
            std::fs::remove_file(redis.snapshot())?;
        }
        Fault::Network(link, network) => {
            cluster.links[link].proxy.set(network);
            wait();
            cluster.links[link].proxy.set(Network::Pass);
        }
    }
    cluster.wait_ready()
}
