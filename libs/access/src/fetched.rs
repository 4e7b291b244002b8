//! Keys that are fetched: from an issuer that serves its JWK set over HTTPS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use metrics::counter;
use rustls::ClientConfig;
use rustls::crypto::ring;
use tao_tls::Contents;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::keys::Keys;
use crate::problem::Problem;

/// How often keys are fetched when nothing asks for more.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Not more often, whatever tokens come.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// For an answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// Where a JWK set is served.
#[derive(Debug, Clone)]
pub struct JwksUrl {
    /// With `https`.
    pub url: String,
    /// The server's authorities; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// The keys that were fetched last.
pub struct Fetched {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    keys: ArcSwapOption<(Bytes, Arc<Keys>)>,
    wanted: Notify,
}

impl Fetched {
    /// Has none yet.
    pub fn new(from: JwksUrl) -> Result<Self, Vec<Problem>> {
        let problem = |what: String| vec![Problem(what)];
        let url: Uri = from.url.parse().map_err(|error| problem(format!("{:?}: {error}", from.url)))?;
        if url.scheme_str() != Some("https") || url.host().is_none() {
            return Err(problem(format!("{:?}: keys are fetched from https://HOST only", from.url)));
        }
        let builder = HttpsConnectorBuilder::new();
        let builder = match from.ca {
            None => builder
                .with_provider_and_native_roots(ring::default_provider())
                .map_err(|error| problem(format!("no authorities of the system's: {error}")))?,
            Some(ca) => {
                let own = |errors: Vec<_>| errors.into_iter().map(Problem::from).collect::<Vec<_>>();
                let contents = Contents::read(std::slice::from_ref(&ca)).map_err(own)?;
                let roots = contents.authorities(&ca).map_err(|error| own(vec![error]))?;
                let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .map_err(|error| problem(error.to_string()))?;
                builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            }
        };
        let client = Client::builder(TokioExecutor::new()).build(builder.https_only().enable_http1().build());
        Ok(Self { url, client, keys: ArcSwapOption::empty(), wanted: Notify::new() })
    }

    /// None until the first were fetched.
    pub fn now(&self) -> Option<Arc<Keys>> {
        self.keys.load().as_ref().map(|fetched| fetched.1.clone())
    }

    /// Has them fetched soon.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Fetches them for as long as it runs, and tells of each change.
    pub async fn keep_fetching(&self, changed: impl Fn()) {
        let mut problem = None;
        loop {
            let fetched = self.fetch().await;
            let result = if fetched.is_ok() { "ok" } else { "failed" };
            counter!("access_key_fetches_total", "result" => result).increment(1);
            let next = match fetched {
                Ok(is_new) => {
                    problem = None;
                    if is_new {
                        tracing::info!(url = %self.url, "took new keys of tokens");
                        changed();
                    }
                    EVERY
                }
                Err(why) => {
                    if problem.as_ref() != Some(&why) {
                        tracing::error!(url = %self.url, problem = why, "can't fetch keys of tokens, going on with those before");
                    }
                    problem = Some(why);
                    AT_MOST_EVERY
                }
            };
            sleep(AT_MOST_EVERY).await;
            let _ = timeout(next.saturating_sub(AT_MOST_EVERY), self.wanted.notified()).await;
        }
    }

    /// Whether they are others than before.
    async fn fetch(&self) -> Result<bool, String> {
        let got = timeout(WITHIN, self.get()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        if self.keys.load().as_ref().is_some_and(|known| known.0 == got) {
            return Ok(false);
        }
        let keys = Keys::parse(&got).map_err(|problems| problems.join("; "))?;
        self.keys.store(Some(Arc::new((got, Arc::new(keys)))));
        Ok(true)
    }

    async fn get(&self) -> Result<Bytes, String> {
        let answer = self.client.get(self.url.clone()).await.map_err(|error| with_causes(&error))?;
        if !answer.status().is_success() {
            return Err(format!("the answer was {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("url", &self.url).finish_non_exhaustive()
    }
}
