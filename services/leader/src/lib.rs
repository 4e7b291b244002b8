//! tao-leader
