//! The messages between a child process and a daemon process.
//!
//! Every frame is eight bytes (length of what follows, kind, version, two
//! bytes 0) and its payload.  One exchange on a connection:
//!
//! ```text
//! child   Head [Body … BodyEnd | BodyError]            long bodies: after WantBody
//! daemon  [Log | WantBody]* (Refused | Failed | Start (Data | File | Flush | Log | WantBody)* (End | Failed))
//! ```
//!
//! An answer without `End` was cut off.  After `End` the connection may carry
//! the next exchange, unless `End` says it is to be closed.
#![forbid(unsafe_code)]

use crate::cursor::{Cursor, FrameError, put_long, put_short};

/// Version in every frame.  A graceful restart mixes builds: an old child
/// process may meet a new daemon process.
pub const VERSION: u8 = 1;

/// Length of a frame's header.
pub const HEADER: usize = 8;

/// Most bytes of a request head, as in the reference.
pub const LONGEST_HEAD: u32 = 16 * 1024 * 1024;

/// Most bytes of one log record.
pub const LONGEST_LOG: u32 = 64 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Child: generation of the process it means, ticket, whether a body
    /// follows, then an encoded request head.
    Head = 1,
    /// Child: a piece of the body.
    Body = 2,
    /// Child: the body is complete.
    BodyEnd = 3,
    /// Child: the body will not be completed; a [`BodyFault`].
    BodyError = 4,
    /// Daemon: status line and headers.
    Start = 16,
    /// Daemon: a piece of the answer.
    Data = 17,
    /// Daemon: a piece of the answer from a file; its descriptor rides along.
    File = 18,
    /// Daemon: the client is to see everything so far.
    Flush = 19,
    /// Daemon: a line for the request's log.
    Log = 20,
    /// Daemon: the application wants to read the body.
    WantBody = 21,
    /// Daemon: the answer is complete.
    End = 22,
    /// Daemon: not run here; a [`Refusal`].
    Refused = 23,
    /// Daemon: no answer, and the status the client is owed; after `Start`, no
    /// more of it.
    Failed = 24,
    /// Daemon: as [`Kind::Log`], with the place it comes from; a [`PlacedLine`].
    LogFrom = 25,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Head,
            2 => Self::Body,
            3 => Self::BodyEnd,
            4 => Self::BodyError,
            16 => Self::Start,
            17 => Self::Data,
            18 => Self::File,
            19 => Self::Flush,
            20 => Self::Log,
            21 => Self::WantBody,
            22 => Self::End,
            23 => Self::Refused,
            24 => Self::Failed,
            25 => Self::LogFrom,
            _ => return None,
        })
    }

    /// The longest payload of this kind.
    pub const fn limit(self) -> u32 {
        match self {
            Self::Head | Self::Start => LONGEST_HEAD,
            // Never held in memory as a whole.
            Self::Body | Self::Data => u32::MAX,
            Self::Log | Self::LogFrom => LONGEST_LOG,
            Self::File => 16,
            Self::BodyEnd | Self::Flush | Self::WantBody => 0,
            Self::BodyError | Self::End | Self::Refused => 1,
            Self::Failed => 2,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// How many bytes follow.
    pub length: u32,
}

impl Header {
    /// As it travels.
    pub const fn encode(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.length.to_le_bytes();
        [a, b, c, d, self.kind as u8, VERSION, 0, 0]
    }

    /// Reads a header and checks version, kind and length.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        let [a, b, c, d, kind, version, ..] = bytes;
        if version != VERSION {
            return Err(FrameError::Version { found: version, wanted: VERSION });
        }
        let length = u32::from_le_bytes([a, b, c, d]);
        let kind = Kind::from_number(kind).ok_or(FrameError::Kind(kind))?;
        if length > kind.limit() {
            let limit = kind.limit();
            return Err(FrameError::TooLong { kind: kind as u8, length, limit });
        }
        Ok(Self { kind, length })
    }
}

/// Why a body will not be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFault {
    /// The client is gone.
    Gone = 1,
    /// The client sent nothing for too long.
    TimedOut = 2,
    /// The body is malformed or longer than allowed.
    Malformed = 3,
}

impl BodyFault {
    /// Reads the payload of [`Kind::BodyError`].
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        match single(payload)? {
            1 => Ok(Self::Gone),
            2 => Ok(Self::TimedOut),
            3 => Ok(Self::Malformed),
            other => Err(FrameError::Range { what: "body fault", value: u64::from(other) }),
        }
    }
}

