//! A process group as a child process reaches it: admission, then a connection.
#![forbid(unsafe_code)]

use super::child;
use super::ownership::Owner;
use crate::config::root::Root;
use crate::daemon::parent::Entrance;
use crate::daemon::sys;
use crate::scoreboard::{Exit, Slot, State};
use nix::poll::{PollFd, PollFlags};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use wsgi_wire::buffer::Buffer;

/// A group whose processes have all gone is noticed this often: nobody wakes a
/// waiting child for it.
const LOOK: Duration = Duration::from_secs(1);

/// A wait that ends early this often in a row is no wait: somebody who may write
/// to the scoreboard keeps httpd's threads busy.
const RESTLESS: u32 = 64;

/// What such a wait becomes.
const REST: Duration = Duration::from_millis(10);

/// Buffers above this are given back between exchanges: one large head must not
/// cost every kept connection as much for ever.
const KEEP: usize = 256 * 1024;

/// A process that died shows as the end of the stream, unless a process it forked
/// holds the connection open, and httpd closes the client's socket without a word when
/// it stops at once: looked for this often while nothing comes.  A hard restart waits
/// for it, and httpd looks for children that have left after 0.1, 0.4 and 1.4 s.
pub const LOOK_FOR_PROCESS: Duration = Duration::from_millis(200);

/// Kept connections per child and slot: as many as a child has threads are used
/// at once at most, and beyond this a new one is made when it is needed.
const KEPT: usize = 64;

/// What bounds a request's way into the group.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many threads of all child processes may wait (`listen-backlog`).
    pub backlog: u32,
    /// How long a request may wait (`queue-timeout`).
    pub queue: Option<Duration>,
    /// How long a group without a process that takes requests is waited for
    /// (`connect-timeout`).
    pub connect: Duration,
    /// How long one read or write on a connection may take (`socket-timeout`).
    pub socket: Duration,
    /// How long more of an answer is waited for before what there is of it is
    /// flushed to the client (`response-flush-delay`).
    pub flush_delay: Duration,
    /// After how many bytes it is flushed even so (`response-buffer-size`).
    pub flush_every: u64,
    /// How long a header may be (`header-buffer-size`).
    pub longest_header: usize,
    /// How long the client may take nothing of an answer
    /// (`response-socket-timeout`); `None` is httpd's `Timeout`.
    pub client: Option<Duration>,
}

/// Why a request found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// So many wait already that this one is not to join them.
    Full,
    /// It waited as long as it may.
    QueueTimeout,
    /// No daemon process takes requests.
    Unreachable,
    /// Nobody waits for its answer any more.
    Abandoned,
}

/// The right to send one request to one process.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The slot of the process.
    pub slot: u32,
    /// Which process.
    pub generation: u64,
    /// Which ticket.
    pub number: u32,
}

/// A connection to a daemon process, with the buffer it is read into.
#[derive(Debug)]
pub struct Connection {
    /// Our end.
    pub socket: OwnedFd,
    /// Which process has the other.
    generation: u64,
    /// Whether it has carried an exchange: the process has it, and its death
    /// shows as the end of the stream.
    pub is_known: bool,
    /// What was read and not used yet.
    pub input: Buffer,
}

#[cfg(test)]
impl Connection {
    /// A connection that has carried an exchange.
    pub fn known(socket: OwnedFd, generation: u64) -> Self {
        Self { socket, generation, is_known: true, input: Buffer::default() }
    }
}

/// A process group.
#[derive(Debug)]
pub struct Group {
    entrance: Entrance,
    /// What bounds a request's way in.
    pub limits: Limits,
    /// Whom its scripts must belong to.
    pub owner: Option<Owner>,
    /// Its root directory, where it is another one than httpd's.
    pub root: Option<Root>,
    pools: Vec<Mutex<Vec<Connection>>>,
}

impl Group {
    /// A group reached through `entrance`.
    pub fn new(entrance: Entrance, limits: Limits, owner: Option<Owner>) -> Self {
        let pools = entrance.inboxes.iter().map(|_| Mutex::default()).collect();
        Self { entrance, limits, owner, root: None, pools }
    }

    /// The group with this root directory.
    #[must_use]
    pub fn below(self, root: Option<Root>) -> Self {
        Self { root, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.entrance.name
    }

    /// The slot a ticket is for.
    pub fn slot(&self, ticket: Ticket) -> Option<Slot<'_>> {
        self.entrance.board.slot(ticket.slot)
    }

    /// How many slots this child knows.
    pub fn slots(&self) -> usize {
        self.pools.len()
    }

