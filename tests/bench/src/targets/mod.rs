//! The systems under measurement, and what they are compared with.

mod answer;
mod bare;
mod baseline;
pub mod cache_aside;
mod channels;
mod closed_loop;
pub mod collector;
pub mod connections;
mod copy;
pub mod echo;
pub mod edge_writes;
pub mod l2;
mod lean;
pub mod log;
pub mod lone_writer;
pub mod postgres;
pub mod reads;
mod retry;
mod schema;
mod server;
pub mod tao;
pub mod writes;

pub use baseline::Serve;

/// A node's key in the baselines' tables.
pub(crate) fn key(node: u32) -> i64 {
    i64::from(node) + 1
}

#[cfg(test)]
mod tests;
