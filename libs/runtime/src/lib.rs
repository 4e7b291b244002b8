//! tao-runtime
