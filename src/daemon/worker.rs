//! The worker threads of a daemon process.
//!
//! Any of them may be told of any event: of new connections in the inbox, through which
//! child processes hand them over, and of requests on those there are.  A child sends
//! a request only while it holds a ticket, so there is a thread for each; how many of them
//! run at a time is up to the gate.
#![forbid(unsafe_code)]

use super::changes::{Change, Changed, Changes};
use super::connections::{Connections, Event, Held};
use super::conversation::{Conversation, Pulse, Received};
use super::gate::Gate;
use super::log::ProcessLog;
use super::memory::Memory;
use super::plan::GroupPlan;
use super::plan::Script;
use super::sys::{self, Rights, Wait};
use crate::host::{Outcome, Runtime};
use crate::scoreboard::{Reason, Scoreboard, Slot, State};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wsgi_wire::frame::Refusal;

/// What the workers of a process share.
pub struct Service {
    /// What it works with.
    pub parts: Parts,
    /// Written when the main thread should look: a ticket came back while the
    /// process drains, or a script is stale.
    pub attention: EventFd,
    /// The scripts that changed.
    pub changes: Changes,
    /// Why this process wants to be replaced, as a number; 0: it does not.
    wish: AtomicU8,
    stop: EventFd,
    connections: Connections,
    gate: Gate,
    loaded: Mutex<Loaded>,
}

/// The bit of [`Service::wish`] that says that the main thread knows.
const TOLD: u8 = 0x80;

/// The scripts this process has run, for its successor to load ahead.
#[derive(Default)]
struct Loaded {
    known: BTreeSet<Script>,
    /// Those the supervisor has not been told of.
    news: Vec<Script>,
    /// Those that could not be loaded ahead, of which it has not been told.
    failed: Vec<Change>,
}

/// More scripts than this are not loaded ahead: a directory of them would make
/// every start long.
const MOST_SCRIPTS: usize = 64;

/// How long a worker waits for memory in which connections can be taken in.  Shorter,
/// and it does little else; longer, and they wait though there is some.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// What a daemon process works with.
pub struct Parts {
    /// The started Python.
    pub runtime: Runtime,
    /// What the group is.
    pub plan: GroupPlan,
    /// The group's scoreboard.
    pub board: Arc<Scoreboard>,
    /// Our slot in it.
    pub slot: u32,
    /// Which process we are.
    pub generation: u64,
    /// Where new connections come from.
    pub inbox: OwnedFd,
    /// Lines that belong to no request.
    pub log: &'static ProcessLog,
}

