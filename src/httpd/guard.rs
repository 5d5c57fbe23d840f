//! The wall: no panic unwinds into httpd.

use core::cell::Cell;
use core::ptr;
use std::panic::{self, AssertUnwindSafe};

use super::log::Process;
use super::request::Request;

thread_local! {
    /// The request this thread serves, for the log of a panic.
    ///
    /// Without destructor: one would keep httpd from unloading the module.
    static SERVING: Cell<*const Request> = const { Cell::new(ptr::null()) };
}

/// Runs `body`; if it panics, returns `otherwise` instead of unwinding into
/// httpd.  By then the hook of [`log_panics`] has written message and place.
pub fn guard<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    // What `body` borrowed belongs to the request or to httpd, and both are
    // done with after the 500, so no half-changed Rust value is looked at again.
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            // Dropping a payload may panic again, outside the wall.
            core::mem::forget(payload);
            otherwise
        }
    }
}

/// As [`guard`], for what is done for `request`: a panic is a line in its log.
pub fn guard_for<T>(request: &Request, otherwise: T, body: impl FnOnce() -> T) -> T {
    // A request may be served within another: internal redirects nest.
    let outer = SERVING.replace(request);
    let value = guard(otherwise, body);
    SERVING.set(outer);
    value
}

/// Makes every panic a line in the error log.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let what = info
            .payload()
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
        let request = SERVING.get();
        // SAFETY: null, or borrowed by the `guard_for` whose body panics.
        match unsafe { request.as_ref() } {
            Some(r) => crit!(r, WSGI9001, "panicked at {file}:{line}: {what}"),
            None => crit!(Process, WSGI9001, "panicked at {file}:{line}: {what}"),
        }
    }));
}