/// Why a daemon process did not run a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// It was meant for another process that had this slot.
    Generation = 1,
    /// The script changed; a replacement will run it.
    Stale = 2,
}

impl Refusal {
    /// Reads the payload of [`Kind::Refused`].
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        match single(payload)? {
            1 => Ok(Self::Generation),
            2 => Ok(Self::Stale),
            other => Err(FrameError::Range { what: "refusal", value: u64::from(other) }),
        }
    }
}

/// Reads the payload of [`Kind::End`]: whether the connection is to be closed.
pub fn decode_end(payload: &[u8]) -> Result<bool, FrameError> {
    match single(payload)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(FrameError::Range { what: "end", value: u64::from(other) }),
    }
}

/// Reads the payload of [`Kind::Failed`]: an HTTP status from 400 to 599.
pub fn decode_failed(payload: &[u8]) -> Result<u16, FrameError> {
    let mut from = Cursor::new(payload);
    let status = from.u16()?;
    from.end()?;
    if (400..600).contains(&status) {
        Ok(status)
    } else {
        Err(FrameError::Range { what: "failure status", value: u64::from(status) })
    }
}

fn single(payload: &[u8]) -> Result<u8, FrameError> {
    let mut from = Cursor::new(payload);
    let value = from.u8()?;
    from.end()?;
    Ok(value)
}

/// Appends a whole frame.
pub fn put(to: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).min(kind.limit());
    to.extend_from_slice(&Header { kind, length }.encode());
    to.extend_from_slice(&payload[..length as usize]);
}

/// Appends a frame whose payload `write` appends.
pub fn put_with(to: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend_from_slice(&[0; HEADER]);
    write(to);
    let length = u32::try_from(to.len() - at - HEADER).unwrap_or(u32::MAX);
    to[at..at + HEADER].copy_from_slice(&Header { kind, length }.encode());
}

/// Length of an encoded [`Envelope`].
pub const ENVELOPE: usize = 13;

/// What stands before the request head in [`Kind::Head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The process the child means; another one in its slot refuses.
    pub generation: u64,
    /// The place it took in the scoreboard; the worker gives it back.
    pub ticket: u32,
    /// Where the body is.
    pub body: BodyPlace,
}

/// Where a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyPlace {
    /// There is none.
    None = 0,
    /// Its frames follow the head at once.
    Follows = 1,
    /// It comes after [`Kind::WantBody`].
    OnDemand = 2,
}

impl Envelope {
    /// Appends the envelope.
    pub fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.generation.to_le_bytes());
        to.extend_from_slice(&self.ticket.to_le_bytes());
        to.push(self.body as u8);
    }

    /// Reads the envelope and gives the encoded request head behind it.
    pub fn decode(payload: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let mut from = Cursor::new(payload);
        let envelope = Self {
            generation: from.u64()?,
            ticket: from.u32()?,
            body: match from.u8()? {
                0 => BodyPlace::None,
                1 => BodyPlace::Follows,
                2 => BodyPlace::OnDemand,
                other => {
                    return Err(FrameError::Range { what: "body place", value: u64::from(other) });
                }
            },
        };
        Ok((envelope, from.rest()))
    }
}

/// A line for a log that comes from a line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedLine<'a> {
    /// [`level`](crate::vtable::level)
    pub level: u32,
    /// The file.
    pub file: &'a [u8],
    /// The line of the file.
    pub line: u32,
    /// The text.
    pub message: &'a [u8],
}

impl<'a> PlacedLine<'a> {
    /// Appends the payload of [`Kind::LogFrom`].
    pub fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.level.to_le_bytes());
        to.extend_from_slice(&self.line.to_le_bytes());
        put_short(to, self.file);
        to.extend_from_slice(self.message);
    }

    /// Reads the payload of [`Kind::LogFrom`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut from = Cursor::new(payload);
        let (level, line) = (from.u32()?, from.u32()?);
        Ok(Self { level, line, file: from.short()?, message: from.rest() })
    }
}

/// Where a piece of a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePiece {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl FilePiece {
    /// Appends the payload of [`Kind::File`].
    pub fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.offset.to_le_bytes());
        to.extend_from_slice(&self.length.to_le_bytes());
    }

    /// Reads the payload of [`Kind::File`]; the end must fit a file offset.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut from = Cursor::new(payload);
        let piece = Self { offset: from.u64()?, length: from.u64()? };
        from.end()?;
        match piece.offset.checked_add(piece.length) {
            Some(end) if end <= i64::MAX as u64 => Ok(piece),
            _ => Err(FrameError::Range { what: "file length", value: piece.length }),
        }
    }
}

