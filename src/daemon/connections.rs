//! The connections from child processes: one epoll tells of all of them, and each knows
//! whether a worker has it.
//!
//! They are registered once, edge-triggered: of whatever comes one worker is told, once;
//! which of them has it, the gate says.
//! Who is told of a connection that another worker has marks it and leaves it alone; the
//! other one looks again before it lets go.  So nothing that comes is missed, and no
//! system call goes into having the next request told.
#![forbid(unsafe_code)]

use super::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Epoll's name for the event that ends the workers.
const STOP: u64 = 0;
/// Epoll's name for the inbox.
const INBOX: u64 = 1;
/// Epoll's name for the first connection.  Later ones count on: a worker may be told of a
/// connection just when another closes it, and must not take the next one for it.
const FIRST: u64 = 2;

/// What a worker was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The workers are to end.
    Stop,
    /// There are new connections.
    Inbox,
    /// Something came on the connection of this name, or it was closed.
    Connection(u64),
}

/// The connections of a daemon process.
#[derive(Debug)]
pub struct Connections {
    epoll: Epoll,
    known: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    name: u64,
    turn: Turn,
}

/// Whether a worker has a connection.
#[derive(Debug, Default)]
struct Turn(AtomicU8);

/// Nobody has it.
const FREE: u8 = 0;
/// A worker has it.
const TAKEN: u8 = 1;
/// A worker has it, and something came meanwhile.
const MARKED: u8 = 2;

impl Turn {
    /// Takes the connection; false if another worker has it, who is told instead.
    fn take(&self) -> bool {
        loop {
            match self.change(FREE, TAKEN) {
                Ok(_) => return true,
                Err(MARKED) => return false,
                Err(_) => {}
            }
            // Given back in between, it is free.
            if self.change(TAKEN, MARKED).is_ok() {
                return false;
            }
        }
    }

    /// Marks it as one on which something came; false if nobody has it.
    fn mark(&self) -> bool {
        loop {
            match self.change(TAKEN, MARKED) {
                Ok(_) | Err(MARKED) => return true,
                Err(FREE) => return false,
                Err(_) => {}
            }
        }
    }

    /// Gives it back; false if something came: it is still ours, and marked.
    fn give_back(&self) -> bool {
        self.change(TAKEN, FREE).is_ok()
    }

    /// Takes the mark away, before the look it asks for: a later one asks for another.
    fn unmark(&self) {
        self.0.store(TAKEN, Ordering::SeqCst);
    }

    /// Gives it back, whatever came.
    fn free(&self) {
        self.0.store(FREE, Ordering::SeqCst);
    }

    fn change(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
    }
}

impl Connections {
    /// None yet, an inbox they come from, and what is written when the workers are to end.
    pub fn new(inbox: &OwnedFd, stop: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        epoll.add(inbox, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, INBOX))?;
        Ok(Self { epoll, known: Mutex::default(), next: AtomicU64::new(FIRST) })
    }

    /// Waits until there is something to do.
    pub fn wait(&self) -> io::Result<Event> {
        let mut events = [EpollEvent::empty()];
        loop {
            match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(match events[0].data() {
            STOP => Event::Stop,
            INBOX => Event::Inbox,
            name => Event::Connection(name),
        })
    }

    /// Takes in a new one.
    pub fn keep(&self, socket: OwnedFd) -> io::Result<()> {
        let name = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection { socket, name, turn: Turn::default() });
        self.known().insert(name, Arc::clone(&connection));
        // What is there already is told of as well.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, name);
        self.epoll.add(&connection.socket, event).inspect_err(|_| self.forget(name))?;
        Ok(())
    }

    /// The connection of this name, for whoever was told of it; none if it is gone, or if
    /// another worker has it and sees to it.
    pub fn take(&self, name: u64) -> Option<Held<'_>> {
        let connection = self.known().get(&name).cloned()?;
        connection.turn.take().then(|| Held {
            all: self,
            connection,
            is_free: Cell::new(false),
            is_doubtful: Cell::new(false),
        })
    }

    /// Whether nobody need see to what came on the connection of this name: it is gone, or
    /// another worker has it and looks again.
    pub fn is_seen_to(&self, name: u64) -> bool {
        self.known().get(&name).is_none_or(|connection| connection.turn.mark())
    }

    /// Out of epoll by itself, once the last owner lets go.
    fn forget(&self, name: u64) {
        self.known().remove(&name);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection this worker has; closed if it is not given back.
#[derive(Debug)]
pub struct Held<'c> {
    all: &'c Connections,
    connection: Arc<Connection>,
    /// Whether it was given back.
    is_free: Cell<bool>,
    /// Whether there may be something of which nobody was told.
    is_doubtful: Cell<bool>,
}

impl Held<'_> {
    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.connection.socket.as_fd()
    }

    /// Notes that a read took all it asked for: there may be more, of which nobody will be
    /// told again.
    pub fn doubt(&self) {
        self.is_doubtful.set(true);
    }

    /// Has nobody told of what comes until it is given back: pieces of a body, each of
    /// which would wake another worker for nothing.
    pub fn hush(&self) {
        self.watch(EpollFlags::empty());
        self.doubt();
    }

    /// Lets other workers be told of what comes next; false if something has come, and
    /// [is to be looked for](Self::look_again) first.
    ///
    /// Before the child can know that its answer is complete, or its next request finds the
    /// connection taken and wakes one worker too many.
    pub fn give_back(&self) -> bool {
        if !self.is_free.get() {
            let is_free = if self.is_doubtful.take() {
                self.connection.turn.free();
                // This tells of what is there.
                self.watch(EpollFlags::EPOLLIN);
                true
            } else {
                self.connection.turn.give_back()
            };
            self.is_free.set(is_free);
        }
        self.is_free.get()
    }

    /// Gives it back whatever came, of which another worker is told then: this one is not
    /// done yet, and nothing is to wait for it.
    pub fn hand_over(&self) {
        if !self.give_back() {
            self.doubt();
            self.give_back();
        }
    }

    /// Looks for what has come meanwhile: the next read finds it.
    pub fn look_again(&self) {
        self.connection.turn.unmark();
    }

    /// Closes it, even if it was given back.
    pub fn close(&self) {
        self.all.forget(self.connection.name);
        if self.is_free.get() {
            // Another worker may have it already, and would wait for what never comes.
            sys::hang_up(self.socket());
        }
    }

    fn watch(&self, what: EpollFlags) {
        let mut event = EpollEvent::new(what | EpollFlags::EPOLLET, self.connection.name);
        if self.all.epoll.modify(self.socket(), &mut event).is_err() {
            // Nobody will be told of anything: better that the child knows.
            self.all.forget(self.connection.name);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_free.get() {
            self.all.forget(self.connection.name);
        }
    }
}

#[cfg(test)]
mod tests;
