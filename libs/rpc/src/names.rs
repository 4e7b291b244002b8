//! What a name stands for, as it changes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::backoff::vary;
use crate::connect::Connect;

/// Between two questions to the resolver at the least, however often connections break.
const SOONEST: Duration = Duration::from_millis(100);

/// Where a server is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Place {
    name: Arc<Uri>,
    aim: watch::Receiver<Aim>,
    asks: Arc<Notify>,
}

/// Where to connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Aim {
    /// Of one server, the preferred first: more than one only when they are of different families. None: not known yet.
    pub addresses: Vec<SocketAddr>,
    /// Why it is not known.
    pub problem: Option<String>,
}

impl Place {
    /// What `aim` says. Those who want it to be looked at anew ask by `asks`.
    pub(crate) fn new(name: Arc<Uri>, aim: watch::Receiver<Aim>, asks: Arc<Notify>) -> Self {
        Self { name, aim, asks }
    }

    /// The name, as it was given.
    pub fn name(&self) -> &Uri {
        &self.name
    }

    /// The same for people: host and port.
    pub fn label(&self) -> String {
        self.name.authority().map_or_else(|| self.name.to_string(), ToString::to_string)
    }

    /// The addresses that are known now; empty while none is.
    pub fn now(&self) -> Vec<SocketAddr> {
        self.aim.borrow().addresses.clone()
    }

    /// The addresses, as soon as they are known; why not, when that turns out first.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut aim = self.aim.clone();
        let settled = |aim: &Aim| !aim.addresses.is_empty() || aim.problem.is_some();
        let Ok(aim) = aim.wait_for(settled).await.map(|aim| aim.clone()) else {
            return Err("nobody looks for its name any more".to_owned());
        };
        match aim.problem {
            Some(problem) if aim.addresses.is_empty() => Err(format!("its name has no address: {problem}")),
            _ => Ok(aim.addresses),
        }
    }

    /// Ends when the server has none of these addresses any more.
    pub(crate) async fn left(&self, addresses: &[SocketAddr]) {
        let mut aim = self.aim.clone();
        let has_left = |aim: &Aim| !aim.addresses.iter().any(|a| addresses.contains(a));
        if aim.wait_for(has_left).await.is_err() {
            // Its address is what it is for good.
            std::future::pending::<()>().await;
        }
    }

    /// Ends when something is said of it that was not known when `since` was taken.
    pub(crate) async fn changed(mut since: Self) {
        if since.aim.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// For [`Self::changed`].
    pub(crate) fn mark(&self) -> Self {
        let mut mark = self.clone();
        mark.aim.mark_unchanged();
        mark
    }

    /// A connection broke, or can't be made: perhaps the name knows more by now.
    pub(crate) fn doubt(&self) {
        self.asks.notify_one();
    }
}

/// The IP address that a name is, if it is one: nothing is to be resolved then.
pub(crate) fn literal(name: &Uri) -> Option<SocketAddr> {
    let host = name.host()?.trim_start_matches('[').trim_end_matches(']');
    Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, name.port_u16()?))
}

/// Resolves a name again and again: about each `every`, and soon after somebody asked.
pub(crate) async fn keep_resolving(
    connect: Arc<dyn Connect>,
    name: Arc<Uri>,
    every: Duration,
    asks: Arc<Notify>,
    mut tell: impl FnMut(io::Result<Vec<SocketAddr>>),
) {
    let (host, port) = (name.host().unwrap_or_default(), name.port_u16().unwrap_or_default());
    let soonest = SOONEST.min(every);
    loop {
        let resolved = connect.resolve(host, port).await;
        let none = || io::Error::new(io::ErrorKind::NotFound, "no address is listed");
        tell(resolved.and_then(|addresses| if addresses.is_empty() { Err(none()) } else { Ok(addresses) }));
        sleep(soonest).await;
        // Whether somebody asked or time is up.
        let _ = timeout(vary(every).saturating_sub(soonest), asks.notified()).await;
    }
}

/// The servers that a name's addresses belong to, each with its addresses. A name with no more than one address of each family is
/// one server. Otherwise each address is a server, of the family that has the most: a server that has both is to be counted once.
pub(crate) fn servers(mut addresses: Vec<SocketAddr>) -> Vec<Vec<SocketAddr>> {
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let count = |v4: bool| addresses.iter().filter(|a| a.is_ipv4() == v4).count();
    let (v4, v6) = (count(true), count(false));
    if v4.max(v6) <= 1 {
        return if addresses.is_empty() { Vec::new() } else { vec![addresses] };
    }
    let prefers_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let takes_v4 = v4 > v6 || (v4 == v6 && prefers_v4);
    addresses.retain(|a| a.is_ipv4() == takes_v4);
    // In an order that does not depend on the resolver, which likes to turn them.
    addresses.sort_unstable();
    addresses.into_iter().map(|address| vec![address]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_servers_unless_one_server_has_both_families() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (at("10.0.0.1:5"), at("10.0.0.2:5"), at("10.0.0.3:5"));
        let (a6, b6) = (at("[fd00::1]:5"), at("[fd00::2]:5"));
        assert_eq!(servers(vec![]), Vec::<Vec<SocketAddr>>::new());
        assert_eq!(servers(vec![a, a]), [[a]]);
        assert_eq!(servers(vec![a6, a]), [[a6, a]]);
        assert_eq!(servers(vec![c, a, b]), [[a], [b], [c]]);
        assert_eq!(servers(vec![b6, a6, b, a]), [[a6], [b6]]);
        assert_eq!(servers(vec![b6, b, a]), [[a], [b]]);
    }

    #[test]
    fn ip_addresses_are_no_names() {
        let of = |text: &str| literal(&text.parse().unwrap());
        assert_eq!(of("http://127.0.0.1:5"), "127.0.0.1:5".parse().ok());
        assert_eq!(of("http://[::1]:5"), "[::1]:5".parse().ok());
        assert_eq!(of("http://leader-0.leaders:5"), None);
    }
}
