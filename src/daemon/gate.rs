//! How many workers run requests at a time.
//!
//! Python's lock lets one thread run Python.  Workers that take it from each other for
//! every request cost two context switches each time, and who waits at it is not served in
//! the order it came: a thread that is awake already overtakes those that must be woken.
//! So as long as requests end quickly one worker runs them, one after the other and the
//! oldest first, and the others are left asleep.  One of those that were told of more, the
//! **guard**, looks after the requests that wait meanwhile.
//!
//! Where it finds that everyone who serves is asleep, in a database or with a slow client,
//! or that nothing was begun for [`LONG`], it opens the gate: then each request has a worker
//! at once.  After a pause the gate is closed again, to see whether requests end quickly now;
//! the pause doubles for as long as they do not.
//!
//! Code that computes without Python's lock is not told from Python: requests that end
//! quickly all the same are not run on several processors at a time by one process.
#![forbid(unsafe_code)]

use super::connections::{Connections, Event};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where requests wait and none has begun for so long, they no longer end quickly: they are
/// to run in turns, as Python has its threads do.  Longer than a busy machine keeps a
/// thread from its processor.
const LONG: Duration = Duration::from_millis(10);

/// Bounds of the time between two looks of the guard.  It wakes for each, so looks are the
/// rarer the quicker requests end.
const LOOK: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(1));

/// Bounds of the time for which the gate is open.
const PAUSE: (Duration, Duration) = (Duration::from_millis(8), Duration::from_secs(1));

/// Workers that listen while the gate is closed: one that serves next, and one that is told
/// of more meanwhile and becomes the guard; while it is, nobody else need listen.
const LISTENERS: usize = 2;

/// The gate all workers of a daemon process come through.
#[derive(Debug)]
pub struct Gate {
    /// None where every worker may run at any time.
    state: Option<Mutex<State>>,
    /// Ends the guard's wait between two looks.
    look: Condvar,
    /// Ends the rest of a worker.
    rest: Condvar,
    /// Whether a thread waits for something else than a processor.
    is_asleep: fn(Pid) -> bool,
    /// [`LONG`], but for tests.
    long: Duration,
}

/// What stands behind its lock.
#[derive(Debug)]
struct State {
    /// Connections on which a request waits, the oldest first.  Never more than there are
    /// workers to see to them: the guard, those that rest and are not called yet, and those
    /// on their way back.
    waiting: VecDeque<u64>,
    /// How many were ever taken out of there.
    taken: u64,
    /// Who serves.
    serving: Vec<Pid>,
    /// How many wait for events.
    listening: usize,
    /// How many are not needed.
    resting: usize,
    /// How many of those are on their way back.
    called: usize,
    /// Whether there is a guard.
    is_guarded: bool,
    /// Whether the workers are to end.
    is_over: bool,
    /// Whether every request has a worker at once.
    opening: Opening,
}

/// When the gate is open.
#[derive(Debug)]
struct Opening {
    /// Open until then, and closed since.
    until: Instant,
    /// How long it was open the last time.
    pause: Duration,
    /// How long the guard waits before its next look.
    look: Duration,
}

/// The state, locked.
type Locked<'g> = MutexGuard<'g, State>;

impl Gate {
    /// A gate for so many workers, of which one at a time can run Python, or all where
    /// there is not one lock.
    pub fn new(workers: u32, has_one_lock: bool) -> Self {
        let is_kept = has_one_lock && workers > 1;
        Self {
            state: is_kept.then(|| Mutex::new(State::new(Instant::now()))),
            look: Condvar::new(),
            rest: Condvar::new(),
            is_asleep,
            long: LONG,
        }
    }

    /// What the worker with this thread is to do next; what it was told before it has done.
    pub fn next(&self, own: Pid, connections: &Connections) -> io::Result<Event> {
        let Some(lock) = &self.state else { return connections.wait() };
        let mut state = locked(lock);
        state.leave(own);
        loop {
            let now = Instant::now();
            if let Some(name) = state.take(own, now) {
                self.call(state);
                return Ok(Event::Connection(name));
            }
            if state.is_over {
                return Ok(Event::Stop);
            }
            if !state.waiting.is_empty() && !state.is_guarded {
                state = self.guard(lock, state);
                continue;
            }
            if state.is_crowded(now) {
                state = self.rest(state);
                continue;
            }
            state.listening += 1;
            drop(state);
            let event = connections.wait();
            state = locked(lock);
            state.listening -= 1;
            match event {
                Ok(Event::Connection(name)) => state = self.bring(state, connections, name),
                Ok(Event::Inbox) => {
                    self.call(state);
                    return Ok(Event::Inbox);
                }
                Ok(Event::Stop) => self.end(&mut state),
                Err(error) => {
                    // The others would be told of nothing either.
                    self.end(&mut state);
                    return Err(error);
                }
            }
        }
    }

    /// Has every worker end once nothing waits.
    pub fn stop(&self) {
        if let Some(state) = &self.state {
            self.end(&mut locked(state));
        }
    }

