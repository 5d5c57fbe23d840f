//! What of an answer the client has not taken yet: in memory up to a bound, then
//! in an unnamed file, so that a slow reader holds neither a daemon process'
//! thread nor memory.
#![forbid(unsafe_code)]

use super::client::Client;
use crate::host::Gone;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// Kept in memory for one request at most: more would let a thousand slow
/// readers fill the machine, less would send ordinary pages through a file.
pub const MEMORY: usize = 512 * 1024;

/// Longest spool file of one request.  Beyond it the daemon process waits for
/// the client after all.
pub const FILE: u64 = 1 << 30;

/// Files of the application's that wait for the client at most: each is an open
/// descriptor of httpd's.
const FILES: usize = 16;

/// A piece of the answer.
#[derive(Debug)]
enum Piece {
    Memory(Vec<u8>),
    Spooled { file: OwnedFd, offset: u64, length: u64 },
    File { file: OwnedFd, offset: u64, length: u64 },
}

/// Pieces of an answer in their order.
#[derive(Debug, Default)]
pub struct Spool {
    pieces: VecDeque<Piece>,
    /// How many of them are files of the application's.
    files: usize,
    memory: usize,
    file: Option<File>,
    written: u64,
    /// What waits, wherever it is.
    waiting: u64,
    /// Whether something is in memory that should be in the file.
    is_overfull: bool,
}

impl Spool {
    /// Whether the client has everything.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes wait for the client.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The same, unless some of it is in a file.
    pub fn waiting_in_memory(&self) -> Option<u64> {
        (self.memory as u64 == self.waiting).then_some(self.waiting)
    }

    /// How many of them [`pass_some`](Self::pass_some) passes on.
    pub fn next_part(&self, most: usize) -> u64 {
        self.pieces.front().map_or(0, |piece| match piece {
            Piece::Memory(data) => data.len().min(most) as u64,
            Piece::Spooled { length, .. } | Piece::File { length, .. } => {
                (*length).min(most as u64)
            }
        })
    }

    /// Whether more can be taken in.
    pub fn has_room(&self) -> bool {
        self.written < FILE && self.files < FILES && !self.is_overfull
    }

    /// Takes in a copy of `data`.  An error is why that is in memory and not in a file:
    /// there is no room for more until the client has everything.
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.waiting += data.len() as u64;
        if self.memory + data.len() <= MEMORY && self.written == 0 {
            self.keep(data);
            return Ok(());
        }
        let spooled = self.write(data);
        if spooled.is_err() {
            self.keep(data);
            self.is_overfull = true;
        }
        spooled
    }

    /// Takes in a copy of `data`, in memory.
    fn keep(&mut self, data: &[u8]) {
        self.memory += data.len();
        match self.pieces.back_mut() {
            Some(Piece::Memory(last)) if last.len() + data.len() <= 64 * 1024 => {
                last.extend_from_slice(data);
            }
            _ => self.pieces.push_back(Piece::Memory(data.to_vec())),
        }
    }

    /// Takes in a copy of `data`, in the file.
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(temporary()?),
        };
        let (offset, length) = (self.written, data.len() as u64);
        file.write_all_at(data, offset)?;
        if let Some(Piece::Spooled { length: so_far, .. }) = self.pieces.back_mut() {
            *so_far += length;
        } else {
            let file = OwnedFd::from(file.try_clone()?);
            self.pieces.push_back(Piece::Spooled { file, offset, length });
        }
        self.written += length;
        Ok(())
    }

    /// Takes in a piece of a file of the application's.
    pub fn push_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        self.files += 1;
        self.waiting += length;
        self.pieces.push_back(Piece::File { file, offset, length });
    }

    /// Sends a part of at most `most` bytes, and flushes it if asked to or if it
    /// is from a file, whose descriptor is closed by that; whether it was flushed.
    pub fn pass_some(
        &mut self,
        client: &mut dyn Client,
        most: usize,
        flush: bool,
    ) -> Result<bool, Gone> {
        self.waiting -= self.next_part(most);
        let is_memory = matches!(self.pieces.front(), Some(Piece::Memory(_)));
        let passed = match self.pieces.pop_front() {
            None => Ok(()),
            Some(Piece::Memory(mut data)) => {
                let rest = data.split_off(data.len().min(most));
                if !rest.is_empty() {
                    self.pieces.push_front(Piece::Memory(rest));
                }
                self.memory -= data.len();
                client.pass(&data, flush, false)
            }
            Some(Piece::Spooled { file, offset, length }) => {
                let now = length.min(most as u64);
                if now < length {
                    let file = file.try_clone().map_err(|_| Gone)?;
                    let (offset, length) = (offset + now, length - now);
                    self.pieces.push_front(Piece::Spooled { file, offset, length });
                }
                client.pass_file(file, offset, now, true)
            }
            Some(Piece::File { file, offset, length }) => {
                let now = length.min(most as u64);
                if now < length {
                    let file = file.try_clone().map_err(|_| Gone)?;
                    let (offset, length) = (offset + now, length - now);
                    self.pieces.push_front(Piece::File { file, offset, length });
                } else {
                    self.files -= 1;
                }
                client.pass_file(file, offset, now, true)
            }
        };
        if self.pieces.is_empty() {
            self.begin_anew();
        }
        passed.map(|()| flush || !is_memory)
    }

    /// Sends everything, waiting for the client as long as it takes.
    pub fn pass_all(&mut self, client: &mut dyn Client) -> Result<(), Gone> {
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Memory(data) => client.pass(&data, false, false)?,
                // The client may have to be waited for.
                Piece::Spooled { file, offset, length } => {
                    client.pass_file(file, offset, length, false)?;
                    client.pass(&[], false, false)?;
                }
                // One of many has to be closed before the next; httpd sees a single one
                // together with what follows.
                Piece::File { file, offset, length } => {
                    client.pass_file(file, offset, length, self.files > 1)?;
                }
            }
        }
        self.begin_anew();
        Ok(())
    }

    /// The client has everything: an answer that takes hours is not to fill the
    /// disk because the client was slow once.
    fn begin_anew(&mut self) {
        // What is still being sent from the file has it open.
        (self.file, self.written, self.memory, self.files) = (None, 0, 0, 0);
        (self.waiting, self.is_overfull) = (0, false);
    }
}

