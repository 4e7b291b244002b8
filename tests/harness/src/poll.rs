//! Waiting for something that another process does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PAUSE: Duration = Duration::from_millis(5);

/// Asks again and again, every few milliseconds, until `probe` succeeds; its last error is reported when `deadline`
/// has passed. Blocks the thread.
///
/// For what happens in *other processes*, where there is no event to wait for. Inside a process, wait for the event.
pub fn eventually<T>(deadline: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => return Err(error).context(late(deadline)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// [`eventually`] for async tests: the runtime goes on while it waits. The `probe` itself is not interrupted, so give
/// the calls in it deadlines of their own.
pub async fn eventually_async<T>(deadline: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => return Err(error).context(late(deadline)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn late(deadline: Duration) -> String {
    format!("did not come true within {deadline:?}")
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn asks_until_it_comes_true() {
        let mut left = 3;
        let answer = eventually(Duration::from_secs(10), || {
            left -= 1;
            ensure!(left == 0, "{left} to go");
            Ok("done")
        });
        assert_eq!(answer.unwrap(), "done");
    }

    #[test]
    fn reports_the_last_error_when_it_is_late() {
        let late = eventually::<()>(Duration::from_millis(20), || anyhow::bail!("nobody is home"));
        let message = format!("{:#}", late.unwrap_err());
        assert_eq!(message, "did not come true within 20ms: nobody is home");
    }

    #[tokio::test]
    async fn has_an_async_form() {
        let mut left = 3;
        let answer = eventually_async(Duration::from_secs(10), async || {
            left -= 1;
            ensure!(left == 0, "{left} to go");
            Ok(())
        });
        answer.await.unwrap();
    }
}
