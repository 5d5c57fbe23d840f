//! A copy of httpd's scoreboard in shared memory: child processes write it, one at a
//! time, and daemon processes of groups that may see it read it.
//!
//! Daemon processes descend from the supervisor, which is older than httpd's own
//! scoreboard, and must not be able to write there.
#![forbid(unsafe_code)]

use super::mapping::{Words, WritableWords, create_words};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

/// What `/proc/PID/maps` calls the memory.
const MEMORY_NAME: &str = "wsgi-snapshot";

/// Longest copy.  Memory that is never written costs nothing, and a hundred processes
/// of a hundred busy threads need 2 MB.
pub const LONGEST: usize = 16 * 1024 * 1024;

/// Odd while somebody writes; counts the copies.
const SEQUENCE: usize = 0;
/// How long the copy is, in bytes.
const LENGTH: usize = 1;
/// When it was written: µs of the system's monotonic clock.
const WRITTEN: usize = 2;
/// The process that writes; 0: none does.
const WRITER: usize = 3;
/// Where the copy begins.
const BEGIN: usize = 8;

/// How often a reader looks again that met a writer.  A writer needs less than a
/// millisecond, unless it was stopped in the midst.
const TRIES: usize = 64;

/// Makes the memory: the descriptor to write it, and one that cannot, for others.
pub fn create() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, open};
    use std::os::fd::AsRawFd;
    let memory = create_words(MEMORY_NAME, BEGIN + LONGEST / 8)?;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let reading = open(path.as_str(), flags, nix::sys::stat::Mode::empty())?;
    Ok((memory, reading))
}

/// The writing side, in a child process.
#[derive(Debug)]
pub struct Publisher {
    words: WritableWords,
    pid: u64,
}

impl Publisher {
    /// Maps the memory, for the process `pid`.
    pub fn open(memory: impl AsFd, pid: u32) -> io::Result<Self> {
        Ok(Self { words: WritableWords::open(memory)?, pid: pid.into() })
    }

    fn load(&self, number: usize) -> u64 {
        self.words.words().load(number, Ordering::SeqCst)
    }

    /// Writes what `read` gives, unless the copy is younger than `age` or somebody
    /// else is at it; `now` is the monotonic clock's, in µs.  Whether it did.
    pub fn publish(
        &self,
        (now, age): (u64, u64),
        is_alive: impl Fn(u32) -> bool,
        read: impl FnOnce() -> Option<Vec<u8>>,
    ) -> bool {
        let is_due = || now.saturating_sub(self.load(WRITTEN)) >= age;
        if !is_due() {
            return false;
        }
        let other = self.load(WRITER);
        // One that died while it wrote writes no more.
        let is_free = other == 0 || !u32::try_from(other).is_ok_and(is_alive);
        if !is_free || !self.words.replace(WRITER, other, self.pid) {
            return false;
        }
        // Somebody may have been here between the two looks.
        let written = is_due() && read().is_some_and(|copy| self.write(&copy, now));
        self.words.store(WRITER, 0, Ordering::SeqCst);
        written
    }

    /// Writes the copy; false if there is no room for it.
    fn write(&self, copy: &[u8], now: u64) -> bool {
        if copy.len() > LONGEST {
            return false;
        }
        let store = |number, value| self.words.store(number, value, Ordering::Relaxed);
        // Odd already if the last writer died.
        let odd = self.load(SEQUENCE) | 1;
        store(SEQUENCE, odd);
        fence(Ordering::Release);
        store(LENGTH, copy.len() as u64);
        for (number, bytes) in copy.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            store(BEGIN + number, u64::from_le_bytes(word));
        }
        store(WRITTEN, now);
        self.words.store(SEQUENCE, odd.wrapping_add(1), Ordering::Release);
        true
    }
}

/// The reading side, in a daemon process.
#[derive(Debug)]
pub struct Subscriber {
    words: Words,
}

impl Subscriber {
    /// Maps the memory.
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        Ok(Self { words: Words::open(memory)? })
    }

    /// The copy; None if there is none yet, or writers do not let it be read.
    pub fn read(&self) -> Option<Vec<u8>> {
        (0..TRIES).find_map(|_| {
            let copy = self.try_read();
            if copy.is_none() {
                std::thread::yield_now();
            }
            copy
        })
    }

    fn try_read(&self) -> Option<Vec<u8>> {
        let before = self.words.load(SEQUENCE, Ordering::Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let length = usize::try_from(self.words.load(LENGTH, Ordering::Relaxed)).ok()?;
        let room = self.words.count().saturating_sub(BEGIN).saturating_mul(8);
        if length > room {
            return None;
        }
        let mut copy = Vec::with_capacity(length.next_multiple_of(8));
        for number in 0..length.div_ceil(8) {
            let word = self.words.load(BEGIN + number, Ordering::Relaxed);
            copy.extend_from_slice(&word.to_le_bytes());
        }
        copy.truncate(length);
        fence(Ordering::Acquire);
        (self.words.load(SEQUENCE, Ordering::Relaxed) == before).then_some(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn pair() -> (Publisher, Subscriber) {
        let (writing, reading) = create().unwrap();
        (Publisher::open(writing, 7).unwrap(), Subscriber::open(reading).unwrap())
    }

    #[test]
    fn what_one_process_writes_another_reads() {
        let (publisher, subscriber) = pair();
        assert_eq!(subscriber.read(), None);
        let copy = b"thirteen byte".to_vec();
        assert!(publisher.publish((SECOND, SECOND), |_| true, || Some(copy.clone())));
        assert_eq!(subscriber.read(), Some(copy));
        assert!(publisher.publish((2 * SECOND, SECOND), |_| true, || Some(vec![])));
        assert_eq!(subscriber.read(), Some(vec![]));
    }

    #[test]
    fn a_copy_is_written_once_in_its_time() {
        let (publisher, _) = pair();
        assert!(publisher.publish((5 * SECOND, SECOND), |_| true, || Some(vec![1])));
        assert!(!publisher.publish((5 * SECOND + 10, SECOND), |_| true, || panic!("too soon")));
    }

    #[test]
    fn a_writer_that_died_does_not_end_the_writing() {
        let (publisher, subscriber) = pair();
        publisher.words.store(WRITER, 99, Ordering::SeqCst);
        publisher.words.store(SEQUENCE, 5, Ordering::SeqCst);
        assert_eq!(subscriber.read(), None);
        assert!(!publisher.publish((SECOND, SECOND), |pid| pid == 99, || panic!("not our turn")));
        assert!(publisher.publish((SECOND, SECOND), |_| false, || Some(vec![1, 2])));
        assert_eq!(subscriber.read(), Some(vec![1, 2]));
    }

    #[test]
    fn an_impossible_length_is_not_believed() {
        let (publisher, subscriber) = pair();
        publisher.publish((SECOND, SECOND), |_| true, || Some(vec![1]));
        publisher.words.store(LENGTH, u64::MAX, Ordering::SeqCst);
        assert_eq!(subscriber.read(), None);
    }

    #[test]
    fn what_is_passed_on_cannot_be_written() {
        let (_writing, reading) = create().unwrap();
        assert!(WritableWords::open(&reading).is_err());
    }
}
