//! What a supervisor leaves its successor: the scripts each group's processes had to
//! load for requests.
//!
//! It stands in memory that only httpd's parent and the supervisor hold, and that the
//! supervisor writes anew whenever it has learned something.  One that is killed over
//! that leaves nothing readable, and its successor learns anew.
#![forbid(unsafe_code)]

use super::plan::Script;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

/// No more than this is read: a few hundred groups with as many scripts as each may
/// have.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The scripts of a group, by the number of its scoreboard.
pub type Entry = (u64, Vec<Script>);

/// Memory for what a supervisor has learned, with nothing in it.
pub fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("wsgi-scripts", MFdFlags::MFD_CLOEXEC)?)
}

/// What a supervisor has learned, in that memory.
#[derive(Debug)]
pub struct Legacy(File);

impl Legacy {
    /// The memory [`create`] made.
    pub fn new(memory: OwnedFd) -> Self {
        Self(File::from(memory))
    }

    /// What an earlier supervisor had learned; nothing if that cannot be read.
    pub fn read(&mut self) -> Vec<Entry> {
        let mut bytes = Vec::new();
        let read = self.0.rewind().and_then(|()| {
            let mut part = Read::by_ref(&mut self.0).take(LONGEST);
            part.read_to_end(&mut bytes)
        });
        read.ok().and_then(|_| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
    }

    /// Leaves this instead of what was there.
    pub fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let bytes = postcard::to_allocvec(entries).map_err(io::Error::other)?;
        // First: half of a list is no list.
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let mut legacy = Legacy::new(create().unwrap());
        assert!(legacy.read().is_empty());
        let script = |path: &str| Script { application_group: b"g".to_vec(), path: path.into() };
        legacy.write(&[(7, vec![script("/a"), script("/b")])]).unwrap();
        let last = [(7, vec![script("/c")])];
        legacy.write(&last).unwrap();
        assert_eq!(legacy.read(), last);
    }

    #[test]
    fn half_of_a_list_is_nothing() {
        let mut legacy = Legacy::new(create().unwrap());
        let script = Script { application_group: Vec::new(), path: vec![b'x'; 100] };
        legacy.write(&[(7, vec![script])]).unwrap();
        legacy.0.set_len(50).unwrap();
        assert!(legacy.read().is_empty());
    }
}
