//! tao-rpc
