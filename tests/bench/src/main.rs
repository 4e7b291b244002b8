//! Measures tao beside what one would build instead, on the same graph, with the same requests, in one run.
#![expect(dead_code, reason = "what runs all this is being built")]

mod graph;
mod hash;
mod load;
mod op;
mod run;
mod target;
mod workload;

fn main() {}
