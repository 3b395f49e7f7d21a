//! The side door: sessions that other threads of the gateway's process open for peers whom they have
//! found out about. From there on such a session is like any other: what it may do, the access table
//! says when it logs on.

use super::access::Peer;
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::Waker;
use mio::net::UnixStream;
use std::io;
use std::os::unix::net::UnixStream as StdStream;

/// Connections that wait for the gateway at most.
const WAITING_MAX: usize = 64;

/// Where connections are opened. Costs the gateway nothing while nobody does.
#[derive(Debug)]
pub struct SideDoor {
    arriving: Sender<(UnixStream, Peer)>,
    waker: Waker,
}

/// The gateway's side of it.
#[derive(Debug)]
pub struct Arriving(Receiver<(UnixStream, Peer)>);

impl SideDoor {
    /// A door whose gateway is woken by `waker`.
    pub fn new(waker: Waker) -> (SideDoor, Arriving) {
        let (arriving, waiting) = bounded(WAITING_MAX);
        (SideDoor { arriving, waker }, Arriving(waiting))
    }

    /// A connection that speaks for `peer`; nothing is said on it yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if too many wait already; otherwise what the system says.
    pub fn open(&self, peer: Peer) -> io::Result<StdStream> {
        let (ours, theirs) = StdStream::pair()?;
        theirs.set_nonblocking(true)?;
        let arriving = (UnixStream::from_std(theirs), peer);
        self.arriving.try_send(arriving).map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        self.waker.wake()?;
        Ok(ours)
    }
}

impl Arriving {
    /// The next that waits.
    pub fn next(&self) -> Option<(UnixStream, Peer)> {
        self.0.try_recv().ok()
    }
}
