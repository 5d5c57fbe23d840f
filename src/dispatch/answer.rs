//! The client behind httpd: body in, answer out, for both modes.
#![forbid(unsafe_code)]

use super::client::{BadHead, BodyRead, Client};
use super::hint;
use super::report::Subject;
use crate::config::option::readable;
use crate::host::{Gone, Source};
use crate::httpd::Request;
use crate::httpd::answer::{Answer, FilePart, SendError, Then};
use crate::httpd::body::{Body, BodyError, Read};
use crate::httpd::hook::Outcome;
use crate::httpd::log::{Level, Log};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use wsgi_wire::frame::{AnswerHead, BodyFault};
use wsgi_wire::vtable::level;

/// What differs between the modes and sections.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// Daemon mode: `Location: /…` with status 200 answers with that resource
    /// (RFC 3875, 6.2.2), as the reference does there and only there.
    pub redirects: bool,
    /// `WSGIErrorOverride`, in daemon mode.
    pub error_override: bool,
    /// `WSGIEnableSendfile`.
    pub sendfile: bool,
    /// `WSGIPassAuthorization`.
    pub pass_authorization: bool,
    /// `header-buffer-size` of the group.
    pub longest_header: Option<usize>,
    /// `response-socket-timeout` of the group; `None` is httpd's `Timeout`.
    pub timeout: Option<Duration>,
}

/// As much of a header's name stands in the log.
const LONGEST_NAME: usize = 64;

/// As much of a script's name stands in each line of its requests.
const LONGEST_SCRIPT: usize = 1024;

/// What takes the place of the application's answer.
#[derive(Debug, Default)]
enum Instead {
    /// Nothing does.
    #[default]
    Nothing,
    /// Another resource of this server.
    Redirect(Vec<u8>),
    /// httpd's document for an error.
    Document(u16),
    /// What an input filter of httpd's has sent when it refused the body: anything
    /// more would follow an answer that is complete.
    Verdict,
}

/// The client of one request.
pub struct HttpdClient<'r> {
    request: &'r Request,
    body: Body<'r>,
    answer: Answer<'r>,
    manners: Manners,
    instead: Instead,
    /// Since when the next piece of the body is waited for.
    body_missing: Option<Instant>,
    /// httpd's own timeout, while ours is in force.
    timeout: Option<Duration>,
    /// Why the client got no more, for the log.
    pub trouble: Option<SendError>,
}

impl<'r> HttpdClient<'r> {
    /// The client of `request`.
    pub fn new(request: &'r Request, manners: Manners) -> Self {
        Self {
            request,
            body: Body::new(request),
            answer: Answer::new(request),
            manners,
            instead: Instead::Nothing,
            body_missing: None,
            timeout: None,
            trouble: None,
        }
    }

    /// Whether the request's log takes lines of this level.
    pub fn would_log(&self, level: u32) -> bool {
        self.request.wants(log_level(level))
    }

    /// The request it waits for.
    pub const fn request(&self) -> &'r Request {
        self.request
    }

    /// The answer is complete: what httpd is to do now.
    pub fn finish(mut self) -> Outcome {
        self.restore_timeout();
        match std::mem::take(&mut self.instead) {
            Instead::Nothing | Instead::Verdict => Outcome::Ok,
            Instead::Redirect(uri) => {
                self.request.redirect_internally(&uri);
                Outcome::Ok
            }
            Instead::Document(status) => Outcome::Status(status),
        }
    }

    /// The answer will not be completed, and the client is to see that.
    pub fn cut(&mut self) {
        if matches!(self.instead, Instead::Nothing) {
            self.answer.cut();
        }
    }

    /// The client gets no more: says why, if it took too long, and sees to it that
    /// the answer does not look complete.  `tail` is for the end of the line.
    pub fn lose(&mut self, tail: &str) {
        let flushing = match self.trouble {
            Some(SendError::TimedOut { flushing }) => flushing,
            Some(trouble) => return log(self.request, level::DEBUG, &format!("{trouble}{tail}")),
            None => return,
        };
        let what = if flushing {
            "WSGI0118: response cut off while it was flushed"
        } else {
            "WSGI0120: response cut off"
        };
        let line = format!(
            "{what}: {}: the client took nothing for {:?}; its connection is reset{tail}",
            Subject::of(self.request),
            self.patience()
        );
        log(self.request, level::ERROR, &line);
        self.answer.abandon();
    }

    /// The client is httpd's again.
    fn restore_timeout(&mut self) {
        if let Some(timeout) = self.timeout.take() {
            self.request.set_client_timeout(timeout);
        }
    }

    /// Whether every line of the head fits.
    fn check_lengths(&self, head: &AnswerHead<'_>) -> Result<(), BadHead> {
        let Some(limit) = self.manners.longest_header else { return Ok(()) };
        let status = Ok((&b"Status"[..], head.status_line));
        for header in std::iter::once(status).chain(head.headers()) {
            let (name, value) = header.map_err(|_| BadHead::Malformed)?;
            // "Name: value"
            let length = name.len() + 2 + value.len();
            if length > limit {
                let name = readable(&name[..name.len().min(LONGEST_NAME)]);
                return Err(BadHead::TooLong { name, length, limit });
            }
        }
        Ok(())
    }

    /// What a body that could not be read does to the connection and the request.
    fn fault(&mut self, error: BodyError) -> BodyFault {
        // What is left of it cannot be told from the next request.
        self.request.close_connection();
        if error == BodyError::Answered {
            self.instead = Instead::Verdict;
        }
        match error {
            BodyError::Gone => BodyFault::Gone,
            BodyError::TimedOut => BodyFault::TimedOut,
            _ => BodyFault::Malformed,
        }
    }

    fn sent(&mut self, result: Result<(), SendError>) -> Result<(), Gone> {
        result.map_err(|error| {
            self.trouble = Some(error);
            Gone
        })
    }

    fn set_header(&self, name: &[u8], value: &[u8]) -> Result<(), BadHead> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Content-Type") {
            self.request.set_content_type(value);
        } else if is("Content-Length") {
            let length = str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            self.request.set_content_length(length.ok_or(BadHead::Malformed)?);
        } else if is("WWW-Authenticate") {
            // Error documents keep it.
            self.request.error_headers_out().add(name, value);
        } else if is("Last-Modified") {
            self.request.headers_out().set(name, value);
        } else {
            self.request.headers_out().add(name, value);
        }
        Ok(())
    }
}

