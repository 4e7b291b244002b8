//! tao-bench
