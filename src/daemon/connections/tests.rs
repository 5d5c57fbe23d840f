//! Connections and workers without requests.
#![forbid(unsafe_code)]

use super::super::sys::Wait;
use super::*;
use nix::sys::eventfd::EfdFlags;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// What the workers of a test share.
struct Rig {
    connections: Connections,
    stop: EventFd,
    _inbox: (OwnedFd, OwnedFd),
}

impl Rig {
    fn new() -> Self {
        let inbox = sys::message_pair().unwrap();
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK).unwrap();
        let connections = Connections::new(&inbox.0, &stop).unwrap();
        Self { connections, stop, _inbox: inbox }
    }

    /// The child's end of a new connection.
    fn connect(&self) -> UnixStream {
        let (ours, theirs) = sys::stream_pair().unwrap();
        self.connections.keep(theirs).unwrap();
        let ours = UnixStream::from(ours);
        ours.set_read_timeout(Some(LONG)).unwrap();
        ours
    }

    /// The connection that a worker is told of next.
    fn told(&self) -> u64 {
        match self.connections.wait().unwrap() {
            Event::Connection(name) => name,
            other => panic!("{other:?}"),
        }
    }
}

fn read(held: &Held<'_>, room: &mut [u8]) -> io::Result<usize> {
    sys::receive_bytes(held.socket(), room, Wait::No)
}

#[test]
fn what_comes_while_a_worker_is_busy_is_looked_for_by_it() {
    let rig = Rig::new();
    let mut child = rig.connect();
    child.write_all(b"one").unwrap();
    let name = rig.told();
    let held = rig.connections.take(name).unwrap();
    let mut room = [0; 64];
    assert_eq!(read(&held, &mut room).unwrap(), 3);
    child.write_all(b"more").unwrap();
    assert_eq!(rig.told(), name);
    assert!(rig.connections.take(name).is_none());
    // However often it tries: what came is still there.
    assert!(!held.give_back() && !held.give_back());
    held.look_again();
    assert_eq!(read(&held, &mut room).unwrap(), 4);
    assert!(held.give_back());
    child.write_all(b"next").unwrap();
    assert!(rig.connections.take(rig.told()).is_some());
}

#[test]
fn what_comes_after_a_connection_was_given_back_is_told_of() {
    let rig = Rig::new();
    let mut child = rig.connect();
    for _ in 0..3 {
        child.write_all(b"x").unwrap();
        let held = rig.connections.take(rig.told()).unwrap();
        assert_eq!(read(&held, &mut [0; 64]).unwrap(), 1);
        assert!(held.give_back());
    }
    drop(child);
    let held = rig.connections.take(rig.told()).unwrap();
    assert_eq!(read(&held, &mut [0; 64]).unwrap(), 0);
}

#[test]
fn nobody_is_told_of_the_pieces_of_a_body_but_of_what_follows_it() {
    let rig = Rig::new();
    let mut child = rig.connect();
    child.write_all(b"head").unwrap();
    let name = rig.told();
    let held = rig.connections.take(name).unwrap();
    assert_eq!(read(&held, &mut [0; 64]).unwrap(), 4);
    held.hush();
    child.write_all(b"piece").unwrap();
    rig.stop.write(1).unwrap();
    assert_eq!(rig.connections.wait().unwrap(), Event::Stop);
    let _ = rig.stop.read().unwrap();
    assert_eq!(read(&held, &mut [0; 64]).unwrap(), 5);
    child.write_all(b"next").unwrap();
    assert!(held.give_back());
    assert_eq!(rig.told(), name);
}

#[test]
fn what_a_full_read_left_is_told_of() {
    let rig = Rig::new();
    let mut child = rig.connect();
    child.write_all(b"onetwo").unwrap();
    let name = rig.told();
    let held = rig.connections.take(name).unwrap();
    assert_eq!(read(&held, &mut [0; 3]).unwrap(), 3);
    held.doubt();
    assert!(held.give_back());
    assert_eq!(rig.told(), name);
}

#[test]
fn a_connection_that_is_not_given_back_is_closed() {
    let rig = Rig::new();
    for close_early in [false, true] {
        let mut child = rig.connect();
        child.write_all(b"x").unwrap();
        let name = rig.told();
        let held = rig.connections.take(name).unwrap();
        if close_early {
            assert_eq!(read(&held, &mut [0; 64]).unwrap(), 1);
            assert!(held.give_back());
            held.close();
            // Though somebody has it still.
            assert_eq!(child.read(&mut [0; 8]).unwrap(), 0);
        }
        drop(held);
        assert!(child.read(&mut [0; 8]).is_err() || child.read(&mut [0; 8]).unwrap() == 0);
        assert!(rig.connections.take(name).is_none());
    }
}

/// Bytes of a message: eight of them fill what a worker reads at once.
const MESSAGE: usize = 8;

/// Answers whatever comes, as a worker does: looks again where it cannot give the
/// connection back, and gives it back before the answer every other time.
fn work(rig: &Rig, closed: &mpsc::Sender<u64>) {
    let mut room = [0; 8 * MESSAGE];
    let mut is_early = false;
    loop {
        let name = match rig.connections.wait().unwrap() {
            Event::Stop => return,
            Event::Inbox => continue,
            Event::Connection(name) => name,
        };
        let Some(held) = rig.connections.take(name) else { continue };
        loop {
            match read(&held, &mut room) {
                Ok(0) => {
                    closed.send(name).unwrap();
                    break;
                }
                Ok(count) => {
                    if count == room.len() {
                        held.doubt();
                    }
                    is_early = !is_early;
                    if is_early {
                        held.give_back();
                    }
                    sys::send_all(held.socket(), &room[..count], &[], None).unwrap();
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if held.give_back() {
                break;
            }
            held.look_again();
        }
    }
}

/// Sends messages, one or many at once, and has each answered.
fn ask(mut child: &UnixStream, seed: usize) {
    let mut answer = [0; 32 * MESSAGE];
    for round in 0..3_000 {
        // Mostly one: that is where workers meet at the end of an answer.
        let count = MESSAGE * [1, 1, 1, 3, 1, 8, 1, 20, 1, 1][(round * 7 + seed) % 10];
        for piece in answer[..count].chunks(MESSAGE * (1 + round % 3)) {
            child.write_all(piece).unwrap();
        }
        child.read_exact(&mut answer[..count]).expect("no wake-up is lost");
    }
}

#[test]
fn no_wake_up_is_lost_between_many_workers() {
    let rig = Rig::new();
    let (closed, closing) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..4 {
            let (rig, closed) = (&rig, closed.clone());
            scope.spawn(move || work(rig, &closed));
        }
        let children = [(); 3].map(|()| rig.connect());
        let children = children.into_iter().enumerate();
        let asking = children.map(|(seed, child)| scope.spawn(move || ask(&child, seed)));
        // All at once, not one after the other.
        let asking: Vec<_> = asking.collect();
        let asked: Vec<_> = asking.into_iter().map(ScopedJoinHandle::join).collect();
        let ends = asked.iter().map(|_| closing.recv_timeout(LONG)).filter(Result::is_ok).count();
        rig.stop.write(1).unwrap();
        assert!(asked.iter().all(Result::is_ok));
        assert_eq!(ends, asked.len(), "every end is noticed");
    });
    assert!(rig.connections.known().is_empty());
}
