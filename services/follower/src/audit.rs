//! The auditor: compares what this follower has cached with what the database holds, a few keys a second for as long as it runs,
//! and many when an operator asks. It finds what would be a broken rule of coherence, or a database that was changed behind tao.

mod finding;
mod window;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use metrics::Counter;
use parking_lot::Mutex;
use serde::Serialize;
use tao_cache::Audit;
use tao_model::{Key, Result};
use tao_rpc::CallContext;
use tao_runtime::{AdminAnswer, AdminQuery, AdminRoutes};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::log::{Log, Meeting};
use finding::Finding;
use window::Window;

/// For one key: a read of the database, and until the change stream has come as far.
const KEY_WITHIN: Duration = Duration::from_secs(5);
/// The ratio looks back so far.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// How often the ratio is worked out when nothing is audited.
const IDLE: Duration = Duration::from_secs(10);
/// Keys that an operator's audit looks at, when it does not say, and at the most.
const SAMPLES: usize = 1_000;
const MAX_SAMPLES: usize = 100_000;
/// Keys that it looks at at once.
const AT_ONCE: usize = 32;
/// Inconsistencies that it shows.
const EXAMPLES: usize = 20;

/// See the module.
pub struct Auditor {
    logs: Vec<Log>,
    meeting: Meeting,
    window: Mutex<Window>,
    /// Held while an operator's audit runs.
    running: tokio::sync::Mutex<()>,
}

/// What an operator's audit found.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Keys that were compared, or were to be.
    checked: u64,
    /// Those of them that changed meanwhile, or could not be read.
    inconclusive: u64,
    /// Those whose cached value is not the database's.
    inconsistent: u64,
    /// Some of those.
    examples: Vec<Finding>,
}

fn counter(name: &'static str, log: &Log, kind: &'static str) -> Counter {
    metrics::counter!(name, "log" => log.id.0.to_string(), "kind" => kind)
}

impl Auditor {
    /// Of these logs' caches.
    pub fn new(logs: Vec<Log>, meeting: Meeting) -> Arc<Self> {
        // Shown before there are any.
        for (log, kind) in logs.iter().flat_map(|log| ["object", "list"].map(|kind| (log, kind))) {
            for name in ["tao_audit_checked_total", "tao_audit_inconclusive_total", "tao_audit_inconsistent_total"] {
                counter(name, log, kind).increment(0);
            }
        }
        let window = Mutex::new(Window::new(WINDOW));
        Arc::new(Self { logs, meeting, window, running: tokio::sync::Mutex::default() })
    }

    /// Audits so many keys a second.
    pub async fn keep_auditing(&self, per_second: u32) -> Infallible {
        let every = Duration::from_secs(1).checked_div(per_second).unwrap_or(IDLE);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A log after the other.
        for log in self.logs.iter().cycle() {
            ticks.tick().await;
            if per_second > 0
                && let Some(key) = log.reader.memory().sample(1).pop()
            {
                self.audit(log, key).await;
            }
            metrics::gauge!("tao_audit_inconsistency_ratio").set(self.window.lock().ratio(Instant::now()));
        }
        // There is at least one log, so that this is never reached.
        std::future::pending().await
    }

    /// Lets operators ask: `POST /audit?samples=1000`.
    pub fn answer_operators(self: Arc<Self>, routes: &AdminRoutes) {
        routes.post("/audit", move |query| {
            let auditor = self.clone();
            async move { auditor.answer(&query).await }
        });
    }

    async fn answer(&self, query: &AdminQuery) -> AdminAnswer {
        let samples = match query.get("samples").map(|samples| samples.parse::<usize>()) {
            None => SAMPLES,
            Some(Ok(samples)) if (1..=MAX_SAMPLES).contains(&samples) => samples,
            Some(_) => return AdminAnswer::BadRequest(format!("samples: a number from 1 to {MAX_SAMPLES}\n")),
        };
        let Ok(_running) = self.running.try_lock() else {
            return AdminAnswer::Unavailable("an audit is running\n".to_owned());
        };
        if let Err(error) = self.meeting.map() {
            return AdminAnswer::Unavailable(format!("{error}\n"));
        }
        match serde_json::to_string(&self.audit_many(samples).await) {
            Ok(json) => AdminAnswer::Json(json),
            Err(error) => AdminAnswer::Unavailable(format!("the report can't be written: {error}\n")),
        }
    }

    async fn audit_many(&self, samples: usize) -> Report {
        // Logs have about as many keys each.
        let share = samples.div_ceil(self.logs.len().max(1));
        let mut keys: Vec<(usize, Key)> = Vec::new();
        for (n, log) in self.logs.iter().enumerate() {
            keys.extend(log.reader.memory().sample(share).into_iter().map(|key| (n, key)));
        }
        keys.truncate(samples);
        let audits = futures::stream::iter(keys).map(|(n, key)| self.audit(&self.logs[n], key));
        let mut audits = audits.buffer_unordered(AT_ONCE);
        let mut report = Report::default();
        while let Some(found) = audits.next().await {
            report.checked += 1;
            match found {
                Audit::Consistent => {}
                Audit::Inconclusive => report.inconclusive += 1,
                Audit::Inconsistent(found) => {
                    report.inconsistent += 1;
                    if report.examples.len() < EXAMPLES {
                        report.examples.push(Finding::from(&*found));
                    }
                }
            }
        }
        report
    }

    /// Looks at one key, and counts and logs what it finds.
    async fn audit(&self, log: &Log, key: Key) -> Audit {
        let audit = self.look(log, key).await.unwrap_or_else(|error| {
            tracing::debug!(?key, %error, "can't audit");
            Audit::Inconclusive
        });
        let kind = match key {
            Key::Object(_) => "object",
            Key::List(..) => "list",
        };
        let count = |name| counter(name, log, kind).increment(1);
        count("tao_audit_checked_total");
        match &audit {
            Audit::Consistent => self.window.lock().add(Instant::now(), false),
            Audit::Inconclusive => count("tao_audit_inconclusive_total"),
            Audit::Inconsistent(found) => {
                count("tao_audit_inconsistent_total");
                self.window.lock().add(Instant::now(), true);
                let Finding { key, cached_at, stored_at, cached, stored } = Finding::from(&**found);
                let log = log.id.0;
                tracing::error!(log, key, cached_at, stored_at, cached, stored, "a cached value is not the database's");
            }
        }
        audit
    }

    async fn look(&self, log: &Log, key: Key) -> Result<Audit> {
        let mut context = CallContext::within(KEY_WITHIN);
        context.shard = self.meeting.map()?.shard(key.owner());
        log.reader.audit(key, context).await
    }
}
