//! One request's state, shared by the objects the application gets for it.
//!
//! The application may keep those objects or hand them to other threads, so the
//! state stands behind a lock and loses the host's request at the end.
//!
//! While the lock is held, nothing may raise or make an object the garbage
//! collector knows: either may run a finalizer of the application, and that may
//! want the lock.
#![forbid(unsafe_code)]

use crate::headers::Response;
use crate::input::Body;
use crate::log::Lines;
use crate::raw::{Attached, Builtin, Fault, HostRequest, Raised};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// What the threads of one request share.
pub struct Exchange {
    state: Mutex<State>,
    /// What `wsgi.errors` has of its next line.
    pub lines: Mutex<Lines>,
}

/// A request being handled.
pub struct State {
    /// None once the request is over.
    host: Option<HostRequest>,
    /// The answer.
    pub answer: Answer,
    /// The request body.
    pub body: Body,
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

thread_local! {
    /// The request this thread is handling: `sys.stderr` goes to its log.
    static CURRENT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
}

/// The request this thread is handling.
pub fn current() -> Option<Arc<Exchange>> {
    // A thread that ends runs finalizers of the application, perhaps after this
    // is gone.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

impl Exchange {
    /// A request that begins, on the thread that handles it.
    pub fn begin(host: HostRequest, head_only: bool, body: Option<usize>) -> Arc<Self> {
        let answer = Answer { head_only, ..Answer::default() };
        let state = State { host: Some(host), answer, body: Body::new(body) };
        let exchange =
            Arc::new(Self { state: Mutex::new(state), lines: Mutex::new(Lines::default()) });
        CURRENT.set(Some(Arc::clone(&exchange)));
        exchange
    }

    /// Ends the request: nothing reaches the host any more.
    pub fn end(&self, py: Attached<'_>) {
        CURRENT.set(None);
        self.lock(py).host = None;
    }

    /// The state; waits detached for another thread that has it, which may be
    /// waiting for the right to run Python.
    pub fn lock(&self, py: Attached<'_>) -> MutexGuard<'_, State> {
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                py.detached(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// The state of a request that is not over; raises RuntimeError otherwise.
    pub fn open(&self, py: Attached<'_>) -> Result<MutexGuard<'_, State>, Raised> {
        let state = self.lock(py);
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

    /// Writes one line to the request's log; false if the request is over.
    pub fn log(&self, py: Attached<'_>, level: u32, message: &str) -> bool {
        match &mut self.lock(py).host {
            Some(host) => {
                host.log(level, message);
                true
            }
            None => false,
        }
    }
}

/// Raises what an object raises that is used after its request.
pub fn over(py: Attached<'_>) -> Raised {
    py.raise(Builtin::RuntimeError, "the request this object belongs to is over")
}

impl State {
    /// The host's request and the rest of the state.
    pub fn parts(&mut self) -> Option<(&mut HostRequest, &mut Answer, &mut Body)> {
        Some((self.host.as_mut()?, &mut self.answer, &mut self.body))
    }
}
