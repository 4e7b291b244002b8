//! Domain errors in gRPC's status, for the calls between tiers that are not exchanged over a stream of numbered calls.

use std::time::Duration;

use prost::Message as _;
use tao_model::Error;
use tao_proto::internal;
use tonic::{Code, Status};

/// With the whole error as details.
pub(crate) fn to_status(error: &Error) -> Status {
    let details = tao_proto::error::to_peer(error).encode_to_vec();
    Status::with_details(tao_proto::error::code(error), error.to_string(), details.into())
}

/// The peer's error, or, when the status came from the transport, that the peer can't be reached.
pub(crate) fn from_status(peer: &str, status: &Status) -> Error {
    if !status.details().is_empty()
        && let Ok(error) = internal::Error::decode(status.details())
    {
        return tao_proto::error::from_peer(error);
    }
    let what = format!("{peer}: {}", crate::connect::whole(status));
    match status.code() {
        Code::Unimplemented => {
            Error::Internal { what: format!("{peer} does not serve tiers: is it the right address?") }
        }
        Code::ResourceExhausted => Error::Overloaded { what, retry_after: Duration::from_millis(100) },
        _ => Error::unavailable(what),
    }
}
