//! The follower: the public API. Serves reads from memory and Redis, sends misses and writes to the leader, applies every
//! write's changeset before its caller is answered, and follows the change stream.

mod admission;
mod answers;
mod audit;
mod batch;
pub mod config;
mod execute;
#[doc(hidden)]
pub mod fuzz;
mod guards;
mod hits;
mod log;
mod peers;
mod pipeline;
mod place;
mod ranges;
mod rights;
mod server;
mod service;
mod session;
mod upstream;
mod validate;
mod watch;
mod write_batch;
mod write_log;
mod writes;

pub use config::Config;
pub use server::run;
