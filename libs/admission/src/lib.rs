//! How much work is taken in: the algorithms alone, without clocks, threads or I/O. Who uses them tells them the time.

mod bucket;
mod concurrency;
mod lag;
mod share;
mod throttle;
mod work;

pub use bucket::Bucket;
pub use concurrency::{Concurrency, ConcurrencyOptions, Ended};
pub use lag::{Lag, mean_wait};
pub use share::fair_level;
pub use throttle::{Budget, Throttle};
pub use work::{WorkLimit, WorkOptions};
