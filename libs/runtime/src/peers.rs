//! How many connections come from one address: nobody may take all that there are.

use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;

/// The addresses that connections come from. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Where a connection comes from; counted there until dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    address: Option<IpAddr>,
    of: Peers,
}

impl Peers {
    /// Counts a connection, unless as many as `max` come from its address. One without an address is none of many.
    pub(crate) fn admit(&self, address: Option<IpAddr>, max: usize) -> Option<Peer> {
        // The same machine, whether its address came as one of version 4 or 6.
        let address = address.map(|address| address.to_canonical());
        if let Some(address) = address {
            let mut all = self.0.lock();
            let connections = all.entry(address).or_insert(0);
            if *connections >= max {
                return None;
            }
            *connections += 1;
        }
        Some(Peer { address, of: self.clone() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        if let Entry::Occupied(mut connections) = self.of.0.lock().entry(address) {
            *connections.get_mut() -= 1;
            if *connections.get() == 0 {
                connections.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_and_is_forgotten_at_the_end() {
        let peers = Peers::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let first = peers.admit(Some(one), 2).unwrap();
        let second = peers.admit(Some(mapped), 2).unwrap();
        assert_eq!(second.to_string(), "10.0.0.1");
        assert!(peers.admit(Some(one), 2).is_none() && peers.admit(Some(other), 2).is_some());
        assert!(peers.admit(None, 0).is_some());
        drop(first);
        assert!(peers.admit(Some(one), 2).is_some());
        drop(second);
        assert!(peers.0.lock().is_empty());
    }
}
