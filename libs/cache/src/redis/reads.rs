//! Reads of Redis: what is asked for while the line is busy is read with one command, under one timer.

use std::mem;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use redis::Cmd;
use tokio::sync::{mpsc, oneshot};

use super::link::Link;

/// Keys of one command. Redis does nothing else meanwhile, and a value may have a megabyte.
const TOGETHER: usize = 64;
/// Commands that are under way at once: more would only be smaller.
const UNDER_WAY: usize = 4;

/// A key that somebody waits for.
pub(super) struct Asked {
    pub name: Vec<u8>,
    /// The value; nothing when there is none, or no telling.
    pub answer: oneshot::Sender<Option<Vec<u8>>>,
}

/// Reads for as long as somebody may ask.
pub(super) async fn read_together(link: Arc<Link>, mut asked: mpsc::UnboundedReceiver<Asked>) {
    let mut under_way = FuturesUnordered::new();
    let mut next = Vec::with_capacity(TOGETHER);
    loop {
        tokio::select! {
            n = asked.recv_many(&mut next, TOGETHER), if under_way.len() < UNDER_WAY => {
                if n == 0 {
                    return;
                }
                let batch = mem::replace(&mut next, Vec::with_capacity(TOGETHER));
                if link.is_cluster() {
                    // Its keys are on several servers, and the cluster's client sorts them.
                    batch.into_iter().for_each(|one| under_way.push(read(&link, vec![one])));
                } else {
                    under_way.push(read(&link, batch));
                }
            }
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
        }
    }
}

async fn read(link: &Link, batch: Vec<Asked>) {
    // Who asked may have gone.
    let batch: Vec<_> = batch.into_iter().filter(|asked| !asked.answer.is_closed()).collect();
    let Some(first) = batch.first() else { return };
    let values: Vec<Option<Vec<u8>>> = if batch.len() == 1 {
        let value = link.run(&first.name, async |mut c| Cmd::get(&first.name).query_async(&mut c).await).await;
        vec![value.flatten()]
    } else {
        let names: Vec<_> = batch.iter().map(|asked| asked.name.as_slice()).collect();
        let values = link.run(&first.name, async |mut c| Cmd::mget(&names[..]).query_async(&mut c).await).await;
        values.unwrap_or_default()
    };
    // Those that got no value are told by the drop of their senders.
    for (asked, value) in batch.into_iter().zip(values) {
        // They may have gone meanwhile.
        let _ = asked.answer.send(value);
    }
}
