//! What every server process needs and no graph knows of: configuration, telemetry, signals, readiness, the runtimes that
//! connections are spread over, draining, and the admin port.

pub mod admin;
pub mod config;
pub mod door;
pub mod durations;
pub mod fuzz;
pub mod health;
pub mod listener;
pub mod metrics;
pub mod profile;
pub mod readiness;
pub mod reflection;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod units;
pub mod workers;

mod activity;
mod budget;
mod connection;
mod frames;
mod hpack;
mod inbound;
mod inline;
mod layer;
mod logs;
mod outbox;
mod peers;
mod tcp_io;
mod turnstile;
mod untaken;
mod usage;

pub use admin::{AdminAnswer, AdminGuard, AdminQuery, AdminRefusal, AdminRoutes, serve_admin};
pub use connection::Ending;
pub use door::Door;
pub use durations::{CallDurations, MethodSeries};
pub use health::health_service;
pub use hpack::response_block;
pub use inbound::Inbound;
pub use listener::{Listener, TcpAcceptor};
pub use metrics::MetricsHandle;
pub use readiness::{Gate, Readiness};
pub use reflection::{with_guarded_reflection, with_reflection};
pub use serve::{ServeOptions, serve};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use tao_tls::PeerIdentity;
pub use tcp_io::TcpIo;
pub use telemetry::{LogFormat, TelemetryError, TelemetryGuard, TelemetryOptions};
pub use turnstile::Turnstile;
pub use units::{ByteSize, HumanDuration};
pub use untaken::AnswerBytes;
pub use workers::Workers;
