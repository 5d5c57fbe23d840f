//! One request's state, shared by the objects the application gets for it.
//!
//! The application may keep those objects or hand them to other threads, so the
//! state stands behind a lock and loses the host's request at the end.
//!
//! While the lock is held, nothing may raise or make an object the garbage
//! collector knows: either may run a finalizer of the application, and that may
//! want the lock.
//!
//! One thing that is done with the lock held can still run Python: in embedded mode a
//! filter of httpd's that takes a part of the answer may have this thread handle another
//! request.  What that one, or a finalizer, then wants of the outer request it does not
//! get: who has a lock waits for none but that of the request it is handling, so neither
//! a thread nor two can wait for themselves.
#![forbid(unsafe_code)]

use crate::headers::Response;
use crate::input::Body;
use crate::log::Lines;
use crate::raw::{Attached, Builtin, Capsule, Fault, HostRequest, Kept, Object, Raised, Source};
use crate::tally::Tally;
use core::ffi::c_int;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use wsgi_wire::vtable::outcome;

/// What the threads of one request share.
pub struct Exchange {
    state: Mutex<State>,
    /// What `wsgi.errors` has of its next line.
    pub lines: Mutex<Lines>,
    /// The request this thread was handling already: a filter of httpd's may make
    /// another while it passes on the answer.
    outer: Option<Arc<Self>>,
}

/// A request being handled.
pub struct State {
    /// None once the request is over.
    host: Option<HostRequest>,
    /// The answer.
    pub answer: Answer,
    /// The request body.
    pub body: Body,
    /// `mod_wsgi.request_data()`, once somebody wants it.
    data: Option<Kept>,
    /// The request's id, once it was entered.
    key: Option<Kept>,
    /// Whether that leads to it in `mod_wsgi.active_requests`.
    is_listed: bool,
    /// What it costs, where that is counted.
    pub tally: Option<Arc<Tally>>,
}

/// How far the answer is.
#[derive(Debug, Default)]
pub struct Answer {
    /// What `start_response` was told.
    pub response: Option<Response>,
    /// Whether the host has taken `response`: it can no longer change.
    pub committed: bool,
    /// Whether the host was told that the answer is complete.
    pub finished: bool,
    /// Whether the request wants no body (`HEAD`).
    pub head_only: bool,
    /// The announced length.
    pub length: Option<u64>,
    /// How much of the body the host has taken.
    pub sent: u64,
    /// Why the host took no more.
    pub fault: Option<Fault>,
    /// Whether less was sent than announced.
    pub short: bool,
}

impl Answer {
    /// The status the client gets, as far as this side of the host can tell.
    pub fn status(&self, outcome: c_int) -> u16 {
        let own = || self.response.as_ref().map_or(500, Response::status);
        match outcome {
            _ if self.committed => own(),
            outcome::DONE | outcome::GONE => own(),
            outcome::TIMED_OUT => 504,
            outcome::BAD_BODY => 400,
            outcome::BODY_TIMED_OUT => 408,
            _ => 500,
        }
    }
}

thread_local! {
    /// The request this thread is handling: `sys.stderr` goes to its log.
    static CURRENT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
    /// Of how many requests this thread has the lock.
    static LOCKED: Cell<usize> = const { Cell::new(0) };
}

/// The state of a request, which no other thread reaches meanwhile.
pub struct Locked<'e>(MutexGuard<'e, State>);

impl<'e> Locked<'e> {
    fn new(state: MutexGuard<'e, State>) -> Self {
        LOCKED.set(LOCKED.get() + 1);
        Self(state)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        LOCKED.set(LOCKED.get() - 1);
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

/// The request this thread is handling.
pub fn current() -> Option<Arc<Exchange>> {
    // A thread that ends runs finalizers of the application, perhaps after this
    // is gone.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Until this is dropped, the thread does nothing for the request it is handling.
pub struct Aside(Option<Arc<Exchange>>);

/// Has this thread do something that belongs to no request.
pub fn step_aside() -> Aside {
    Aside(CURRENT.take())
}

impl Drop for Aside {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Exchange {
    /// A request that begins, on the thread that handles it; its head says how long its
    /// body is.
    pub fn begin(host: HostRequest, head_only: bool, body_length: u64) -> Arc<Self> {
        let answer = Answer { head_only, ..Answer::default() };
        let body = Body::new(body_length);
        let state = State {
            host: Some(host),
            answer,
            body,
            data: None,
            key: None,
            is_listed: false,
            tally: None,
        };
        let exchange =
            Arc::new(Self { state: Mutex::new(state), lines: Mutex::default(), outer: current() });
        CURRENT.set(Some(Arc::clone(&exchange)));
        exchange
    }

    /// The thread is back at what it was handling before.
    pub fn step_back(&self) {
        CURRENT.set(self.outer.clone());
    }

    /// Ends the request: nothing reaches the host any more.  Gives what it is listed
    /// under, if it is.
    pub fn end<'p>(&self, py: Attached<'p>) -> Option<Object<'p>> {
        let (data, key, is_listed) = {
            let mut state = self.lock(py);
            state.host = None;
            (state.data.take(), state.key.take(), state.is_listed)
        };
        // Unlocked: what is in it may be finalized.
        drop(data.map(|data| data.take(py)));
        key.map(|key| key.take(py)).filter(|_| is_listed)
    }

    /// Makes the request known by `key`; gives its data, to be listed unless another has
    /// the same key.
    pub fn enter<'p>(
        &self,
        py: Attached<'p>,
        key: Object<'p>,
        is_listed: bool,
    ) -> Result<Object<'p>, Raised> {
        let new = py.dict()?;
        let mut state = self.open(py)?;
        (state.key, state.is_listed) = (Some(key.keep()), is_listed);
        // Its script may have asked for it.
        Ok(state.data.get_or_insert_with(|| new.keep()).get(py))
    }

