//! tao-harness
