//! A request without its body: what the runtime needs to know, then the environ.
#![forbid(unsafe_code)]

use crate::cursor::{Cursor, FrameError, put_long, put_short};
use crate::keys;

/// First byte of every head.
const VERSION: u8 = 3;

/// Bits of [`RequestHead::flags`].
pub mod flags {
    /// `wsgi.url_scheme` is `https`.
    pub const HTTPS: u8 = 1;
    /// A script whose file changed is loaded again (`WSGIScriptReloading On`).
    pub const RELOADING: u8 = 2;
    /// The request does not count as activity (`WSGIIgnoreActivity On`).
    pub const IGNORE_ACTIVITY: u8 = 4;
    /// The environ has httpd's own record (`WSGIPassApacheRequest On`, embedded mode).
    pub const APACHE_REQUEST: u8 = 8;
    /// The application sees the method `HEAD`: nobody wants the body of its answer.
    pub const HEAD_ONLY: u8 = 16;
}

/// [`RequestHead::body_length`] of a body whose length nobody knows yet.
pub const UNKNOWN_LENGTH: u64 = u64::MAX;

/// A request without its body.
///
/// Encoded: version, flags, log level, the two counts, `id`, the three times, the body's
/// length, the process' number, the four names (each behind a two-byte length), then twice,
/// for the common variables and for the others: how many bytes they take, how many there
/// are, and for each the number of its key (0: spelled out behind a two-byte length) and
/// its value behind a four-byte length.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Unique among all requests in flight on this server.
    pub id: u64,
    /// See [`flags`].
    pub flags: u8,
    /// The least grave [`level`](crate::vtable::level) that the request's log takes.
    pub log_level: u8,
    /// How often the child process had to ask for a daemon process; 0 in embedded mode.
    pub connects: u16,
    /// How often a daemon process was being replaced instead.
    pub restarts: u16,
    /// When httpd read the request line: µs since the epoch.
    pub request_start: u64,
    /// When the child process began to wait for a daemon process: µs since the
    /// epoch; 0 in embedded mode.
    pub queue_start: u64,
    /// When the script's file was changed, by what httpd saw when it found it: µs since
    /// the epoch; 0 if it did not look.
    pub script_mtime: u64,
    /// How long the body of the request is said to be; 0: there is none;
    /// [`UNKNOWN_LENGTH`]: until it ends.
    pub body_length: u64,
    /// The child process that the request came to; 0: nobody asks.
    pub server_pid: u32,
    /// Path of the script.
    pub script: &'a [u8],
    /// The application group, resolved; empty is the main interpreter.
    pub application_group: &'a [u8],
    /// Name of the application object in the script.
    pub callable: &'a [u8],
    /// The process group, resolved; empty is embedded mode.
    pub process_group: &'a [u8],
    /// The part of the environ that other requests for the same place have too: the same
    /// bytes, so that whoever has seen them need not read them again.
    pub common: Variables<'a>,
    /// The rest of it.  What comes later counts where a key comes twice, and everything
    /// here is later.
    pub variables: Variables<'a>,
}

/// Variables of a head, still encoded.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    count: u32,
    rest: Cursor<'a>,
}

/// The key of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Place in [`keys::KEYS`].
    Known(usize),
    /// Spelled out.
    Other(&'a [u8]),
}

impl<'a> Variables<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Them as they travel.
    pub const fn encoded(&self) -> &'a [u8] {
        self.rest.rest()
    }

    /// Reads where they are.
    fn decode(from: &mut Cursor<'a>) -> Result<Self, FrameError> {
        let length = from.u32()?;
        let count = from.u32()?;
        Ok(Self { count, rest: Cursor::new(from.bytes(length as usize)?) })
    }
}

impl<'a> Iterator for Variables<'a> {
    type Item = Result<(Key<'a>, &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let next = variable(&mut self.rest);
        if next.is_err() {
            self.count = 0;
        }
        Some(next)
    }
}

fn variable<'a>(from: &mut Cursor<'a>) -> Result<(Key<'a>, &'a [u8]), FrameError> {
    let key = match from.u16()? {
        0 => Key::Other(from.short()?),
        number if usize::from(number) <= keys::KEYS.len() => Key::Known(usize::from(number) - 1),
        number => {
            return Err(FrameError::Range { what: "key number", value: u64::from(number) });
        }
    };
    Ok((key, from.long()?))
}

