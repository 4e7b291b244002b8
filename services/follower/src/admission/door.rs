//! In front of the service: a call of its own is taken in or refused by its headers alone. A refusal is three headers that were made
//! before, and so costs a fraction of an answer.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tao_access::Access;
use tao_proto::error;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::{Admission, Kind, Reason};
use crate::peers::Origin;

/// Refusals that differ in when to come back.
const KINDS: usize = 8;

/// A service whose calls are taken in first.
#[derive(Clone)]
pub struct Admitted<S> {
    inner: S,
    admission: Arc<Admission>,
    access: Access,
    refusals: Arc<[HeaderMap]>,
}

impl<S> Admitted<S> {
    /// Knows callers as `access` does.
    pub fn new(inner: S, admission: Arc<Admission>, access: Access) -> Self {
        let refusal = |n: usize| {
            let error = super::overloaded(Reason::Share, n as f64 / KINDS as f64);
            error::to_status(&error).into_http::<Body>().into_parts().0.headers
        };
        Self { inner, admission, access, refusals: (0..KINDS).map(refusal).collect() }
    }
}

/// The kind of the call of a path; none of what goes on and on.
fn kind(path: &str) -> Option<Kind> {
    let method = path.rsplit('/').next().unwrap_or_default();
    match method {
        "ObjectGet" | "ObjectMultiGet" | "AssocGet" | "AssocCount" | "AssocRange" | "AssocTimeRange" | "Batch" => {
            Some(Kind::Read)
        }
        "Pipeline" | "Watch" => None,
        _ => Some(Kind::Write),
    }
}

impl<S, B> Service<Request<B>> for Admitted<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Into<BoxFuture<'static, Result<Response<Body>, Infallible>>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(kind) = kind(request.uri().path())
            && let Some(origin) = request.extensions().get::<Origin>()
        {
            let authorization = request.headers().get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
            // Who is not let in is told so further inside.
            if let Ok(caller) = self.access.caller(&origin.peer, authorization) {
                let account = self.admission.account(caller.name());
                match self.admission.admit(&account, kind, 1) {
                    Ok(()) => {
                        request.extensions_mut().insert(account);
                    }
                    Err(refusal) => {
                        if refusal.brake {
                            origin.brake.hold();
                        }
                        return ready(Ok(self.refused(&refusal))).boxed();
                    }
                }
            }
        }
        self.inner.call(request).into()
    }
}

impl<S> Admitted<S> {
    fn refused(&self, refusal: &super::Refusal) -> Response<Body> {
        if refusal.reason != Reason::Share {
            return error::to_status(&refusal.error()).into_http();
        }
        let mut response = Response::new(Body::empty());
        let which = (refusal.spread * KINDS as f64) as usize;
        *response.headers_mut() = self.refusals[which.min(KINDS - 1)].clone();
        response
    }
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}
