//! Makes a fault, and makes it good again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::{Network, Redis};

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

/// Makes faults, lets them last, and heals them; returns when everything says that it is ready again. Blocks.
pub fn inject(cluster: &mut Cluster, faults: &[Fault], lasts: Duration) -> Result<()> {
    for fault in faults {
        begin(cluster, *fault)?;
    }
    std::thread::sleep(lasts);
    for fault in faults {
        heal(cluster, *fault)?;
    }
    cluster.wait_ready()
}

fn redis(cluster: &mut Cluster) -> Result<&mut Redis> {
    cluster.redis.as_mut().context("no Redis")
}

fn begin(cluster: &mut Cluster, fault: Fault) -> Result<()> {
    match fault {
        Fault::Kill(node) => cluster.kill(node)?,
        Fault::Pause(node) => cluster.nodes[node].process.pause()?,
        Fault::Isolate(node) => cluster.isolate(node, Some(Network::BlackHole)),
        Fault::StopDatabase(log) => cluster.databases[log].stop_immediate()?,
        Fault::PauseDatabase(log) => cluster.databases[log].pause()?,
        Fault::KillRedis => redis(cluster)?.kill()?,
        Fault::PauseRedis => redis(cluster)?.pause()?,
        Fault::FlushRedis => drop(redis(cluster)?.command(&["FLUSHALL"])?),
        Fault::StaleRedis => drop(redis(cluster)?.command(&["SAVE"])?),
        Fault::Network(link, network) => cluster.links[link].proxy.set(network),
    }
    Ok(())
}

fn heal(cluster: &mut Cluster, fault: Fault) -> Result<()> {
    match fault {
        Fault::Kill(node) => cluster.start_again(node)?,
        Fault::Pause(node) => cluster.nodes[node].process.resume()?,
        Fault::Isolate(node) => cluster.isolate(node, None),
        Fault::StopDatabase(log) => cluster.databases[log].start_again()?,
        Fault::PauseDatabase(log) => cluster.databases[log].resume()?,
        Fault::KillRedis => redis(cluster)?.restart()?,
        Fault::PauseRedis => redis(cluster)?.resume()?,
        Fault::FlushRedis => {}
        Fault::StaleRedis => {
            let redis = redis(cluster)?;
            redis.restart()?;
            // Only this once.
            std::fs::remove_file(redis.snapshot())?;
        }
        Fault::Network(link, _) => cluster.links[link].heal(),
    }
    Ok(())
}
