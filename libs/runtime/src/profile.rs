//! A CPU profile of the running process, for `go tool pprof`.

use std::sync::Arc;
use std::time::Duration;

use pprof::protos::Message as _;
use pprof::{Frames, ProfilerGuardBuilder};
use tokio::sync::Mutex;

use crate::admin::{AdminAnswer, AdminQuery, AdminRoutes};

/// Samples a second: not a multiple of what timers tick at.
const RATE: i32 = 99;
/// Seconds.
const DEFAULT: u64 = 10;
const MAX: u64 = 120;
/// Code in which a signal must not look for callers: it may be in the midst of what that needs.
const BLOCKED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Lets operators ask: `GET /debug/pprof/profile?seconds=10`, from the machine itself, one at a time. Costs nothing until then.
pub fn answer_operators(routes: &AdminRoutes) {
    let running = Arc::<Mutex<()>>::default();
    routes.local_get("/debug/pprof/profile", move |query| {
        let running = running.clone();
        async move {
            let Ok(_running) = running.try_lock() else {
                return AdminAnswer::Unavailable("a profile is being made\n".to_owned());
            };
            answer(&query).await
        }
    });
}

async fn answer(query: &AdminQuery) -> AdminAnswer {
    let seconds = match query.get("seconds").map(|seconds| seconds.parse::<u64>()) {
        None => DEFAULT,
        Some(Ok(seconds)) if (1..=MAX).contains(&seconds) => seconds,
        Some(_) => return AdminAnswer::BadRequest(format!("seconds: a number from 1 to {MAX}\n")),
    };
    match take(Duration::from_secs(seconds)).await {
        Ok(profile) => AdminAnswer::Bytes("application/octet-stream", profile),
        Err(error) => AdminAnswer::Unavailable(format!("no profile: {error}\n")),
    }
}

async fn take(time: Duration) -> pprof::Result<Vec<u8>> {
    let guard = ProfilerGuardBuilder::default().frequency(RATE).blocklist(&BLOCKED).build()?;
    tokio::time::sleep(time).await;
    // Names are looked up here, which takes a while.
    let made = tokio::task::spawn_blocking(move || {
        let mut report = guard.report();
        report.frames_post_processor(without_own);
        let profile = report.build()?.pprof()?;
        Ok(profile.encode_to_vec())
    });
    made.await.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
}

/// The innermost frames are those of the profiler.
fn without_own(stack: &mut Frames) {
    let is_own = |name: &str| name.contains("pprof::backtrace") || name.starts_with("backtrace::");
    let own = stack.frames.iter().take_while(|frame| frame.iter().any(|symbol| is_own(&symbol.name()))).count();
    stack.frames.drain(..own);
}
