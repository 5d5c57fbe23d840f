//! One request after the other on a connection from a child process: the daemon
//! process' [`Exchange`].
#![forbid(unsafe_code)]

use super::connections::Held;
use super::log::ProcessLog;
use super::plan::{Limits, Script};
use super::sys::{self, Wait};
use crate::host::{Exchange, Gone, Headers, Outcome, Source};
use crate::scoreboard::Slot;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wsgi_wire::buffer::Buffer;
use wsgi_wire::cursor::FrameError;
use wsgi_wire::frame::{
    self, BodyFault, BodyPlace, Envelope, FilePiece, HEADER, Header, Kind, PlacedLine, Refusal,
};
use wsgi_wire::head::{RequestHead, flags};
use wsgi_wire::vtable::{WRITE_NOW, write_flags};

/// First size of the buffer a request is read into: most heads, and small bodies
/// with them, take one system call.
const FIRST_READ: usize = 16 * 1024;

/// Output that waits is sent when it has grown to this.
const SEND_AT: usize = 64 * 1024;

/// The frame that has the child flush.
const FLUSH: [u8; HEADER] = Header { kind: Kind::Flush, length: 0 }.encode();

/// Buffers above this are given back after a request: one large cookie must not
/// cost every thread a megabyte for ever.
const KEEP: usize = 256 * 1024;

/// As much of the name of a file goes with a log record: no file's is longer.
const LONGEST_FILE: usize = 4096;

/// Why a request could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket failed, or fell silent in the middle.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was agreed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Another frame than a request.
    #[error("a frame of kind {0:?} where a request was expected")]
    Unexpected(Kind),
}

/// What [`Conversation::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A request.
    Request {
        /// What the child says about it.
        envelope: Envelope,
        /// Its id.
        id: u64,
    },
    /// Nothing: another worker has read what this one was told of.
    Nothing,
    /// The child closed the connection.
    Closed,
}

/// The buffers of one worker.
#[derive(Debug, Default)]
pub struct Conversation {
    /// What was read: one `Head` frame and perhaps the beginning of the body.
    input: Buffer,
    /// Where the encoded request head lies in `input`.
    head: std::ops::Range<usize>,
    /// Its [`flags`].
    flags: u8,
    /// The least grave level its log takes.
    log_level: u8,
    body: Body,
    output: Output,
}

/// What is left of the request body.
#[derive(Debug, Default)]
struct Body {
    state: BodyState,
    /// How much of `input` has been used.
    used: usize,
    /// What came of the header behind the last piece that was read to its end.
    ahead: Buffer,
    /// Whether the child was asked for it, and so may be sending it still.
    asked: bool,
}

/// Where reading the body stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// Complete, or there is none.
    #[default]
    Ended,
    /// The child waits to be asked.
    OnDemand,
    /// So many bytes of a frame are to come; 0: a frame header is.
    Frame(u32),
    /// There will be no more.
    Failed(BodyFault),
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Output {
    /// Complete frames.
    waiting: Vec<u8>,
    /// The file that one of them announces.
    file: Option<OwnedFd>,
    /// The payload of `Start`, until the first piece of the answer.
    head: Vec<u8>,
    /// Whether `Start` is among what waits or was sent.
    started: bool,
    /// Whether the child has some of the answer: it can no longer be replaced.
    committed: bool,
    /// Whether the child is gone.
    gone: bool,
    /// Whether the answer is complete.
    ended: bool,
    /// Whether the child knows that.
    end_sent: bool,
}

impl Conversation {
    /// Reads the next request.
    pub fn receive(&mut self, held: &Held<'_>) -> Result<Received, ReceiveError> {
        self.reset();
        match self.read(held, FIRST_READ, Wait::No) {
            Ok(0) => return Ok(Received::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(error.into()),
        }
        if !self.fill(held, HEADER)? {
            return Ok(Received::Closed);
        }
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.input.bytes()[..HEADER]);
        let header = Header::decode(bytes)?;
        if header.kind != Kind::Head {
            return Err(ReceiveError::Unexpected(header.kind));
        }
        let end = HEADER + header.length as usize;
        if !self.fill(held, end)? {
            return Ok(Received::Closed);
        }
        let (envelope, head) = Envelope::decode(&self.input.bytes()[HEADER..end])?;
        let decoded = RequestHead::decode(head)?;
        let id = decoded.id;
        self.flags = decoded.flags;
        self.log_level = decoded.log_level;
        self.head = end - head.len()..end;
        self.body = Body {
            used: end,
            ahead: Buffer::default(),
            asked: false,
            state: match envelope.body {
                BodyPlace::None => BodyState::Ended,
                BodyPlace::Follows => BodyState::Frame(0),
                BodyPlace::OnDemand => BodyState::OnDemand,
            },
        };
        Ok(Received::Request { envelope, id })
    }

