//! Whether a connection is of use to anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Looks at a connection before it is taken for idle.
const LOOKS: u32 = 4;

/// The requests of a connection: counted, since to read the clock for each would cost more.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    begun: AtomicU64,
    running: AtomicUsize,
}

/// A request under way; a stream is one for as long as it is open.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
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
