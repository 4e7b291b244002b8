//! The Rust client of tao: typed calls, sessions that read their own writes, and retries where repeating does no harm.
//!
//! ```no_run
//! # async fn example() -> Result<(), tao_client::ClientError> {
//! use tao_client::{Client, ClientOptions, v1};
//!
//! let session = Client::connect("10.0.0.1:50051,10.0.0.2:50051", ClientOptions::default())?.session();
//! let added = session.object_add(v1::ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() }).await?;
//! let id = added.object.map_or(0, |object| object.id);
//! // Sees the write above, whichever follower answers.
//! session.object_get(v1::ObjectGetRequest { id, options: None }).await?;
//! # Ok(())
//! # }
//! ```

mod calls;
mod client;
mod error;
mod pipe;
mod seen;
mod session;
mod watch;

pub use client::{Client, ClientOptions};
pub use error::ClientError;
/// Of objects, and of values.
pub use prost_types::Timestamp;
pub use session::Session;
pub use tao_proto::v1;
pub use watch::Watch;
