//! Who is at the other end of a stream that goes on.

use std::sync::Arc;

use tao_model::{Error, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::access::Access;
use crate::caller::Caller;
use crate::peer::Peer;

/// The caller of a stream: judged when it begins, and again when the rules change or its token ends.
#[derive(Debug)]
pub struct Standing {
    access: Access,
    peer: Arc<Peer>,
    authorization: Option<Vec<u8>>,
    caller: Arc<Caller>,
    changes: Option<watch::Receiver<u64>>,
    /// Why they are let in no longer, by the rules of a generation.
    refused: Option<(u64, Error)>,
}

impl Standing {
    /// Judges whoever begins a stream.
    pub fn begin(access: &Access, peer: Arc<Peer>, authorization: Option<&[u8]>) -> Result<Self> {
        let changes = access.changes();
        let caller = access.caller(&peer, authorization)?;
        let authorization = authorization.map(<[u8]>::to_vec);
        Ok(Self { access: access.clone(), peer, authorization, caller, changes, refused: None })
    }

    /// Who it was when they were last judged.
    pub const fn last(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Who it is now.
    pub fn now(&mut self, now: Instant) -> Result<&Arc<Caller>> {
        if self.access.is_current(&self.caller, now) {
            return Ok(&self.caller);
        }
        self.judge()
    }

    fn judge(&mut self) -> Result<&Arc<Caller>> {
        let generation = self.access.generation();
        if let Some((of, error)) = &self.refused
            && *of == generation
        {
            return Err(error.clone());
        }
        match self.access.caller(&self.peer, self.authorization.as_deref()) {
            Ok(caller) => {
                self.refused = None;
                self.caller = caller;
                Ok(&self.caller)
            }
            Err(error) => {
                self.refused = Some((generation, error.clone()));
                Err(error)
            }
        }
    }

    /// Waits until they have to be judged again, and does so.
    pub async fn renewed(&mut self) -> Result<&Arc<Caller>> {
        let changed = async {
            let told = match &mut self.changes {
                Some(changes) => changes.changed().await.is_ok(),
                None => false,
            };
            // Nothing changes, or nobody tells any more.
            if !told {
                std::future::pending().await
            }
        };
        let ended = async {
            match self.caller.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = ended => {}
        }
        self.judge()
    }
}
