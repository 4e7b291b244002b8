//! Honest clients, which come and go while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tao_client::{ClientError, Session};
use tao_harness::eventually_async;
use tao_proto::v1::{ObjectAddRequest, ObjectGetRequest};
use tokio::task::JoinHandle;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

/// See the module. Ends with its first error.
pub struct Load {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), ClientError>>,
}

impl Load {
    /// Ten writes and reads by each session.
    pub fn start(connect: impl Fn() -> Result<Session, ClientError> + Send + 'static) -> Self {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (done.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let session = connect()?;
                for _ in 0..10 {
                    write_and_read(&session).await?;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Self { done, stop, task }
    }

    /// Waits until it has done more.
    pub async fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        let more = eventually_async(WITHIN, async || {
            ensure!(!self.task.is_finished(), "it has ended");
            ensure!(self.done.load(Ordering::Relaxed) > before + 20, "it stands still");
            Ok(())
        });
        more.await.unwrap();
    }

    /// Ends it; what it has done, none of which has failed.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap().unwrap();
        self.done.load(Ordering::Relaxed)
    }
}

/// Adds an object and reads it.
pub async fn write_and_read(session: &Session) -> Result<(), ClientError> {
    let added = session.object_add(ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() }).await?;
    let id = added.object.map_or(0, |object| object.id);
    session.object_get(ObjectGetRequest { id, options: None }).await.map(drop)
}
