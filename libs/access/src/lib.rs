//! Who asks at the public door, and what they may do there.

mod access;
mod caller;
mod peer;

pub use access::Access;
pub use caller::Caller;
pub use peer::Peer;
