//! A body of known length that is longer than memory should hold: whether its client
//! is fast enough for a thread, and what was received before one is taken.
#![forbid(unsafe_code)]

use super::client::{BodyRead, Client};
use super::prepared::{Body, SMALL_BODY};
use super::room::Room;
use super::spool;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use wsgi_wire::frame::BodyFault;
use wsgi_wire::vtable::level;

/// The longest body that is received before a thread is taken.  More of it would
/// let slow uploaders fill the disk, and an application could not refuse it early.
pub const LONGEST: u64 = 16 << 20;

/// The longest body that follows its request head unasked, if its client is fast: all
/// of it fits into the socket, and the process is woken once.  A client that stops in
/// the midst of one holds as much memory of httpd's, and no thread of a daemon process.
pub const FOLLOWS: u64 = 128 * 1024;

/// What is kept of a slow client's body in memory, and written to the file at once.
const PIECE: usize = SMALL_BODY as usize;

/// So much of the first piece may be waited for: a client may begin its body in a
/// packet of its own.  The rest has to be at hand, and is more than httpd's filters
/// can have left over of what a slow client sent (a buffer, a record of TLS).
const FIRST: usize = PIECE / 2;

/// Whether the log has said that there is no file to be had.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// What there is of a body, to be read as often as a process is asked for.
#[derive(Debug, Default)]
pub struct Received {
    /// The first part.
    file: Option<File>,
    /// How long it is.
    in_file: u64,
    /// What follows.
    memory: Option<Room>,
    /// Whether that is all; the client has the rest.
    is_whole: bool,
}

impl Received {
    /// Whether the client has nothing to add.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Reads what there is from `offset` on; no bytes at its end.
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        if let Some(file) = self.file.as_ref().filter(|_| offset < self.in_file) {
            let most = usize::try_from(self.in_file - offset).unwrap_or(usize::MAX);
            let most = most.min(to.len());
            file.read_exact_at(&mut to[..most], offset)?;
            return Ok(most);
        }
        let start = usize::try_from(offset - self.in_file).unwrap_or(usize::MAX);
        let memory = self.memory.as_ref().map(|memory| memory.bytes()).unwrap_or_default();
        let here = memory.get(start..).unwrap_or_default();
        let count = here.len().min(to.len());
        to[..count].copy_from_slice(&here[..count]);
        Ok(count)
    }
}

/// Receives a body of `length` bytes: all of it if it is short or its client slow, so
/// that a slow uploader holds no thread, and otherwise its beginning.
pub fn receive(client: &mut dyn Client, length: u64) -> Result<Body, BodyFault> {
    let mut received = receive_into(client, length, spool::temporary)?;
    match received.memory.take() {
        Some(body) if received.is_whole && received.file.is_none() => Ok(Body::Whole(body)),
        memory => Ok(Body::Received(Received { memory, ..received })),
    }
}

/// Receives a body, with a file from `make`.
fn receive_into(
    client: &mut dyn Client,
    length: u64,
    make: impl FnOnce() -> io::Result<File>,
) -> Result<Received, BodyFault> {
    let mut memory = Room::default();
    let mut received = Received::default();
    let is_short = length <= SMALL_BODY;
    if !is_short {
        fill(client, &mut memory, FIRST, true)?;
        fill(client, &mut memory, PIECE, false)?;
    }
    if is_short || (length <= FOLLOWS && memory.bytes().len() == PIECE) {
        fill(client, &mut memory, length as usize, true)?;
        received.is_whole = true;
    } else if memory.bytes().len() < PIECE {
        match make().and_then(|file| receive_rest(client, length, &mut received, file, &mut memory))
        {
            Ok(result) => result?,
            // Without room for the rest the thread waits for it after all.
            Err(error) => warn(client, &error),
        }
    }
    received.memory = Some(memory);
    Ok(received)
}

/// Receives what is missing, into `file` all but the end of it.
fn receive_rest(
    client: &mut dyn Client,
    length: u64,
    received: &mut Received,
    file: File,
    memory: &mut Room,
) -> io::Result<Result<(), BodyFault>> {
    let file = received.file.insert(file);
    loop {
        let missing = length - received.in_file;
        let end = usize::try_from(missing).unwrap_or(usize::MAX).min(PIECE);
        if let Err(fault) = fill(client, memory, end, true) {
            return Ok(Err(fault));
        }
        if missing <= PIECE as u64 {
            received.is_whole = true;
            return Ok(Ok(()));
        }
        file.write_all_at(memory.bytes(), received.in_file)?;
        received.in_file += PIECE as u64;
        memory.consume(PIECE);
    }
}

/// Reads until there are `end` bytes or, where nobody is to wait, nothing is at hand.
fn fill(
    client: &mut dyn Client,
    memory: &mut Room,
    end: usize,
    wait: bool,
) -> Result<(), BodyFault> {
    while let Some(missing @ 1..) = end.checked_sub(memory.bytes().len()) {
        match client.read_body(&mut memory.room(missing)[..missing], wait) {
            BodyRead::Data(count) => memory.fill(count),
            BodyRead::End => return Err(BodyFault::Gone),
            BodyRead::Fault(fault) => return Err(fault),
            BodyRead::WouldBlock if wait => return Err(BodyFault::TimedOut),
            BodyRead::WouldBlock => break,
        }
    }
    Ok(())
}

/// Says once in this process that slow uploaders hold threads, and why.
fn warn(client: &mut dyn Client, error: &io::Error) {
    if !IS_TOLD.swap(true, Ordering::Relaxed) {
        let message = format!(
            "WSGI9540: no file for a slow request body: {error}; slow uploaders hold threads of \
             daemon processes"
        );
        client.log(level::WARN, &message);
    }
}

#[cfg(test)]
mod tests;
