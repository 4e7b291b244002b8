//! How long calls took, by service, method and code: counted on the hit path, so without a lock, an allocation, or a line of memory
//! that two cores write.

use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tao_trace::slow::Told;
use tonic::Code;

use crate::metrics::DURATIONS;

/// gRPC's codes, 0 to 16.
const CODES: usize = 17;
/// Methods that get series of their own; those past it are counted together.
const MAX_METHODS: usize = 512;
/// A power of two above it: a place is found within few steps.
const PLACES: usize = 2 * MAX_METHODS;
/// Threads share a stripe when there are more of them.
const STRIPES: usize = 16;
/// One past the last bound: what took longer than that.
const BUCKETS: usize = DURATIONS.len() + 1;

/// Whether nobody wants them.
static IS_OFF: AtomicBool = AtomicBool::new(false);

/// The series `rpc_server_duration_seconds` of the process.
///
/// The layer around every call records here. A service that answers calls inside of a stream looks their series up once and
/// records each.
#[derive(Debug)]
pub struct CallDurations {
    /// Open addressing, never removed from: readers need no lock.
    places: [OnceLock<&'static Method>; PLACES],
    /// How many places are taken; held while one is.
    taken: Mutex<usize>,
    other: OnceLock<MethodSeries>,
}

/// The series of one method. Copied freely: what it stands for lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct MethodSeries(&'static Method);

#[derive(Debug)]
struct Method {
    service: String,
    name: String,
    by_code: [OnceLock<Box<[CachePadded<Stripe>; STRIPES]>>; CODES],
}

/// What some of the threads have counted.
#[derive(Debug, Default)]
struct Stripe {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl CallDurations {
    /// Those that `/metrics` shows.
    pub fn of_process() -> &'static Self {
        static PROCESS: CallDurations = CallDurations::new();
        &PROCESS
    }

    /// Nothing is counted from now on.
    pub(crate) fn turn_off() {
        IS_OFF.store(true, Relaxed);
    }

    const fn new() -> Self {
        Self { places: [const { OnceLock::new() }; PLACES], taken: Mutex::new(0), other: OnceLock::new() }
    }

    /// The series of a method, such as `tao.v1.GraphService` and `ObjectGet`; a shared one when there are too many.
    pub fn method(&self, service: &str, method: &str) -> MethodSeries {
        self.find(service, method).unwrap_or_else(|| self.add(service, method))
    }

