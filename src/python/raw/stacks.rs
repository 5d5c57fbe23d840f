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

/// What shows the threads of one interpreter; safe in a signal handler.
pub(super) type Dump = unsafe extern "C" fn(
    c_int,
    *mut py::PyInterpreterState,
    *mut py::PyThreadState,
) -> *const libc::c_char;

/// More interpreters than this are not shown: a signal handler cannot make room.
const MOST: usize = 128;

/// The interpreters there are.
static INTERPRETERS: [AtomicPtr<py::PyInterpreterState>; MOST] =
    [const { AtomicPtr::new(null_mut()) }; MOST];

/// A [`Dump`], once there is a handler.
static DUMP: AtomicPtr<core::ffi::c_void> = AtomicPtr::new(null_mut());

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
        DUMP.store(dump as *mut core::ffi::c_void, Ordering::Release);
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
    let dump = DUMP.load(Ordering::Acquire);
    if dump.is_null() {
        return;
    }
    // SAFETY: asks for a place that is this thread's alone.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: see above.
    let kept = unsafe { *errno };
    // SAFETY: stored by `write_on`, of this type.
    let dump = unsafe { core::mem::transmute::<*mut core::ffi::c_void, Dump>(dump) };
    for place in &INTERPRETERS {
        let interpreter = place.load(Ordering::Acquire);
        if !interpreter.is_null() {
            // SAFETY: an interpreter that has not ended; made for signal handlers.
            unsafe { dump(2, interpreter, null_mut()) };
            // SAFETY: one byte of a static text.
            unsafe { libc::write(2, c"\n".as_ptr().cast(), 1) };
        }
    }
    // SAFETY: see above.
    unsafe { *errno = kept };
}