/// Status line and headers of an answer, still encoded.
#[derive(Debug, Clone, Copy)]
pub struct AnswerHead<'a> {
    /// "200 OK".
    pub status_line: &'a [u8],
    count: u16,
    rest: Cursor<'a>,
}

impl<'a> AnswerHead<'a> {
    /// Reads the payload of [`Kind::Start`]; headers are read when asked for.
    pub fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut from = Cursor::new(payload);
        Ok(Self { status_line: from.short()?, count: from.u16()?, rest: from })
    }

    /// The headers, names and values.
    pub fn headers(&self) -> Headers<'a> {
        Headers { count: self.count, rest: self.rest }
    }
}

/// The headers of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    count: u16,
    rest: Cursor<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let mut read = || Ok((self.rest.short()?, self.rest.long()?));
        let next = read();
        if next.is_err() {
            self.count = 0;
        }
        Some(next)
    }
}

/// Appends the payload of [`Kind::Start`].
///
/// More than 65,535 headers do not fit and are left out; the runtime refuses
/// so many.
pub fn put_answer_head<'a>(
    to: &mut Vec<u8>,
    status_line: &[u8],
    headers: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
) {
    put_short(to, status_line);
    let count = u16::try_from(headers.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&count.to_le_bytes());
    for (name, value) in headers.take(usize::from(count)) {
        put_short(to, name);
        put_long(to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_the_journey(kind in 0u8..=30, length: u32) {
            let Some(kind) = Kind::from_number(kind) else { return Ok(()) };
            let header = Header { kind, length };
            let read = Header::decode(header.encode());
            if length <= kind.limit() {
                prop_assert_eq!(read, Ok(header));
            } else {
                prop_assert_eq!(
                    read,
                    Err(FrameError::TooLong { kind: kind as u8, length, limit: kind.limit() })
                );
            }
        }

        #[test]
        fn an_answer_head_survives_the_journey(
            status in proptest::collection::vec(any::<u8>(), 0..100),
            headers: Vec<(Vec<u8>, Vec<u8>)>,
        ) {
            let mut bytes = Vec::new();
            put_answer_head(&mut bytes, &status, headers.iter().map(|(n, v)| (&n[..], &v[..])));
            let head = AnswerHead::decode(&bytes).unwrap();
            prop_assert_eq!(head.status_line, &status[..]);
            let found: Result<Vec<_>, _> =
                head.headers().map(|h| h.map(|(n, v)| (n.to_vec(), v.to_vec()))).collect();
            prop_assert_eq!(found.unwrap(), headers);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            if let Ok(head) = AnswerHead::decode(&bytes) {
                let _ = head.headers().count();
            }
            let _ = Envelope::decode(&bytes);
            let _ = FilePiece::decode(&bytes);
            let _ = PlacedLine::decode(&bytes);
            let _ = decode_end(&bytes);
            let _ = decode_failed(&bytes);
            let _ = Refusal::decode(&bytes);
            let _ = BodyFault::decode(&bytes);
        }
    }

    #[test]
    fn an_envelope_has_its_length() {
        let mut bytes = Vec::new();
        Envelope { generation: 1, ticket: 2, body: BodyPlace::None }.encode(&mut bytes);
        assert_eq!(bytes.len(), ENVELOPE);
    }

    #[test]
    fn a_placed_line_survives_the_journey() {
        let line = PlacedLine { level: 6, file: b"/srv/x.py", line: 70_000, message: b"text" };
        let mut bytes = Vec::new();
        line.encode(&mut bytes);
        assert_eq!(PlacedLine::decode(&bytes), Ok(line));
    }

    #[test]
    fn a_file_piece_beyond_any_file_is_an_error() {
        let mut bytes = Vec::new();
        FilePiece { offset: u64::MAX, length: 2 }.encode(&mut bytes);
        assert!(FilePiece::decode(&bytes).is_err());
    }

    #[test]
    fn a_foreign_version_is_an_error() {
        let mut bytes = Header { kind: Kind::End, length: 1 }.encode();
        bytes[5] = 9;
        assert_eq!(Header::decode(bytes), Err(FrameError::Version { found: 9, wanted: VERSION }));
    }
}
