//! Ports that stay free.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below the range from which systems take the local ports of outgoing connections (Linux: from 32768), so that a
/// server that is stopped for a while finds its port free when it comes back.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A TCP port on 127.0.0.1 that nobody listens on, and that is given to nobody else while this process lives.
///
/// The UDP port of the same number, held until this process ends, is the sign by which other test processes know.
pub fn free_port() -> Result<u16> {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    let size = LAST - FIRST + 1;
    let start = (RandomState::new().hash_one(std::process::id()) % u64::from(size)) as u16;
    for step in 0..size {
        let port = FIRST + (start + step) % size;
        let Ok(sign) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            reserved.push(sign);
            return Ok(port);
        }
    }
    bail!("every port from {FIRST} to {LAST} on 127.0.0.1 is taken")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_are_distinct_and_can_be_listened_on() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
