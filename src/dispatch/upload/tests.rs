//! What is received of a body before a thread is taken, and from where it is read again.
#![forbid(unsafe_code)]

use super::*;
use crate::dispatch::client::BadHead;
use crate::host::Gone;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;
use wsgi_wire::frame::AnswerHead;

/// A client that sends `body`, of which so much is at hand at first.
#[derive(Default)]
struct Fake {
    body: Vec<u8>,
    sent: usize,
    at_hand: usize,
    fault: Option<BodyFault>,
    lines: Vec<String>,
}

impl Client for Fake {
    fn read_body(&mut self, to: &mut [u8], wait: bool) -> BodyRead {
        let end = if wait { self.body.len() } else { self.at_hand.max(self.sent) };
        let here = &self.body[self.sent..end];
        if here.is_empty() {
            return match self.fault {
                Some(fault) if wait => BodyRead::Fault(fault),
                _ if wait => BodyRead::End,
                _ => BodyRead::WouldBlock,
            };
        }
        // As httpd does: a buffer at a time.
        let count = here.len().min(to.len()).min(8000);
        to[..count].copy_from_slice(&here[..count]);
        self.sent += count;
        BodyRead::Data(count)
    }
    fn start(&mut self, _head: &AnswerHead<'_>) -> Result<bool, BadHead> {
        Ok(true)
    }
    fn pass(&mut self, _data: &[u8], _flush: bool, _last: bool) -> Result<(), Gone> {
        Ok(())
    }
    fn pass_file(&mut self, _: OwnedFd, _: u64, _: u64, _: bool) -> Result<(), Gone> {
        Ok(())
    }
    fn patience(&self) -> Duration {
        Duration::MAX
    }
    fn give_up(&mut self) {}
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn log(&mut self, _level: u32, message: &str) {
        self.lines.push(message.to_owned());
    }
}

/// A client of `length` bytes, of which `at_hand` are there at first.
fn client(length: usize, at_hand: usize) -> Fake {
    let body = (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Fake { body, at_hand, ..Fake::default() }
}

/// All there is, read in pieces of `most` bytes.
fn all(received: &Received, most: usize) -> Vec<u8> {
    let mut found = Vec::new();
    let mut piece = vec![0; most];
    loop {
        let count = received.read_at(found.len() as u64, &mut piece).unwrap();
        if count == 0 {
            return found;
        }
        found.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn what_is_at_hand_is_all_that_is_received_and_makes_no_file() {
    for at_hand in [PIECE, 10 * PIECE] {
        let mut client = client(10 * PIECE, at_hand);
        let received =
            receive_into(&mut client, 10 * PIECE as u64, || panic!("a file is made")).unwrap();
        assert!(!received.is_whole());
        assert!(all(&received, 1000) == client.body[..PIECE]);
        assert_eq!(client.sent, PIECE);
    }
}

#[test]
fn a_slow_body_is_received_whole_and_can_be_read_again() {
    for length in [PIECE + 1, 2 * PIECE, 5 * PIECE - 1, 5 * PIECE, 5 * PIECE + 1] {
        // Half of the first piece and a buffer more are nothing to go by.
        let mut client = client(length, FIRST + 16_000);
        let received = receive_into(&mut client, length as u64, spool::temporary).unwrap();
        assert!(received.is_whole() && received.file.is_some());
        assert!(received.memory.as_ref().unwrap().bytes().len() <= PIECE);
        for most in [1000, PIECE, 10 * PIECE] {
            assert!(all(&received, most) == client.body, "{length} bytes in {most}");
        }
    }
}

#[test]
fn what_is_short_or_fast_and_not_long_follows_its_head() {
    let longest = FOLLOWS as usize;
    for (length, at_hand) in [(1, 0), (PIECE, 0), (PIECE + 1, PIECE), (longest, PIECE)] {
        let mut client = client(length, at_hand);
        let Body::Whole(body) = receive(&mut client, length as u64).unwrap() else {
            panic!("{length} bytes are to be asked for");
        };
        assert!(body.bytes() == client.body, "{length} bytes");
    }
    for (length, at_hand) in [(longest, PIECE - 1), (longest + 1, longest)] {
        let mut client = client(length, at_hand);
        let body = receive(&mut client, length as u64).unwrap();
        assert!(matches!(body, Body::Received(_)), "{length} bytes follow");
    }
}

#[test]
fn without_a_file_the_client_keeps_the_rest() {
    let mut client = client(3 * PIECE, 0);
    let none = || Err(io::Error::from(io::ErrorKind::StorageFull));
    let received = receive_into(&mut client, 3 * PIECE as u64, none).unwrap();
    assert!(!received.is_whole());
    assert!(all(&received, 999) == client.body[..client.sent]);
    // A file that takes nothing; and it was said already.
    let mut client = self::client(3 * PIECE, 0);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
    let received = receive_into(&mut client, 3 * PIECE as u64, full).unwrap();
    assert!(!received.is_whole());
    assert!(all(&received, 999) == client.body[..client.sent]);
    assert_eq!(client.lines, [""; 0]);
}

#[test]
fn a_client_that_fails_meanwhile_is_a_fault() {
    for there in [0, 10, FIRST, PIECE - 1, PIECE + 10, 3 * PIECE] {
        for fault in [None, Some(BodyFault::TimedOut), Some(BodyFault::Malformed)] {
            let mut client = Fake { fault, ..client(there, 0) };
            let expected = fault.unwrap_or(BodyFault::Gone);
            assert_eq!(receive(&mut client, 4 * PIECE as u64).unwrap_err(), expected);
        }
    }
}
