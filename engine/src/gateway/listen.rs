//! The listening sockets.

use mio::net::{TcpListener, UnixListener};
use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Listens on a Unix socket. A socket file nobody answers on is a leftover and is replaced.
///
/// # Errors
/// Another daemon answers there, or the file cannot be made.
pub fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another daemon answers on {}", path.display()),
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Anyone may connect; the kernel says who it is and the access table what they may do.
    set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Listens in plain text on a loopback address.
///
/// # Errors
/// The address is taken, or not loopback.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::other("plain TCP is for loopback only"));
    }
    TcpListener::bind(address)
}

/// Listens for TLS on any address of the host.
///
/// # Errors
/// The address is taken, or not the host's.
pub fn tls(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}
