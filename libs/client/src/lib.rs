//! The Rust client of tao: typed calls, sessions that read their own writes, and retries where repeating does no harm.
//!
//! ```no_run
//! # async fn example() -> Result<(), tao_client::ClientError> {
//! use tao_client::{Client, ClientOptions, v1};
//!
//! // All addresses of the name are followers, as they come and go. Sessions spread over them; make one for each user or task.
//! let session = Client::connect("tao-followers:50051", ClientOptions::default())?.session();
//! let added = session.object_add(v1::ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() }).await?;
//! let id = added.object.map_or(0, |object| object.id);
//! // Sees the write above, whichever follower answers.
//! session.object_get(v1::ObjectGetRequest { id, options: None }).await?;
//! # Ok(())
//! # }
//! ```

mod bearer;
mod calls;
mod client;
mod error;
mod follower;
mod load;
mod pipe;
mod route;
mod seen;
mod session;
mod stats;
mod watch;

/// For [`ClientOptions::bearer`].
pub use bearer::{BearerToken, TokenError};
pub use client::{Client, ClientOptions};
pub use error::ClientError;
/// Of objects, and of values.
pub use prost_types::Timestamp;
pub use session::Session;
pub use stats::ClientStats;
pub use tao_proto::v1;
/// For [`ClientOptions::connect`].
pub use tao_rpc::{BoxIo, Connect, TcpConnect};
/// For [`ClientOptions::tls`].
pub use tao_tls::{ClientOptions as TlsOptions, ClientTls, KeyPairFiles, TlsError};
pub use watch::Watch;
