//! `tao shard`, `tao leader`, `tao follower`: one tier each.

use std::mem::take;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use tao_rpc::LinkOptions;
use tao_runtime::TcpAcceptor;

use super::access::AccessArgs;
use super::process::{self, CommonArgs, File, both};
use super::tls::{PublicTlsOptions, TierTls, TierTlsOptions, warn_if_open};

/// Arguments of `tao shard`.
#[derive(Debug, Args)]
pub struct ShardArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_shard::config::Options,
    #[command(flatten)]
    tls: TierTlsOptions,
}

/// Arguments of `tao leader`.
#[derive(Debug, Args)]
pub struct LeaderArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_leader::config::Options,
    #[command(flatten)]
    tls: TierTlsOptions,
}

/// Arguments of `tao follower`.
#[derive(Debug, Args)]
pub struct FollowerArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    options: tao_follower::config::Options,
    #[command(flatten)]
    limits: tao_follower::config::LimitOptions,
    #[command(flatten)]
    tls: TierTlsOptions,
    #[command(flatten)]
    public_tls: PublicTlsOptions,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs a storage shard.
pub fn shard(args: ShardArgs) -> Result<()> {
    let check = |file: &mut File| {
        both(args.options.over(take(&mut file.shard)).check(), args.tls.over(take(&mut file.tls)).check())
    };
    let (common, (mut config, tls)) = args.common.check("tao-shard", check)?;
    process::run(common, |s| async move {
        config.reflection = s.reflection;
        let listener = tier_listener(config.listen, tls, &mut config.link).await?;
        Ok(tao_shard::run(config, s.schema, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}

/// Runs a leader.
pub fn leader(args: LeaderArgs) -> Result<()> {
    let check = |file: &mut File| {
        both(args.options.over(take(&mut file.leader)).check(), args.tls.over(take(&mut file.tls)).check())
    };
    let (common, (mut config, tls)) = args.common.check("tao-leader", check)?;
    process::run(common, |s| async move {
        config.reflection = s.reflection;
        let listener = tier_listener(config.listen, tls, &mut config.link).await?;
        Ok(tao_leader::run(config, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}

/// Runs a follower.
pub fn follower(args: FollowerArgs) -> Result<()> {
    let check = |file: &mut File| {
        let tls = args.tls.over(take(&mut file.tls)).check();
        let public_tls = args.public_tls.over(take(&mut file.public_tls)).check();
        let access = args.access.over(take(&mut file.access)).check();
        let limits = args.limits.over(take(&mut file.limits)).check();
        let doors = both(limits, both(both(tls, public_tls), access));
        both(args.options.with_secrets().over(take(&mut file.follower)).check(), doors)
    };
    let (common, (mut config, (limits, ((tls, public_tls), access)))) = args.common.check("tao-follower", check)?;
    process::run(common, |s| async move {
        config.reflection = s.reflection;
        config.admin = s.routes;
        config.limits = limits;
        if let Some(tls) = tls {
            tls.secure(&mut config.link);
        }
        config.logs_writes = access.logs_writes;
        config.access = access.load(&s.schema)?;
        if config.access.is_open() {
            warn_if_open(config.listen, public_tls.as_ref());
        } else if config.access.takes_tokens() && public_tls.is_none() && !config.listen.ip().is_loopback() {
            tracing::warn!(address = %config.listen, "tokens travel in plain text here: give the public port a certificate");
        }
        let listener = TcpAcceptor::bind(config.listen).await?.secured(public_tls);
        Ok(tao_follower::run(config, s.schema, s.clock, listener, &s.workers, s.readiness, s.shutdown).await?)
    })
}

/// Listens for other tiers, and has the links to those behind speak as they do.
async fn tier_listener(
    listen: SocketAddr,
    tls: Option<TierTls>,
    link: &mut LinkOptions,
) -> std::io::Result<TcpAcceptor> {
    let server = tls.as_ref().map(|tls| tls.server.clone());
    if let Some(tls) = tls {
        tls.secure(link);
    }
    warn_if_open(listen, server.as_ref());
    Ok(TcpAcceptor::bind(listen).await?.secured(server))
}
