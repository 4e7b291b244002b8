//! Tier to tier: numbered calls over long-lived streams, with deadlines, cancellation and draining; and the change stream.
//!
//! Batching comes by itself: while a connection is busy, calls and answers queue up, and what has queued up travels in one message.
//! Nothing waits for a timer, so an idle line adds nothing.

pub mod call;
pub mod client;
pub mod connect;
pub mod context;
pub mod drain;
pub mod group;
pub mod members;
pub mod rendezvous;
pub mod server;

mod asking;
mod authorize;
mod backoff;
mod channels;
mod exchange;
mod line;
mod link;
mod names;
mod peer_status;
mod secure;
mod standing;
mod tier_calls;
mod version;

pub use asking::Asking;
pub use authorize::{Authorize, Bearer, authorize};
pub use call::{CallContext, Op, ReplyBody, TierReply, is_write};
pub use channels::Channels;
pub use client::{LinkClient, LinkOptions, TierClient};
pub use connect::{AddressError, BoxIo, Connect, Io, TcpConnect, parse_address};
pub use context::DeadlineLimits;
pub use drain::Drain;
pub use exchange::{Backlog, Dialect, Ended, Exchange, Waiting};
pub use group::TierGroup;
pub use line::Requests;
pub use members::Members;
pub use names::Place;
pub use secure::SecureConnect;
pub use server::{STREAMS, ServerLimits, TierHandler, TierServer, tier_server};
pub use standing::Standing;
pub use version::PROTOCOL;
