//! The servers that some names stand for, as they come and go.
//!
//! A name with one address is one member, hashed by its name: it keeps its keys when it comes back with another address. A name with
//! several addresses is a member for each, hashed by the address. A member that is not named any more is not in the list any more; it
//! lives on as long as somebody holds it, so that calls under way end as they would have.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use http::Uri;
use parking_lot::Mutex;
use tao_model::StableHash;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::client::LinkOptions;
use crate::connect::{AddressError, parse_address};
use crate::names::{Aim, Place, keep_resolving, literal, servers};

/// See the module.
pub struct Members<M> {
    shared: Arc<Shared<M>>,
    _resolving: Vec<AbortOnDropHandle<()>>,
}

/// The members at one time.
#[derive(Debug)]
pub struct List<M> {
    /// Another one with every change.
    pub version: u64,
    /// In no order that means anything.
    pub entries: Vec<Entry<M>>,
}

/// A member, and what it is hashed by.
#[derive(Debug)]
pub struct Entry<M> {
    /// For [`weight`](crate::rendezvous::weight).
    pub hash: u64,
    /// What was made of its place.
    pub member: Arc<M>,
}

struct Shared<M> {
    list: ArcSwap<List<M>>,
    names: Mutex<Vec<Name<M>>>,
    make: Box<dyn Fn(Place) -> M + Send + Sync>,
}

/// A name, and the servers that it stands for.
struct Name<M> {
    text: String,
    uri: Arc<Uri>,
    asks: Arc<Notify>,
    servers: Vec<Server<M>>,
}

struct Server<M> {
    hash: u64,
    aim: watch::Sender<Aim>,
    member: Arc<M>,
}

impl<M: Send + Sync + 'static> Members<M> {
    /// Of `HOST:PORT` or `http://HOST:PORT` each. A name that is not resolved yet is a member already, which can't be reached.
    /// Must be called on a tokio runtime, or with one among the options'.
    pub fn new(
        names: &[String],
        options: &LinkOptions,
        make: impl Fn(Place) -> M + Send + Sync + 'static,
    ) -> Result<Self, AddressError> {
        let make: Box<dyn Fn(Place) -> M + Send + Sync> = Box::new(make);
        let named = names.iter().map(|text| Name::new(text, &*make)).collect::<Result<Vec<_>, _>>()?;
        let list = ArcSwap::from_pointee(list(0, &named));
        let to_resolve: Vec<_> = named.iter().map(|name| (name.uri.clone(), name.asks.clone())).collect();
        let shared = Arc::new(Shared { list, names: Mutex::new(named), make });
        let mut resolving = Vec::new();
        for (n, (uri, asks)) in to_resolve.into_iter().enumerate() {
            if literal(&uri).is_some() {
                continue;
            }
            let shared = shared.clone();
            let tell = move |resolved: io::Result<Vec<SocketAddr>>| shared.resolved(n, resolved);
            let task = keep_resolving(options.connect.clone(), uri, options.resolve_every, asks, tell);
            resolving.push(AbortOnDropHandle::new(runtime(options).spawn(task)));
        }
        Ok(Self { shared, _resolving: resolving })
    }

    /// The names, as they were given.
    pub fn names(&self) -> Vec<String> {
        self.shared.names.lock().iter().map(|name| name.text.clone()).collect()
    }

    /// Those that there are now; not to be held over an `await`.
    pub fn now(&self) -> Guard<Arc<List<M>>> {
        self.shared.list.load()
    }

    /// The same, to be held as long as one likes: its members live as long.
    pub fn list(&self) -> Arc<List<M>> {
        self.shared.list.load_full()
    }
}

impl<M> fmt::Debug for Members<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.shared.names.lock();
        f.debug_list().entries(names.iter().map(|name| (&name.text, name.servers.len()))).finish()
    }
}

/// Where what a client does in the background runs.
pub(crate) fn runtime(options: &LinkOptions) -> Handle {
    Handle::try_current().unwrap_or_else(|_| options.runtimes.first().cloned().unwrap_or_else(Handle::current))
}

