//! `tao shard`, `tao leader`, `tao follower`: one tier each.

use anyhow::Result;
use clap::Args;
use tao_runtime::TcpAcceptor;

use super::process::{self, CommonArgs};

/// Arguments of `tao shard`.
#[derive(Debug, Args)]
pub struct ShardArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_shard::config::Options,
}

/// Arguments of `tao leader`.
#[derive(Debug, Args)]
pub struct LeaderArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_leader::config::Options,
}

/// Arguments of `tao follower`.
#[derive(Debug, Args)]
pub struct FollowerArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_follower::config::Options,
}

/// Runs a storage shard.
pub fn shard(args: ShardArgs) -> Result<()> {
    let check = |file: &mut process::File| args.options.over(std::mem::take(&mut file.shard)).check();
    let (common, config) = args.common.check("tao-shard", check)?;
    process::run(common, |s| async move {
        let listener = TcpAcceptor::bind(config.listen).await?;
        Ok(tao_shard::run(config, s.schema, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}

/// Runs a leader.
pub fn leader(args: LeaderArgs) -> Result<()> {
    let check = |file: &mut process::File| args.options.over(std::mem::take(&mut file.leader)).check();
    let (common, config) = args.common.check("tao-leader", check)?;
    process::run(common, |s| async move {
        let listener = TcpAcceptor::bind(config.listen).await?;
        Ok(tao_leader::run(config, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}

/// Runs a follower.
pub fn follower(args: FollowerArgs) -> Result<()> {
    let check = |file: &mut process::File| args.options.with_secrets().over(std::mem::take(&mut file.follower)).check();
    let (common, mut config) = args.common.check("tao-follower", check)?;
    process::run(common, |s| async move {
        config.admin = s.routes;
        let listener = TcpAcceptor::bind(config.listen).await?;
        Ok(tao_follower::run(config, s.schema, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}
