//! Which service a request goes to.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::inbound::Inbound;
use crate::layer::split;

/// As tonic's generated services make it.
pub type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The services of a server. tonic's [`Routes`] match patterns and box requests, answers and services anew for every call; a busy
/// service can be [`Door::direct`], and is then called as it is.
#[derive(Clone)]
pub struct Door {
    direct: Vec<Direct>,
    routes: Routes,
}

#[derive(Clone)]
struct Direct {
    name: &'static str,
    call: Arc<dyn Fn(Request<Inbound>) -> Answer + Send + Sync>,
}

impl From<Routes> for Door {
    fn from(routes: Routes) -> Self {
        Self { direct: Vec::new(), routes: routes.prepare() }
    }
}

impl Door {
    /// Adds a service that is looked for before all others.
    #[must_use]
    pub fn direct<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Inbound>, Response = Response<Body>, Error = Infallible, Future = Answer>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        // tonic's generated services are always ready.
        let call = Arc::new(move |request| service.clone().call(request));
        self.direct.push(Direct { name: S::NAME, call });
        self
    }

    /// Calls the service that the path names.
    pub(crate) fn call(&self, request: Request<Inbound>) -> Answer {
        let (service, _) = split(request.uri().path());
        match self.direct.iter().find(|direct| direct.name == service) {
            Some(direct) => (direct.call)(request),
            None => self.routes.clone().call(request.map(Body::new)).boxed(),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direct: Vec<_> = self.direct.iter().map(|direct| direct.name).collect();
        f.debug_struct("Door").field("direct", &direct).field("routes", &self.routes).finish()
    }
}
