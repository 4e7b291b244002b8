//! A rig of real processes: tao's own program, PostgreSQL and Redis, a mixed load of many sessions, faults, and a judge who compares
//! all that the sessions saw with the log.

pub mod check;
pub mod cluster;
mod dump;
pub mod faults;
pub mod hops;
pub mod load;
pub mod mutations;
mod progress;
pub mod report;
pub mod restarts;
pub mod run;
