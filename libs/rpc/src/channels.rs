//! Requests that are not numbered calls on a stream: a channel to wherever a place is now.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::connect::{Connect, dial, endpoint};
use crate::names::Place;

/// Makes channels that connect when they are used, and again when they have to. Once the place has other addresses there is another
/// channel; what is under way on the one before goes on.
pub struct Channels {
    place: Place,
    endpoint: Endpoint,
    connect: Arc<dyn Connect>,
    runtime: Handle,
    current: Mutex<Option<(Vec<SocketAddr>, Channel)>>,
}

impl Channels {
    /// With the times and limits that `limit` gives an endpoint; connections live on the runtime.
    pub fn new(
        place: Place,
        limit: impl FnOnce(Endpoint) -> Endpoint,
        connect: Arc<dyn Connect>,
        runtime: Handle,
    ) -> Self {
        let endpoint = limit(endpoint(place.name(), &*connect));
        Self { place, endpoint, connect, runtime, current: Mutex::new(None) }
    }

    /// A channel to where the place is now.
    pub fn channel(&self) -> Channel {
        let now = self.place.now();
        let mut current = self.current.lock();
        if let Some((addresses, channel)) = &mut *current
            && (addresses.is_empty() || addresses.iter().any(|a| now.contains(a)))
        {
            *addresses = now;
            return channel.clone();
        }
        let (place, connect) = (self.place.clone(), self.connect.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (place, connect) = (place.clone(), connect.clone());
            async move {
                let dialed = match place.addresses().await {
                    Ok(addresses) => dial(connect, place.name(), addresses).await,
                    Err(why) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why)),
                };
                if dialed.is_err() {
                    place.doubt();
                }
                dialed.map(|(io, _)| TokioIo::new(io))
            }
        });
        // What drives the channel is spawned where it is made.
        let _on = self.runtime.enter();
        let channel = self.endpoint.connect_with_connector_lazy(connector);
        *current = Some((now, channel.clone()));
        channel
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("place", &self.place).finish_non_exhaustive()
    }
}
