//! Reading and writing little-endian numbers and length-prefixed bytes.
#![forbid(unsafe_code)]

/// Why bytes could not be read as what they were meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before what they announce.
    #[error("a message ends {missing} bytes early")]
    Truncated {
        /// How many bytes are wanting.
        missing: usize,
    },
    /// More bytes than were announced.
    #[error("a message carries {0} bytes nobody announced")]
    Trailing(usize),
    /// The other side speaks another version.
    #[error("message version {found}, wanted {wanted}")]
    Version {
        /// What came.
        found: u8,
        /// What this build speaks.
        wanted: u8,
    },
    /// A kind of frame nobody defined, or not one for this direction.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// An announced length beyond what its kind allows.
    #[error("a frame of kind {kind} announces {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// The frame's kind.
        kind: u8,
        /// What it announces.
        length: u32,
        /// What would be allowed.
        limit: u32,
    },
    /// A number outside its range.
    #[error("a message carries {what} {value}")]
    Range {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        value: u64,
    },
}

/// Reads values off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(FrameError::Truncated { missing: count - self.rest.len() }),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(FrameError::Truncated { missing: N - self.rest.len() }),
        }
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes as a number.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes as a number.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a number.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes behind a two-byte length.
    #[inline]
    pub fn short(&mut self) -> Result<&'a [u8], FrameError> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// Bytes behind a four-byte length.
    #[inline]
    pub fn long(&mut self) -> Result<&'a [u8], FrameError> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything has been read.
    pub const fn end(&self) -> Result<(), FrameError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(FrameError::Trailing(more)),
        }
    }
}

/// Appends `bytes` behind a two-byte length; longer ones are cut to fit.
pub fn put_short(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&bytes[..usize::from(length)]);
}

/// Appends `bytes` behind a four-byte length; longer ones are cut to fit.
pub fn put_long(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(&bytes[..length as usize]);
}
