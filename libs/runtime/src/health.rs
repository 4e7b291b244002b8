//! `grpc.health.v1`, following the readiness.

use std::pin::Pin;

use futures::stream::{Stream, unfold};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::readiness::{Readiness, State};

/// A health service for the whole server (the empty name) and the services named. It serves when the process is ready. Watchers'
/// streams end with the shutdown, after they were told, so that nobody's watching holds up the drain.
pub fn health_service(readiness: Readiness, service_names: &[&str]) -> HealthServer<impl Health> {
    let names = service_names.iter().map(|&n| n.to_owned()).collect();
    HealthServer::new(FollowingHealth { readiness, names })
}

struct FollowingHealth {
    readiness: Readiness,
    names: Vec<String>,
}

impl FollowingHealth {
    fn check_name(&self, request: &HealthCheckRequest) -> Result<(), Status> {
        if request.service.is_empty() || self.names.contains(&request.service) {
            return Ok(());
        }
        Err(Status::not_found(format!("no such service here; there are: {}", self.names.join(", "))))
    }
}

fn response(state: &State) -> HealthCheckResponse {
    let status = if state.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

/// Where a watcher is.
struct Watcher {
    state: watch::Receiver<State>,
    told: Option<HealthCheckResponse>,
    closed: bool,
}

async fn next(mut watcher: Watcher) -> Option<(Result<HealthCheckResponse, Status>, Watcher)> {
    if watcher.closed {
        return None;
    }
    loop {
        let now = {
            let state = watcher.state.borrow_and_update();
            watcher.closed = state.closing;
            response(&state)
        };
        if watcher.told != Some(now) {
            watcher.told = Some(now);
            return Some((Ok(now), watcher));
        }
        if watcher.closed {
            return None;
        }
        watcher.state.changed().await.ok()?;
    }
}

#[tonic::async_trait]
impl Health for FollowingHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_name(request.get_ref())?;
        let response = response(&self.readiness.watch().borrow());
        Ok(Response::new(response))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.check_name(request.get_ref())?;
        let watcher = Watcher { state: self.readiness.watch(), told: None, closed: false };
        Ok(Response::new(Box::pin(unfold(watcher, next))))
    }
}
