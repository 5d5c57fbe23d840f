//! A request on its way to a daemon process: its head, and its body as far as the
//! process has asked for it.
#![forbid(unsafe_code)]

use super::client::{BodyRead, Client};
use super::prepared::Prepared;
use super::room::{PIECE, Room};
use crate::daemon::sys;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wsgi_wire::frame::{HEADER, Header, Kind};

/// A request being sent.
pub struct Pump<'r> {
    request: &'r Prepared,
    /// How much of its parts was sent.
    done: usize,
    /// How long they are.
    total: usize,
    state: State,
    /// How much of what was received ahead was sent.
    sent: u64,
    /// Frames of a body that was asked for.
    outgoing: Option<Room>,
}

/// Where a body stands that has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was not asked for, or there is none.
    Unasked,
    /// It is read and sent.
    Running,
    /// All of it was read.
    Done,
}

impl<'r> Pump<'r> {
    /// Sends what of the request the process is not asked about, waiting for room only
    /// for the head: the process reads that before it does anything else.
    ///
    /// An error means that the process cannot have the whole head.
    pub fn begin(request: &'r Prepared, socket: &OwnedFd) -> io::Result<Self> {
        let total = request.parts().iter().map(|part| part.len()).sum();
        let mut pump =
            Self { request, done: 0, total, state: State::Unasked, sent: 0, outgoing: None };
        let head_end = request.head_end();
        while !pump.is_empty() {
            match pump.send_some(socket.as_fd()) {
                Ok(()) => {}
                Err(error) if pump.done < head_end => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Err(error);
                    }
                    let rest = &request.parts()[0][pump.done..head_end];
                    sys::send_all(socket.as_fd(), rest, &[], None)?;
                    pump.done = head_end;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It may have begun, and answered without the body: that is read.
                Err(_) => pump.give_up(),
            }
        }
        Ok(pump)
    }

    /// Has the body read and sent: the process asked for it.
    pub const fn ask(&mut self) {
        self.state = State::Running;
    }

    /// Whether the process has asked for the body.
    pub fn was_asked(&self) -> bool {
        self.state != State::Unasked
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.done == self.total && self.outgoing.as_ref().is_none_or(|room| room.is_empty())
    }

    /// Whether there is nothing to do unless the process asks for something.
    pub fn is_idle(&self) -> bool {
        self.state != State::Running && self.is_empty()
    }

    /// Whether the next piece of the body has to come from the client.
    pub fn waits_for_client(&self) -> bool {
        self.state == State::Running && self.is_empty()
    }

    /// Moves the body from the client to the daemon process as far as both go
    /// without waiting; whether any of it moved.
    pub fn advance(&mut self, socket: BorrowedFd<'_>, client: &mut dyn Client) -> io::Result<bool> {
        let mut moved = false;
        loop {
            while !self.is_empty() {
                match self.send_some(socket) {
                    Ok(()) => moved = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                    // It ended its answer without the rest, or died: what it has
                    // to say is read first.
                    Err(_) => {
                        self.give_up();
                        return Ok(moved);
                    }
                }
            }
            if self.state != State::Running || !self.next_piece(client)? {
                return Ok(moved);
            }
        }
    }

    /// Sends no more.
    fn give_up(&mut self) {
        (self.done, self.outgoing) = (self.total, None);
        if self.state == State::Running {
            self.state = State::Done;
        }
    }

    /// Sends what can be sent at once of what waits, which is something.
    fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(room) = self.outgoing.as_mut().filter(|room| !room.is_empty()) {
            let count = sys::try_send(socket, &[IoSlice::new(room.bytes())], &[])?;
            room.consume(count);
            return Ok(());
        }
        let rest = sys::rest(self.request.parts(), self.done);
        self.done += sys::try_send(socket, &rest, &[])?;
        Ok(())
    }

    /// Reads as much of the body as is here and one frame carries; false if there is
    /// none yet.  The end of the body goes with its last piece.
    fn next_piece(&mut self, client: &mut dyn Client) -> io::Result<bool> {
        let outgoing = self.outgoing.get_or_insert_default();
        let received = self.request.received();
        let (header, piece) = outgoing.room(HEADER + PIECE).split_at_mut(HEADER);
        let piece = &mut piece[..PIECE];
        let mut have = 0;
        let end = loop {
            if have == piece.len() {
                break None;
            }
            let count = received.read_at(self.sent, &mut piece[have..])?;
            self.sent += count as u64;
            let read = match count {
                0 if received.is_whole() => BodyRead::End,
                0 => client.read_body(&mut piece[have..], false),
                count => BodyRead::Data(count),
            };
            match read {
                BodyRead::Data(count) => have += count,
                BodyRead::WouldBlock => break None,
                BodyRead::End => break Some((Kind::BodyEnd, None)),
                BodyRead::Fault(fault) => break Some((Kind::BodyError, Some(fault as u8))),
            }
        };
        if have > 0 {
            let frame = Header { kind: Kind::Body, length: have as u32 };
            header.copy_from_slice(&frame.encode());
            outgoing.fill(HEADER + have);
        }
        if let Some((kind, fault)) = end {
            outgoing.put(&Header { kind, length: fault.is_some().into() }.encode());
            outgoing.put(fault.as_slice());
            self.state = State::Done;
        }
        Ok(!outgoing.is_empty())
    }
}