    fn reset(&mut self) {
        self.input.clear(KEEP);
        for buffer in [&mut self.output.waiting, &mut self.output.head] {
            buffer.clear();
            buffer.shrink_to(KEEP);
        }
        let output = &mut self.output;
        output.file = None;
        (output.started, output.committed, output.gone) = (false, false, false);
        (output.ended, output.end_sent) = (false, false);
    }

    /// Reads until `wanted` bytes are there; false if the child closed first.
    fn fill(&mut self, held: &Held<'_>, wanted: usize) -> io::Result<bool> {
        loop {
            let have = self.input.bytes().len();
            if have >= wanted {
                return Ok(true);
            }
            if self.read(held, FIRST_READ.max(wanted - have), Wait::Yes)? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads once, with room for at least `wanted` bytes.
    fn read(&mut self, held: &Held<'_>, wanted: usize, wait: Wait) -> io::Result<usize> {
        let room = self.input.room(wanted);
        let count = sys::receive_bytes(held.socket(), room, wait)?;
        if count == room.len() {
            held.doubt();
        }
        self.input.fill(count);
        Ok(count)
    }

    /// The request just received, for the runtime.
    pub fn exchange<'c>(
        &'c mut self,
        held: &'c Held<'c>,
        process_log: &'c ProcessLog,
        pulse: Pulse<'c>,
    ) -> (ChildExchange<'c>, &'c [u8]) {
        let exchange = ChildExchange {
            held,
            input: self.input.bytes(),
            body: &mut self.body,
            output: &mut self.output,
            process_log,
            log_level: self.log_level,
            pulse: pulse.of_request(self.flags),
        };
        (exchange, &self.input.bytes()[self.head.clone()])
    }

    /// The encoded head of the request.
    fn head(&self) -> &[u8] {
        &self.input.bytes()[self.head.clone()]
    }

    /// The script of the request.
    pub fn script(&self) -> Option<Script> {
        let head = RequestHead::decode(self.head()).ok()?;
        Some(Script {
            application_group: head.application_group.to_vec(),
            path: head.script.to_vec(),
        })
    }

    /// Has the request just received run by the code that is loaded, though its
    /// file is another.
    pub fn accept_old_code(&mut self) {
        RequestHead::clear_flag(&mut self.input.bytes_mut()[self.head.clone()], flags::RELOADING);
    }

    /// Tells `note` which script ran, unless it is the `last` one again.
    pub fn note_script(&self, last: &mut Script, note: impl FnOnce(Script)) {
        let Ok(head) = RequestHead::decode(self.head()) else { return };
        if last.path == head.script && last.application_group == head.application_group {
            return;
        }
        *last = Script {
            application_group: head.application_group.to_vec(),
            path: head.script.to_vec(),
        };
        note(last.clone());
    }

    /// Says that the request was not run.
    pub fn refuse(&mut self, held: &Held<'_>, why: Refusal) -> Result<(), Gone> {
        self.output.clear();
        frame::put(&mut self.output.waiting, Kind::Refused, &[why as u8]);
        self.output.send(held, &[], &[])
    }

    /// Sends what the outcome leaves to say; whether the connection can carry
    /// another request.
    pub fn finish(&mut self, held: &Held<'_>, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Done if self.output.ended => {
                let input = self.input.bytes();
                self.body.skip(input);
                if self.body.is_over(input) {
                    held.give_back();
                }
                self.output.send(held, &[], &[]).is_ok() && self.body.discard(input, held)
            }
            Outcome::Stale => {
                self.refuse(held, Refusal::Stale).is_ok() && self.body.state == BodyState::Ended
            }
            // Nothing has left this process: the client can have a proper answer.
            // Said in every case: silence would mean that nothing was run.
            Outcome::Failed(status) if !self.output.committed => self.fail(held, status),
            _ if !self.output.committed => self.fail(held, 500),
            // The log says why; the child need not.
            Outcome::Cut | Outcome::CutNoMemory => {
                self.fail(held, 500);
                false
            }
            // An answer without its end: closing says so.
            _ => false,
        }
    }

    fn fail(&mut self, held: &Held<'_>, status: u16) -> bool {
        let output = &mut self.output;
        output.clear();
        frame::put(&mut output.waiting, Kind::Failed, &status.to_le_bytes());
        let sent = output.send(held, &[], &[]).is_ok();
        // `Failed` cannot say whether more body is welcome: both sides close.
        sent && !self.body.asked && self.body.discard(self.input.bytes(), held)
    }
}

