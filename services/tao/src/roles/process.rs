//! What every server process has around its tiers: configuration, telemetry, runtimes, the admin port, signals.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use tao_model::{Clock, Schema, SystemClock};
use tao_runtime::config::{self, ConfigError};
use tao_runtime::telemetry::{self, LogFormat, TelemetryOptions};
use tao_runtime::{AdminRoutes, MetricsHandle, Readiness, Shutdown, Workers, profile, serve_admin};
use tao_trace::slow;
use tokio::net::TcpListener;

use super::access::AccessArgs;
use super::tls::{PublicTlsOptions, TierTlsOptions};

/// Options that all servers share.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// A TOML file with the same options (docs/configuration.md); the environment and flags win over it
    #[arg(long, env = "TAO_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    options: CommonOptions,
}

/// Options that all servers share, as file, environment or flags give them.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommonOptions {
    /// The schema: a TOML file (docs/schema.md) [default: a built-in social network]
    #[arg(long, env = "TAO_SCHEMA", value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Where probes and Prometheus connect to [default: 127.0.0.1:9464]
    #[arg(long, env = "TAO_ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Threads that serve connections [default: one a core]
    #[arg(long, env = "TAO_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Whether there are metrics; what they cost can be seen without them [default: true]
    #[arg(long, env = "TAO_METRICS", value_name = "BOOL")]
    metrics: Option<bool>,
    /// How logs look: text or json [default: text]
    #[arg(long, env = "TAO_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged: a level, or target=level pairs [default: info]
    #[arg(long, env = "TAO_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Whether servers describe their services to tools such as grpcurl: true or false [default: true]
    #[arg(long, env = "TAO_REFLECTION", value_name = "BOOL")]
    reflection: Option<bool>,
    /// Where traces go: an OpenTelemetry collector's gRPC address, such as http://127.0.0.1:4317 [default: nowhere]
    #[arg(long, env = "TAO_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The share of requests that are traced, 0 to 1, where their caller does not decide [default: 1]
    #[arg(long, env = "TAO_TRACE_RATIO", value_name = "RATIO")]
    trace_ratio: Option<f64>,
    /// Milliseconds from which on a request is logged as slow; 0: none is [default: 1000]
    #[arg(long, env = "TAO_SLOW_REQUEST_MS", value_name = "MS")]
    slow_request_ms: Option<f64>,
}

/// A configuration file: one for all tiers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Of every server.
    pub server: CommonOptions,
    /// Of connections between tiers.
    pub tls: TierTlsOptions,
    /// Of clients' connections.
    pub public_tls: PublicTlsOptions,
    /// Of who is let in, and as whom.
    pub access: AccessArgs,
    /// Of the storage shard.
    pub shard: tao_shard::config::Options,
    /// Of the leader.
    pub leader: tao_leader::config::Options,
    /// Of the follower.
    pub follower: tao_follower::config::Options,
    /// Of the follower's callers.
    pub limits: tao_follower::config::LimitOptions,
}

impl CommonOptions {
    fn over(self, lower: Self) -> Self {
        Self {
            schema: self.schema.or(lower.schema),
            admin_listen: self.admin_listen.or(lower.admin_listen),
            workers: self.workers.or(lower.workers),
            metrics: self.metrics.or(lower.metrics),
            log_format: self.log_format.or(lower.log_format),
            log: self.log.or(lower.log),
            reflection: self.reflection.or(lower.reflection),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            trace_ratio: self.trace_ratio.or(lower.trace_ratio),
            slow_request_ms: self.slow_request_ms.or(lower.slow_request_ms),
        }
    }
}

/// Both, or the problems of both.
pub fn both<A, B>(a: Result<A, Vec<String>>, b: Result<B, Vec<String>>) -> Result<(A, B), Vec<String>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(a.err().into_iter().chain(b.err()).flatten().collect()),
    }
}

/// The checked options that all servers share.
pub struct Common {
    schema: Schema,
    admin_listen: SocketAddr,
    workers: Option<NonZeroUsize>,
    reflection: bool,
    telemetry: TelemetryOptions,
    slow_requests: Option<Duration>,
    metrics: bool,
}

/// Everything that tiers are run with.
pub struct Server {
    /// The types.
    pub schema: Arc<Schema>,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// What connections are spread over.
    pub workers: Workers,
    /// What probes are told.
    pub readiness: Readiness,
    /// Whether its services are described to those who ask.
    pub reflection: bool,
    /// Begins with a signal.
    pub shutdown: Shutdown,
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// What tiers do there for operators.
    pub routes: AdminRoutes,
}

