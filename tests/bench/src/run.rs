//! Running a load against a target, and what is measured meanwhile.

mod client;
mod pace;
mod plan;
mod processes;
mod round;
mod side;

pub use plan::{Arrivals, Plan, Requests};
pub use round::Round;
pub use side::Side;

#[cfg(test)]
mod tests;