impl Output {
    /// Sends everything that waits, then `data`, then the frame `after` it.
    fn send(&mut self, held: &Held<'_>, data: &[u8], after: &[u8]) -> Result<(), Gone> {
        if self.gone {
            return Err(Gone);
        }
        self.committed |= self.started;
        self.end_sent |= self.ended;
        let file = self.file.take();
        let file = file.as_ref().map(AsFd::as_fd);
        let sent = sys::send_parts(held.socket(), [&self.waiting, data, after], file);
        self.waiting.clear();
        sent.map_err(|_| {
            self.gone = true;
            Gone
        })
    }

    /// Forgets everything that waits.
    fn clear(&mut self) {
        self.waiting.clear();
        self.file = None;
    }

    /// Puts the head before the first piece.
    fn start(&mut self) {
        if !self.started {
            self.started = true;
            frame::put(&mut self.waiting, Kind::Start, &self.head);
        }
    }
}

impl Body {
    /// Reads up to `to.len()` bytes of it.
    fn read(&mut self, input: &[u8], held: &Held<'_>, to: &mut [u8]) -> Result<usize, BodyFault> {
        loop {
            match self.state {
                BodyState::Ended | BodyState::OnDemand => return Ok(0),
                BodyState::Failed(fault) => return Err(fault),
                BodyState::Frame(0) => self.next_frame(input, held)?,
                BodyState::Frame(left) => {
                    let wanted = to.len().min(left as usize);
                    let is_rest = wanted == left as usize;
                    let count = self.take(input, held, &mut to[..wanted], is_rest)?;
                    self.state = BodyState::Frame(left - count as u32);
                    return Ok(count);
                }
            }
        }
    }

    fn next_frame(&mut self, input: &[u8], held: &Held<'_>) -> Result<(), BodyFault> {
        let mut bytes = [0; HEADER];
        self.take_all(input, held, &mut bytes)?;
        let header = Header::decode(bytes).map_err(|_| self.fail(BodyFault::Gone))?;
        self.state = match header.kind {
            Kind::Body => BodyState::Frame(header.length),
            Kind::BodyEnd => BodyState::Ended,
            Kind::BodyError => {
                let mut payload = [0];
                self.take_all(input, held, &mut payload)?;
                let fault = BodyFault::decode(&payload).unwrap_or(BodyFault::Gone);
                return Err(self.fail(fault));
            }
            _ => return Err(self.fail(BodyFault::Gone)),
        };
        Ok(())
    }

    fn take_all(&mut self, input: &[u8], held: &Held<'_>, to: &mut [u8]) -> Result<(), BodyFault> {
        let mut done = 0;
        while done < to.len() {
            done += self.take(input, held, &mut to[done..], false)?;
        }
        Ok(())
    }

