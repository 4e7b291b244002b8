//! The load: sessions that read and write, each with its token, and hop between the followers at every call.

mod answer;
mod context;
mod keys;
mod reads;
mod session;
mod writes;

pub use context::{Context, Counters, Options};
pub use keys::Keys;
pub use session::{Session, sweep};
pub use writes::Change;
