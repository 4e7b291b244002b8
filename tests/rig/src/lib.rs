//! A rig of real processes: tao's own program, PostgreSQL and Redis, a mixed load of many sessions, faults, and a judge who compares
//! all that the sessions saw with the log.

pub mod check;
