//! The Rust client of tao: keeps a session's token, and retries what is safe to retry.

mod error;
mod session;

pub use error::ClientError;
pub use session::{Client, ClientOptions, Session};
pub use tao_proto::v1;
