//! tao-client
