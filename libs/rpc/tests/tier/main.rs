//! The stream between tiers, over loopback sockets.

mod drain;
mod group;
mod link;
mod members;
mod rate;
mod seeded;
mod server;
mod sockets;
mod subscribe;
mod support;
mod versions;