impl CommonArgs {
    /// Reads the file, lays flags and environment over it, and checks them together with those of a tier: every problem of all of
    /// them is reported at once.
    pub fn check<T>(
        self,
        service: &str,
        tier: impl FnOnce(&mut File) -> Result<T, Vec<String>>,
    ) -> Result<(Common, T), ConfigError> {
        let mut file: File = config::load(self.config.as_deref())?;
        let mut problems = Vec::new();
        let tier = tier(&mut file).map_err(|p| problems.extend(p)).ok();
        let options = self.options.over(file.server);
        let schema = schema(options.schema.as_deref()).map_err(|p| problems.extend(p)).ok();
        let format = match options.log_format.as_deref().unwrap_or("text").parse::<LogFormat>() {
            Ok(format) => format,
            Err(problem) => {
                problems.push(format!("log_format: {problem}"));
                LogFormat::Text
            }
        };
        let ratio = options.trace_ratio.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            problems.push(format!("trace_ratio: {ratio} is not within 0 to 1"));
        }
        let slow_ms = options.slow_request_ms.unwrap_or(1_000.0);
        let slow_requests = Duration::try_from_secs_f64(slow_ms / 1_000.0).ok();
        if slow_requests.is_none() {
            problems.push(format!("slow_request_ms: {slow_ms} is no number of milliseconds"));
        }
        let slow_requests = slow_requests.filter(|slow| !slow.is_zero());
        let (Some(schema), Some(tier), true) = (schema, tier, problems.is_empty()) else {
            return Err(ConfigError { problems });
        };
        let mut telemetry = TelemetryOptions::new(service);
        telemetry.format = format;
        telemetry.filter = options.log;
        telemetry.otlp_endpoint = options.otlp_endpoint;
        telemetry.sample_ratio = ratio;
        let admin_listen = options.admin_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9464)));
        let reflection = options.reflection.unwrap_or(true);
        let metrics = options.metrics.unwrap_or(true);
        let workers = options.workers;
        Ok((Common { schema, admin_listen, workers, reflection, telemetry, slow_requests, metrics }, tier))
    }

    /// Where the admin port is asked to be.
    pub fn admin_listen(&self, file: &File) -> Option<SocketAddr> {
        self.options.admin_listen.or(file.server.admin_listen)
    }
}

fn schema(file: Option<&Path>) -> Result<Schema, Vec<String>> {
    let Some(path) = file else { return Ok(Schema::social()) };
    let text =
        std::fs::read_to_string(path).map_err(|e| vec![format!("schema: {} can't be read: {e}", path.display())])?;
    Schema::parse(&text).map_err(|problems| problems.lines().map(|p| format!("schema: {p}")).collect())
}

/// Runs tiers until they end; the admin port and telemetry outlive them.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    common: Common,
    tiers: impl FnOnce(Server) -> F,
) -> anyhow::Result<()> {
    // Change streams run on this thread; connections, and the links and stores that their calls go to, on the workers.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    let ended = runtime.block_on(async {
        let metrics = if common.metrics { MetricsHandle::install() } else { MetricsHandle::off() };
        super::metrics::describe();
        let telemetry = telemetry::init(&common.telemetry)?;
        slow::log_from(common.slow_requests);
        let shutdown = Shutdown::on_signal().context("can't listen for signals")?;
        let readiness = Readiness::new();
        readiness.close_on(&shutdown);
        let listener = TcpListener::bind(common.admin_listen)
            .await
            .with_context(|| format!("admin_listen: can't listen on {}", common.admin_listen))?;
        let admin = listener.local_addr()?;
        tracing::info!(address = %admin, "listening for probes and metrics");
        let (ended, admin_shutdown) = Shutdown::new();
        let routes = AdminRoutes::default();
        telemetry.answer_operators(&routes);
        profile::answer_operators(&routes);
        let serving = tokio::spawn(serve_admin(listener, readiness.clone(), metrics, routes.clone(), admin_shutdown));
        let workers = Workers::new("tao-worker", common.workers).context("can't start worker threads")?;
        let server = Server {
            schema: Arc::new(common.schema),
            clock: Arc::new(SystemClock),
            workers,
            reflection: common.reflection,
            readiness,
            shutdown,
            admin,
            routes,
        };
        let result = tiers(server).await;
        ended.trigger();
        serving.await.context("the admin port's task failed")??;
        tracing::info!("stopped");
        drop(telemetry);
        result
    });
    // Everything has ended, but perhaps a question to a resolver that does not answer: it is not waited for.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the manifests mount at /etc/tao.
    #[test]
    fn the_manifests_configuration_is_one_that_every_tier_takes() {
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s");
        for file in ["base/config/tao.toml", "overlays/test/tao.toml", "overlays/production/tao.toml"] {
            let mut file: File = config::load(Some(&manifests.join(file))).unwrap_or_else(|e| panic!("{file}: {e}"));
            std::mem::take(&mut file.shard).check().unwrap();
            std::mem::take(&mut file.leader).check().unwrap();
            std::mem::take(&mut file.follower).check().unwrap();
            let server = file.server;
            assert_eq!(server.schema.as_deref(), Some(Path::new("/etc/tao/schema.toml")));
            assert!(server.log_format.unwrap().parse::<LogFormat>().is_ok());
            assert!(server.admin_listen.unwrap().ip().is_unspecified(), "the kubelet asks from outside of the pod");
        }
        schema(Some(&manifests.join("base/config/schema.toml"))).unwrap();
    }
}
