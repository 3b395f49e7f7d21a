//! Objects out of a stream of bytes, by their brackets: whether QEMU prints them on one line or
//! prettily on many makes no difference. Bounded in size and depth before anything is parsed.

/// Longest object taken, in bytes. The longest answer of a healthy QEMU with 1,000 processors is a
/// fifth of it.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting taken.
pub const DEPTH_MAX: u32 = 24;

/// Why a stream is no stream of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Longer than [`OBJECT_BYTES_MAX`].
    #[error("an object of more than {OBJECT_BYTES_MAX} bytes")]
    TooLong,
    /// Deeper than [`DEPTH_MAX`].
    #[error("an object nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Something else than an object.
    #[error("byte {0:#04x} where an object should begin")]
    NoObject(u8),
}

/// Collects bytes until they are an object.
#[derive(Debug, Default)]
pub struct Framer {
    object: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// Takes bytes from the front of `bytes` up to the end of an object, which is returned, or all
    /// of them. What is between objects is skipped if it is white.
    ///
    /// # Errors
    /// [`FrameFault`]; the stream cannot be followed any further.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameFault> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if self.depth == 0 {
                match byte {
                    b'{' => {}
                    b' ' | b'\t' | b'\r' | b'\n' => continue,
                    other => return Err(FrameFault::NoObject(other)),
                }
            }
            if self.object.len() == OBJECT_BYTES_MAX {
                return Err(FrameFault::TooLong);
            }
            self.object.push(byte);
            if self.ends(byte)? {
                return Ok(Some(std::mem::take(&mut self.object)));
            }
        }
        Ok(None)
    }

    /// True if this byte ends the object.
    fn ends(&mut self, byte: u8) -> Result<bool, FrameFault> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return Ok(false);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' if self.depth == DEPTH_MAX => return Err(FrameFault::TooDeep),
            b'{' | b'[' => self.depth += 1,
            // Whether brackets fit one another is for the parser to say.
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        Ok(self.depth == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objects(mut bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameFault> {
        let mut framer = Framer::default();
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (mut now, later) = bytes.split_at(piece.min(bytes.len()));
            bytes = later;
            while let Some(object) = framer.take(&mut now)? {
                found.push(object);
            }
            assert!(now.is_empty());
        }
        Ok(found)
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let stream = br#"{"a": "}\"{\\"} {"b": [{}, "]"]}"#;
        for piece in 1..stream.len() {
            let found = objects(stream, piece).unwrap();
            assert_eq!(found, [&br#"{"a": "}\"{\\"}"#[..], br#"{"b": [{}, "]"]}"#]);
        }
    }

    #[test]
    fn what_is_no_object_too_deep_or_too_long_is_refused() {
        assert_eq!(objects(b"[1]", 9), Err(FrameFault::NoObject(b'[')));
        assert_eq!(objects(b"{}]", 9), Err(FrameFault::NoObject(b']')));
        let deep = b"{".repeat(DEPTH_MAX as usize + 1);
        assert_eq!(objects(&deep, 9), Err(FrameFault::TooDeep));
        let long = [&b"{\""[..], &b"a".repeat(OBJECT_BYTES_MAX)].concat();
        assert_eq!(objects(&long, 4096), Err(FrameFault::TooLong));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in "[{}\\[\\]\"\\\\a \n]{0,60}", piece in 1_usize..9) {
            let bytes = bytes.as_bytes();
            prop_assert_eq!(objects(bytes, piece), objects(bytes, bytes.len().max(1)));
        }
    }
}