fn list<M>(version: u64, names: &[Name<M>]) -> List<M> {
    let servers = names.iter().flat_map(|name| &name.servers);
    let entries = servers.map(|server| Entry { hash: server.hash, member: server.member.clone() }).collect();
    List { version, entries }
}

impl<M> Name<M> {
    fn new(text: &str, make: &dyn Fn(Place) -> M) -> Result<Self, AddressError> {
        let uri = Arc::new(parse_address(text)?);
        let addresses = literal(&uri).into_iter().collect();
        let mut name = Self { text: text.to_owned(), uri, asks: Arc::default(), servers: Vec::new() };
        let server = name.server(addresses, StableHash::of(text.as_bytes()), make);
        name.servers.push(server);
        Ok(name)
    }

    fn server(&self, addresses: Vec<SocketAddr>, hash: u64, make: &dyn Fn(Place) -> M) -> Server<M> {
        let aim = watch::Sender::new(Aim { addresses, problem: None });
        let place = Place::new(self.uri.clone(), aim.subscribe(), self.asks.clone());
        Server { hash, aim, member: Arc::new(make(place)) }
    }

    /// Takes what the name stands for now; whether that is something else than before.
    fn stand_for(&mut self, new: Vec<Vec<SocketAddr>>, make: &dyn Fn(Place) -> M) -> bool {
        let mut old = std::mem::take(&mut self.servers);
        let (is_one, was_one, before) = (new.len() == 1, old.len() == 1, old.len());
        let mut changed = new.len() != before;
        let has = |server: &Server<M>, addresses: &[SocketAddr]| {
            server.aim.borrow().addresses.iter().any(|a| addresses.contains(a))
        };
        let known: Vec<_> = new
            .iter()
            .map(|addresses| old.iter().position(|server| has(server, addresses)).map(|at| old.swap_remove(at)))
            .collect();
        for (addresses, known) in new.into_iter().zip(known) {
            let hash = if is_one {
                StableHash::of(self.text.as_bytes())
            } else {
                StableHash::of(addresses[0].to_string().as_bytes())
            };
            // Somebody may wait already for a name that was not resolved until now; and who was one and is one is still the same.
            let waits = |server: &Server<M>| server.aim.borrow().addresses.is_empty() || (is_one && was_one);
            let known = known.or_else(|| old.iter().position(waits).map(|at| old.swap_remove(at)));
            let server = match known {
                Some(mut server) => {
                    changed |= server.hash != hash;
                    server.hash = hash;
                    let aim = Aim { addresses, problem: None };
                    server.aim.send_if_modified(|known| {
                        let is_new = *known != aim;
                        *known = aim;
                        is_new
                    });
                    server
                }
                None => {
                    changed = true;
                    self.server(addresses, hash, make)
                }
            };
            self.servers.push(server);
        }
        changed
    }
}

impl<M> Shared<M> {
    fn resolved(&self, name: usize, resolved: io::Result<Vec<SocketAddr>>) {
        let mut names = self.names.lock();
        let this = &mut names[name];
        match resolved {
            Ok(addresses) => {
                let in_use: Vec<_> = this.servers.iter().flat_map(|s| s.aim.borrow().addresses.clone()).collect();
                if !this.stand_for(servers(addresses, &in_use), &*self.make) {
                    return;
                }
                tracing::debug!(name = this.text, servers = this.servers.len(), "a name stands for other servers");
                let version = self.list.load().version + 1;
                self.list.store(Arc::new(list(version, &names)));
            }
            // What was known is better than nothing; who knows nothing is told why.
            Err(error) => {
                tracing::debug!(name = this.text, %error, "can't resolve a name");
                for server in &this.servers {
                    let problem = Some(error.to_string());
                    server.aim.send_if_modified(|aim| {
                        let is_news = aim.addresses.is_empty() && aim.problem != problem;
                        if is_news {
                            aim.problem = problem;
                        }
                        is_news
                    });
                }
            }
        }
    }
}
