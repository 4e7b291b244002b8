//! Answers to calls above a caller's share, made before there are any: so one costs a fraction of an answer.

use http::HeaderMap;
use tao_proto::error;
use tonic::body::Body;

use super::{Reason, overloaded};

/// Those that differ in when to come back.
const KINDS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Refusals(Vec<(HeaderMap, Vec<u8>)>);

impl Default for Refusals {
    fn default() -> Self {
        let refusal = |n: usize| {
            let error = overloaded(Reason::Share, n as f64 / KINDS as f64);
            let headers = error::to_status(&error).into_http::<Body>().into_parts().0.headers;
            let block = tao_runtime::response_block(&headers);
            (headers, block)
        };
        Self((0..KINDS).map(refusal).collect())
    }
}

impl Refusals {
    /// For a number from 0 to 1, as a response's headers.
    pub fn headers(&self, spread: f64) -> HeaderMap {
        self.of(spread).0.clone()
    }

    /// As HTTP/2 sends them.
    pub fn block(&self, spread: f64) -> &[u8] {
        &self.of(spread).1
    }

    fn of(&self, spread: f64) -> &(HeaderMap, Vec<u8>) {
        let which = (spread * KINDS as f64) as usize;
        &self.0[which.min(KINDS - 1)]
    }
}
