//! The admin port: HTTP/1 for probes, Prometheus and operators, apart from the port that clients use.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{self, HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use crate::metrics::MetricsHandle;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// How often histograms are taken in when nobody asks for metrics.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(1);

/// The parameters of a request: what follows the `?` of its address. Names and values are taken as they are.
pub type AdminQuery = BTreeMap<String, String>;

/// What a service answers an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAnswer {
    /// For people.
    Text(String),
    /// For a program, of the type that it is called.
    Bytes(&'static str, Vec<u8>),
    /// JSON.
    Json(String),
    /// The request is wrong, and how.
    BadRequest(String),
    /// Not now, and why.
    Unavailable(String),
}

/// Judges whoever asks for what services do, by the request's `Authorization`; the error says why not.
pub type AdminGuard = Arc<dyn Fn(Option<&[u8]>) -> Result<(), AdminRefusal> + Send + Sync>;

/// Why an operator is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRefusal {
    /// Nobody knows who it is.
    Unauthorized(String),
    /// It is somebody who may not.
    Forbidden(String),
}

type Handler = Arc<dyn Fn(AdminQuery) -> BoxFuture<'static, AdminAnswer> + Send + Sync>;

/// What services do for operators on the admin port, beside what every process has. Services may come after the port. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct AdminRoutes {
    /// By path and method.
    routes: Arc<RwLock<BTreeMap<(String, Method), Route>>>,
    guard: Arc<RwLock<Option<AdminGuard>>>,
}

#[derive(Clone)]
struct Route {
    handler: Handler,
    /// Whether it answers only who asks from this machine.
    is_local: bool,
}

/// Of what services answer; the others are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Get,
    Post,
    Put,
}

impl AdminRoutes {
    /// Lets `handler` answer `POST path`; it replaces an earlier one.
    pub fn post<F>(&self, path: &str, handler: impl Fn(AdminQuery) -> F + Send + Sync + 'static)
    where
        F: Future<Output = AdminAnswer> + Send + 'static,
    {
        self.add(Method::Post, path, false, handler);
    }

    /// Has all of them answered only to those whom `guard` lets pass.
    pub fn guard(&self, guard: AdminGuard) {
        *self.guard.write().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }

    fn judge(&self, authorization: Option<&[u8]>) -> Result<(), AdminRefusal> {
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner).clone();
        guard.map_or(Ok(()), |guard| guard(authorization))
    }

    /// Lets `handler` answer `GET path`, to those who ask from this machine.
    pub fn local_get<F>(&self, path: &str, handler: impl Fn(AdminQuery) -> F + Send + Sync + 'static)
    where
        F: Future<Output = AdminAnswer> + Send + 'static,
    {
        self.add(Method::Get, path, true, handler);
    }

    /// Lets `handler` answer `PUT path`, to those who ask from this machine.
    pub fn local_put<F>(&self, path: &str, handler: impl Fn(AdminQuery) -> F + Send + Sync + 'static)
    where
        F: Future<Output = AdminAnswer> + Send + 'static,
    {
        self.add(Method::Put, path, true, handler);
    }

    fn add<F>(
        &self,
        method: Method,
        path: &str,
        is_local: bool,
        handler: impl Fn(AdminQuery) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = AdminAnswer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |query| handler(query).boxed());
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert((path.to_owned(), method), Route { handler, is_local });
    }

    /// Who may answer; the status of a request that nobody may.
    fn find(&self, method: &http::Method, path: &str, from: IpAddr) -> Result<Handler, StatusCode> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let known = match *method {
            http::Method::GET => Some(Method::Get),
            http::Method::POST => Some(Method::Post),
            http::Method::PUT => Some(Method::Put),
            _ => None,
        };
        let Some(route) = known.and_then(|method| routes.get(&(path.to_owned(), method))) else {
            let is_known = routes.keys().any(|(known, _)| known == path);
            return Err(if is_known { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND });
        };
        if route.is_local && !from.to_canonical().is_loopback() {
            Err(StatusCode::FORBIDDEN)
        } else {
            Ok(route.handler.clone())
        }
    }

    async fn answer(self, method: http::Method, uri: Uri, headers: HeaderMap, from: SocketAddr) -> Response {
        let handler = match self.find(&method, uri.path(), from.ip()) {
            Ok(handler) => handler,
            Err(status) => return status.into_response(),
        };
        match self.judge(headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes)) {
            Ok(()) => {}
            Err(AdminRefusal::Unauthorized(why)) => {
                return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], why).into_response();
            }
            Err(AdminRefusal::Forbidden(why)) => return (StatusCode::FORBIDDEN, why).into_response(),
        }
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        match handler(query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()).await {
            AdminAnswer::Text(text) => text.into_response(),
            AdminAnswer::Bytes(of, bytes) => ([(CONTENT_TYPE, of)], bytes).into_response(),
            AdminAnswer::Json(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
            AdminAnswer::BadRequest(why) => (StatusCode::BAD_REQUEST, why).into_response(),
            AdminAnswer::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
        }
    }
}

impl fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("AdminRoutes").field("routes", &routes.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Serves `/livez` (200 while the process can answer), `/readyz` (503 and every reason, one a line, until all is ready) and
/// `/metrics`, and what services add. Give it a shutdown that begins after the server's drain, so that probes see the drain.
pub async fn serve_admin(
    listener: TcpListener,
    readiness: Readiness,
    metrics: MetricsHandle,
    routes: AdminRoutes,
    shutdown: Shutdown,
) -> io::Result<()> {
    let gathered = metrics.clone();
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())))
        .fallback(
            async move |method: http::Method,
                        uri: Uri,
                        ConnectInfo(from): ConnectInfo<SocketAddr>,
                        headers: HeaderMap| { routes.answer(method, uri, headers, from).await },
        )
        .into_make_service_with_connect_info::<SocketAddr>();
    let upkeep = async {
        let mut every = tokio::time::interval(UPKEEP);
        loop {
            every.tick().await;
            gathered.upkeep();
        }
    };
    let deadline = async {
        shutdown.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(shutdown.wait()) => served,
        () = deadline => Ok(()),
        () = upkeep => Ok(()),
    }
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    match readiness.report() {
        (true, _) => (StatusCode::OK, "ready\n".to_owned()),
        (false, reasons) => {
            let text = reasons.into_iter().map(|(gate, why)| format!("{gate}: {why}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_machine_itself_is_for_nobody_else() {
        let routes = AdminRoutes::default();
        routes.post("/audit", async |_| AdminAnswer::Text(String::new()));
        routes.local_get("/profile", async |_| AdminAnswer::Text(String::new()));
        routes.local_put("/profile", async |_| AdminAnswer::Text(String::new()));
        let ask = |method: http::Method, path, from: &str| routes.find(&method, path, from.parse().unwrap()).err();
        assert_eq!(ask(http::Method::POST, "/audit", "10.0.0.1"), None);
        for from in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(ask(http::Method::GET, "/profile", from), None);
            assert_eq!(ask(http::Method::PUT, "/profile", from), None);
        }
        assert_eq!(ask(http::Method::GET, "/profile", "10.0.0.1"), Some(StatusCode::FORBIDDEN));
        assert_eq!(ask(http::Method::POST, "/profile", "127.0.0.1"), Some(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(ask(http::Method::GET, "/nothing", "127.0.0.1"), Some(StatusCode::NOT_FOUND));
    }
}