    /// Bytes from what was read already, then from the socket; never 0 of them.  Where
    /// they are the rest of a frame, another one follows: its header comes in the same
    /// call.
    fn take(
        &mut self,
        input: &[u8],
        held: &Held<'_>,
        to: &mut [u8],
        is_rest: bool,
    ) -> Result<usize, BodyFault> {
        let ready = &input[self.used.min(input.len())..];
        if !ready.is_empty() {
            let count = ready.len().min(to.len());
            to[..count].copy_from_slice(&ready[..count]);
            self.used += count;
            return Ok(count);
        }
        if !self.ahead.is_empty() {
            let count = self.ahead.bytes().len().min(to.len());
            to[..count].copy_from_slice(&self.ahead.bytes()[..count]);
            self.ahead.consume(count);
            return Ok(count);
        }
        let received = if is_rest {
            let room = &mut self.ahead.room(HEADER)[..HEADER];
            sys::receive_both(held.socket(), to, room)
        } else {
            sys::receive_bytes(held.socket(), to, Wait::Yes)
        };
        match received {
            Ok(count) if count > 0 => {
                // Never more than one frame holds: what follows is left.
                held.doubt();
                self.ahead.fill(count.saturating_sub(to.len()));
                Ok(count.min(to.len()))
            }
            Ok(_) => Err(self.fail(BodyFault::Gone)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.fail(BodyFault::TimedOut))
            }
            Err(_) => Err(self.fail(BodyFault::Gone)),
        }
    }

    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.state = BodyState::Failed(fault);
        fault
    }

    /// Whether the child may still be sending it.
    fn is_coming(&self) -> bool {
        self.asked && self.state != BodyState::Ended
    }

    /// Uses up what was read of a body nobody wants, if that is all of it.
    fn skip(&mut self, input: &[u8]) {
        let BodyState::Frame(mut left) = self.state else { return };
        let mut at = self.used;
        loop {
            at += left as usize;
            let header = input.get(at..).and_then(|rest| rest.first_chunk::<HEADER>());
            match header.map(|bytes| Header::decode(*bytes)) {
                Some(Ok(Header { kind: Kind::Body, length })) => left = length,
                Some(Ok(Header { kind: Kind::BodyEnd, .. })) => break,
                _ => return,
            }
            at += HEADER;
        }
        (self.used, self.state) = (at + HEADER, BodyState::Ended);
    }

    /// Whether nothing but the next request can follow on the connection.
    fn is_over(&self, input: &[u8]) -> bool {
        matches!(self.state, BodyState::Ended | BodyState::OnDemand)
            && self.used == input.len()
            && self.ahead.is_empty()
    }

    /// Reads a body nobody wanted off the connection, if the child sent it
    /// unasked; whether the connection is at the next request now.
    fn discard(&mut self, input: &[u8], held: &Held<'_>) -> bool {
        if self.is_coming() {
            return false;
        }
        let mut rest = Vec::new();
        while !matches!(self.state, BodyState::Ended | BodyState::OnDemand) {
            rest.resize(64 * 1024, 0);
            if self.read(input, held, &mut rest).is_err() {
                return false;
            }
        }
        self.is_over(input)
    }
}

/// A request in this process whose client is behind a child process.
#[derive(Debug)]
pub struct ChildExchange<'c> {
    held: &'c Held<'c>,
    input: &'c [u8],
    body: &'c mut Body,
    output: &'c mut Output,
    process_log: &'c ProcessLog,
    log_level: u8,
    pulse: Pulse<'c>,
}

/// Notes in the scoreboard what the timers look at, as far as there are any.
#[derive(Debug, Clone, Copy)]
pub struct Pulse<'s> {
    slot: Slot<'s>,
    /// The worker.
    thread: u32,
    /// The request.
    id: u64,
    /// Whether there is a startup-timeout.
    startup: bool,
    /// Whether there is an inactivity-timeout, and this request counts.
    activity: bool,
}

impl<'s> Pulse<'s> {
    /// Notes what these limits need about a request that a worker runs.
    pub const fn new(slot: Slot<'s>, (thread, id): (u32, u64), limits: &Limits) -> Self {
        let (startup, activity) = (limits.startup.is_some(), limits.inactivity.is_some());
        Self { slot, thread, id, startup, activity }
    }

    /// The same for a request with these flags.
    const fn of_request(self, of: u8) -> Self {
        Self { activity: self.activity && of & flags::IGNORE_ACTIVITY == 0, ..self }
    }

    fn loaded(&self) {
        if self.startup {
            self.slot.note_load();
        }
        self.beat();
    }

    fn beat(&self) {
        if self.activity {
            self.slot.set_active(sys::monotonic_micros());
        }
    }
}

impl ChildExchange<'_> {
    /// Sends one frame past what waits: what waits are whole frames.
    fn send_now(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Gone> {
        if self.output.gone {
            return Err(Gone);
        }
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        frame::put(&mut bytes, kind, payload);
        sys::send_all(self.held.socket(), &bytes, &[], None).map_err(|_| {
            self.output.gone = true;
            Gone
        })
    }
}