    /// The series of a method that has been looked up or has answered before.
    pub(crate) fn find(&self, service: &str, method: &str) -> Option<MethodSeries> {
        for place in probe(service, method) {
            match self.places[place].get() {
                Some(known) if known.name == method && known.service == service => return Some(MethodSeries(known)),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Where calls of what does not exist are counted: anybody can make up names.
    pub(crate) fn other(&self) -> MethodSeries {
        *self.other.get_or_init(|| MethodSeries(Method::leaked("other", "other")))
    }

    fn add(&self, service: &str, method: &str) -> MethodSeries {
        let mut taken = self.taken.lock();
        if let Some(known) = self.find(service, method) {
            return known;
        }
        if *taken == MAX_METHODS {
            return self.other();
        }
        *taken += 1;
        let added = Method::leaked(service, method);
        let free = probe(service, method).find(|place| self.places[*place].get().is_none());
        if let Some(free) = free {
            self.places[free].get_or_init(|| added);
        }
        MethodSeries(added)
    }

    /// In Prometheus's text format; empty when nothing was recorded.
    pub(crate) fn render(&self) -> String {
        const NAME: &str = "rpc_server_duration_seconds";
        let mut text = String::new();
        let methods = self.places.iter().filter_map(|place| place.get().copied());
        for method in methods.chain(self.other.get().map(|other| other.0)) {
            for (code, stripes) in method.by_code.iter().enumerate() {
                let Some(stripes) = stripes.get() else { continue };
                let labels = format!(
                    "service=\"{}\",method=\"{}\",code=\"{:?}\"",
                    method.service,
                    method.name,
                    Code::from_i32(code as i32)
                );
                let sum = |of: &dyn Fn(&Stripe) -> &AtomicU64| stripes.iter().map(|s| of(s).load(Relaxed)).sum::<u64>();
                if text.is_empty() {
                    text = format!(
                        "# HELP {NAME} Seconds from when a call was read to its end, by service, method and code.\n# TYPE {NAME} histogram\n"
                    );
                }
                let mut count = 0;
                for bucket in 0..BUCKETS {
                    count += sum(&|s| &s.buckets[bucket]);
                    let bound = DURATIONS.get(bucket).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                    let _ = writeln!(text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}");
                }
                let seconds = sum(&|s| &s.nanoseconds) as f64 / 1e9;
                let _ = writeln!(text, "{NAME}_sum{{{labels}}} {seconds}\n{NAME}_count{{{labels}}} {count}");
            }
        }
        text
    }
}

/// The places where a method may be, in order.
fn probe(service: &str, method: &str) -> impl Iterator<Item = usize> {
    let hash = FixedState::with_seed(0).hash_one((service, method)) as usize;
    (0..PLACES).map(move |step| hash.wrapping_add(step) % PLACES)
}

impl Method {
    /// A process has few of them, and each call needs its own without counting references.
    fn leaked(service: &str, method: &str) -> &'static Self {
        let by_code = [const { OnceLock::new() }; CODES];
        Box::leak(Box::new(Self { service: service.to_owned(), name: method.to_owned(), by_code }))
    }
}

impl MethodSeries {
    /// What a slow call of it was, for the log.
    pub fn told(self, code: Code) -> Told {
        Told { call: format!("{}/{}", self.0.service, self.0.name), code: format!("{code:?}") }
    }

    /// Counts one call.
    pub fn record(self, code: Code, took: Duration) {
        if IS_OFF.load(Relaxed) {
            return;
        }
        let Some(stripes) = self.0.by_code.get(code as usize) else { return };
        let stripe = &stripes.get_or_init(Box::default)[stripe()];
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        stripe.buckets[BOUNDS.partition_point(|bound| *bound < nanoseconds)].fetch_add(1, Relaxed);
        stripe.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }
}

/// The buckets' bounds in nanoseconds.
static BOUNDS: [u64; DURATIONS.len()] = {
    let mut bounds = [0; DURATIONS.len()];
    let mut n = 0;
    while n < bounds.len() {
        bounds[n] = (DURATIONS[n] * 1e9) as u64;
        n += 1;
    }
    bounds
};

/// The thread's own stripe, as long as there are no more threads than stripes.
fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_shown_together() {
        let durations = CallDurations::new();
        assert_eq!(durations.render(), "");
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| {
                    let series = durations.method("a.B", "Get");
                    series.record(Code::Ok, Duration::from_micros(50));
                    series.record(Code::Ok, Duration::from_micros(51));
                    series.record(Code::NotFound, Duration::from_secs(61));
                });
            }
        });
        let text = durations.render();
        for line in [
            "# TYPE rpc_server_duration_seconds histogram",
            r#"rpc_server_duration_seconds_bucket{service="a.B",method="Get",code="Ok",le="0.00005"} 32"#,
            r#"rpc_server_duration_seconds_bucket{service="a.B",method="Get",code="Ok",le="0.0001"} 64"#,
            r#"rpc_server_duration_seconds_bucket{service="a.B",method="Get",code="Ok",le="+Inf"} 64"#,
            r#"rpc_server_duration_seconds_sum{service="a.B",method="Get",code="Ok"} 0.003232"#,
            r#"rpc_server_duration_seconds_count{service="a.B",method="Get",code="Ok"} 64"#,
            r#"rpc_server_duration_seconds_bucket{service="a.B",method="Get",code="NotFound",le="60"} 0"#,
            r#"rpc_server_duration_seconds_bucket{service="a.B",method="Get",code="NotFound",le="+Inf"} 32"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn too_many_methods_are_counted_together() {
        let durations = CallDurations::new();
        for n in 0..MAX_METHODS {
            assert_eq!(durations.method("a.B", &n.to_string()).0.name, n.to_string());
        }
        assert_eq!(durations.method("a.B", "more").0.service, "other");
        assert!(durations.find("a.B", "more").is_none());
        assert_eq!(durations.find("a.B", "511").map(|known| known.0.name.as_str()), Some("511"));
    }
}
