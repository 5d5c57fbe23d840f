//! A body of known length that is longer than memory should hold: whether its client
//! is fast enough for a thread, and what was received before one is taken.
#![forbid(unsafe_code)]

use super::client::{BodyRead, Client};
use super::prepared::SMALL_BODY;
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

/// What is kept in memory, and written to the file at once.
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
    memory: Vec<u8>,
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
        let here = self.memory.get(start..).unwrap_or_default();
        let count = here.len().min(to.len());
        to[..count].copy_from_slice(&here[..count]);
        Ok(count)
    }
}

/// Receives a body of `length` bytes, which is longer than [`SMALL_BODY`]: its
/// beginning if the client is as fast as it is read, otherwise all of it.
pub fn receive(client: &mut dyn Client, length: u64) -> Result<Received, BodyFault> {
    receive_into(client, length, spool::temporary)
}

/// Receives a body, with a file from `make`.
fn receive_into(
    client: &mut dyn Client,
    length: u64,
    make: impl FnOnce() -> io::Result<File>,
) -> Result<Received, BodyFault> {
    let mut memory = vec![0; PIECE];
    let mut have = fill(client, &mut memory[..FIRST], true)?;
    have += fill(client, &mut memory[have..], false)?;
    let mut received = Received { memory, ..Received::default() };
    if have == PIECE {
        return Ok(received);
    }
    let result = make().and_then(|file| {
        received.file = Some(file);
        receive_rest(client, length, &mut received, &mut have)
    });
    // Without room for the rest the thread waits for it after all.
    received.memory.truncate(have);
    match result {
        Ok(Ok(())) => received.is_whole = true,
        Ok(Err(fault)) => return Err(fault),
        Err(error) => warn(client, &error),
    }
    Ok(received)
}

/// Receives what is missing, with as many bytes in memory as `have` says.
fn receive_rest(
    client: &mut dyn Client,
    length: u64,
    received: &mut Received,
    have: &mut usize,
) -> io::Result<Result<(), BodyFault>> {
    loop {
        let missing = length - received.in_file;
        let end = usize::try_from(missing).unwrap_or(usize::MAX).min(PIECE);
        match fill(client, &mut received.memory[*have..end], true) {
            Ok(count) => *have += count,
            Err(fault) => return Ok(Err(fault)),
        }
        if missing <= PIECE as u64 {
            return Ok(Ok(()));
        }
        if let Some(file) = &received.file {
            file.write_all_at(&received.memory, received.in_file)?;
            received.in_file += PIECE as u64;
            *have = 0;
        }
    }
}

/// Reads until `to` is full or, where nobody is to wait, nothing is at hand; how much.
fn fill(client: &mut dyn Client, to: &mut [u8], wait: bool) -> Result<usize, BodyFault> {
    let mut have = 0;
    while have < to.len() {
        match client.read_body(&mut to[have..], wait) {
            BodyRead::Data(count) => have += count,
            BodyRead::End => return Err(BodyFault::Gone),
            BodyRead::Fault(fault) => return Err(fault),
            BodyRead::WouldBlock if wait => return Err(BodyFault::TimedOut),
            BodyRead::WouldBlock => break,
        }
    }
    Ok(have)
}

/// Reads a body of known length into memory: before a thread is taken, so that a
/// slow uploader holds none.
pub fn read_whole(client: &mut dyn Client, length: usize) -> Result<Vec<u8>, BodyFault> {
    let mut body = vec![0; length];
    fill(client, &mut body, true)?;
    Ok(body)
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
