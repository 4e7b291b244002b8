//! `tao dev`: every tier in one process, over real gRPC on loopback, on SQLite and in-memory caches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tao_runtime::{ByteSize, Listener as _, Shutdown, TcpAcceptor};
use tao_tls::ServerTls;
use tao_topology::Topology;

use super::access::{AccessArgs, AccessSettings};
use super::process::{self, CommonArgs, File, Server};
use super::sample;
use super::tls::PublicTlsOptions;

/// Arguments of `tao dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where clients connect to; on loopback, unless they have to prove who they are (--public-tls-client-ca, --access-policy)
    #[arg(long, env = "TAO_FOLLOWER_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// The folder of the database; made when absent
    #[arg(long, env = "TAO_DATA", value_name = "FOLDER", default_value = "data")]
    data: PathBuf,
    /// Memory for each of the two caches, such as 256MiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    cache_size: ByteSize,
    /// Begin with an empty graph instead of a small sample
    #[arg(long)]
    no_sample: bool,
    /// Listen beyond loopback although anyone who can connect may read, write and delete everything
    #[arg(long)]
    insecure_anyone_may_connect: bool,
    #[command(flatten)]
    public_tls: PublicTlsOptions,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// What the tiers of one process are told.
struct Tiers {
    listen: SocketAddr,
    shard: tao_shard::Config,
    leader: tao_leader::Config,
    follower: tao_follower::Config,
    public_tls: Option<ServerTls>,
    access: AccessSettings,
}

impl DevArgs {
    fn tiers(&self, file: &mut File) -> Result<Tiers, Vec<String>> {
        let mut problems = Vec::new();
        let public_tls = self.public_tls.clone().over(std::mem::take(&mut file.public_tls)).check();
        let public_tls = public_tls.unwrap_or_else(|more| {
            problems.extend(more);
            None
        });
        let access = self.access.clone().over(std::mem::take(&mut file.access)).check();
        let access = access.map_err(|more| problems.extend(more)).ok();
        let is_proved = public_tls.as_ref().is_some_and(ServerTls::is_mutual)
            || access.as_ref().is_some_and(AccessSettings::is_proved);
        if !self.listen.ip().is_loopback() && !is_proved && !self.insecure_anyone_may_connect {
            problems.push(format!(
                "listen: {} is not on loopback, and anyone may connect: have clients prove who they are \
                 (--public-tls-client-ca or --access-policy), or say --insecure-anyone-may-connect",
                self.listen
            ));
        }
        let admin = self.common.admin_listen(file);
        if let Some(admin) = admin.filter(|a| !a.ip().is_loopback() && !self.insecure_anyone_may_connect) {
            problems.push(format!(
                "admin_listen: {admin} is not on loopback, and anyone may connect: say --insecure-anyone-may-connect"
            ));
        }
        let (Some(access), true) = (access, problems.is_empty()) else { return Err(problems) };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let store = format!("sqlite:{}", self.data.join("tao.db").display());
        let shard = tao_shard::config::Options { listen: Some(any), store: Some(store), ..Default::default() };
        let leader =
            tao_leader::config::Options { listen: Some(any), cache_size: Some(self.cache_size), ..Default::default() };
        let follower = tao_follower::config::Options {
            listen: Some(self.listen),
            cache_size: Some(self.cache_size),
            ..Default::default()
        };
        let (shard, leader, mut follower) = (shard.check()?, leader.check()?, follower.check()?);
        follower.limits = std::mem::take(&mut file.limits).check()?;
        Ok(Tiers { listen: self.listen, shard, leader, follower, public_tls, access })
    }
}

/// Runs all tiers.
pub fn dev(args: &DevArgs) -> Result<()> {
    let (common, tiers) = args.common.clone().check("tao-dev", |file| args.tiers(file))?;
    std::fs::create_dir_all(&args.data).with_context(|| format!("can't make the folder {}", args.data.display()))?;
    // Where callers prove who they are, it would take somebody's certificate or token to load it.
    let sample = (!args.no_sample && tiers.public_tls.is_none() && !tiers.access.is_proved())
        .then(|| args.data.join("sample.json"));
    process::run(common, |server| all(server, tiers, sample))
}

async fn all(server: Server, tiers: Tiers, sample: Option<PathBuf>) -> Result<()> {
    let Server { schema, clock, workers, readiness, shutdown, admin, routes, reflection } = server;
    let Tiers { listen, mut shard, mut leader, mut follower, public_tls, access } = tiers;
    follower.logs_writes = access.logs_writes;
    follower.access = access.load(&schema)?;
    (shard.reflection, leader.reflection, follower.reflection) = (reflection, reflection, reflection);
    let shard_listener = TcpAcceptor::bind(shard.listen).await?;
    let leader_listener = TcpAcceptor::bind(leader.listen).await?;
    let follower_listener = TcpAcceptor::bind(listen).await.context("listen")?.secured(public_tls);
    leader.topology = Topology::single(Vec::new(), vec![shard_listener.local_addr()?.to_string()]).into();
    follower.topology = Topology::single(vec![leader_listener.local_addr()?.to_string()], Vec::new()).into();
    follower.admin = routes;
    let address = follower_listener.local_addr()?;

    // The front stops first, so that what it has under way still finds the tiers behind it.
    let (stop_leader, leader_shutdown) = Shutdown::new();
    let (stop_shard, shard_shutdown) = Shutdown::new();
    let run_shard = tao_shard::run(
        shard,
        schema.clone(),
        clock.clone(),
        shard_listener,
        &workers,
        readiness.clone(),
        shard_shutdown,
    );
    let run_leader = async {
        let result =
            tao_leader::run(leader, clock.clone(), leader_listener, &workers, readiness.clone(), leader_shutdown).await;
        stop_shard.trigger();
        result
    };
    let run_follower = async {
        let run = tao_follower::run(
            follower,
            schema.clone(),
            clock.clone(),
            follower_listener,
            &workers,
            readiness.clone(),
            shutdown.clone(),
        );
        let result = run.await;
        stop_leader.trigger();
        result
    };
    let greet = async {
        tokio::select! {
            () = shutdown.wait() => return,
            () = readiness.wait_ready() => {}
        }
        if let Err(error) = welcome(address, admin, sample.as_deref()).await {
            tracing::warn!(error = format!("{error:#}"), "no sample graph");
        }
    };
    let tiers = async {
        tokio::try_join!(
            async { run_shard.await.context("storage shard") },
            async { run_leader.await.context("leader") },
            async { run_follower.await.context("follower") },
        )
    };
    let (tiers, ()) = tokio::join!(tiers, greet);
    tiers.map(|_| ())
}

/// Says where everything is, and what to try.
async fn welcome(address: SocketAddr, admin: SocketAddr, sample: Option<&Path>) -> Result<()> {
    println!("tao is ready: gRPC on {address}, probes and metrics on http://{admin}");
    let Some(file) = sample else { return Ok(()) };
    let sample = sample::load(address, file).await?;
    let Some((ann, bob)) = sample.users() else { bail!("{} names no users", file.display()) };
    println!("\nA small sample graph is loaded. Try:\n");
    println!("  grpcurl -plaintext {address} list tao.v1.GraphService");
    println!("  grpcurl -plaintext -d '{{\"id\": {ann}}}' {address} tao.v1.GraphService/ObjectGet");
    println!(
        "  grpcurl -plaintext -d '{{\"id1\": {bob}, \"type\": \"followed_by\", \"withObjects\": true}}' {address} tao.v1.GraphService/AssocRange"
    );
    Ok(())
}
