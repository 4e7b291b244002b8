//! What a name stands for, as it changes.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::backoff::vary;
use crate::connect::Connect;

/// Between two questions to the resolver at the least. It doubles while connections go on failing and there is no news.
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

/// Resolves a name again and again: about each `every`, and soon after somebody asked; the later, the more often it was asked in vain.
pub(crate) async fn keep_resolving(
    connect: Arc<dyn Connect>,
    name: Arc<Uri>,
    every: Duration,
    asks: Arc<Notify>,
    mut tell: impl FnMut(io::Result<Vec<SocketAddr>>),
) {
    let (host, port) = (name.host().unwrap_or_default(), name.port_u16().unwrap_or_default());
    let soonest = SOONEST.min(every);
    let (mut pause, mut was_asked, mut known) = (soonest, false, BTreeSet::new());
    loop {
        let resolved = connect.resolve(host, port).await;
        let none = || io::Error::new(io::ErrorKind::NotFound, "no address is listed");
        let resolved = resolved.and_then(|addresses| if addresses.is_empty() { Err(none()) } else { Ok(addresses) });
        // Resolvers like to turn the order.
        let now = resolved.as_ref().ok().map(|addresses| addresses.iter().copied().collect::<BTreeSet<_>>());
        let is_news = now.as_ref().is_some_and(|now| *now != known);
        known = now.unwrap_or(known);
        tell(resolved);
        pause = if was_asked && !is_news { (pause * 2).min(every) } else { soonest };
        let next = vary(every);
        let least = pause.min(next);
        sleep(least).await;
        was_asked = timeout(next.saturating_sub(least), asks.notified()).await.is_ok();
    }
}

/// The servers that a name's addresses belong to, each with its addresses. A name with no more than one address of each family is
/// one server. Otherwise each address is a server, of one family, since a server that has both is to be counted once: the family that is
/// in use as long as it has any, so that no half answer swaps all servers, and else the one that has the most.
pub(crate) fn servers(mut addresses: Vec<SocketAddr>, in_use: &[SocketAddr]) -> Vec<Vec<SocketAddr>> {
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let count = |v4: bool| addresses.iter().filter(|a| a.is_ipv4() == v4).count();
    let (v4, v6) = (count(true), count(false));
    if v4.max(v6) <= 1 {
        return if addresses.is_empty() { Vec::new() } else { vec![addresses] };
    }
    let prefers_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let uses = |v4: bool| in_use.iter().any(|a| a.is_ipv4() == v4);
    let takes_v4 = match (uses(true), uses(false)) {
        (true, false) if v4 > 0 => true,
        (false, true) if v6 > 0 => false,
        _ => v4 > v6 || (v4 == v6 && prefers_v4),
    };
    addresses.retain(|a| a.is_ipv4() == takes_v4);
    // In an order that does not depend on the resolver, which likes to turn them.
    addresses.sort_unstable();
    addresses.into_iter().map(|address| vec![address]).collect()
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::sync::Mutex;

    use futures::future::BoxFuture;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::connect::BoxIo;

    /// A resolver that counts how often it is asked.
    #[derive(Default)]
    struct Counting(Mutex<(u32, Vec<SocketAddr>)>);

    impl Counting {
        /// How often it is asked from now on, within so long.
        async fn asked_within(&self, time: Duration) -> u32 {
            self.0.lock().unwrap().0 = 0;
            sleep(time).await;
            self.0.lock().unwrap().0
        }
    }

    impl Connect for Counting {
        fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            let mut this = self.0.lock().unwrap();
            this.0 += 1;
            // In another order each time.
            this.1.reverse();
            let addresses = this.1.clone();
            Box::pin(async move { Ok(addresses) })
        }

        fn connect(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_goes_on_failing_is_asked_for_less_and_less() {
        let seconds = Duration::from_secs;
        let (resolver, asks) = (Arc::new(Counting::default()), Arc::<Notify>::default());
        let name = Arc::new("http://leader-0:50052".parse().unwrap());
        let resolving = keep_resolving(resolver.clone(), name, seconds(2), asks.clone(), |_| {});
        let resolving = AbortOnDropHandle::new(tokio::spawn(resolving));
        let within = async |what: &str, time: Duration, times: RangeInclusive<u32>| {
            let asked = resolver.asked_within(time).await;
            assert!(times.contains(&asked), "{what}: {asked} times in {time:?}, not {times:?}");
        };
        within("nobody doubts", seconds(60), 25..=35).await;

        let in_doubt = asks.clone();
        let doubting = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                in_doubt.notify_one();
                sleep(Duration::from_millis(10)).await;
            }
        }));
        within("at once, and after 200, 400, 800 and 1,600 ms", seconds(1), 2..=4).await;
        within("hardly more than without doubts", seconds(60), 25..=40).await;
        resolver.0.lock().unwrap().1 = ["10.0.0.1:5", "10.0.0.2:5"].map(|address| address.parse().unwrap()).to_vec();
        within("there is news, and then none", seconds(5), 4..=9).await;

        // A connection that breaks after a time of calm.
        drop(doubting);
        within("nobody doubts any more", seconds(10), 4..=7).await;
        asks.notify_one();
        within("the first doubt", SOONEST + Duration::from_millis(1), 1..=2).await;
        drop(resolving);
    }

    #[test]
    fn addresses_are_servers_unless_one_server_has_both_families() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (at("10.0.0.1:5"), at("10.0.0.2:5"), at("10.0.0.3:5"));
        let (a6, b6) = (at("[fd00::1]:5"), at("[fd00::2]:5"));
        let of = |addresses: &[SocketAddr]| servers(addresses.to_vec(), &[]);
        assert_eq!(of(&[]), Vec::<Vec<SocketAddr>>::new());
        assert_eq!(of(&[a, a]), [[a]]);
        assert_eq!(of(&[a6, a]), [[a6, a]]);
        assert_eq!(of(&[c, a, b]), [[a], [b], [c]]);
        assert_eq!(of(&[b6, a6, b, a]), [[a6], [b6]]);
        assert_eq!(of(&[b6, b, a]), [[a], [b]]);
    }

    #[test]
    fn the_family_in_use_stays_while_it_has_an_address() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, a6, b6) = (at("10.0.0.1:5"), at("10.0.0.2:5"), at("[fd00::1]:5"), at("[fd00::2]:5"));
        assert_eq!(servers(vec![a6, b6, a], &[a, b]), [[a]]);
        assert_eq!(servers(vec![a, b, a6], &[a6]), [[a6]]);
        assert_eq!(servers(vec![a6, b6], &[a, b]), [[a6], [b6]], "it has none any more");
        assert_eq!(servers(vec![a, b, a6], &[a6, a]), [[a], [b]], "both are in use");
    }

    #[test]
    fn ip_addresses_are_no_names() {
        let of = |text: &str| literal(&text.parse().unwrap());
        assert_eq!(of("http://127.0.0.1:5"), "127.0.0.1:5".parse().ok());
        assert_eq!(of("http://[::1]:5"), "[::1]:5".parse().ok());
        assert_eq!(of("http://leader-0.leaders:5"), None);
    }
}
