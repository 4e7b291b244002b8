//! What the program's readers (`archive`) need of its commands.

#[allow(dead_code)]
#[path = "../../../services/tao/src/commands/failure.rs"]
mod failure;
#[allow(dead_code)]
#[path = "../../../services/tao/src/commands/time.rs"]
pub mod time;

pub use failure::Failure;
