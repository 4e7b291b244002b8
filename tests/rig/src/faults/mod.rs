//! Faults: which there are, in what order they come, and what became of them.

mod inject;
mod plan;

pub use inject::{Injection, inject};
pub use plan::{Fault, Order};
