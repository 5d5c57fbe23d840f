//! One exchange with a daemon process: the request goes out, body and answer
//! move in both directions at once.
#![forbid(unsafe_code)]

use super::client::Client;
use super::group::{Connection, Group, LOOK_FOR_PROCESS, Ticket};
use super::outflow::Outflow;
use super::prepared::Prepared;
use super::pump::Pump;
use crate::daemon::sys::{self, Rights, Wait};
use crate::host::{Gone, Source};
use nix::poll::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wsgi_wire::cursor::FrameError;
use wsgi_wire::frame::{self, AnswerHead, FilePiece, HEADER, Header, Kind, PlacedLine, Refusal};
use wsgi_wire::vtable::level;

/// What is read from a daemon process at once: two pieces of 64 KiB, as many
/// applications send, and the frames around them.
const READ: usize = 2 * (64 * 1024 + 2 * HEADER);

/// After so much in one read there is most often more.
const MUCH: usize = 32 * 1024;

/// How often a connection that a process may not have taken in is looked after:
/// if the process dies first, nothing else tells.
const LOOK: Duration = Duration::from_millis(50);

/// Descriptors that have come before their frames: one, and one in the message
/// just read.
const MOST_FILES: usize = 2;

/// How often a client without a socket of its own (HTTP/2) is asked for more.
const ASK: Duration = Duration::from_millis(5);

/// How an exchange ended.
#[derive(Debug)]
pub enum Ending {
    /// The client has, or will have, the whole answer.
    Complete,
    /// The process did not run it.
    Refused(Refusal),
    /// The application failed before it answered: this is owed to the client.
    Failed(u16),
    /// The application failed in the midst of its answer, and the log says why.
    Cut,
    /// The client is gone.
    ClientGone,
    /// The connection broke, or made no sense; `begun` says whether the client
    /// has a part of the answer.
    Broken {
        /// How.
        cause: Fault,
        /// Whether the head of the answer was passed on.
        begun: bool,
        /// Whether the process said anything at all.
        answered: bool,
    },
}

/// What was wrong with a connection.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The process closed it.
    #[error("the daemon process closed the connection")]
    Closed,
    /// Nothing came for too long.
    #[error("the daemon process sent nothing for {0:?}")]
    Silent(Duration),
    /// The process is no longer in its slot.
    #[error("the daemon process is gone")]
    NoProcess,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was agreed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame out of order.
    #[error("an unexpected frame of kind {0:?}")]
    Unexpected(Kind),
    /// A file was announced and none came.
    #[error("a piece of a file came without its descriptor")]
    NoFile,
    /// Descriptors that no frame announces.
    #[error("more descriptors than pieces of files")]
    Descriptors,
    /// Head of the answer.
    #[error(transparent)]
    Head(#[from] super::client::BadHead),
}

/// Why the exchange stops before its end.
enum Stop {
    Fault(Fault),
    ClientGone,
    Ending(Ending),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<FrameError> for Stop {
    fn from(error: FrameError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Fault(error.into())
    }
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::ClientGone
    }
}

/// Who has something to say.
enum Ready {
    /// The daemon process.
    Daemon,
    /// The client, or the daemon process takes more.
    Other,
    /// Nobody yet.
    Nothing,
}

/// An exchange in progress.
struct Transfer<'t> {
    group: &'t Group,
    ticket: Ticket,
    client: &'t mut dyn Client,
    connection: &'t mut Connection,
    files: VecDeque<OwnedFd>,
    outflow: Outflow,
    pump: Pump<'t>,
    /// Whether a byte came back.
    answered: bool,
    /// Whether the head of the answer was passed on.
    begun: bool,
    /// Whether the body of the answer is wanted.
    wanted: bool,
    /// Whether the client was told that the answer is complete.
    ended: bool,
    /// What is left of a `Data` frame.
    data_left: usize,
    /// Whether the last read brought much.
    expects_more: bool,
}

