//! tao-shard