impl Service {
    /// Sets up what the workers wait on.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_value_and_flags(0, flags)?;
        let connections = Connections::new(&parts.inbox, &stop)?;
        let gate = Gate::new(parts.plan.threads, parts.runtime.has_one_lock);
        Ok(Self {
            parts,
            attention: EventFd::from_value_and_flags(0, flags)?,
            changes: Changes::default(),
            wish: AtomicU8::new(0),
            stop,
            connections,
            gate,
            loaded: Mutex::default(),
        })
    }

    /// Lets every worker leave as soon as it is idle.
    pub fn stop(&self) {
        let _ = self.stop.write(1);
        self.gate.stop();
    }

    /// Our slot; none only if the mapping were smaller than it was made.
    pub fn own_slot(&self) -> Option<Slot<'_>> {
        self.parts.board.slot(self.parts.slot)
    }

    /// Takes in the connections children handed over: all of them, because nobody is told
    /// again of those that are left.
    fn accept(&self, rights: &mut Rights) {
        /// Whether the last one could not be taken, which is told once: a child tries again
        /// and again.
        static HAS_FAILED: AtomicBool = AtomicBool::new(false);
        let fail = |error| {
            if !HAS_FAILED.swap(true, Ordering::Relaxed) {
                self.parts.log.error(&format!("WSGI9103: cannot take a connection: {error}"));
            }
        };
        loop {
            let mut new = None;
            match sys::receive(self.parts.inbox.as_fd(), &mut [0; 8], rights, Wait::No, |fd| {
                new = Some(fd);
            }) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    fail(error);
                    std::thread::sleep(NO_MEMORY_PAUSE);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return fail(error),
            }
            match new.map(|connection| self.keep(connection)) {
                Some(Ok(())) => HAS_FAILED.store(false, Ordering::Relaxed),
                Some(Err(error)) => fail(error),
                None if rights.is_cut() => fail(Errno::EMFILE.into()),
                None => {}
            }
        }
    }

    fn keep(&self, connection: OwnedFd) -> io::Result<()> {
        sys::set_timeout(&connection, self.parts.plan.socket_timeout)?;
        self.connections.keep(connection)
    }

    /// Notes that a script was run.
    fn note(&self, script: Script) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.known.len() < MOST_SCRIPTS && loaded.known.insert(script.clone()) {
            loaded.news.push(script);
            let _ = self.attention.write(1);
        }
    }

    /// The scripts noted since the last call.
    pub fn take_loaded(&self) -> Vec<Script> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut loaded.news)
    }

    /// Loads a script another process had to load for a request.
    pub fn load_ahead(&self, script: Script) {
        // One that is gone meanwhile is missed by nobody.
        let Some(changed) = Changed::of(&script.path) else { return };
        if self.parts.runtime.load_script(&script.application_group, &script.path) {
            if let Some(slot) = self.own_slot() {
                slot.note_load();
            }
            return;
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.failed.push(Change { script, changed });
    }

    /// The scripts that could not be loaded ahead since the last call.
    pub fn take_failed(&self) -> Vec<Change> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut loaded.failed)
    }

    /// Notes that this process wants to be replaced; the first reason counts.
    fn wish_for(&self, why: Reason) {
        if self.wish.compare_exchange(0, why as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            let _ = self.attention.write(1);
        }
    }

    /// Why this process wants to be replaced, if it does; asked for once.
    pub fn take_wish(&self) -> Option<Reason> {
        // Only a wish is marked as told: marked before, there would never be one.
        let why = Reason::from_number(self.wish.load(Ordering::SeqCst))?;
        // Never back to 0: a process is replaced once.
        self.wish.fetch_or(TOLD, Ordering::SeqCst);
        Some(why)
    }

    /// Notes that a script changed; whether the request that met it is run by old code.
    fn keeps_old_code(&self, slot: Slot<'_>, script: Script) -> bool {
        let is_kept = self.changes.is_kept(script, slot, self.parts.plan.rolling_reload);
        if self.changes.has_news() {
            let _ = self.attention.write(1);
        }
        is_kept
    }

    /// Notes that a request ended for want of memory.  Where next to none is left of
    /// what the group may have, later ones would end so too: they wait for the
    /// replacement instead.
    fn note_want(&self, slot: Slot<'_>) {
        let plan = &self.parts.plan;
        if plan.memory_limit.or(plan.virtual_memory_limit).is_none() {
            return;
        }
        // Not to be told below another root: then it counts as spent.
        let memory = Memory::of(std::process::id());
        if memory.is_none_or(|memory| memory.is_spent(plan)) {
            slot.set_state(State::Draining);
        }
        self.wish_for(Reason::MemoryLimit);
    }

    /// Counts a request; the one that is the last closes the slot of a process that
    /// is for one only, and has any other replaced.
    fn count(&self, slot: Slot<'_>, requests: u64) {
        let plan = &self.parts.plan;
        if plan.limits.requests.is_some_and(|limit| requests >= u64::from(limit)) {
            if plan.run_once {
                slot.set_state(State::Draining);
            }
            self.wish_for(Reason::MaximumRequests);
        }
    }

    fn give_ticket(&self, slot: Slot<'_>, ticket: u32) {
        slot.give_ticket(ticket);
        self.parts.board.wake_one();
        if slot.state() == State::Draining {
            let _ = self.attention.write(1);
        }
    }
}

