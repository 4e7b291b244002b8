//! tao-cache
