//! tao-follower
