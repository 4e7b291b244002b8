//! Running a load against a target, and what is measured meanwhile.

mod client;
mod pace;
mod plan;
mod processes;
mod round;
mod side;

pub use plan::{Arrivals, Plan, Requests};
pub use processes::{Usage, Watched};
pub use round::{Round, Tally};
pub use side::Side;
