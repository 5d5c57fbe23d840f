//! How the log names a request that failed on its way: enough to find it again, and
//! nothing that is secret.
#![forbid(unsafe_code)]

use crate::daemon::sys;
use crate::httpd::Request;
use std::fmt;
use std::time::Duration;

/// As much of a path stands in a line: httpd cuts long lines at their end, where
/// the reason is.
const LONGEST_PATH: usize = 200;

/// As much of a method: clients may send any word.
const LONGEST_METHOD: usize = 20;

/// A request, for a line of the log: "GET /blog/7, id Zx1, after 1.2 s".
#[derive(Debug, Clone, Copy)]
pub struct Subject<'r> {
    /// What the client wrote.
    pub method: &'r [u8],
    /// The path without the query, which may hold secrets.
    pub path: &'r [u8],
    /// What else in the logs names it; empty if nothing does.
    pub id: &'r [u8],
    /// How long ago it was read.
    pub age: Duration,
}

impl<'r> Subject<'r> {
    /// What the log says of `request`.
    pub fn of(request: &'r Request) -> Self {
        let age = sys::now_micros().saturating_sub(request.request_time());
        Self {
            method: request.method(),
            path: request.uri(),
            // mod_unique_id's is in access logs too.
            id: request.variables().get(c"UNIQUE_ID").unwrap_or_else(|| request.log_id()),
            age: Duration::from_micros(age),
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_word(to, self.method, LONGEST_METHOD)?;
        to.write_str(" ")?;
        write_word(to, self.path, LONGEST_PATH)?;
        if !self.id.is_empty() {
            to.write_str(", id ")?;
            write_word(to, self.id, LONGEST_PATH)?;
        }
        write!(to, ", after {:.1} s", self.age.as_secs_f64())
    }
}

/// Writes `text` as one word without anything unprintable, of about `most`
/// characters at most.
fn write_word(to: &mut fmt::Formatter<'_>, text: &[u8], most: usize) -> fmt::Result {
    let mut written = 0;
    for &byte in text {
        if written >= most {
            return to.write_str("...");
        }
        if byte.is_ascii_graphic() {
            write!(to, "{}", char::from(byte))?;
            written += 1;
        } else {
            write!(to, "%{byte:02X}")?;
            written += 3;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'r>(path: &'r [u8], id: &'r [u8]) -> Subject<'r> {
        Subject { method: b"GET", path, id, age: Duration::from_millis(1230) }
    }

    #[test]
    fn a_request_is_named_by_what_can_be_found_again() {
        assert_eq!(subject(b"/blog/7", b"Zx1@").to_string(), "GET /blog/7, id Zx1@, after 1.2 s");
        assert_eq!(subject(b"/", b"").to_string(), "GET /, after 1.2 s");
    }

    #[test]
    fn nothing_unprintable_reaches_the_line() {
        let line = subject(b"/a b\r\n\x1b\xe4", b"").to_string();
        assert_eq!(line, "GET /a%20b%0D%0A%1B%E4, after 1.2 s");
    }

    #[test]
    fn long_words_are_cut() {
        let line = subject(&[b'x'; 5000], b"").to_string();
        assert_eq!(line.len(), "GET ".len() + LONGEST_PATH + "..., after 1.2 s".len());
        let odd = Subject { method: &[b'M'; 50], ..subject(b"/", b"") }.to_string();
        assert!(odd.starts_with(&format!("{}... /", "M".repeat(LONGEST_METHOD))), "{odd}");
    }
}
