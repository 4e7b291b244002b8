//! Shows the others that this store lives, and notices when it may not go on. A task of its own: whoever waits for nothing but a sign
//! of life must not wait for a table that is being tidied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::backend::Backend;
use crate::servers::{BEAT, Running, Server};

/// After a sign that could not be given: the sooner it is, the less can be taken away meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Heartbeat {
    pub backend: Arc<dyn Backend>,
    /// What others see of this store.
    pub server: Server,
    /// The oldest schema version that the database serves, as last seen.
    pub minimum: watch::Sender<i64>,
}

impl Heartbeat {
    /// Runs for ever.
    pub async fn run(self) {
        let (mut counts, mut fails) = (Counts::default(), false);
        loop {
            let pause = match self.backend.beat(&self.server).await {
                Ok(beat) => {
                    counts.show(&beat.running);
                    self.minimum.send_replace(beat.minimum);
                    fails = false;
                    BEAT
                }
                Err(fault) => {
                    if !fails {
                        tracing::warn!(?fault, "can't write down that this storage shard lives");
                    }
                    fails = true;
                    AGAIN
                }
            };
            sleep(pause).await;
        }
    }
}

/// How many storage shards of each schema version run.
#[derive(Default)]
struct Counts(BTreeMap<i64, u32>);

impl Counts {
    fn show(&mut self, running: &[Running]) {
        // Those that are gone are shown as such.
        self.0.values_mut().for_each(|count| *count = 0);
        for server in running {
            *self.0.entry(server.schema_version).or_default() += 1;
        }
        for (version, count) in &self.0 {
            let gauge = metrics::gauge!("tao_shard_servers", "schema_version" => version.to_string());
            gauge.set(f64::from(*count));
        }
    }
}
