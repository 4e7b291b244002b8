//! tao-store
