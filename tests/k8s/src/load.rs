//! What users would do all the while: sessions that write, read what they wrote, and notice what is wrong.

mod story;
mod tally;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use parking_lot::Mutex;
use tao_client::{Client, ClientOptions};

use self::story::Story;
pub use self::tally::{Tally, percentile};
use self::worker::Worker;

/// Sessions at a time: so many that each of a few followers has some.
const WORKERS: usize = 48;
/// Between two calls of a session, so that what is measured is the store and not a machine that has more to do than it can.
const PAUSE: Duration = Duration::from_millis(60);
/// A call, its retries included: what is not answered by then has failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    client: Client,
    /// Of the client, when it was asked last.
    retries: u64,
    runner: JoinHandle<Result<Vec<Story>>>,
    address: String,
}

impl Load {
    /// Begins: sessions at the followers that `address` names. Returns when each has what it works with.
    pub fn start(address: &str) -> Result<Self> {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Tally>>::default());
        let (begun, client) = std::sync::mpsc::channel();
        let (stopped, counted, to) = (stop.clone(), tally.clone(), address.to_owned());
        let runner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(async {
                let client = Client::connect(&to, options())?;
                let begin = |number| tokio::spawn(Worker::begin(client.session(), number, counted.clone()));
                let beginning: Vec<_> = (0..WORKERS).map(begin).collect();
                let mut workers = Vec::new();
                for worker in beginning {
                    workers.push(worker.await??);
                }
                begun.send(client).ok();
                let mut running = Vec::new();
                for mut worker in workers {
                    let stop = stopped.clone();
                    running.push(tokio::spawn(async move {
                        while !stop.load(Ordering::Relaxed) {
                            worker.step().await;
                            tokio::time::sleep(PAUSE).await;
                        }
                        worker.story()
                    }));
                }
                let mut stories = Vec::new();
                for worker in running {
                    stories.push(worker.await?);
                }
                anyhow::Ok(stories)
            })
        });
        let Ok(client) = client.recv() else {
            let why = runner.join().map_err(|_| anyhow!("the load panicked"))?.err();
            return Err(why.unwrap_or_else(|| anyhow!("the load ended")).context("the load could not begin"));
        };
        Ok(Self { stop, tally, client, retries: 0, runner, address: address.to_owned() })
    }

    /// What happened since this was asked last, or since the beginning.
    pub fn take(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut *self.tally.lock());
        let retries = self.client.stats().retries;
        tally.retries = retries - std::mem::replace(&mut self.retries, retries);
        tally
    }

    /// Ends it, and reads all that was written with the strongest consistency; answers with what is missing.
    pub fn finish(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let stories = self.runner.join().map_err(|_| anyhow!("the load panicked"))??;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let session = Client::connect(&self.address, options())?.session();
            let mut lost = Vec::new();
            for story in stories {
                lost.extend(story.lost(&session).await?);
            }
            Ok(lost)
        })
    }
}

fn options() -> ClientOptions {
    // Attempts are not what ends a call here.
    ClientOptions { deadline: DEADLINE, attempts: u32::MAX, ..ClientOptions::default() }
}
