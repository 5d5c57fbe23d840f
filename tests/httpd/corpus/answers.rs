//! Everything that comes back on a connection, taken apart as strictly as a client could.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::format::{Case, Way};

/// The request behind a hostile one, whose answer shows that the connection is in step.
const MARKER: &[u8] = b"GET /marker HTTP/1.1\r\nHost: wsgi.test\r\nConnection: close\r\n\r\n";

/// How long a byte may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status, `0.9` for one without a head, `cut` for one that did not come whole.
    pub status: String,
    /// Its headers, names in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// One that holds no more than its status.
    fn of(status: &str, body: &[u8]) -> Self {
        Self { status: status.to_owned(), headers: Vec::new(), body: body.to_vec() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| known == name);
        let first = named.next().map(|(_, value)| value.as_str());
        let is_framing = ["content-length", "transfer-encoding"].contains(&name);
        assert!(!is_framing || named.next().is_none(), "{name} twice: {:?}", self.headers);
        first
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `bytes` as `case` says, and gives all that comes back before httpd closes.
pub fn exchange(port: u16, case: &Case, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    if case.way == Way::Leave {
        // The rest of a large request may meet a connection httpd has already closed.
        let _ = writer.write_all(bytes);
        return Vec::new();
    }
    let way = case.way;
    let bytes = bytes.to_vec();
    let sender = std::thread::spawn(move || {
        // httpd may close before it has read everything: what it said is what counts.
        let pieces = if way == Way::Drip { 1 } else { bytes.len().max(1) };
        let sent = bytes.chunks(pieces).try_for_each(|piece| writer.write_all(piece));
        let _ = match way {
            Way::Whole | Way::Drip => sent.and_then(|()| writer.write_all(MARKER)),
            _ => sent.and_then(|()| writer.shutdown(Shutdown::Write)),
        };
    });
    let mut received = Vec::new();
    let end = (&stream).read_to_end(&mut received);
    let is_timeout = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!is_timeout, "{}: httpd neither answers nor closes", case.name);
    sender.join().unwrap();
    received
}

/// The answers in `received`; the first of them has no body if `is_head`.
pub fn split(received: &[u8], is_head: bool) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut rest = received;
    while !rest.is_empty() {
        if !rest.starts_with(b"HTTP/1.1 ") {
            answers.push(Answer::of("0.9", rest));
            break;
        }
        let Some((mut answer, after)) = read_head(rest) else {
            answers.push(Answer::of("cut", rest));
            break;
        };
        let is_first = !answers.iter().any(|answer| !answer.status.starts_with('1'));
        rest = read_body(&mut answer, after, is_head && is_first);
        answers.push(answer);
    }
    answers
}

/// An answer's head, and what follows it.
fn read_head(bytes: &[u8]) -> Option<(Answer, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next()?;
    assert!(!text.replace("\r\n", "").contains(['\0', '\r', '\n']), "{text:?}");
    let mut answer = Answer::of(first.get(9..12)?, b"");
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((answer, &bytes[end + 4..]))
}

/// Reads the body of `answer`; gives what follows it.
fn read_body<'a>(answer: &mut Answer, bytes: &'a [u8], is_head: bool) -> &'a [u8] {
    let has_none = is_head
        || answer.status.starts_with('1')
        || ["204", "304"].contains(&answer.status.as_str());
    let length = answer.header("content-length").map(|text| text.parse::<usize>().unwrap());
    let coding = answer.header("transfer-encoding").map(str::to_owned);
    assert!(length.is_none() || coding.is_none(), "{:?}", answer.headers);
    if has_none {
        return bytes;
    }
    let found = match (length, coding) {
        (Some(length), _) => bytes.split_at_checked(length).map(|(b, rest)| (b.to_vec(), rest)),
        (_, Some(_)) => read_chunks(bytes),
        _ => Some((bytes.to_vec(), &b""[..])),
    };
    let Some((body, rest)) = found else {
        answer.status = "cut".to_owned();
        answer.body = bytes.to_vec();
        return b"";
    };
    answer.body = body;
    rest
}

/// A chunked body, and what follows it.
fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    let mut rest = bytes;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        let (chunk, after) = rest.split_at_checked(size)?;
        body.extend(chunk);
        rest = after.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some((body, rest));
        }
    }
}

/// What `answers` come to, in the words of a case's expectation.
pub fn outcome(answers: &[Answer], way: Way) -> Vec<String> {
    let is_marker = |answer: &Answer| answer.header("x-path") == Some("/marker");
    let mut statuses: Vec<String> = answers.iter().map(|answer| answer.status.clone()).collect();
    let end = match answers.last() {
        _ if way == Way::Leave => return vec!["left".to_owned()],
        Some(last) if is_marker(last) => {
            statuses.pop();
            "keep"
        }
        _ => "close",
    };
    if way == Way::Cut {
        // Whether a part of a request is worth an interim answer depends on where it was cut.
        statuses.retain(|status| !status.starts_with('1'));
    }
    if statuses.is_empty() {
        statuses.push("nothing".to_owned());
    }
    statuses.push(end.to_owned());
    statuses
}