/// Sends `request` to the ticket's process and passes its answer to the client.
/// A connection that can carry another exchange goes back to the group.
pub fn exchange(
    group: &Group,
    ticket: Ticket,
    mut connection: Connection,
    request: &mut Prepared,
    client: &mut dyn Client,
) -> Ending {
    request.address(ticket);
    let pump = match Pump::begin(request, &connection.socket) {
        Ok(pump) => pump,
        Err(error) => {
            return Ending::Broken { cause: error.into(), begun: false, answered: false };
        }
    };
    let mut transfer = Transfer::new(group, ticket, &mut connection, pump, client);
    let result = transfer.run();
    let asked = transfer.pump.was_asked();
    let (begun, answered) = (transfer.begun, transfer.answered);
    let is_clean = transfer.is_clean();
    let (outflow, ended) = (transfer.outflow, transfer.ended);
    match result {
        Ok(close) => {
            if !close && is_clean {
                group.keep(ticket, connection);
            } else {
                // A worker may be waiting for what is left of the body.
                drop(connection);
            }
            // The daemon process is done; the client takes the rest in its own time.
            if ended || outflow.finish(client, true).is_ok() {
                Ending::Complete
            } else {
                Ending::ClientGone
            }
        }
        Err(Stop::ClientGone) => Ending::ClientGone,
        Err(Stop::Fault(cause)) => {
            pass_rest(begun, outflow, client);
            Ending::Broken { cause, begun, answered }
        }
        Err(Stop::Ending(ending)) => {
            pass_rest(begun, outflow, client);
            if !asked && !begun && is_clean {
                group.keep(ticket, connection);
            }
            ending
        }
    }
}

/// Whether the log has said that there is no file to be had.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// Says once in this process that slow readers hold threads, and why.
fn tell(client: &mut dyn Client, cause: &io::Error) {
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        let message = format!(
            "WSGI9472: no file for what a client has not taken of an answer: {cause}; slow readers \
             hold threads of daemon processes"
        );
        client.log(level::WARN, &message);
    }
}

/// Gives the client what there was of an answer, before it sees that there is no
/// more.
fn pass_rest(begun: bool, outflow: Outflow, client: &mut dyn Client) {
    if begun {
        let _ = outflow.finish(client, false);
    }
}

impl<'t> Transfer<'t> {
    /// One of which nothing has been sent.
    fn new(
        group: &'t Group,
        ticket: Ticket,
        connection: &'t mut Connection,
        pump: Pump<'t>,
        client: &'t mut dyn Client,
    ) -> Self {
        Self {
            group,
            ticket,
            client,
            connection,
            files: VecDeque::new(),
            outflow: Outflow::new(group.limits.flush_delay, group.limits.flush_every),
            pump,
            answered: false,
            begun: false,
            wanted: true,
            ended: false,
            data_left: 0,
            expects_more: false,
        }
    }
}

