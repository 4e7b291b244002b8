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
pub mod server;

mod asking;
mod backoff;
mod exchange;
mod line;
mod link;
mod peer_status;
mod tier_calls;
mod version;

pub use asking::Asking;
pub use call::{CallContext, Op, ReplyBody, TierReply, is_write};
pub use client::{LinkClient, LinkOptions, TierClient};
pub use connect::{AddressError, BoxIo, Connect, Io, TcpConnect, parse_address};
pub use context::DeadlineLimits;
pub use drain::Drain;
pub use exchange::{Backlog, Dialect, Ended, Exchange, Waiting};
pub use group::TierGroup;
pub use line::Requests;
pub use server::{ServerLimits, TierHandler, TierServer, tier_server};
pub use version::PROTOCOL;
