//! What stands before all else that a follower does for others than the graph's callers.

use std::convert::Infallible;
use std::sync::Arc;

use tao_access::{Access, Peer};
use tao_model::Error;
use tao_proto::error;
use tao_runtime::{AdminRefusal, AdminRoutes, Readiness};
use tonic::service::Interceptor;

use crate::peers::{authorization, peer};

/// Lets those ask for reflection who are known, whatever they may do.
pub fn known(access: Access) -> impl Interceptor + Clone + Send + Sync + 'static {
    move |request: tonic::Request<()>| {
        let caller = access.caller(&peer(request.extensions()), authorization(request.metadata()));
        caller.map(|_| request).map_err(|error| error::to_status(&error))
    }
}

/// Not ready until there are keys to judge tokens by: those that are fetched take a moment.
pub fn wait_for_keys(access: Access, readiness: &Readiness) -> impl Future<Output = Infallible> + use<> {
    let gate = (!access.has_keys()).then(|| readiness.gate("keys of tokens"));
    gate.iter().for_each(|gate| gate.not_ready("waiting for the first to be fetched"));
    async move {
        if let Some(gate) = gate {
            access.keys_come().await;
            gate.ready();
        }
        std::future::pending().await
    }
}

/// Has operators show an admin's token, where tokens are taken.
pub fn guard_operators(access: &Access, routes: &AdminRoutes) {
    if !access.takes_tokens() {
        return;
    }
    let access = access.clone();
    routes.guard(Arc::new(move |authorization| {
        let judged = access.caller(&Peer::new(None, None), authorization).and_then(|caller| caller.may_administer());
        judged.map_err(|error| match error {
            Error::PermissionDenied { what } => AdminRefusal::Forbidden(format!("{what}\n")),
            other => AdminRefusal::Unauthorized(format!("{other}\n")),
        })
    }));
}
