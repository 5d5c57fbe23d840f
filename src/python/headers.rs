//! What `start_response` accepts as a status and as headers.
#![forbid(unsafe_code)]

use crate::raw::{Attached, Builtin, Object, Raised};
use wsgi_wire::frame;

/// A checked status line with its headers.
#[derive(Debug)]
pub struct Response {
    /// The status line, then each name followed by its value.
    text: Vec<u8>,
    /// Where the status line ends.
    status_end: usize,
    /// Where each name ends and each value ends.
    ends: Vec<(usize, usize)>,
}

/// Frames count headers in two bytes.
const MOST_HEADERS: usize = u16::MAX as usize - 1;

/// Most bytes of an answer's head; room is left for `Content-Length`.
const LONGEST: usize = frame::LONGEST_HEAD as usize - 1024;

/// Most bytes of a status line or of a header's name: frames have two for their
/// length.
const LONGEST_NAME: usize = u16::MAX as usize;

/// Headers that belong to one connection: PEP 3333, "Other HTTP Features".
static HOP_BY_HOP: [&[u8]; 8] = [
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
];

impl Response {
    /// Checks what `start_response` was given.
    pub fn new<'p>(
        py: Attached<'p>,
        status: &Object<'p>,
        headers: &Object<'p>,
    ) -> Result<Self, Raised> {
        let count = headers.list_len().unwrap_or(16).min(MOST_HEADERS);
        let mut text = Vec::with_capacity(128 + 48 * count);
        append_status(py, status, &mut text)?;
        let status_end = text.len();
        let mut ends = Vec::with_capacity(count);
        let mut at = 0;
        while let Some(header) = headers.list_item(at) {
            ends.push(append_header(py, &header, &mut text)?);
            at += 1;
            // Each has two lengths beside its text.
            if at > MOST_HEADERS || text.len() + 8 * at > LONGEST {
                return Err(py.raise(Builtin::ValueError, "too many or too long headers"));
            }
        }
        Ok(Self { text, status_end, ends })
    }

    /// The status line.
    pub fn status_line(&self) -> &[u8] {
        &self.text[..self.status_end]
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        let code = self.text.get(..3).and_then(|code| core::str::from_utf8(code).ok());
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Whether this status never has a body.
    pub fn is_bodiless(&self) -> bool {
        matches!(&self.text[..3], b"204" | b"304")
    }

    /// Each header.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = core::iter::once(self.status_end).chain(self.ends.iter().map(|end| end.1));
        starts
            .zip(&self.ends)
            .map(|(start, &(name, value))| (&self.text[start..name], &self.text[name..value]))
    }

    /// The announced length; fails if it is no number or if there are two.
    pub fn content_length(&self) -> Result<Option<u64>, &'static str> {
        let mut found = None;
        for (name, value) in self.headers() {
            if !name.eq_ignore_ascii_case(b"content-length") {
                continue;
            }
            let value = parse_length(value).ok_or("invalid Content-Length header")?;
            if found.is_some_and(|other| other != value) {
                return Err("two Content-Length headers contradict each other");
            }
            found = Some(value);
        }
        Ok(found)
    }
}

/// The number in a Content-Length header.
fn parse_length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Beyond what a file offset holds no host can count.
    let length: u64 = core::str::from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// Appends a checked status line.
fn append_status<'p>(
    py: Attached<'p>,
    status: &Object<'p>,
    to: &mut Vec<u8>,
) -> Result<(), Raised> {
    if !status.is_text() {
        let message = format!("status must be str, not {}", status.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    }
    status.append_latin1(to)?;
    match fault_of_status(to) {
        None => Ok(()),
        Some(message) => Err(py.raise(Builtin::ValueError, message)),
    }
}

/// What is wrong with a status line, if anything.
fn fault_of_status(line: &[u8]) -> Option<&'static str> {
    if line.len() > LONGEST_NAME {
        return Some("status is too long");
    }
    let code = line.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
    let Some(code) = code else {
        return Some("status must begin with a code of three digits");
    };
    if line.len() > 3 && line[3] != b' ' || code.first() == Some(&b'0') {
        return Some("status code must be followed by one space and a reason phrase");
    }
    if line[3..].iter().any(u8::is_ascii_control) {
        return Some("control character in the reason phrase of the status");
    }
    // It would not end the exchange: the client waits for a final answer.
    (code[0] == b'1').then_some("an informational status cannot be the answer")
}

/// Appends a checked header; says where its name and its value end.
fn append_header<'p>(
    py: Attached<'p>,
    header: &Object<'p>,
    to: &mut Vec<u8>,
) -> Result<(usize, usize), Raised> {
    let Some(length) = header.tuple_len() else {
        let message = format!("header must be a tuple, not {}", header.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    };
    let (Some(name), Some(value), 2) = (header.tuple_item(0), header.tuple_item(1), length) else {
        let message = "header must be a tuple of name and value";
        return Err(py.raise(Builtin::ValueError, message));
    };
    let start = to.len();
    append_text(py, "header name", &name, to)?;
    let name_end = to.len();
    append_text(py, "header value", &value, to)?;
    let fault = fault_of_name(&to[start..name_end]).or_else(|| fault_of_value(&to[name_end..]));
    match fault {
        None => Ok((name_end, to.len())),
        Some(message) => {
            let name = String::from_utf8_lossy(&to[start..name_end]);
            Err(py.raise(Builtin::ValueError, &format!("{message}: {name:?}")))
        }
    }
}

/// Appends a `str`; `what` names it in the exception for anything else.
fn append_text<'p>(
    py: Attached<'p>,
    what: &str,
    value: &Object<'p>,
    to: &mut Vec<u8>,
) -> Result<(), Raised> {
    if !value.is_text() {
        let message = format!("{what} must be str, not {}", value.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    }
    value.append_latin1(to)
}

/// What is wrong with a header's name, if anything.
fn fault_of_name(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("header name is empty");
    }
    if name.len() > LONGEST_NAME {
        return Some("header name is too long");
    }
    if name.iter().any(u8::is_ascii_control) {
        return Some("control character in header name");
    }
    if name.contains(&b' ') {
        return Some("space in header name");
    }
    HOP_BY_HOP
        .iter()
        .any(|hop| name.eq_ignore_ascii_case(hop))
        .then_some("hop-by-hop header is not the application's to send")
}

/// What is wrong with a header's value, if anything.
fn fault_of_value(value: &[u8]) -> Option<&'static str> {
    if value.contains(&0) {
        return Some("NUL in the value of header");
    }
    let breaks = value.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
    breaks.then_some("line break in the value of header")
}