/// The number in "404 Not Found".
fn status_number(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let status: u16 = str::from_utf8(digits).ok()?.parse().ok()?;
    (digits.iter().all(u8::is_ascii_digit) && status >= 200).then_some(status)
}

/// Whether what comes from an application can be sent without meaning something
/// else: the Python half refuses the rest too, but in a daemon process it is in
/// the application's hands.
fn is_sound(head: &AnswerHead<'_>) -> bool {
    // Without a way out in the middle many bytes are looked at at once.
    let none = |text: &[u8], is_bad: fn(u8) -> bool| {
        !text.iter().fold(false, |found, &byte| found | is_bad(byte))
    };
    let is_name = |name: &[u8]| none(name, |byte| byte <= b' ' || byte == 0x7f);
    let is_text = |text: &[u8]| none(text, |byte| matches!(byte, 0 | b'\r' | b'\n'));
    is_text(head.status_line)
        && head.headers().all(|header| {
            header.is_ok_and(|(name, value)| !name.is_empty() && is_name(name) && is_text(value))
        })
}

impl Client for HttpdClient<'_> {
    fn read_body(&mut self, to: &mut [u8], wait: bool) -> BodyRead {
        if !wait {
            // Only a read that waits does it by itself.
            self.request.send_continue();
        }
        if self.answer.has_begun() {
            self.body.shield_answer();
        }
        let read = if wait { self.body.read(to) } else { self.body.try_read(to) };
        if !matches!(read, Ok(Read::WouldBlock)) {
            self.body_missing = None;
        }
        match read {
            Ok(Read::Data(count)) => BodyRead::Data(count),
            Ok(Read::WouldBlock) => {
                // A read that waits has httpd's own timeout; this is as long.
                let since = *self.body_missing.get_or_insert_with(Instant::now);
                if since.elapsed() < self.request.server().timeout() {
                    return BodyRead::WouldBlock;
                }
                BodyRead::Fault(self.fault(BodyError::TimedOut))
            }
            Ok(Read::Eof) => BodyRead::End,
            Err(error) => BodyRead::Fault(self.fault(error)),
        }
    }

    fn start(&mut self, head: &AnswerHead<'_>) -> Result<bool, BadHead> {
        let status =
            status_number(head.status_line).filter(|_| is_sound(head)).ok_or(BadHead::Malformed)?;
        self.check_lengths(head)?;
        if matches!(self.instead, Instead::Verdict) {
            return Ok(false);
        }
        let request = self.request;
        // httpd's guess from the name of the script says nothing about the answer.
        request.clear_content_type();
        let mut location = None;
        for header in head.headers() {
            let (name, value) = header.map_err(|_| BadHead::Malformed)?;
            self.set_header(name, value)?;
            if name.eq_ignore_ascii_case(b"Location") {
                location = Some(value);
            }
        }
        request.set_status(status, head.status_line);
        if status == 401 && !self.manners.pass_authorization {
            hint::about_authorization(request);
        }
        if request.expects_continue() {
            // Nobody asked for the body, and after this nobody will: the client
            // may send it or not, so the next request cannot be told from it.
            request.close_connection();
            request.forget_continue();
        }
        if let Some(uri) = location.filter(|uri| uri.first() == Some(&b'/'))
            && status == 200
            && self.manners.redirects
        {
            self.instead = Instead::Redirect(uri.to_vec());
        }
        if status >= 400 && self.manners.error_override {
            self.instead = Instead::Document(status);
        }
        if let Some(timeout) = self.manners.timeout
            && self.timeout.is_none()
        {
            self.timeout = self.request.set_client_timeout(timeout);
        }
        Ok(matches!(self.instead, Instead::Nothing))
    }

    fn pass(&mut self, data: &[u8], flush: bool, last: bool) -> Result<(), Gone> {
        if !matches!(self.instead, Instead::Nothing) {
            return Ok(());
        }
        let then = match (last, flush) {
            (true, true) => Then::FlushAndEnd,
            (true, false) => Then::End,
            (false, true) => Then::Flush,
            (false, false) => Then::More,
        };
        let result = self.answer.pass(data, then);
        self.sent(result)
    }

    fn pass_file(
        &mut self,
        file: OwnedFd,
        offset: u64,
        length: u64,
        flush: bool,
    ) -> Result<(), Gone> {
        let part = FilePart { file, offset, length, sendfile: self.manners.sendfile };
        let result = self.answer.pass_file(part, if flush { Then::Flush } else { Then::More });
        self.sent(result)
    }

    fn patience(&self) -> Duration {
        self.manners.timeout.unwrap_or_else(|| self.request.server().timeout())
    }

    fn give_up(&mut self) {
        self.trouble = Some(SendError::TimedOut { flushing: false });
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.request.client()
    }

    fn is_abandoned(&self) -> bool {
        self.request.is_abandoned()
    }

    fn log(&mut self, level: u32, message: &str) {
        log(self.request, level, message);
    }

    fn log_from(&mut self, level: u32, message: &str, source: Source<'_>) {
        log_from(self.request, level, message, source);
    }
}

