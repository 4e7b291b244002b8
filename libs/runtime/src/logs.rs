//! What is logged, which can be changed while the process runs.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::admin::{AdminAnswer, AdminQuery, AdminRoutes};
use crate::telemetry::TelemetryError;

/// The filter of the process's logs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogFilter {
    reload: Arc<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    now: Arc<Mutex<String>>,
}

impl LogFilter {
    /// `reload` puts another filter in the place of the present one, and says whether that worked.
    pub fn new(now: String, reload: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) -> Self {
        Self { reload: Arc::new(reload), now: Arc::new(Mutex::new(now)) }
    }

    /// `GET /log-filter` and `PUT /log-filter?filter=FILTER`.
    pub fn answer_operators(&self, routes: &AdminRoutes) {
        let show = self.clone();
        routes.local_get("/log-filter", move |_| std::future::ready(AdminAnswer::Text(show.now.lock().clone() + "\n")));
        let change = self.clone();
        routes.local_put("/log-filter", move |query| std::future::ready(change.change(&query)));
    }

    fn change(&self, query: &AdminQuery) -> AdminAnswer {
        let Some(wanted) = query.get("filter").filter(|wanted| !wanted.is_empty()) else {
            return AdminAnswer::BadRequest("give a filter: ?filter=info,tao_rpc=debug\n".to_owned());
        };
        let filter = match filter(wanted) {
            Ok(filter) => filter,
            Err(error) => return AdminAnswer::BadRequest(format!("{error}\n")),
        };
        // Held over both, so that what is shown is what is in force.
        let mut now = self.now.lock();
        if !(self.reload)(filter) {
            return AdminAnswer::Unavailable("the logs of this process are somebody else's\n".to_owned());
        }
        tracing::info!(from = *now, to = wanted, "log filter changed");
        now.clone_from(wanted);
        AdminAnswer::Text(wanted.clone() + "\n")
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.now.lock()).finish()
    }
}

/// A filter from its text, which also shows the spans of what is sampled, whatever else it does: their trace's number belongs to
/// every line. Says whether it wants spans of other calls, too.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |source| TelemetryError::Filter { filter: text.to_owned(), source };
    let filter = EnvFilter::try_new(text).map_err(wrong)?;
    tao_trace::log_spans(filter.max_level_hint().is_none_or(|level| level >= LevelFilter::DEBUG));
    EnvFilter::try_new(format!("{filter},{}=debug", tao_trace::TARGET)).map_err(wrong)
}
