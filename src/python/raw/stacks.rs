//! The signal that writes the stacks of all interpreters to standard error,
//! whoever has the GIL.
//!
//! `faulthandler` shows one interpreter only, mostly the main one; applications
//! run in others.  What it does is called for each, where libpython exports it.

use super::symbols;
use core::ffi::c_int;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use pyo3_ffi as py;
use std::sync::OnceLock;

/// What shows the threads of one interpreter in 3.11 and 3.12; safe in a signal handler.
pub(super) type HiddenDump = unsafe extern "C" fn(
    c_int,
    *mut py::PyInterpreterState,
    *mut py::PyThreadState,
) -> *const libc::c_char;

/// The same from 3.15 on; the last is how many threads are shown.
pub(super) type PublicDump = unsafe extern "C" fn(
    c_int,
    *mut py::PyInterpreterState,
    *mut py::PyThreadState,
    py::Py_ssize_t,
) -> *const libc::c_char;

/// Whichever of them there is.
#[derive(Clone, Copy)]
pub(super) enum Dump {
    /// See [`HiddenDump`].
    Hidden(HiddenDump),
    /// See [`PublicDump`].
    Public(PublicDump),
}

impl Dump {
    /// Writes what the threads of `interpreter` run to standard error.
    ///
    /// # Safety
    ///
    /// The interpreter has not ended.
    unsafe fn show(self, interpreter: *mut py::PyInterpreterState) {
        match self {
            // SAFETY: the caller's promise; made for signal handlers.
            Self::Hidden(dump) => unsafe { dump(2, interpreter, null_mut()) },
            // SAFETY: as above.
            Self::Public(dump) => unsafe { dump(2, interpreter, null_mut(), MOST_THREADS) },
        };
    }
}

/// So many threads of each interpreter are shown, as `faulthandler` has it.
const MOST_THREADS: py::Py_ssize_t = 100;

/// More interpreters than this are not shown: a signal handler cannot make room.
const MOST: usize = 128;

/// The interpreters there are.
static INTERPRETERS: [AtomicPtr<py::PyInterpreterState>; MOST] =
    [const { AtomicPtr::new(null_mut()) }; MOST];

/// Set once there is a handler.
static DUMP: OnceLock<Dump> = OnceLock::new();

/// Notes an interpreter that has begun.
pub(super) fn add(interpreter: *mut py::PyInterpreterState) {
    for place in &INTERPRETERS {
        let free = null_mut();
        if place.compare_exchange(free, interpreter, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// Forgets an interpreter that is about to end.
pub(super) fn remove(interpreter: *mut py::PyInterpreterState) {
    for place in &INTERPRETERS {
        let _ =
            place.compare_exchange(interpreter, null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Has `signal` write the stacks; false if this libpython does not export what
/// does it (3.11 and 3.12 do).  Either way the signal does no harm any more: at its
/// end Python gives it back as `faulthandler` found it.
pub fn write_on(signal: c_int) -> bool {
    let dump = symbols::dump_threads();
    if let Some(dump) = dump {
        let _ = DUMP.set(dump);
    }
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = write as *const () as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: a whole action; the handler does what is allowed in one, and this
    // library is never unloaded.
    let set = unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
    dump.is_some() && set == 0
}

/// Runs in a signal handler.
extern "C" fn write(_signal: c_int) {
    // Only looks: nothing is set any more that could be waited for.
    let Some(dump) = DUMP.get() else { return };
    // SAFETY: asks for a place that is this thread's alone.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above.
    let kept = unsafe { *errno };
    for place in &INTERPRETERS {
        let interpreter = place.load(Ordering::Acquire);
        if !interpreter.is_null() {
            // SAFETY: an interpreter that has not ended.
            unsafe { dump.show(interpreter) };
            // SAFETY: one byte of a static text.
            unsafe { libc::write(2, c"\n".as_ptr().cast(), 1) };
        }
    }
    // SAFETY: see above.
    unsafe { *errno = kept };
}
