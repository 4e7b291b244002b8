//! The real program, end to end: real processes, sockets, PostgreSQL, Redis and grpcurl.

mod access;
mod across;
mod api;
mod attacks;
mod audit;
mod cluster;
mod commands;
mod examples;
mod faults;
mod graph;
mod grpcurl;
mod health;
mod members;
mod monitoring;
mod nodelay;
mod operators;
mod overload;
mod pipeline;
mod security;
mod several;
mod traces;
mod versions;
mod waiting;
mod watch;