/// A file nobody else can open and nobody has to remove (`O_TMPFILE`), in the
/// directory for temporary files.
pub(super) fn temporary() -> io::Result<File> {
    let directory = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::client::{BadHead, BodyRead};
    use std::os::fd::BorrowedFd;
    use wsgi_wire::frame::AnswerHead;

    /// Takes everything and counts the bytes.
    #[derive(Default)]
    struct Sink(u64);

    impl Client for Sink {
        fn read_body(&mut self, _to: &mut [u8], _wait: bool) -> BodyRead {
            BodyRead::End
        }
        fn start(&mut self, _head: &AnswerHead<'_>) -> Result<bool, BadHead> {
            Ok(true)
        }
        fn pass(&mut self, data: &[u8], _flush: bool, _last: bool) -> Result<(), Gone> {
            self.0 += data.len() as u64;
            Ok(())
        }
        fn pass_file(
            &mut self,
            _file: OwnedFd,
            _offset: u64,
            length: u64,
            _flush: bool,
        ) -> Result<(), Gone> {
            self.0 += length;
            Ok(())
        }
        fn patience(&self) -> std::time::Duration {
            std::time::Duration::MAX
        }
        fn give_up(&mut self) {}
        fn socket(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn log(&mut self, _level: u32, _message: &str) {}
    }

    #[test]
    fn a_full_file_has_no_room_until_the_client_has_it() {
        let mut spool = Spool::default();
        spool.push(&[0; MEMORY - 1]).unwrap();
        spool.push(&[0; 4096]).unwrap();
        assert!(spool.has_room());
        // As if it had been written.
        spool.written = FILE;
        assert!(!spool.has_room());
        let mut sink = Sink::default();
        while !spool.is_empty() {
            spool.pass_some(&mut sink, 100_000, true).unwrap();
        }
        assert_eq!(sink.0, MEMORY as u64 - 1 + 4096);
        assert!(spool.has_room());
        spool.push(b"x").unwrap();
        assert!(spool.file.is_none(), "memory again");
    }

    #[test]
    fn what_no_file_takes_is_kept_until_the_client_has_it() {
        // A file that cannot be written.
        let file = Some(File::open("/dev/null").unwrap());
        let mut spool = Spool { file, ..Spool::default() };
        spool.push(&[0; MEMORY]).unwrap();
        assert!(spool.has_room());
        for _ in 0..2 {
            spool.push(&[0; 1000]).unwrap_err();
            assert!(!spool.has_room());
        }
        assert_eq!(spool.waiting(), MEMORY as u64 + 2000);
        let mut sink = Sink::default();
        while !spool.is_empty() {
            assert!(!spool.has_room());
            spool.pass_some(&mut sink, 100_000, true).unwrap();
        }
        assert_eq!(sink.0, MEMORY as u64 + 2000);
        assert!(spool.has_room());
    }

    #[test]
    fn files_that_wait_for_the_client_are_bounded() {
        let mut spool = Spool::default();
        for _ in 0..FILES {
            assert!(spool.has_room());
            spool.push_file(std::fs::File::open("/dev/null").unwrap().into(), 0, 10);
        }
        assert!(!spool.has_room());
        spool.pass_some(&mut Sink::default(), 5, true).unwrap();
        assert!(!spool.has_room(), "half of it waits still");
        spool.pass_some(&mut Sink::default(), 5, true).unwrap();
        assert!(spool.has_room());
    }
}
