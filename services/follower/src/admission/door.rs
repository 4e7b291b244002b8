//! In front of the service: a call of its own is taken in or refused by its headers alone.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tao_access::{Access, Caller};
use tao_proto::error;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::{Account, Admission, Kind, Reason, Refusal};
use crate::peers::Origin;

/// In the extensions of a request that was taken in: of whom.
#[derive(Clone)]
pub struct Taken {
    pub caller: Arc<Caller>,
    pub account: Arc<Account>,
}

/// A service whose calls are taken in first.
#[derive(Clone)]
pub struct Admitted<S> {
    inner: S,
    admission: Arc<Admission>,
    access: Access,
}

impl<S> Admitted<S> {
    /// Knows callers as `access` does.
    pub fn new(inner: S, admission: Arc<Admission>, access: Access) -> Self {
        Self { inner, admission, access }
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

/// Takes what is still to come. Left alone, each stream would be reset, and of those a connection has only so many.
async fn drain(body: impl http_body::Body) {
    let mut body = pin!(body);
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

impl<S, B> Service<Request<B>> for Admitted<S>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
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
                let is_spent = origin.gate.as_ref().is_some_and(|gate| gate.decoded(&account));
                match self.admission.take_in(&account, kind, 1, is_spent) {
                    Ok(()) => {
                        request.extensions_mut().insert(Taken { caller, account });
                    }
                    Err(refusal) => {
                        if refusal.brake
                            && let Some(gate) = &origin.gate
                        {
                            gate.hold();
                        }
                        let refused = self.refused(&refusal);
                        return async move {
                            drain(request.into_body()).await;
                            Ok(refused)
                        }
                        .boxed();
                    }
                }
            }
        }
        self.inner.call(request).into()
    }
}

impl<S> Admitted<S> {
    fn refused(&self, refusal: &Refusal) -> Response<Body> {
        if refusal.reason != Reason::Share {
            return error::to_status(&refusal.error()).into_http();
        }
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = self.admission.refusals.headers(refusal.spread);
        response
    }
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}