impl Exchange for ChildExchange<'_> {
    fn attached(&mut self) {
        self.pulse.slot.attach(self.pulse.thread, self.pulse.id);
    }

    fn loaded(&mut self) {
        self.pulse.loaded();
    }

    fn read_body(&mut self, to: &mut [u8]) -> Result<usize, BodyFault> {
        self.pulse.beat();
        if self.body.state == BodyState::OnDemand {
            self.held.hush();
            self.send_now(Kind::WantBody, &[]).map_err(|Gone| BodyFault::Gone)?;
            self.body.state = BodyState::Frame(0);
            self.body.asked = true;
        }
        self.body.read(self.input, self.held, to)
    }

    fn start_response(&mut self, status_line: &[u8], headers: Headers<'_>) {
        self.output.head.clear();
        frame::put_answer_head(&mut self.output.head, status_line, headers);
    }

    fn write(&mut self, data: &[u8], flags: u32) -> Result<(), Gone> {
        let output = &mut *self.output;
        if output.gone || output.ended {
            return Err(Gone);
        }
        self.pulse.beat();
        output.start();
        let is_flushed = flags & (write_flags::FLUSH | write_flags::LAST) == write_flags::FLUSH;
        if data.len() > WRITE_NOW {
            // Straight from the application's memory.
            let mut pieces = data.chunks(u32::MAX as usize).peekable();
            while let Some(piece) = pieces.next() {
                let length = piece.len() as u32;
                output.waiting.extend_from_slice(&Header { kind: Kind::Data, length }.encode());
                if is_flushed && pieces.peek().is_none() {
                    return output.send(self.held, piece, &FLUSH);
                }
                output.send(self.held, piece, &[])?;
            }
        } else if !data.is_empty() {
            frame::put(&mut output.waiting, Kind::Data, data);
        }
        if flags & write_flags::LAST != 0 {
            output.ended = true;
            let close = self.body.is_coming();
            frame::put(&mut output.waiting, Kind::End, &[close.into()]);
            // The child may send the next request before a slow `close()` is over.
            if self.body.is_over(self.input) {
                self.held.give_back();
            }
        } else if is_flushed {
            output.waiting.extend_from_slice(&FLUSH);
        }
        if flags & write_flags::FLUSH != 0 || output.waiting.len() > SEND_AT {
            output.send(self.held, &[], &[])?;
        }
        Ok(())
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Gone> {
        let output = &mut *self.output;
        if output.gone || output.ended {
            return Err(Gone);
        }
        self.pulse.beat();
        output.start();
        if output.file.is_some() {
            // One descriptor for each message.
            output.send(self.held, &[], &[])?;
        }
        frame::put_with(&mut output.waiting, Kind::File, |to| {
            FilePiece { offset, length }.encode(to);
        });
        // It waits for what follows: with its end, httpd's filters see the answer as a
        // whole, and can send a range of it.
        output.file = Some(file.try_clone_to_owned().map_err(|_| Gone)?);
        Ok(())
    }

    fn log(&mut self, level: u32, message: &str) {
        if !self.would_log(level) {
            return;
        }
        if self.output.end_sent {
            // The child has no more to do with this request: `close()` speaks.
            self.process_log.write(level, message);
            return;
        }
        let message = cut(message, frame::LONGEST_LOG as usize - 4);
        let mut payload = Vec::with_capacity(4 + message.len());
        payload.extend_from_slice(&level.to_le_bytes());
        payload.extend_from_slice(message.as_bytes());
        let _ = self.send_now(Kind::Log, &payload);
    }

    fn log_from(&mut self, level: u32, message: &str, source: Source<'_>) {
        if !self.would_log(level) {
            return;
        }
        if self.output.end_sent {
            self.process_log.write_from(level, message, Some(source));
            return;
        }
        let Source { file, line } = source;
        let file = &file[..file.len().min(LONGEST_FILE)];
        let message = cut(message, frame::LONGEST_LOG as usize - LONGEST_FILE - 10).as_bytes();
        let mut payload = Vec::with_capacity(10 + file.len() + message.len());
        PlacedLine { level, file, line, message }.encode(&mut payload);
        let _ = self.send_now(Kind::LogFrom, &payload);
    }

    fn would_log(&self, level: u32) -> bool {
        level <= self.log_level.into()
    }
}

/// The first `limit` bytes of `message`, or a few less: whole characters.
fn cut(message: &str, limit: usize) -> &str {
    let mut end = message.len().min(limit);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
