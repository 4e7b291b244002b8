//! Logs on stderr, and traces over OTLP when an endpoint is given.

use std::io::IsTerminal as _;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use crate::admin::AdminRoutes;
use crate::logs::{self, LogFilter};

/// The environment variable that filters logs when no option does.
pub const FILTER_VARIABLE: &str = "TAO_LOG";
/// What is logged when nobody says.
const DEFAULT_FILTER: &str = "info";
/// Which spans are exported.
const EXPORTED: &str = "off,tao::trace=debug";
/// How long the last spans get to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is no log format: text or json")),
        }
    }
}

/// What to log, and where traces go.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// How logs look.
    pub format: LogFormat,
    /// What is logged, in `tracing_subscriber::EnvFilter`'s language; `None`: by `TAO_LOG`, else `info`.
    pub filter: Option<String>,
    /// The gRPC address of an OpenTelemetry collector, such as `http://127.0.0.1:4317`; `None`: no traces.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that begin here and are exported, 0 to 1. A trace that began elsewhere goes by its own flag.
    pub sample_ratio: f64,
    /// What this process is called in traces.
    pub service_name: String,
}

impl TelemetryOptions {
    /// Text, `info`, no traces.
    pub fn new(service_name: impl Into<String>) -> Self {
        Self {
            format: LogFormat::Text,
            filter: None,
            otlp_endpoint: None,
            sample_ratio: 1.0,
            service_name: service_name.into(),
        }
    }
}

/// Telemetry that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not in the filter's language.
    #[error("the log filter {filter:?} can't be read: {source}")]
    Filter {
        /// As it was given.
        filter: String,
        /// Why not.
        source: ParseError,
    },
    /// The endpoint is no address.
    #[error("traces can't be exported to {endpoint:?}: {source}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// Why not.
        source: ExporterBuildError,
    },
    /// The exporter's thread could not be started.
    #[error("traces can't be exported: {0}")]
    Thread(#[from] std::io::Error),
}

/// Exports what is left when it is dropped, for at most five seconds. Keep it to the end of `main`.
#[derive(Debug)]
#[must_use]
pub struct TelemetryGuard {
    exporter: Option<Exporter>,
    logs: Option<LogFilter>,
}

#[derive(Debug)]
struct Exporter {
    provider: SdkTracerProvider,
    /// The exporter's connection lives on a runtime of its own, so that flushing works wherever it is called.
    runtime: Runtime,
}

impl TelemetryGuard {
    /// Lets operators ask for what is logged, and change it: `GET /log-filter`, `PUT /log-filter?filter=FILTER`, from the machine itself.
    pub fn answer_operators(&self, routes: &AdminRoutes) {
        if let Some(logs) = &self.logs {
            logs.answer_operators(routes);
        }
    }

    /// Exports what is left and stops exporting.
    pub fn flush(&mut self) {
        if let Some(Exporter { provider, runtime }) = self.exporter.take() {
            if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
                tracing::warn!(%error, "the last traces were not exported");
            }
            runtime.shutdown_background();
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Sets up the process's logs and traces. A second call changes nothing: what was set up first stays.
pub fn init(options: &TelemetryOptions) -> Result<TelemetryGuard, TelemetryError> {
    let given = options.filter.clone().or_else(|| std::env::var(FILTER_VARIABLE).ok().filter(|f| !f.is_empty()));
    let filter = given.unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let (layer, handle) = reload::Layer::new(logs::filter(&filter)?);
    let log = match options.format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        LogFormat::Text => fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).boxed(),
    };
    let (traces, mut guard) = traces(options)?;
    guard.logs = Some(LogFilter::new(filter, move |filter| handle.reload(filter).is_ok()));
    let registry = tracing_subscriber::registry().with(log.with_filter(layer)).with(traces);
    if registry.try_init().is_err() {
        tracing::debug!("telemetry was set up before");
    }
    Ok(guard)
}

/// The layer that exports spans, if an endpoint is given.
pub fn traces<S>(options: &TelemetryOptions) -> Result<(Option<impl Layer<S> + use<S>>, TelemetryGuard), TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let Some(endpoint) = options.otlp_endpoint.clone() else {
        return Ok((None, TelemetryGuard { exporter: None, logs: None }));
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("telemetry").enable_all().build()?;
    let exporter = {
        let _entered = runtime.enter();
        SpanExporter::builder().with_tonic().with_endpoint(&endpoint).build()
    };
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(source) => {
            runtime.shutdown_background();
            return Err(TelemetryError::Endpoint { endpoint, source });
        }
    };
    let service = KeyValue::new("service.name", options.service_name.clone());
    // The ratio is applied before there are spans, in `tao_trace`: what is not sampled has none, or one with a parent that says so.
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(Resource::builder().with_attribute(service).build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tao"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    tao_trace::export(options.sample_ratio);
    let filtered = layer.with_filter(EnvFilter::new(EXPORTED));
    Ok((Some(filtered), TelemetryGuard { exporter: Some(Exporter { provider, runtime }), logs: None }))
}