impl<'a> RequestHead<'a> {
    /// Reads a head; the variables are read when they are asked for.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut from = Cursor::new(bytes);
        let version = from.u8()?;
        if version != VERSION {
            return Err(FrameError::Version { found: version, wanted: VERSION });
        }
        Ok(Self {
            flags: from.u8()?,
            log_level: from.u8()?,
            connects: from.u16()?,
            restarts: from.u16()?,
            id: from.u64()?,
            request_start: from.u64()?,
            queue_start: from.u64()?,
            script_mtime: from.u64()?,
            body_length: from.u64()?,
            server_pid: from.u32()?,
            script: from.short()?,
            application_group: from.short()?,
            callable: from.short()?,
            process_group: from.short()?,
            common: Variables::decode(&mut from)?,
            variables: Variables::decode(&mut from)?,
        })
    }

    /// The whole environ; what comes later counts.
    pub fn environ(&self) -> impl Iterator<Item = Result<(Key<'a>, &'a [u8]), FrameError>> {
        self.common.chain(self.variables)
    }

    /// Sets the counts of an encoded head.
    pub fn set_counts(encoded: &mut [u8], connects: u16, restarts: u16) {
        // Behind version, flags and log level.
        if let Some(counts) = encoded.get_mut(3..7) {
            counts[..2].copy_from_slice(&connects.to_le_bytes());
            counts[2..].copy_from_slice(&restarts.to_le_bytes());
        }
    }

    /// Clears one of the [`flags`] of an encoded head.
    pub fn clear_flag(encoded: &mut [u8], flag: u8) {
        // Behind the version.
        if let Some(flags) = encoded.get_mut(1) {
            *flags &= !flag;
        }
    }
}

/// Writes a head: the fixed part, the common variables, then the others.
#[derive(Debug)]
pub struct HeadWriter<'v> {
    to: &'v mut Vec<u8>,
    /// How many variables this part has.
    count: u32,
    /// Where its length and that number go.
    part_at: usize,
}

/// Names longer than this do not fit a head.
pub const LONGEST_NAME: usize = u16::MAX as usize;

/// What stands before a part: its length, and how many variables it has.
const PART: usize = 8;

impl<'v> HeadWriter<'v> {
    /// Appends the fixed part of `head` to `to`; its variables are ignored.
    pub fn new(to: &'v mut Vec<u8>, head: &RequestHead<'_>) -> Self {
        to.extend_from_slice(&[VERSION, head.flags, head.log_level]);
        to.extend_from_slice(&head.connects.to_le_bytes());
        to.extend_from_slice(&head.restarts.to_le_bytes());
        for number in
            [head.id, head.request_start, head.queue_start, head.script_mtime, head.body_length]
        {
            to.extend_from_slice(&number.to_le_bytes());
        }
        to.extend_from_slice(&head.server_pid.to_le_bytes());
        for name in [head.script, head.application_group, head.callable, head.process_group] {
            put_short(to, name);
        }
        let part_at = to.len();
        to.extend_from_slice(&[0; PART]);
        Self { to, count: 0, part_at }
    }

    /// Ends the common variables.
    pub fn end_common(&mut self) {
        self.end_part();
        self.part_at = self.to.len();
        self.count = 0;
        self.to.extend_from_slice(&[0; PART]);
    }

    /// Appends a variable.
    pub fn variable(&mut self, key: &[u8], value: &[u8]) {
        match keys::number(key) {
            0 => {
                self.to.extend_from_slice(&[0; 2]);
                put_short(self.to, key);
                put_long(self.to, value);
                self.count += 1;
            }
            number => self.known(number, value),
        }
    }

    /// Appends a variable by the number of its key.
    pub fn known(&mut self, number: u16, value: &[u8]) {
        self.to.extend_from_slice(&number.to_le_bytes());
        put_long(self.to, value);
        self.count += 1;
    }

    /// Writes down what this part became.
    fn end_part(&mut self) {
        let start = self.part_at + PART;
        let length = u32::try_from(self.to.len() - start).unwrap_or(u32::MAX);
        self.to[self.part_at..self.part_at + 4].copy_from_slice(&length.to_le_bytes());
        self.to[self.part_at + 4..start].copy_from_slice(&self.count.to_le_bytes());
    }