impl Transfer<'_> {
    /// Whether nothing is left over that the next exchange could take for its own.
    fn is_clean(&self) -> bool {
        self.connection.input.is_empty() && self.files.is_empty() && self.pump.is_clean()
    }

    /// Runs until the answer is complete; whether the connection is to be closed.
    fn run(&mut self) -> Result<bool, Stop> {
        loop {
            if let Some(close) = self.parse()? {
                return Ok(close);
            }
            self.outflow.advance(self.client)?;
            self.receive_more()?;
        }
    }

    /// Takes in every frame that is there; `Some` at the end of the answer.
    fn parse(&mut self) -> Result<Option<bool>, Stop> {
        loop {
            if self.data_left > 0 {
                if !self.take_data()? {
                    return Ok(None);
                }
                continue;
            }
            let input = self.connection.input.bytes();
            let Some(bytes) = input.first_chunk::<HEADER>().copied() else {
                return Ok(None);
            };
            let header = Header::decode(bytes)?;
            if header.kind == Kind::Data {
                if !self.begun {
                    return Err(Fault::Unexpected(Kind::Data).into());
                }
                self.data_left = header.length as usize;
                self.connection.input.consume(HEADER);
                continue;
            }
            let end = HEADER + header.length as usize;
            if input.len() < end {
                return Ok(None);
            }
            let taken = self.take_frame(header.kind, HEADER..end);
            self.connection.input.consume(end);
            if let Some(close) = taken? {
                return Ok(Some(close));
            }
        }
    }

    /// Passes on what is here of a `Data` frame; false if nothing is.
    fn take_data(&mut self) -> Result<bool, Stop> {
        let here = self.connection.input.bytes();
        let count = here.len().min(self.data_left);
        if count == 0 {
            return Ok(false);
        }
        let data = &here[..count];
        if self.wanted {
            // Complete in this very read: the client waits for nothing else, and
            // no worker waits for the client.
            let rest = &here[count..];
            let is_last = count == self.data_left && ends_here(rest);
            if self.outflow.is_empty() && is_last {
                self.client.pass(data, false, true)?;
                self.ended = true;
            } else if !self.outflow.pass_through(self.client, data)?
                && let Err(cause) = self.outflow.push(data)
            {
                tell(self.client, &cause);
            }
        }
        self.connection.input.consume(count);
        self.data_left -= count;
        Ok(true)
    }

    fn take_frame(
        &mut self,
        kind: Kind,
        payload: std::ops::Range<usize>,
    ) -> Result<Option<bool>, Stop> {
        let payload = &self.connection.input.bytes()[payload];
        match kind {
            Kind::Start if !self.begun => {
                let head = AnswerHead::decode(payload)?;
                self.wanted = self.client.start(&head).map_err(Fault::Head)?;
                self.begun = true;
            }
            Kind::File if self.begun => {
                let piece = FilePiece::decode(payload)?;
                let file = self.files.pop_front().ok_or(Fault::NoFile)?;
                if self.wanted {
                    check_file(&file, piece)?;
                    self.outflow.push_file(file, piece.offset, piece.length);
                }
            }
            Kind::Flush if self.begun => self.outflow.announce(),
            Kind::Log => {
                let (level, text) = payload
                    .split_first_chunk::<4>()
                    .ok_or(Fault::Frame(FrameError::Truncated { missing: 4 }))?;
                let text = String::from_utf8_lossy(text);
                self.client.log(u32::from_le_bytes(*level), &text);
            }
            Kind::LogFrom => {
                let PlacedLine { level, file, line, message } = PlacedLine::decode(payload)?;
                let text = String::from_utf8_lossy(message);
                self.client.log_from(level, &text, Source { file, line });
            }
            Kind::WantBody if !self.pump.was_asked() => self.pump.ask(),
            Kind::End if self.begun => return Ok(Some(frame::decode_end(payload)?)),
            Kind::Refused if !self.begun => {
                return Err(Stop::Ending(Ending::Refused(Refusal::decode(payload)?)));
            }
            Kind::Failed => {
                let status = frame::decode_failed(payload)?;
                let ending = if self.begun { Ending::Cut } else { Ending::Failed(status) };
                return Err(Stop::Ending(ending));
            }
            other => return Err(Fault::Unexpected(other).into()),
        }
        Ok(None)
    }

    /// Waits until there is more to parse, moving the body meanwhile.
    fn receive_more(&mut self) -> Result<(), Stop> {
        let patience = self.group.limits.socket;
        // The one case that matters for speed has no deadline but the socket's own.
        if self.is_plain() {
            match self.read(Wait::Yes) {
                Ok(count) => return self.has_read(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut deadline = Instant::now() + patience;
        if self.is_plain() && self.has_last_words(deadline)? {
            return Ok(());
        }
        loop {
            let socket = self.connection.socket.as_fd();
            if self.pump.advance(socket, self.client)? || !self.owes_answer() {
                // Its time begins when it has what it waits for.
                deadline = Instant::now() + patience;
            }
            let is_plain = self.is_plain();
            let is_eager = self.expects_more && self.outflow.has_room();
            if !is_plain && !is_eager {
                match self.wait(deadline)? {
                    Ready::Daemon => {}
                    Ready::Other => {
                        self.outflow.advance(self.client)?;
                        deadline = Instant::now() + patience;
                        continue;
                    }
                    Ready::Nothing => {
                        self.outflow.advance(self.client)?;
                        if self.has_last_words(deadline)? {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
            match self.read(if is_plain { Wait::Yes } else { Wait::No }) {
                Ok(count) => return self.has_read(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_plain && self.has_last_words(deadline)? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether there is nothing but an answer to wait for.
    fn is_plain(&self) -> bool {
        self.connection.is_known && self.pump.is_idle() && self.outflow.is_idle()
    }

    /// Whether a read that gave so much can be followed by more.
    fn has_read(&self, count: usize) -> Result<(), Stop> {
        match count {
            0 => Err(Fault::Closed.into()),
            _ if self.files.len() > MOST_FILES => Err(Fault::Descriptors.into()),
            _ => Ok(()),
        }
    }

    /// Whether it is the daemon process that has something to say next: it may
    /// have to wait for the client's body, or for room for its answer.
    fn owes_answer(&self) -> bool {
        !self.pump.waits_for_client() && self.outflow.has_room()
    }

    /// Nothing came for a while: an error once the deadline has passed or the
    /// process is gone, unless it had something to say before.
    fn has_last_words(&mut self, deadline: Instant) -> Result<bool, Stop> {
        if self.client.is_abandoned() {
            return Err(Stop::ClientGone);
        }
        if self.group.is_there(self.ticket) {
            return if self.owes_answer() && deadline <= Instant::now() {
                Err(Fault::Silent(self.group.limits.socket).into())
            } else {
                Ok(false)
            };
        }
        match self.read(Wait::No) {
            Ok(0) => Err(Fault::Closed.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Fault::NoProcess.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self, wait: Wait) -> io::Result<usize> {
        // One long frame (a head, a log line) may need more than one read.
        let room = self.connection.input.room(READ);
        let files = &mut self.files;
        let socket = self.connection.socket.as_fd();
        let count = sys::receive(socket, room, &mut Rights::one(), wait, |fd| {
            files.push_back(fd);
        });
        let read = *count.as_ref().unwrap_or(&0);
        self.connection.input.fill(read);
        self.answered |= read > 0;
        self.expects_more = read >= MUCH;
        self.connection.is_known |= self.answered;
        count
    }

    /// Waits for the daemon process, and for the client where it has something
    /// to give or to take.
    fn wait(&mut self, deadline: Instant) -> Result<Ready, Stop> {
        let socket = self.connection.socket.as_fd();
        let mut wanted = PollFlags::empty();
        if self.outflow.has_room() {
            wanted |= PollFlags::POLLIN;
        }
        if !self.pump.is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        let mut of_client = PollFlags::empty();
        let reads_body = self.pump.waits_for_client();
        if reads_body {
            of_client |= PollFlags::POLLIN;
        }
        let now = Instant::now();
        if self.outflow.wants_client(now) {
            of_client |= PollFlags::POLLOUT;
        }
        let look = if self.connection.is_known { LOOK_FOR_PROCESS } else { LOOK };
        let mut limit = deadline.saturating_duration_since(now).min(look);
        limit = self.outflow.rest(now).map_or(limit, |rest| limit.min(rest));
        let mut fds = vec![PollFd::new(socket, wanted)];
        match self.client.socket() {
            Some(client) if !of_client.is_empty() => fds.push(PollFd::new(client, of_client)),
            None if reads_body => limit = limit.min(ASK),
            _ => {}
        }
        let count = sys::poll(&mut fds, Some(limit))?;
        let readable = fds[0].revents().is_some_and(|found| {
            found.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
        });
        Ok(match (readable, count) {
            (true, _) => Ready::Daemon,
            (false, 0) => Ready::Nothing,
            (false, _) => Ready::Other,
        })
    }
}

/// Whether an `End` frame comes next.
fn ends_here(bytes: &[u8]) -> bool {
    bytes
        .first_chunk::<HEADER>()
        .and_then(|bytes| Header::decode(*bytes).ok())
        .is_some_and(|header| header.kind == Kind::End)
}

/// Only what regular files hold is passed on: reading anything else could wait for
/// ever, and what is not there cannot be sent.
fn check_file(file: &OwnedFd, piece: FilePiece) -> Result<(), Stop> {
    let stat = nix::sys::stat::fstat(file).map_err(io::Error::from)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Fault::NoFile.into());
    }
    // `decode` has seen to it that the sum is one.
    let end = piece.offset.saturating_add(piece.length);
    if u64::try_from(stat.st_size).is_ok_and(|size| end <= size) {
        Ok(())
    } else {
        Err(FrameError::Range { what: "file length", value: piece.length }.into())
    }
}

#[cfg(test)]
mod tests;
