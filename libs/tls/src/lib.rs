//! TLS of what is read from files: certificates, keys and authorities in PEM, which are taken anew while processes run. No tier, no
//! graph and no gRPC is known here; servers and clients hand in connections and get them back secured.

mod client;
mod error;
mod files;
mod identity;
mod reload;
mod server;

pub use client::{ClientOptions, ClientStream, ClientTls};
pub use error::TlsError;
pub use files::{Contents, KeyPairFiles};
pub use identity::PeerIdentity;
pub use reload::{FollowsFiles, Reloaded, Told};
pub use server::{ClientCheck, ServerOptions, ServerStream, ServerTls};

/// The one protocol that is spoken over it.
const HTTP2: &[u8] = b"h2";
/// A handshake that takes longer is given up, on either side.
const HANDSHAKE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
