//! The wire: generated code, and the conversions between it and the model.

pub mod answer;
pub mod codec;
pub mod convert;
pub mod data;
pub mod edges;
pub mod error;
pub mod intents;

pub use answer::Answer;

/// Metadata keys of the public API.
pub mod metadata {
    /// A session token, of requests and answers.
    pub const SESSION_TOKEN: &str = "tao-session-token";
    /// A consistency level, of requests.
    pub const CONSISTENCY: &str = "tao-consistency";
    /// Milliseconds, of requests.
    pub const MAX_STALENESS_MS: &str = "tao-max-staleness-ms";
    /// Of writes.
    pub const IDEMPOTENCY_KEY: &str = "tao-idempotency-key";
}

/// All protos, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The public API.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tao.v1.rs"));
}

/// Tier to tier.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod internal {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/tao.internal.v1.rs"));
    }
    pub use v1::*;
}

/// The public API's server, whose answers are [`Answer`]s.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/server/tao.v1.rs"));
}
