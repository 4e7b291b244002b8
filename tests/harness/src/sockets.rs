//! What a process's sockets say of themselves.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::tcp_nodelay;
use rustix::net::{getpeername, getsockname};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A TCP connection's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpEnd {
    /// The process's address.
    pub local: SocketAddr,
    /// The other end's.
    pub peer: SocketAddr,
    /// Whether small writes leave at once (TCP_NODELAY).
    pub nodelay: bool,
}

/// The TCP connections that a process has now: the caller's own, or those of one that it started.
pub fn tcp_ends(pid: u32) -> Result<Vec<TcpEnd>> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process id")?;
    let process = pidfd_open(process, PidfdFlags::empty()).context("pidfd_open")?;
    let mut ends = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // What was closed meanwhile is of no interest.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (true, Some(fd)) = (target.to_string_lossy().starts_with("socket:"), fd) else { continue };
        let socket = match pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()) {
            Ok(socket) => socket,
            Err(Errno::BADF) => continue,
            Err(error) => return Err(error).context("pidfd_getfd: the tests must be allowed to trace what they start"),
        };
        let local = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
        let peer = getpeername(&socket).ok().flatten().and_then(|address| SocketAddr::try_from(address).ok());
        if let (Some(local), Some(peer), Ok(nodelay)) = (local, peer, tcp_nodelay(&socket)) {
            ends.push(TcpEnd { local, peer, nodelay });
        }
    }
    Ok(ends)
}