impl Drop for HttpdClient<'_> {
    fn drop(&mut self) {
        self.restore_timeout();
    }
}

/// Writes a line of the runtime's to the request's log.
pub fn log(request: &Request, level: u32, message: &str) {
    request.log_line(log_level(level), with_script(request, message).as_bytes());
}

/// [`log`] for a line that comes from somewhere.
pub fn log_from(request: &Request, level: u32, message: &str, source: Source<'_>) {
    let line = with_script(request, message);
    request.log_line_from(log_level(level), line.as_bytes(), (source.file, source.line));
}

/// `message` behind the script it is about.
fn with_script(request: &Request, message: &str) -> String {
    let file = request.filename().unwrap_or_default();
    // The client's path may be in it, and httpd cuts long lines at their end.
    let file = String::from_utf8_lossy(&file[..file.len().min(LONGEST_SCRIPT)]);
    format!("[script {file}] {message}")
}

/// httpd's level for a number on the wire.
pub fn log_level(number: u32) -> Level {
    match number {
        0 => Level::Emerg,
        level::ALERT => Level::Alert,
        level::CRIT => Level::Crit,
        level::ERROR => Level::Error,
        level::WARN => Level::Warn,
        level::NOTICE => Level::Notice,
        level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_begins_with_three_digits() {
        assert_eq!(status_number(b"404 Not Found"), Some(404));
        assert_eq!(status_number(b"200"), Some(200));
        for line in [&b"20"[..], b"2x0 OK", b"", b"+20 OK", b"099 no", b"100 Continue"] {
            assert_eq!(status_number(line), None);
        }
    }

    #[test]
    fn a_head_that_smuggles_headers_is_not_sound() {
        let is_sound = |status: &[u8], name: &[u8], value: &[u8]| {
            let mut bytes = Vec::new();
            wsgi_wire::frame::put_answer_head(&mut bytes, status, [(name, value)].into_iter());
            super::is_sound(&AnswerHead::decode(&bytes).unwrap())
        };
        assert!(is_sound(b"200 OK", b"X-A", b"tab\tand \xe9"));
        assert!(!is_sound(b"200 OK\r\nX: y", b"X-A", b"b"));
        for name in [&b""[..], b"X A", b"X\r\nA", b"X\0"] {
            assert!(!is_sound(b"200 OK", name, b"b"));
        }
        for value in [&b"b\r\nX: y"[..], b"b\ny", b"b\0"] {
            assert!(!is_sound(b"200 OK", b"X-A", value));
        }
        let mut cut = Vec::new();
        let pairs = [(&b"X-A"[..], &b"b"[..])];
        wsgi_wire::frame::put_answer_head(&mut cut, b"200 OK", pairs.into_iter());
        cut.pop();
        assert!(!super::is_sound(&AnswerHead::decode(&cut).unwrap()));
    }
}
