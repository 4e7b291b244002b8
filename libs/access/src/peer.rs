//! The other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tao_tls::PeerIdentity;

use crate::caller::Caller;

/// The other end of a connection: what is known of it, and who it is taken for where its calls say nothing else.
#[derive(Debug)]
pub struct Peer {
    caller: ArcSwap<Caller>,
}

impl Peer {
    /// By what it has proved, and where it is.
    pub fn new(identity: Option<Arc<PeerIdentity>>, address: Option<IpAddr>) -> Self {
        Self { caller: ArcSwap::from_pointee(Caller::of_peer(identity.as_deref(), address)) }
    }

    /// Who it is.
    pub fn caller(&self) -> Arc<Caller> {
        self.caller.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_whoever_it_is_and_not_of_the_connection() {
        let name = |identity: Option<PeerIdentity>, address: Option<&str>| {
            let address = address.map(|text| text.parse().unwrap());
            Peer::new(identity.map(Arc::new), address).caller().name().to_string()
        };
        let dns =
            PeerIdentity { dns: vec!["app.test".to_owned(), "b".to_owned()], uris: vec!["spiffe://x/y".to_owned()] };
        let uri = PeerIdentity { dns: Vec::new(), ..dns.clone() };
        assert_eq!(name(Some(dns), Some("10.0.0.7")), "cert:app.test");
        assert_eq!(name(Some(uri), Some("10.0.0.7")), "cert:spiffe://x/y");
        assert_eq!(name(None, Some("10.0.0.7")), "address:10.0.0.7");
        assert_eq!(name(None, Some("::ffff:10.0.0.7")), "address:10.0.0.7");
        assert_eq!(name(Some(PeerIdentity::default()), None), "nobody");
    }
}
