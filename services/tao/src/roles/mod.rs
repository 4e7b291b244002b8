//! The servers: one tier as a process of its own, or all of them in one.

mod access;
mod dev;
mod metrics;
mod process;
mod sample;
mod tiers;
mod tls;

pub use dev::{DevArgs, dev};
pub use tiers::{FollowerArgs, LeaderArgs, ShardArgs, follower, leader, shard};
