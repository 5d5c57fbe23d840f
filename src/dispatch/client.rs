//! What an exchange needs of the client's side: httpd implements it, tests too.
#![forbid(unsafe_code)]

use crate::host::{Gone, Source};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;
use wsgi_wire::frame::{AnswerHead, BodyFault};

/// What a look for more of the request body found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// So many bytes, at least one.
    Data(usize),
    /// The body is complete.
    End,
    /// Nothing for the moment.
    WouldBlock,
    /// There will be no more.
    Fault(BodyFault),
}

/// Why the head of an answer was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It is not one.
    #[error("malformed response head")]
    Malformed,
    /// A line of it is longer than the configuration allows.
    #[error(
        "response header '{name}' is {length} bytes long, longer than header-buffer-size={limit}"
    )]
    TooLong {
        /// The name of the header, cut to fit.
        name: String,
        /// How long the line is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// The client of one request.
pub trait Client {
    /// Reads a part of the body; waits for it only if `wait` says so.
    fn read_body(&mut self, to: &mut [u8], wait: bool) -> BodyRead;
    /// Takes the head of the answer; whether a body may follow (an internal
    /// redirect or an error document replaces it).
    fn start(&mut self, head: &AnswerHead<'_>) -> Result<bool, BadHead>;
    /// Sends a piece of the answer; `last` says that it is complete.
    fn pass(&mut self, data: &[u8], flush: bool, last: bool) -> Result<(), Gone>;
    /// Sends a piece of a regular file, which is closed once that is flushed, or
    /// with the request.
    fn pass_file(
        &mut self,
        file: OwnedFd,
        offset: u64,
        length: u64,
        flush: bool,
    ) -> Result<(), Gone>;
    /// How long the client may take nothing of the answer.
    fn patience(&self) -> Duration;
    /// It did: it gets no more.
    fn give_up(&mut self);
    /// The client's socket, if one can be asked whether it is ready.
    fn socket(&self) -> Option<BorrowedFd<'_>>;
    /// Whether nobody waits for the answer any more, because httpd stops at once.
    fn is_abandoned(&self) -> bool {
        false
    }
    /// Writes a line to the request's log.
    fn log(&mut self, level: u32, message: &str);
    /// Writes a line that comes from somewhere to the request's log.
    fn log_from(&mut self, level: u32, message: &str, _source: Source<'_>) {
        self.log(level, message);
    }
}
