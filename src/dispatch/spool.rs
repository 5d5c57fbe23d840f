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

/// A piece of the answer.
#[derive(Debug)]
enum Piece {
    Memory(Vec<u8>),
    File { file: OwnedFd, offset: u64, length: u64 },
}

/// Pieces of an answer in their order.
#[derive(Debug, Default)]
pub struct Spool {
    pieces: VecDeque<Piece>,
    memory: usize,
    file: Option<File>,
    written: u64,
}

impl Spool {
    /// Whether the client has everything.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether more can be taken in.
    pub fn has_room(&self) -> bool {
        self.memory < MEMORY || self.written < FILE
    }

    /// Takes in a copy of `data`.
    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        if self.memory + data.len() <= MEMORY && self.written == 0 {
            self.memory += data.len();
            match self.pieces.back_mut() {
                Some(Piece::Memory(last)) if last.len() + data.len() <= 64 * 1024 => {
                    last.extend_from_slice(data);
                }
                _ => self.pieces.push_back(Piece::Memory(data.to_vec())),
            }
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(temporary()?),
        };
        file.write_all_at(data, self.written)?;
        let (offset, length) = (self.written, data.len() as u64);
        self.written += length;
        if let Some(Piece::File { offset: first, length: so_far, file: last }) =
            self.pieces.back_mut()
        {
            // A piece of an application's file may lie at the same offset.
            if *first + *so_far == offset && is_same(last, file) {
                *so_far += length;
                return Ok(());
            }
        }
        let file = OwnedFd::from(file.try_clone()?);
        self.pieces.push_back(Piece::File { file, offset, length });
        Ok(())
    }

    /// Takes in a piece of a file of the application's.
    pub fn push_file(&mut self, file: OwnedFd, offset: u64, length: u64) {
        self.pieces.push_back(Piece::File { file, offset, length });
    }

    /// Sends a part of at most `most` bytes, or a whole piece of a file.
    pub fn pass_some(&mut self, client: &mut dyn Client, most: usize) -> Result<(), Gone> {
        match self.pieces.pop_front() {
            None => Ok(()),
            Some(Piece::Memory(mut data)) => {
                let rest = data.split_off(data.len().min(most));
                if !rest.is_empty() {
                    self.pieces.push_front(Piece::Memory(rest));
                }
                self.memory -= data.len();
                client.pass(&data, true, false)
            }
            Some(Piece::File { file, offset, length }) => {
                let now = length.min(most as u64);
                if now < length {
                    let copy = file.try_clone().map_err(|_| Gone)?;
                    let (offset, length) = (offset + now, length - now);
                    self.pieces.push_front(Piece::File { file: copy, offset, length });
                }
                client.pass_file(file, offset, now)?;
                client.pass(&[], true, false)
            }
        }
    }

    /// Sends everything, waiting for the client as long as it takes.
    pub fn pass_all(&mut self, client: &mut dyn Client) -> Result<(), Gone> {
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Memory(data) => client.pass(&data, false, false)?,
                Piece::File { file, offset, length } => client.pass_file(file, offset, length)?,
            }
        }
        self.memory = 0;
        Ok(())
    }
}

fn is_same(fd: &OwnedFd, file: &File) -> bool {
    let identity = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
    match (nix::sys::stat::fstat(fd), nix::sys::stat::fstat(file)) {
        (Ok(one), Ok(other)) => identity(one) == identity(other),
        _ => false,
    }
}

/// A file nobody else can open and nobody has to remove (`O_TMPFILE`), in the
/// directory for temporary files.
fn temporary() -> io::Result<File> {
    let directory = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(directory)
}
