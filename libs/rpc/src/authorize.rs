//! What a client says of who it is, where its certificate does not.

use std::fmt::Debug;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// A bearer token as it travels: the value of `authorization`.
pub type Bearer = MetadataValue<Ascii>;

/// Has the token of the moment: it may be another for each stream.
pub trait Authorize: Debug + Send + Sync + 'static {
    /// The token.
    fn bearer(&self) -> Bearer;
}

/// Puts a token into a request.
pub fn authorize(metadata: &mut MetadataMap, bearer: Option<Bearer>) {
    if let Some(bearer) = bearer {
        metadata.insert("authorization", bearer);
    }
}
