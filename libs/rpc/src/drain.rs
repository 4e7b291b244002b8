//! The wish to end streams politely.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Once begun, exchange streams ask their callers to go elsewhere and end when what was sent is answered; change streams end.
#[derive(Debug, Clone, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins it, for good.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Ends when it has begun.
    pub(crate) fn begun(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

impl From<CancellationToken> for Drain {
    /// Begins when the token is cancelled, such as a server's shutdown.
    fn from(token: CancellationToken) -> Self {
        Self(token)
    }
}
