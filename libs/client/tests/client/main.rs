//! The client against a server that says what the test wants.

mod failover;
mod members;
mod names;
mod overload;
mod pipeline;
mod retries;
mod scripted;
mod sessions;
mod sockets;
mod watch;

/// How clients are made here, where a test does not care.
fn options() -> tao_client::ClientOptions {
    tao_client::ClientOptions::default()
}
