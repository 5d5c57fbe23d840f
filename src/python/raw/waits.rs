//! How long a thread waited for the right to run Python, while somebody counts.

use core::cell::Cell;
use pyo3_ffi as py;
use std::time::{Duration, Instant};

/// What a thread waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// In all.
    pub time: Duration,
    /// How often it asked.
    pub count: u32,
}

thread_local! {
    /// None while nobody counts.
    static WAITS: Cell<Option<Waits>> = const { Cell::new(None) };
}

/// From here on this thread's waits are counted, from nothing.
pub fn begin() {
    WAITS.set(Some(Waits::default()));
}

/// What was counted since [`begin`]; nothing is from here on.
pub fn end() -> Waits {
    WAITS.take().unwrap_or_default()
}

/// Attaches this thread, and counts that if somebody wants to know.
///
/// # Safety
///
/// `state` is a state of this thread, which has no current one.
#[inline]
pub(super) unsafe fn attach(state: *mut py::PyThreadState) {
    let Some(waits) = WAITS.get() else {
        // SAFETY: the caller's promise.
        return unsafe { py::PyEval_RestoreThread(state) };
    };
    let begin = Instant::now();
    // SAFETY: the caller's promise.
    unsafe { py::PyEval_RestoreThread(state) };
    let (time, count) = (waits.time + begin.elapsed(), waits.count + 1);
    WAITS.set(Some(Waits { time, count }));
}