/// Serves requests until the service stops.
pub fn work(service: &Service, thread: u32) {
    let mut rights = Rights::one();
    let mut conversation = Conversation::default();
    let mut last = Script { application_group: Vec::new(), path: Vec::new() };
    let own = nix::unistd::gettid();
    'events: loop {
        match service.gate.next(own, &service.connections) {
            Ok(Event::Stop) => return,
            Ok(Event::Inbox) => service.accept(&mut rights),
            Ok(Event::Connection(name)) => {
                let Some(held) = service.connections.take(name) else { continue };
                while serve(service, thread, &held, &mut conversation, &mut last) {
                    if held.give_back() {
                        continue 'events;
                    }
                    held.look_again();
                }
                held.close();
            }
            Err(error) => {
                service.parts.log.error(&format!("WSGI0018: a worker cannot wait: {error}"));
                return;
            }
        }
    }
}

/// Lets the runtime run the request, by old code too if the group prefers that.
fn run(
    service: &Service,
    (slot, thread, id): (Slot<'_>, u32, u64),
    held: &Held<'_>,
    conversation: &mut Conversation,
) -> Outcome {
    let parts = &service.parts;
    let pulse = Pulse::new(slot, (thread, id), &parts.plan.limits);
    let (mut exchange, head) = conversation.exchange(held, parts.log, pulse);
    let outcome = parts.runtime.handle(&mut exchange, head);
    if outcome != Outcome::Stale {
        return outcome;
    }
    // Before the child hears of it: its next look finds another process.
    let is_kept = conversation.script().is_some_and(|script| service.keeps_old_code(slot, script));
    if !is_kept {
        return outcome;
    }
    conversation.accept_old_code();
    let (mut exchange, head) = conversation.exchange(held, parts.log, pulse);
    parts.runtime.handle(&mut exchange, head)
}

/// Runs the request that has arrived on a connection; whether it can carry more.
fn serve(
    service: &Service,
    thread: u32,
    held: &Held<'_>,
    conversation: &mut Conversation,
    last: &mut Script,
) -> bool {
    let Some(slot) = service.own_slot() else { return false };
    let (envelope, id) = match conversation.receive(held) {
        Ok(Received::Request { envelope, id }) => (envelope, id),
        Ok(Received::Nothing) => return true,
        Ok(Received::Closed) => return false,
        Err(error) => {
            service.parts.log.error(&format!("WSGI0080: cannot read a request: {error}; closed"));
            return false;
        }
    };
    if envelope.generation != service.parts.generation {
        // Its ticket is not one of ours.
        return conversation.refuse(held, Refusal::Generation);
    }
    slot.accept_ticket(envelope.ticket);
    let limits = &service.parts.plan.limits;
    let now = sys::monotonic_micros();
    let requests = slot.begin(thread, id, now);
    service.count(slot, requests);
    if limits.startup.is_some() {
        slot.expect_load(now);
    }
    let outcome = run(service, (slot, thread, id), held, conversation);
    if outcome == Outcome::Stale {
        // Nothing ran: the child may send it elsewhere.
        slot.end(thread);
    } else if outcome == Outcome::NoMemory {
        service.note_want(slot);
    } else if outcome != Outcome::Failed(500) {
        if outcome == Outcome::CutNoMemory {
            service.note_want(slot);
        }
        conversation.note_script(last, |script| service.note(script));
    }
    // The ticket goes first: when the child has the answer, its next request
    // finds this thread free.  What runs stays noted until the answer has gone:
    // a request that was run must never look as if it had not been.
    service.give_ticket(slot, envelope.ticket);
    let reusable = conversation.finish(held, outcome);
    if reusable || outcome == Outcome::Stale {
        slot.end(thread);
    } else {
        // An application may have closed what its answer was to go through.
        slot.end_unheard(thread);
    }
    reusable
}
