//! The listening sockets: opened here, or by the service manager, which keeps them while the daemon
//! restarts, so that nobody who connects meanwhile is turned away. Those have the names `unix`, `tcp`,
//! `tls` and `http` (`FileDescriptorName=`).

use mio::net::{TcpListener, UnixListener};
use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// True if the service manager opened a socket of this name.
pub fn is_given(name: &str) -> bool {
    sd_notify::listen_fds_with_names().is_ok_and(|mut fds| fds.any(|(_, given)| given == name))
}

/// The socket of this name that the service manager opened. To be asked for once.
fn given(name: &str) -> io::Result<Option<OwnedFd>> {
    let mut fds = sd_notify::listen_fds_with_names()?;
    let Some((fd, _)) = fds.find(|(_, given)| given == name) else { return Ok(None) };
    // SAFETY: the service manager opened it for this process, and nothing else here takes the one of
    // this name.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The same as one of mio's: `std` first, because only that says whether it is such a socket.
fn given_tcp(name: &str) -> io::Result<Option<TcpListener>> {
    let Some(fd) = given(name)? else { return Ok(None) };
    let listener = std::net::TcpListener::from(fd);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(Some(TcpListener::from_std(listener)))
}

/// Listens on a Unix socket. A socket file nobody answers on is a leftover and is replaced.
///
/// # Errors
/// Another daemon answers there, or the file cannot be made.
pub fn unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(fd) = given("unix")? {
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.local_addr()?;
        listener.set_nonblocking(true)?;
        return Ok(UnixListener::from_std(listener));
    }
    // Anyone may connect; the kernel says who it is and the access table what they may do.
    let listener = bind(path, 0o666)?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener))
}

/// Makes a Unix socket whose file has these permissions, in place of one that nobody answers on.
///
/// # Errors
/// Another daemon answers there, or the file cannot be made.
pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
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
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    set_permissions(path, Permissions::from_mode(mode))?;
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
    match given_tcp("tcp")? {
        Some(given) if !given.local_addr()?.ip().is_loopback() => {
            Err(io::Error::other("plain TCP is for loopback only"))
        }
        Some(given) => Ok(given),
        None => TcpListener::bind(address),
    }
}

/// Listens for HTTP: in plain text on a loopback address only.
///
/// # Errors
/// The address is taken, or not loopback where nothing is encrypted.
pub fn http(address: SocketAddr, plain: bool) -> io::Result<std::net::TcpListener> {
    let listener = match given("http")? {
        Some(fd) => std::net::TcpListener::from(fd),
        None => std::net::TcpListener::bind(address)?,
    };
    if plain && !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::other("HTTP without http.tls is for loopback only"));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Listens for TLS on any address of the host.
///
/// # Errors
/// The address is taken, or not the host's.
pub fn tls(address: SocketAddr) -> io::Result<TcpListener> {
    given_tcp("tls")?.map_or_else(|| TcpListener::bind(address), Ok)
}
