//! Metrics, gathered in the process and read by Prometheus.

use std::sync::Mutex;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::durations::CallDurations;
use crate::usage;

/// Seconds: from a hit in memory to a call that ran into its deadline.
pub(crate) const DURATIONS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    60.0,
];

/// Things in a batch.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Renders what has been recorded.
#[derive(Debug, Clone)]
pub struct MetricsHandle {
    prometheus: Option<PrometheusHandle>,
}

impl MetricsHandle {
    /// Counts nothing from now on: for those who want to know what counting costs.
    pub fn off() -> Self {
        CallDurations::turn_off();
        Self { prometheus: None }
    }

    /// Installs the process's recorder, or gives the one that was installed before. Metrics that were looked up earlier go nowhere.
    pub fn install() -> Self {
        static INSTALLED: Mutex<Option<MetricsHandle>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        installed
            .get_or_insert_with(|| {
                let prometheus = match build() {
                    Ok(prometheus) => Some(prometheus),
                    Err(error) => {
                        tracing::warn!(%error, "no metrics: somebody else records them");
                        None
                    }
                };
                Self { prometheus }
            })
            .clone()
    }

    /// In Prometheus's text format; the durations of calls only, when another recorder was installed first.
    pub fn render(&self) -> String {
        let recorded = self.prometheus.as_ref().map(PrometheusHandle::render).unwrap_or_default();
        recorded + &CallDurations::of_process().render() + &usage::render()
    }

    /// Takes in what histograms have gathered; to be called every few seconds, or they grow until they are rendered.
    pub(crate) fn upkeep(&self) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.run_upkeep();
        }
    }
}

fn build() -> Result<PrometheusHandle, BuildError> {
    let seconds = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
    let writes = metrics_exporter_prometheus::Matcher::Suffix("_writes".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, DURATIONS)?
        .set_buckets_for_metric(writes, COUNTS)?
        .install_recorder()
}
