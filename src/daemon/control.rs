//! The messages on the control sockets: parent to supervisor, supervisor to
//! daemon process and back.
//!
//! The sockets keep messages apart (`SOCK_SEQPACKET`), so one receive is one
//! message.  They stay between processes of one build: an upgraded module starts
//! a supervisor of its own.
#![forbid(unsafe_code)]

use super::changes::Change;
use super::plan::Script;
use super::sys::{self, Rights, Wait};
use crate::scoreboard::Reason;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Longest message; a table of groups travels as a file instead.
const LONGEST: usize = 16 * 1024;

/// From the parent to the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// A configuration begins: the first descriptor is a file with its plan, the
    /// second what an earlier supervisor has learned, the third the main error log, if
    /// there is one.
    Begin,
    /// Descriptors of a group of the plan that [`Begin`](Self::Begin) brought.
    Group {
        /// Which, counted from 0.
        index: u32,
        /// Whether the first descriptor is the group's error log.
        log: bool,
        /// Whether the next descriptor is the scoreboard's memory.
        board: bool,
        /// Whether the next is what httpd's scoreboard is read from.
        snapshot: bool,
        /// Whether the next holds the variables of its environment.
        environment: bool,
        /// The others are inboxes, the first of them of this slot.
        first_inbox: u32,
    },
    /// The configuration is complete and takes effect.
    Commit,
    /// The configuration has ended: httpd stops, or reads another.
    Farewell,
}

/// From the supervisor to a daemon process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// Finish what was sent to you, then stop.
    Drain {
        /// Why.
        why: Reason,
        /// After this long it stops in any case; zero: never.
        timeout: Duration,
    },
    /// Stop now; what runs has the shutdown-timeout.
    Stop {
        /// Why.
        why: Reason,
    },
    /// Raise `RequestTimeout` in the thread that runs this request.
    Interrupt {
        /// Its id.
        request: u64,
    },
    /// Log the stacks of all Python threads.
    Stacks,
    /// Another process had to load this script for a request: load it ahead.
    Load(Script),
    /// This version of a script was tried: old code serves on.
    Keep(Change),
    /// Takes requests again, if a change of a script has kept it from that.
    Resume,
    /// The one descriptor is the error log from here on.
    Log {
        /// What is least grave of what is logged.
        level: u32,
    },
}

/// From a daemon process to the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSupervisorFromDaemon {
    /// This script was tried, by a process that cannot load all of its scripts: said
    /// of each of them before [`Ready`](Self::Ready), later of one that it cannot load.
    Tried {
        /// Which, and the version of its file.
        change: Change,
        /// Whether it was loaded.
        loaded: bool,
    },
    /// Python is loaded.
    Ready {
        /// If the scripts are not, a hash of what was logged about it.
        failure: Option<u64>,
    },
    /// It cannot set itself up, and this is why, with the code of the error.
    Failed {
        /// The sentence for the log.
        reason: String,
    },
    /// A script was loaded for a request: a replacement loads it ahead.
    Loaded(Script),
    /// Told to stop by a signal.
    Leaving,
    /// A script changed: replace the processes of the group.
    Stale(Change),
    /// Replace this process.
    Retire {
        /// Why.
        why: Reason,
    },
}

/// What [`receive`] found.
#[derive(Debug)]
pub enum Message<T> {
    /// A message and its descriptors.
    One(T, Vec<OwnedFd>),
    /// Nothing for the moment.
    None,
    /// The other side is gone.
    Closed,
}

/// Sends a message.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
    sys::send(socket, &[IoSlice::new(&bytes)], fds).map(drop)
}

/// As [`send`], but never waits: the receiver may be stuck.
pub fn try_send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
    sys::try_send(socket, &[IoSlice::new(&bytes)], fds).map(drop)
}

/// Receives a message without waiting for one.
pub fn receive<T: DeserializeOwned>(socket: &impl AsFd) -> io::Result<Message<T>> {
    receive_with(socket, &mut Rights::many())
}

/// As [`receive`], of messages that are worth nothing without all of their descriptors:
/// one whose descriptors this process has no room for is an error.
pub fn receive_whole<T: DeserializeOwned>(socket: &impl AsFd) -> io::Result<Message<T>> {
    receive_whole_with(socket, &mut Rights::many())
}

fn receive_whole_with<T: DeserializeOwned>(
    socket: &impl AsFd,
    rights: &mut Rights,
) -> io::Result<Message<T>> {
    let message = receive_with(socket, rights)?;
    if matches!(message, Message::One(..)) && rights.is_cut() {
        return Err(io::Error::other("no room for its descriptors: too many are open"));
    }
    Ok(message)
}

/// As [`receive`], from a process that has no descriptors to send: what it makes
/// of its end is the application's choice.
pub fn receive_plain<T: DeserializeOwned>(socket: &impl AsFd) -> io::Result<Message<T>> {
    receive_with(socket, &mut Rights::none())
}

fn receive_with<T: DeserializeOwned>(
    socket: &impl AsFd,
    rights: &mut Rights,
) -> io::Result<Message<T>> {
    let mut bytes = vec![0; LONGEST];
    let mut fds = Vec::new();
    let received = sys::receive(socket.as_fd(), &mut bytes, rights, Wait::No, |fd| fds.push(fd));
    match received {
        Ok(0) => Ok(Message::Closed),
        Ok(count) => {
            let message = postcard::from_bytes(&bytes[..count]).map_err(io::Error::other)?;
            Ok(Message::One(message, fds))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Message::None),
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => Ok(Message::Closed),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_then_the_end() {
        let (here, there) = sys::message_pair().unwrap();
        let sent = ToSupervisor::Group {
            index: 3,
            log: true,
            board: true,
            snapshot: false,
            environment: false,
            first_inbox: 0,
        };
        send(here.as_fd(), &sent, &[here.as_fd(), there.as_fd()]).unwrap();
        match receive::<ToSupervisor>(&there).unwrap() {
            Message::One(message, fds) => {
                assert_eq!(message, sent);
                assert_eq!(fds.len(), 2);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(receive::<ToSupervisor>(&there).unwrap(), Message::None));
        drop(here);
        assert!(matches!(receive::<ToSupervisor>(&there).unwrap(), Message::Closed));
    }

    #[test]
    fn a_message_without_all_of_its_descriptors_is_an_error_where_they_matter() {
        let (here, there) = sys::message_pair().unwrap();
        let receive = |fds: &[BorrowedFd<'_>]| {
            send(here.as_fd(), &ToSupervisor::Commit, fds).unwrap();
            receive_whole_with::<ToSupervisor>(&there, &mut Rights::one())
        };
        assert!(receive(&[here.as_fd(); 5]).is_err());
        assert!(matches!(receive(&[here.as_fd()]), Ok(Message::One(_, fds)) if fds.len() == 1));
        assert!(matches!(receive(&[]), Ok(Message::One(_, fds)) if fds.is_empty()));
        // Those of a process that has none to send are not taken in at all.
        send(here.as_fd(), &ToSupervisor::Commit, &[here.as_fd()]).unwrap();
        assert!(matches!(receive_plain::<ToSupervisor>(&there), Ok(Message::One(_, _))));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let (here, there) = sys::message_pair().unwrap();
        sys::send(here.as_fd(), &[IoSlice::new(&[0xff; 9])], &[]).unwrap();
        assert!(receive::<ToDaemon>(&there).is_err());
    }
}
