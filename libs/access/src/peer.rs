//! The other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tao_tls::PeerIdentity;

use crate::caller::Caller;
use crate::rules::Rules;

/// The other end of a connection: what is known of it, and who it is taken for where its calls say nothing else.
#[derive(Debug)]
pub struct Peer {
    identity: Option<Arc<PeerIdentity>>,
    address: Option<IpAddr>,
    caller: ArcSwap<Caller>,
}

impl Peer {
    /// By what it has proved, and where it is.
    pub fn new(identity: Option<Arc<PeerIdentity>>, address: Option<IpAddr>) -> Self {
        let caller = ArcSwap::from_pointee(Caller::of_peer(identity.as_deref(), address));
        Self { identity, address, caller }
    }

    /// Who it is, where everybody may do everything.
    pub(crate) fn caller(&self) -> Arc<Caller> {
        self.caller.load_full()
    }

    /// Who it is, with what it may do: looked up once, and again when the rules change.
    pub(crate) fn caller_by(&self, rules: &Rules) -> Arc<Caller> {
        let generation = rules.generation();
        let known = self.caller.load();
        if known.generation == generation {
            return known.clone();
        }
        let names = self.identity.iter().flat_map(|identity| identity.dns.iter().chain(&identity.uris));
        let names: Vec<String> = names.map(|name| format!("cert:{name}")).collect();
        let grants = rules.policy().grants(names.iter().map(String::as_str));
        let caller = Caller::of_peer(self.identity.as_deref(), self.address).granted(grants, generation);
        let caller = Arc::new(caller);
        self.caller.store(caller.clone());
        caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_whoever_it_is_and_not_of_the_connection() {
        let name = |identity: Option<PeerIdentity>, address: Option<&str>| {
            let address = address.map(|text| text.parse().unwrap());
            Peer::new(identity.map(Arc::new), address).caller().name().to_owned()
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
