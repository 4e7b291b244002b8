//! The client against a server that says what the test wants.

mod failover;
mod retries;
mod scripted;
mod sessions;
mod sockets;
mod watch;
