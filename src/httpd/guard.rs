//! The wall: no panic unwinds into httpd.

use std::panic::{self, AssertUnwindSafe};

use super::log::Process;

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

/// Makes every panic a line in the error log.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let what = info
            .payload()
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        match info.location() {
            Some(at) => {
                crit!(Process, WSGI9001, "panicked at {}:{}: {what}", at.file(), at.line());
            }
            None => crit!(Process, WSGI9001, "panicked: {what}"),
        }
    }));
}
