//! The admin port: HTTP/1 for probes, Prometheus and operators, apart from the port that clients use.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
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
    /// JSON.
    Json(String),
    /// The request is wrong, and how.
    BadRequest(String),
    /// Not now, and why.
    Unavailable(String),
}

type Handler = Arc<dyn Fn(AdminQuery) -> BoxFuture<'static, AdminAnswer> + Send + Sync>;

/// What services do for operators on the admin port, beside what every process has. Services may come after the port. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct AdminRoutes {
    posts: Arc<RwLock<BTreeMap<String, Handler>>>,
}

impl AdminRoutes {
    /// Lets `handler` answer `POST path`; it replaces an earlier one.
    pub fn post<F>(&self, path: &str, handler: impl Fn(AdminQuery) -> F + Send + Sync + 'static)
    where
        F: Future<Output = AdminAnswer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |query| handler(query).boxed());
        self.posts.write().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), handler);
    }

    async fn answer(self, method: Method, uri: Uri) -> Response {
        let handler = self.posts.read().unwrap_or_else(PoisonError::into_inner).get(uri.path()).cloned();
        let Some(handler) = handler else { return StatusCode::NOT_FOUND.into_response() };
        if method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        match handler(query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()).await {
            AdminAnswer::Json(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
            AdminAnswer::BadRequest(why) => (StatusCode::BAD_REQUEST, why).into_response(),
            AdminAnswer::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
        }
    }
}

impl fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let posts = self.posts.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("AdminRoutes").field("posts", &posts.keys().collect::<Vec<_>>()).finish()
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
        .fallback(async move |method: Method, uri: Uri| routes.answer(method, uri).await);
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
