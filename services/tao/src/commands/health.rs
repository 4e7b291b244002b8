//! `tao health`: whether a server is ready, for where nothing else can ask its admin port.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::failure::Failure;
use super::http::ask;
use super::output::show;

/// Arguments of `tao health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The server's admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464")]
    admin: String,
    /// How long to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

/// Prints what the server answers when it is ready; the failure says what it waits for, or that it can't be reached.
pub fn health(args: &HealthArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
    let within = Duration::from_secs(args.timeout);
    let answer = runtime.block_on(ask(Method::GET, &args.admin, "/readyz", within))?;
    show(&String::from_utf8_lossy(&answer))
}
