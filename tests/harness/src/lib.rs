//! Real servers for tests: PostgreSQL, Redis, and any program of this project, each on a free loopback
//! port and in a temporary folder of its own.
//!
//! Everything here blocks and needs no async runtime, so it can be called from plain and from async tests.
//! What a test starts ends when its handle is dropped. If the test process ends without dropping it (a
//! `static`, an abort, a `kill -9`), a small watcher does the same from outside.

mod certificates;
mod files;
mod grpcurl;
mod http;
mod poll;
mod port;
mod postgres;
mod process;
mod programs;
mod prometheus;
mod proxy;
mod redis;
mod redis_cluster;
mod sockets;
mod tier;
pub mod tokens;
mod watcher;

pub use certificates::{Authority, Issued};
pub use files::TempDir;
pub use grpcurl::{grpcurl, grpcurl_output};
pub use http::http_get;
pub use poll::{eventually, eventually_async};
pub use port::free_port;
pub use postgres::Postgres;
pub use process::Process;
pub use programs::{built_program, repository};
pub use prometheus::{Prometheus, promtool};
pub use proxy::{Network, Proxy};
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use sockets::{TcpEnd, tcp_ends};
pub use tier::tier;
pub use tokens::TokenIssuer;
