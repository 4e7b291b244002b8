//! Hand-made histories: right ones pass, and each wrong one is caught for what it is.

mod logs;
mod reads;
mod world;
mod writes;