    /// Takes in what the worker was told of; it rests if there is a guard for that.
    fn bring<'g>(&self, mut state: Locked<'g>, connections: &Connections, name: u64) -> Locked<'g> {
        let may_begin = state.may_begin(Instant::now());
        if !may_begin && connections.is_seen_to(name) {
            return state;
        }
        state.waiting.push_back(name);
        if may_begin || !state.is_guarded { state } else { self.rest(state) }
    }

    /// Waits until no request waits, or one may begin.
    fn guard<'g>(&self, lock: &'g Mutex<State>, mut state: Locked<'g>) -> Locked<'g> {
        state.is_guarded = true;
        let (mut oldest, mut since) = (state.taken, Instant::now());
        loop {
            let look = state.opening.look;
            let waited = self.look.wait_timeout(state, look);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let now = Instant::now();
            if state.taken != oldest {
                (oldest, since) = (state.taken, now);
                state.opening.note_progress();
            }
            if !state.may_begin(now) {
                let serving = state.serving.clone();
                drop(state);
                let are_asleep = serving.iter().all(|&thread| (self.is_asleep)(thread));
                state = locked(lock);
                // Who has come to an end since may have slept here, for the next event.
                let is_same = state.taken == oldest && state.serving == serving;
                if is_same && (are_asleep || now.duration_since(since) >= self.long) {
                    state.opening.open(Instant::now(), since);
                }
            }
            if state.waiting.is_empty() || state.may_begin(Instant::now()) {
                break;
            }
        }
        state.is_guarded = false;
        state
    }

    /// Waits until the worker is called, or all are to end.
    fn rest<'g>(&self, mut state: Locked<'g>) -> Locked<'g> {
        state.resting += 1;
        while state.called == 0 && !state.is_over {
            state = self.rest.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.called = state.called.saturating_sub(1);
        state.resting -= 1;
        state
    }

    /// Wakes one that rests, if the worker that goes is missed.
    fn call(&self, mut state: Locked<'_>) {
        let is_called = state.call();
        drop(state);
        if is_called {
            self.rest.notify_one();
        }
    }

    /// Has all workers end.
    fn end(&self, state: &mut State) {
        state.is_over = true;
        self.look.notify_all();
        self.rest.notify_all();
    }
}

impl State {
    /// Closed, and nobody there yet.
    fn new(now: Instant) -> Self {
        let opening = Opening { until: now, pause: PAUSE.0, look: LOOK.0 };
        Self {
            waiting: VecDeque::new(),
            taken: 0,
            serving: Vec::new(),
            listening: 0,
            resting: 0,
            called: 0,
            is_guarded: false,
            is_over: false,
            opening,
        }
    }

    /// Whether another request may begin.
    fn may_begin(&self, now: Instant) -> bool {
        self.serving.is_empty() || self.opening.is_open(now) || self.is_over
    }

    /// The oldest request that waits, if it may begin; `own` serves it.
    fn take(&mut self, own: Pid, now: Instant) -> Option<u64> {
        if self.waiting.is_empty() || !self.may_begin(now) {
            return None;
        }
        self.taken += 1;
        self.serving.push(own);
        self.waiting.pop_front()
    }

    /// `own` has served.
    fn leave(&mut self, own: Pid) {
        self.serving.retain(|&thread| thread != own);
    }

    /// Whether a worker is better called when it is needed than told of events: there are
    /// enough of them, or it is needed for what waits.
    fn is_crowded(&self, now: Instant) -> bool {
        let is_enough = self.listening + self.called >= LISTENERS;
        let all = self.resting + usize::from(self.is_guarded);
        is_enough && !self.opening.is_open(now) || self.waiting.len() + self.called > all
    }

    /// Calls a worker back if one is missing; whether one is to be woken.
    fn call(&mut self) -> bool {
        let is_missing = !self.waiting.is_empty() || self.listening + self.called == 0;
        let is_called = !self.is_guarded && is_missing && self.resting > self.called;
        self.called += usize::from(is_called);
        is_called
    }
}

impl Opening {
    /// Whether the gate is open.
    fn is_open(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Opens it for what has waited `since` then, and for longer than the last time unless
    /// nothing had to wait for longer.
    fn open(&mut self, now: Instant, since: Instant) {
        let was_closed = since.duration_since(self.until);
        self.pause = match was_closed > self.pause {
            true => PAUSE.0,
            false => PAUSE.1.min(self.pause * 2),
        };
        self.until = now + self.pause;
        self.look = LOOK.0;
    }

    /// Requests end: the next look may be later.
    fn note_progress(&mut self) {
        self.look = LOOK.1.min(self.look * 2);
    }
}

/// Locks the state, which no panic leaves half changed.
fn locked(state: &Mutex<State>) -> Locked<'_> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a thread of this process waits for something else than a processor, as far as
/// can be told: proc(5), `/proc/PID/stat`.
fn is_asleep(thread: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // Behind its name, which may hold anything.
    let end = stat.iter().rposition(|&byte| byte == b')');
    end.and_then(|end| stat.get(end + 2)) != Some(&b'R')
}

#[cfg(test)]
mod tests;