    /// `mod_wsgi.request_data()`
    pub fn data<'p>(&self, py: Attached<'p>) -> Result<Object<'p>, Raised> {
        if let Some(data) = &self.open(py)?.data {
            return Ok(data.get(py));
        }
        let new = py.dict()?;
        let mut state = self.open(py)?;
        // Another thread may have come first.
        Ok(state.data.get_or_insert_with(|| new.keep()).get(py))
    }

    /// The state; waits detached for another thread that has it, which may be
    /// waiting for the right to run Python.
    pub fn lock(&self, py: Attached<'_>) -> Locked<'_> {
        self.try_lock().unwrap_or_else(|| {
            let wait = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
            Locked::new(py.detached(wait))
        })
    }

    /// The state, unless another thread has it, or this one.
    fn try_lock(&self) -> Option<Locked<'_>> {
        match self.state.try_lock() {
            Ok(state) => Some(Locked::new(state)),
            Err(TryLockError::Poisoned(poisoned)) => Some(Locked::new(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The state, for whoever may be handling a request within this one; None if it
    /// may not be waited for.
    fn reach(&self, py: Attached<'_>) -> Option<Locked<'_>> {
        self.try_lock().or_else(|| {
            let may_wait = LOCKED.get() == 0
                || current().is_some_and(|current| std::ptr::eq(Arc::as_ptr(&current), self));
            may_wait.then(|| self.lock(py))
        })
    }

    /// Whether it can be told that the request is over.
    pub fn is_over(&self, py: Attached<'_>) -> bool {
        self.reach(py).is_some_and(|state| state.host.is_none())
    }

    /// The state of a request that is not over; raises RuntimeError otherwise.
    pub fn open(&self, py: Attached<'_>) -> Result<Locked<'_>, Raised> {
        let Some(state) = self.reach(py) else {
            let message = "the request this object belongs to is passing on its answer";
            return Err(py.raise(Builtin::RuntimeError, message));
        };
        if state.host.is_some() {
            return Ok(state);
        }
        drop(state);
        Err(over(py))
    }

    /// Tells the host that the application is about to be called.
    pub fn loaded(&self, py: Attached<'_>) {
        if let Some(host) = &mut self.lock(py).host {
            host.loaded();
        }
    }

    /// Writes one line that comes from somewhere to the request's log; false if the
    /// request is over or out of reach.
    pub fn log_from(
        &self,
        py: Attached<'_>,
        level: u32,
        message: &str,
        source: Source<'_>,
    ) -> bool {
        let Some(mut state) = self.reach(py) else { return false };
        let Some(host) = &mut state.host else { return false };
        host.log_from(level, message, source);
        true
    }

    /// Whether the request's log takes lines of this level; None if the request is
    /// over or out of reach.
    pub fn would_log(&self, py: Attached<'_>, level: u32) -> Option<bool> {
        self.reach(py)?.host.as_ref().map(|host| host.would_log(level))
    }

    /// `apache.request_rec` of the request, if it has one.
    pub fn capsule<'p>(&self, py: Attached<'p>) -> Result<Option<Capsule<'p>>, Raised> {
        let record = self.lock(py).host.as_mut().and_then(HostRequest::apache_request);
        record.map(|record| Capsule::new(py, record)).transpose()
    }

    /// What mod_ssl has for a variable of a request that is not over.
    pub fn tls_variable(&self, py: Attached<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Raised> {
        let mut state = self.open(py)?;
        Ok(state.host.as_mut().and_then(|host| host.tls_variable(name)))
    }

    /// Passes on a part of the answer to a question.
    pub fn tell(&self, py: Attached<'_>, place: u32, value: &[u8]) {
        if let Some(host) = &mut self.lock(py).host {
            host.tell(place, value);
        }
    }

    /// Writes one line to the request's log; false if the request is over or out of
    /// reach.
    pub fn log(&self, py: Attached<'_>, level: u32, message: &str) -> bool {
        let Some(mut state) = self.reach(py) else { return false };
        let Some(host) = &mut state.host else { return false };
        host.log(level, message);
        true
    }
}

/// Raises what an object raises that is used after its request.
pub fn over(py: Attached<'_>) -> Raised {
    py.raise(Builtin::RuntimeError, "the request this object belongs to is over")
}

impl State {
    /// The request's data, if somebody wanted it, and its id.
    pub fn identity<'p>(&self, py: Attached<'p>) -> (Option<Object<'p>>, Option<Object<'p>>) {
        let get = |kept: &Option<Kept>| kept.as_ref().map(|kept| kept.get(py));
        (get(&self.data), get(&self.key))
    }

    /// The host's request and the rest of the state.
    pub fn parts(&mut self) -> Option<(&mut HostRequest, &mut Answer, &mut Body)> {
        Some((self.host.as_mut()?, &mut self.answer, &mut self.body))
    }
}
