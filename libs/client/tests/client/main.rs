//! The client against a server that says what the test wants: with calls that share a stream, and with each by itself.

mod pipeline;
mod scripted;
mod watch;

#[path = "."]
mod piped {
    #[path = "failover.rs"]
    mod failover;
    #[path = "retries.rs"]
    mod retries;
    #[path = "sessions.rs"]
    mod sessions;

    fn options() -> tao_client::ClientOptions {
        tao_client::ClientOptions::default()
    }
}

#[path = "."]
mod alone {
    #[path = "failover.rs"]
    mod failover;
    #[path = "retries.rs"]
    mod retries;
    #[path = "sessions.rs"]
    mod sessions;

    fn options() -> tao_client::ClientOptions {
        tao_client::ClientOptions { pipeline: false, ..Default::default() }
    }
}