    /// Ends the head.
    pub fn finish(mut self) {
        self.end_part();
    }
}

impl Default for Variables<'_> {
    fn default() -> Self {
        Self { count: 0, rest: Cursor::new(&[]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head<'a>(script: &'a [u8], group: &'a [u8]) -> RequestHead<'a> {
        RequestHead {
            id: 7,
            flags: flags::HTTPS,
            log_level: 6,
            connects: 0,
            restarts: 0,
            request_start: 1,
            queue_start: 2,
            script_mtime: 3,
            body_length: 4,
            server_pid: 5,
            script,
            application_group: group,
            callable: b"application",
            process_group: b"",
            common: Variables::default(),
            variables: Variables::default(),
        }
    }

    /// A head without variables.
    fn bare() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = HeadWriter::new(&mut bytes, &head(b"/x", b""));
        writer.end_common();
        writer.finish();
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            script: Vec<u8>,
            group: Vec<u8>,
            mut variables: Vec<(Vec<u8>, Vec<u8>)>,
            common: usize,
        ) {
            variables.push((b"REQUEST_METHOD".to_vec(), b"GET".to_vec()));
            let common = common % variables.len();
            let mut bytes = Vec::new();
            let mut writer = HeadWriter::new(&mut bytes, &head(&script, &group));
            for (key, value) in &variables[..common] {
                writer.variable(key, value);
            }
            writer.end_common();
            for (key, value) in &variables[common..] {
                writer.variable(key, value);
            }
            writer.finish();

            let read = RequestHead::decode(&bytes).unwrap();
            prop_assert_eq!(read.script, &script[..]);
            prop_assert_eq!(read.application_group, &group[..]);
            prop_assert_eq!(read.id, 7);
            prop_assert_eq!(read.log_level, 6);
            prop_assert_eq!((read.script_mtime, read.body_length, read.server_pid), (3, 4, 5));
            prop_assert_eq!((read.common.len(), read.variables.len()), (common, variables.len() - common));
            let found: Result<Vec<_>, _> = read
                .environ()
                .map(|variable| {
                    variable.map(|(key, value)| {
                        let key = match key {
                            Key::Known(place) => keys::KEYS[place].as_bytes().to_vec(),
                            Key::Other(name) => name.to_vec(),
                        };
                        (key, value.to_vec())
                    })
                })
                .collect();
            prop_assert_eq!(found.unwrap(), variables);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            if let Ok(head) = RequestHead::decode(&bytes) {
                let _ = head.environ().count();
            }
        }
    }

    #[test]
    fn counts_can_be_set_afterwards() {
        let mut bytes = bare();
        RequestHead::set_counts(&mut bytes, 3, 0x102);
        let read = RequestHead::decode(&bytes).unwrap();
        assert_eq!((read.connects, read.restarts), (3, 0x102));
        assert_eq!((read.id, read.script), (7, &b"/x"[..]));
    }

    #[test]
    fn a_head_that_announces_more_than_it_holds_is_an_error() {
        let mut bytes = bare();
        let at = bytes.len() - 4;
        bytes[at] = 3;
        let mut variables = RequestHead::decode(&bytes).unwrap().variables;
        assert_eq!(variables.next(), Some(Err(FrameError::Truncated { missing: 2 })));
        assert_eq!(variables.next(), None);
        bytes[at - 4] = 1;
        let missing = FrameError::Truncated { missing: 1 };
        assert_eq!(RequestHead::decode(&bytes).unwrap_err(), missing);
    }

    #[test]
    fn the_same_common_variables_are_the_same_bytes() {
        let encode = |id: u64, method: &[u8]| {
            let mut bytes = Vec::new();
            let mut writer = HeadWriter::new(&mut bytes, &RequestHead { id, ..head(b"/x", b"") });
            writer.variable(b"SERVER_NAME", b"localhost");
            writer.end_common();
            writer.variable(b"REQUEST_METHOD", method);
            writer.finish();
            bytes
        };
        let (one, other) = (encode(1, b"GET"), encode(2, b"POST"));
        let common = |bytes| RequestHead::decode(bytes).unwrap().common.encoded();
        assert_eq!(common(&one), common(&other));
        assert!(!common(&one).is_empty());
    }
}
