//! tao-e2e
