//! Who asks.

use std::net::IpAddr;
use std::sync::Arc;

use tao_tls::PeerIdentity;

/// Who asks, as far as it is known.
#[derive(Debug)]
pub struct Caller {
    name: Arc<str>,
}

impl Caller {
    /// Whoever a connection is from: by the first name of its certificate, else by its address, which proves nothing.
    pub(crate) fn of_peer(identity: Option<&PeerIdentity>, address: Option<IpAddr>) -> Self {
        let certified = identity.and_then(|identity| identity.dns.first().or(identity.uris.first()));
        let name = match (certified, address) {
            (Some(name), _) => format!("cert:{name}"),
            (None, Some(address)) => format!("address:{}", address.to_canonical()),
            (None, None) => "nobody".to_owned(),
        };
        Self { name: name.into() }
    }

    /// The same for the same caller on all connections: `cert:NAME`, or `address:IP` of one that proves nothing.
    pub fn name(&self) -> &str {
        &self.name
    }
}
