//! Whether a connection is of use to anybody, or does harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Looks at a connection before it is taken for idle.
const LOOKS: u32 = 4;

/// Why a connection is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Frames for nothing.
    Frames,
    /// Calls that are reset as soon as they are made.
    Resets,
    /// It has not begun to speak.
    Silent,
    /// An answer is left where it is.
    Untaken,
}

impl Cause {
    /// Of all.
    pub(crate) const ALL: [Self; 4] = [Self::Frames, Self::Resets, Self::Silent, Self::Untaken];

    /// As metrics and the peer are told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            // What gRPC's own servers say.
            Self::Frames => "too_many_pings",
            Self::Resets => "too_many_resets",
            Self::Silent => "silent",
            Self::Untaken => "answer_not_taken",
        }
    }
}

/// The requests of a connection: counted, since to read the clock for each would cost more.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    begun: AtomicU64,
    running: AtomicUsize,
    cause: Mutex<Option<Cause>>,
    ended: CancellationToken,
}

/// A request under way; a stream is one for as long as it is open.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(crate) const fn activity(&self) -> &Arc<Activity> {
        &self.0
    }

    pub(crate) fn with(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Has the connection ended, for the cause that is named first.
    pub(crate) fn end(&self, cause: Cause) {
        self.cause.lock().get_or_insert(cause);
        self.ended.cancel();
    }

    /// Waits until it is to be ended.
    pub(crate) async fn ended(self: Arc<Self>) -> Cause {
        self.ended.cancelled().await;
        self.cause.lock().unwrap_or(Cause::Silent)
    }

    /// Ends when there has been no request for so long, up to a quarter more.
    pub(crate) async fn idle_for(self: Arc<Self>, time: Duration) {
        let (mut begun, mut quiet) = (0, 0);
        while quiet < LOOKS {
            tokio::time::sleep(time / LOOKS).await;
            let now = self.begun.load(Ordering::Relaxed);
            let is_quiet = now == begun && self.running.load(Ordering::Relaxed) == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            begun = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn neither_what_runs_nor_what_has_just_ended_is_idle() {
        let hour = Duration::from_secs(3_600);
        let activity = Arc::new(Activity::default());
        let idle = tokio::spawn(activity.clone().idle_for(hour));
        let busy = Busy::with(&activity);
        for _ in 0..100 {
            advance(hour / 4).await;
            tokio::task::yield_now().await;
        }
        assert!(!idle.is_finished());
        drop(busy);
        for _ in 0..20 {
            advance(hour / 2).await;
            tokio::task::yield_now().await;
            drop(Busy::with(&activity));
        }
        assert!(!idle.is_finished());
        let quiet = Instant::now();
        idle.await.unwrap();
        assert!((hour..=hour + hour / 4).contains(&quiet.elapsed()), "{:?}", quiet.elapsed());
    }
}
