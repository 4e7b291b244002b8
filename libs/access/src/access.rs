//! What a follower asks of every call: who it is from.

use std::sync::Arc;

use tao_model::Result;

use crate::caller::Caller;
use crate::peer::Peer;

/// Who is let in. Shared by all connections of a follower.
#[derive(Debug, Default)]
pub struct Access {}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self::default()
    }

    /// Who a call is from, by its connection and its `authorization`.
    pub fn caller(&self, peer: &Peer, _authorization: Option<&[u8]>) -> Result<Arc<Caller>> {
        Ok(peer.caller())
    }
}
