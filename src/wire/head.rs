//! A request without its body: what the runtime needs to know, then the environ.
#![forbid(unsafe_code)]

use crate::cursor::{Cursor, FrameError, put_long, put_short};
use crate::keys;

/// First byte of every head.
const VERSION: u8 = 2;

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
}

/// A request without its body.
///
/// Encoded: version, flags, log level, the two counts, `id`, the two times, the four names (each behind a
/// two-byte length), the number of variables, then for each variable the
/// number of its key (0: spelled out behind a two-byte length) and its value
/// behind a four-byte length.
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
    /// Path of the script.
    pub script: &'a [u8],
    /// The application group, resolved; empty is the main interpreter.
    pub application_group: &'a [u8],
    /// Name of the application object in the script.
    pub callable: &'a [u8],
    /// The process group, resolved; empty is embedded mode.
    pub process_group: &'a [u8],
    /// The environ.
    pub variables: Variables<'a>,
}

/// The variables of a head, still encoded.
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
            script: from.short()?,
            application_group: from.short()?,
            callable: from.short()?,
            process_group: from.short()?,
            variables: Variables { count: from.u32()?, rest: from },
        })
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

/// Writes a head: the fixed part first, then one variable after the other.
#[derive(Debug)]
pub struct HeadWriter<'v> {
    to: &'v mut Vec<u8>,
    count: u32,
    count_at: usize,
}

/// Names longer than this do not fit a head.
pub const LONGEST_NAME: usize = u16::MAX as usize;

impl<'v> HeadWriter<'v> {
    /// Appends the fixed part of `head` to `to`; its `variables` are ignored.
    pub fn new(to: &'v mut Vec<u8>, head: &RequestHead<'_>) -> Self {
        to.extend_from_slice(&[VERSION, head.flags, head.log_level]);
        to.extend_from_slice(&head.connects.to_le_bytes());
        to.extend_from_slice(&head.restarts.to_le_bytes());
        for number in [head.id, head.request_start, head.queue_start] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        for name in [head.script, head.application_group, head.callable, head.process_group] {
            put_short(to, name);
        }
        let count_at = to.len();
        to.extend_from_slice(&[0; 4]);
        Self { to, count: 0, count_at }
    }

    /// Appends a variable.
    pub fn variable(&mut self, key: &[u8], value: &[u8]) {
        match keys::number(key) {
            0 => {
                self.to.extend_from_slice(&[0; 2]);
                put_short(self.to, key);
            }
            number => self.to.extend_from_slice(&number.to_le_bytes()),
        }
        put_long(self.to, value);
        self.count += 1;
    }

    /// Writes down how many variables there were.
    pub fn finish(self) {
        self.to[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
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
            script,
            application_group: group,
            callable: b"application",
            process_group: b"",
            variables: Variables::default(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            script: Vec<u8>,
            group: Vec<u8>,
            mut variables: Vec<(Vec<u8>, Vec<u8>)>,
        ) {
            variables.push((b"REQUEST_METHOD".to_vec(), b"GET".to_vec()));
            let mut bytes = Vec::new();
            let mut writer = HeadWriter::new(&mut bytes, &head(&script, &group));
            for (key, value) in &variables {
                writer.variable(key, value);
            }
            writer.finish();

            let read = RequestHead::decode(&bytes).unwrap();
            prop_assert_eq!(read.script, &script[..]);
            prop_assert_eq!(read.application_group, &group[..]);
            prop_assert_eq!(read.id, 7);
            prop_assert_eq!(read.log_level, 6);
            let found: Result<Vec<_>, _> = read
                .variables
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
                let _ = head.variables.count();
            }
        }
    }

    #[test]
    fn counts_can_be_set_afterwards() {
        let mut bytes = Vec::new();
        HeadWriter::new(&mut bytes, &head(b"/x", b"")).finish();
        RequestHead::set_counts(&mut bytes, 3, 0x102);
        let read = RequestHead::decode(&bytes).unwrap();
        assert_eq!((read.connects, read.restarts), (3, 0x102));
        assert_eq!((read.id, read.script), (7, &b"/x"[..]));
    }

    #[test]
    fn a_head_that_announces_more_than_it_holds_is_an_error() {
        let mut bytes = Vec::new();
        HeadWriter::new(&mut bytes, &head(b"/x", b"")).finish();
        let at = bytes.len() - 4;
        bytes[at] = 3;
        let mut variables = RequestHead::decode(&bytes).unwrap().variables;
        assert_eq!(variables.next(), Some(Err(FrameError::Truncated { missing: 2 })));
        assert_eq!(variables.next(), None);
    }
}
