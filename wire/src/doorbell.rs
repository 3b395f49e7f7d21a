//! Parking: how a consumer sleeps and a producer wakes it.
//!
//! A doorbell is a pipe. The [`Bell`] is its writing end and goes to producers; the [`Doorbell`]
//! is its reading end and stays with the one consumer, which may listen for several rings with
//! it. A pipe and not an eventfd, because the two ends are two open files: a hostile peer holds
//! the other one and cannot clear our `O_NONBLOCK` flag (it is shared by everybody who holds the
//! same eventfd), so neither ringing nor draining can ever block us.
//!
//! Protocol, a Dekker handshake on two words. The consumer sets the ring's `parked` flag, fences,
//! looks whether records are there, and blocks only if none are. The producer publishes its
//! cursor, fences, reads `parked`, and if set clears it and rings. Both fences are sequentially
//! consistent, so at least one side sees what the other wrote: either the consumer sees the
//! records or the producer sees the flag. Between flag and sleep a ring is not lost either: it
//! stays in the pipe. `loom` checks this in `loom_tests.rs`.

#[cfg(loom)]
pub use modelled::{Bell, Doorbell, pair};
#[cfg(not(loom))]
pub use real::{Bell, Doorbell, pair};

#[cfg(not(loom))]
mod real {
    use nix::errno::Errno;
    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, ppoll};
    use nix::sys::time::TimeSpec;
    use nix::unistd::{pipe2, read, write};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::Arc;
    use std::time::Duration;

    /// Bytes drained with one call.
    const DRAIN_BYTES: usize = 1 << 12;
    /// Calls a drain makes at most; together they empty a full pipe of default size. A peer that
    /// keeps ringing must not keep us draining.
    const DRAIN_CALLS_MAX: usize = 16;

    /// The producers' end: wakes the consumer. Clones ring the same doorbell.
    #[derive(Clone, Debug)]
    pub struct Bell(Arc<OwnedFd>);

    /// The consumer's end: sleeps until rung. Register it with mio, or call [`Doorbell::wait`].
    #[derive(Debug)]
    pub struct Doorbell(OwnedFd);

    /// A new doorbell and the bell that rings it, both nonblocking and close-on-exec.
    pub fn pair() -> io::Result<(Bell, Doorbell)> {
        let (reading, writing) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        Ok((Bell(Arc::new(writing)), Doorbell(reading)))
    }

    impl Bell {
        /// The bell whose descriptor another process passed on.
        pub fn from_fd(fd: OwnedFd) -> Bell {
            Bell(Arc::new(fd))
        }

        /// Wakes the consumer, now or when it next waits. Never blocks.
        pub fn ring(&self) {
            match write(&*self.0, &[1]) {
                // Full: rung already, not heard yet. Broken: nobody is there to be woken, which
                // is the business of whoever watches the connection.
                Ok(_) | Err(Errno::EAGAIN | Errno::EPIPE) => {}
                Err(errno) => debug_assert!(false, "ringing a bell: {errno}"),
            }
        }
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Doorbell {
        /// The doorbell whose descriptor another process passed on.
        pub fn from_fd(fd: OwnedFd) -> Doorbell {
            Doorbell(fd)
        }

        /// Sleeps until rung, at most `timeout` (`None`: without limit), and drains the rings.
        /// True if it was rung; false after the timeout or a signal.
        ///
        /// # Errors
        /// `BrokenPipe` when every bell is gone, so that nobody can ring any more.
        pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
            let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
                Ok(0) | Err(Errno::EINTR) => return Ok(false),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.drain()
        }

        /// As [`Doorbell::wait`], for a thread that has other reasons to go on: where nobody can ring
        /// any more it sleeps for all of `pause`, instead of being back at once for ever.
        pub fn rest(&self, pause: Duration) {
            if self.wait(Some(pause)).is_err() {
                std::thread::sleep(pause);
            }
        }

        /// Takes every ring so far without sleeping; for callers that poll the descriptor
        /// themselves. True if there was one.
        ///
        /// # Errors
        /// As for [`Doorbell::wait`].
        pub fn drain(&self) -> io::Result<bool> {
            let mut bytes = [0; DRAIN_BYTES];
            let mut rung = false;
            for _ in 0..DRAIN_CALLS_MAX {
                match read(&self.0, &mut bytes) {
                    Ok(0) if rung => break,
                    Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                    Ok(count) => {
                        rung = true;
                        if count < DRAIN_BYTES {
                            break;
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(rung)
        }
    }

    impl AsFd for Doorbell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(loom)]
mod modelled {
    use loom::sync::{Arc, Condvar, Mutex};
    use std::io;
    use std::time::Duration;

    /// The loom build's pipe: whether it holds a ring.
    #[derive(Debug, Default)]
    struct Pipe {
        rung: Mutex<bool>,
        heard: Condvar,
    }

    /// The producers' end.
    #[derive(Clone, Debug)]
    pub struct Bell(Arc<Pipe>);

    /// The consumer's end.
    #[derive(Debug)]
    pub struct Doorbell(Arc<Pipe>);

    /// A doorbell and its bell.
    pub fn pair() -> io::Result<(Bell, Doorbell)> {
        let pipe = Arc::new(Pipe { rung: Mutex::new(false), heard: Condvar::new() });
        Ok((Bell(pipe.clone()), Doorbell(pipe)))
    }

    impl Bell {
        /// Wakes the consumer, now or when it next waits.
        pub fn ring(&self) {
            *self.0.rung.lock().unwrap() = true;
            self.0.heard.notify_one();
        }
    }

    impl Doorbell {
        /// Sleeps until rung, without limit: a lost wake-up is a deadlock that loom reports.
        pub fn wait(&self, _timeout: Option<Duration>) -> io::Result<bool> {
            let mut rung = self.0.rung.lock().unwrap();
            while !*rung {
                rung = self.0.heard.wait(rung).unwrap();
            }
            *rung = false;
            Ok(true)
        }
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::pair;
    use std::time::{Duration, Instant};

    /// A thread that came back at once would keep its processor from all others for ever.
    #[test]
    fn whom_nobody_can_ring_rests_all_the_same() {
        let (bell, doorbell) = pair().unwrap();
        drop(bell);
        let (start, pause) = (Instant::now(), Duration::from_millis(20));
        doorbell.rest(pause);
        assert!(start.elapsed() >= pause);
    }
}
