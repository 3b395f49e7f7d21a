//! Descriptors on a Unix socket: how memory and bells come to another process.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Reads bytes and adds the descriptors that came with them to `descriptors`, closing those beyond
/// `most` in all. `control` is room for them: see [`nix::cmsg_space`].
///
/// # Errors
/// What the kernel said.
pub fn receive(
    stream: impl AsFd,
    bytes: &mut [u8],
    control: &mut [u8],
    (descriptors, most): (&mut Vec<OwnedFd>, usize),
) -> io::Result<usize> {
    let mut parts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message =
        recvmsg::<UnixAddr>(stream.as_fd().as_raw_fd(), &mut parts, Some(control), flags)?;
    for part in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(numbers) = part else { continue };
        for number in numbers {
            // SAFETY: the kernel has just made this descriptor for this process, with this
            // message; nothing else knows its number.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            if descriptors.len() < most {
                descriptors.push(descriptor);
            }
        }
    }
    Ok(message.bytes)
}

/// Sends bytes, of which there is room for a few hundred at least, with descriptors.
///
/// # Errors
/// What the kernel said, or `WriteZero` if the bytes did not go out whole.
pub fn send(stream: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let (fd, parts) = (stream.as_fd().as_raw_fd(), [IoSlice::new(bytes)]);
    let sent = sendmsg::<()>(fd, &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
