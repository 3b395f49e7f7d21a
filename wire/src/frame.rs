//! Frames: a 16-byte header, then the fixed-layout body of its kind.

use crate::message::{Body, Header};
use zerocopy::{FromBytes, IntoBytes};

/// Protocol version carried by every frame.
pub const VERSION: u8 = 1;
/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Largest frame, header included. A longer length in a header means framing is lost.
pub const FRAME_BYTES_MAX: usize = 512;

/// Why bytes are not a frame. Framing is lost: the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is below the header's size or above [`FRAME_BYTES_MAX`].
    #[error("frame length {0} is outside {HEADER_BYTES}..={FRAME_BYTES_MAX}")]
    Length(u16),
    /// The version field is not [`VERSION`].
    #[error("frame version {0} is not {VERSION}")]
    Version(u8),
    /// Reserved header bytes are not zero.
    #[error("reserved header bytes are not zero")]
    Reserved,
}

/// A whole frame, borrowed from the bytes it arrived in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The checked header.
    pub header: Header,
    /// The body: `header.length - 16` bytes.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first frame from `bytes`. `Ok(None)` means more bytes are needed.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        let Ok((header, _)) = Header::read_from_prefix(bytes) else { return Ok(None) };
        let length = usize::from(header.length.get());
        if header.version != VERSION {
            return Err(FrameError::Version(header.version));
        }
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(FrameError::Length(header.length.get()));
        }
        if header.reserved.get() != 0 {
            return Err(FrameError::Reserved);
        }
        if bytes.len() < length {
            return Ok(None);
        }
        Ok(Some(Frame { header, body: &bytes[HEADER_BYTES..length] }))
    }

    /// Bytes this frame takes, header included.
    pub fn len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// True if the frame has no body.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The body as message `M`, if the kind and the length are `M`'s.
    pub fn message<M: Body>(&self) -> Option<&'a M> {
        if self.header.kind != M::KIND {
            return None;
        }
        M::ref_from_bytes(self.body).ok()
    }
}

/// Encodes `body` with its header into `out` and returns the bytes used.
///
/// # Panics
/// If `out` is shorter than the frame; [`FRAME_BYTES_MAX`] bytes always suffice.
pub fn encode<M: Body>(sequence: u64, body: &M, out: &mut [u8]) -> usize {
    encode_raw(M::KIND, sequence, body.as_bytes(), out)
}

/// Encodes already laid-out body bytes of message kind `kind`.
///
/// # Panics
/// If `out` is shorter than the frame, or the frame longer than [`FRAME_BYTES_MAX`].
pub fn encode_raw(kind: u8, sequence: u64, body: &[u8], out: &mut [u8]) -> usize {
    let length = HEADER_BYTES + body.len();
    assert!(length <= FRAME_BYTES_MAX, "body of kind {kind:#x} does not fit a frame");
    let header = Header {
        length: (length as u16).into(),
        version: VERSION,
        kind,
        reserved: 0.into(),
        sequence: sequence.into(),
    };
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    out[HEADER_BYTES..length].copy_from_slice(body);
    length
}
