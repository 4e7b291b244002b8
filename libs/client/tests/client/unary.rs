//! The same, with each call a request of its own.

mod failover;
mod members;
mod names;
mod retries;
mod scripted;
mod sessions;
mod watch;

/// How clients are made here.
fn options() -> tao_client::ClientOptions {
    tao_client::ClientOptions { pipeline: false, ..Default::default() }
}