    /// Takes a ticket, waiting for one until `deadline` unless `is_abandoned`.
    pub fn admit(
        &self,
        deadline: Option<Instant>,
        is_abandoned: impl Fn() -> bool,
    ) -> Result<Ticket, Refused> {
        if let Some(ticket) = self.take_ticket() {
            return Ok(ticket);
        }
        let board = &self.entrance.board;
        let place = board.enqueue(self.limits.backlog.max(1)).ok_or(Refused::Full)?;
        let began = Instant::now();
        let mut last_ready = began;
        let mut starting = None;
        let mut early = 0;
        loop {
            let seen = place.event();
            if let Some(ticket) = self.take_ticket() {
                return Ok(ticket);
            }
            let now = Instant::now();
            // One that is still starting a look later may well serve: it loads, for
            // as long as an answer might take.
            let was_starting = std::mem::replace(&mut starting, self.starting());
            let is_loading = starting.is_some()
                && starting == was_starting
                && now.duration_since(began)
                    < self.limits.connect.saturating_add(self.limits.socket);
            if self.is_reachable() || is_loading {
                last_ready = now;
            } else if now.duration_since(last_ready) >= self.limits.connect {
                return Err(Refused::Unreachable);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Refused::QueueTimeout);
            }
            if is_abandoned() {
                return Err(Refused::Abandoned);
            }
            let look = now + LOOK.min(self.limits.connect.max(Duration::from_millis(1)));
            place.wait(seen, Some(deadline.map_or(look, |deadline| deadline.min(look))));
            early = if now.elapsed() < Duration::from_millis(1) { early + 1 } else { 0 };
            if early > RESTLESS {
                let _ = sys::poll(&mut [], Some(REST));
            }
        }
    }

    /// A ticket of the process with the most free threads, the first of equals:
    /// work spreads under load and stays in one warm process otherwise.
    fn take_ticket(&self) -> Option<Ticket> {
        let pid = child::pid();
        // Another child may be quicker: then the next best, a few times.
        for _ in 0..self.pools.len().max(1) {
            let best = self
                .known_slots()
                .filter(|(_, slot)| slot.state() == State::Ready)
                .map(|(number, slot)| (slot.free(), number, slot))
                .filter(|(free, ..)| *free > 0)
                .max_by_key(|(free, number, _)| (*free, std::cmp::Reverse(*number)));
            let (_, number, slot) = best?;
            let generation = slot.generation();
            if let Some(ticket) = slot.take_ticket(pid) {
                if slot.generation() == generation {
                    return Some(Ticket { slot: number, generation, number: ticket });
                }
                // Replaced meanwhile.  It is most likely the new process' ticket,
                // which would refuse the request for its generation and not know
                // that the ticket is out.
                slot.give_ticket(ticket);
            }
        }
        None
    }

    fn known_slots(&self) -> impl Iterator<Item = (u32, Slot<'_>)> {
        (0..self.pools.len() as u32)
            .filter_map(|number| Some((number, self.entrance.board.slot(number)?)))
    }

    /// Whether another process than the ticket's takes requests.
    pub fn has_other(&self, ticket: Ticket) -> bool {
        self.known_slots().any(|(number, slot)| {
            slot.state() == State::Ready
                && (number, slot.generation()) != (ticket.slot, ticket.generation)
        })
    }

    /// Which process is being started, if one is.
    fn starting(&self) -> Option<u64> {
        let starting = |(_, slot): &(u32, Slot<'_>)| slot.state() == State::Starting;
        self.known_slots().find(starting).map(|(_, slot)| slot.generation())
    }

    fn is_reachable(&self) -> bool {
        self.known_slots().any(|(_, slot)| slot.state().is_serving())
    }

    /// Gives a ticket back with which nothing was sent.
    pub fn give_back(&self, ticket: Ticket) {
        if let Some(slot) = self.slot(ticket)
            && slot.generation() == ticket.generation
        {
            slot.give_ticket(ticket.number);
            self.entrance.board.wake_one();
        }
    }

    /// Whether the process the ticket was for is still in its slot.
    pub fn is_there(&self, ticket: Ticket) -> bool {
        self.slot(ticket).is_some_and(|slot| {
            slot.generation() == ticket.generation
                && (slot.state().is_serving() || slot.state() == State::Draining)
        })
    }

    /// A kept connection to the ticket's process, or a new one.
    pub fn connect(&self, ticket: Ticket) -> io::Result<Connection> {
        if let Some(pool) = self.pool(ticket) {
            let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(connection) = pool.pop() {
                if connection.generation == ticket.generation {
                    return Ok(connection);
                }
            }
        }
        self.connect_anew(ticket)
    }

    /// A new connection: one end of a fresh pair goes through the inbox.
    pub fn connect_anew(&self, ticket: Ticket) -> io::Result<Connection> {
        let inbox = self
            .entrance
            .inboxes
            .get(ticket.slot as usize)
            .ok_or(io::ErrorKind::NotFound)?
            .find()?;
        let (ours, theirs) = sys::stream_pair()?;
        sys::set_timeouts(&ours, self.limits.socket.min(LOOK_FOR_PROCESS), self.limits.socket)?;
        // None: as long as it takes (`connect-timeout=0`).
        let deadline = Instant::now().checked_add(self.limits.connect);
        loop {
            let message = [IoSlice::new(&[0])];
            match sys::try_send(inbox.as_fd(), &message, &[theirs.as_fd()]) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // Nobody wakes us when the process that should read it is gone.
            if !self.is_there(ticket) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLOUT)];
            let look = left.map_or(LOOK, |left| left.min(LOOK));
            if sys::poll(&mut fds, Some(look))? == 0 && left == Some(Duration::ZERO) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(Connection {
            socket: ours,
            generation: ticket.generation,
            is_known: false,
            input: Buffer::default(),
        })
    }

    /// Keeps a connection that can carry another exchange.
    pub fn keep(&self, ticket: Ticket, mut connection: Connection) {
        connection.is_known = true;
        connection.input.clear(KEEP);
        if let Some(pool) = self.pool(ticket) {
            let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
            if pool.len() < KEPT {
                pool.push(connection);
            }
        }
    }

    fn pool(&self, ticket: Ticket) -> Option<&Mutex<Vec<Connection>>> {
        self.pools.get(ticket.slot as usize)
    }

    /// How the ticket's process ended, once the supervisor has said so; waits a
    /// moment for that.
    pub fn exit_of(&self, ticket: Ticket) -> Option<Exit> {
        let deadline = Instant::now() + Duration::from_millis(250);
        let slot = self.slot(ticket)?;
        // The supervisor wakes nobody for this: it is rare, and looked for.
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(exit) = slot.exit_of(ticket.generation) {
                return Some(exit);
            }
            if deadline <= Instant::now() {
                return None;
            }
            let _ = sys::poll(&mut [], Some(pause));
            pause *= 2;
        }
    }
}
