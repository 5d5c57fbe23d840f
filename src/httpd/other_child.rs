//! Processes of ours that httpd's main process waits for beside its children.

use core::ffi::{c_int, c_void};

use super::guard::guard;
use super::pool::Pool;
use crate::ffi;

/// Why httpd calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The process ended, with this wait status.
    Ended(i32),
    /// Someone else waited for the process.
    Lost,
    /// httpd restarts at once or stops; may come several times.  The process
    /// goes on unless told otherwise.
    Restart,
}

/// Told about a process.
pub trait Watch {
    /// Runs in httpd's main process, between its own duties.
    fn news(pid: u32, news: News);
}

/// A process that httpd watches.
struct Watched {
    process: ffi::apr_proc_t,
}

/// Lets httpd tell `W` about the process `pid`, which it must have forked.
///
/// Ends when the process does, or when `conf` is cleared.
pub fn watch<W: Watch>(conf: &Pool, pid: u32) {
    let process = ffi::apr_proc_t {
        pid: ffi::pid_t::try_from(pid).unwrap_or(0),
        in_: core::ptr::null_mut(),
        out: core::ptr::null_mut(),
        err: core::ptr::null_mut(),
    };
    let watched: *mut Watched = conf.own_raw(Watched { process }).cast();
    // SAFETY: the record made above; only the field's address is taken.
    let process = unsafe { &raw mut (*watched).process };
    // SAFETY: `conf` keeps the record until after APR's own cleanup, which was
    // registered later and therefore runs earlier.
    unsafe {
        ffi::apr_proc_other_child_register(
            process,
            Some(tell::<W>),
            watched.cast(),
            core::ptr::null_mut(),
            conf.as_ptr(),
        );
    }
}

/// # Safety
///
/// For APR only, through [`watch`].
unsafe extern "C" fn tell<W: Watch>(reason: c_int, watched: *mut c_void, status: c_int) {
    guard((), || {
        // SAFETY: the record `watch` registered; its pool is alive.
        let pid = unsafe { (*watched.cast::<Watched>()).process.pid };
        let pid = u32::try_from(pid).unwrap_or(0);
        let news = match reason {
            ffi::APR_OC_REASON_DEATH => News::Ended(status),
            ffi::APR_OC_REASON_LOST => News::Lost,
            ffi::APR_OC_REASON_RESTART => News::Restart,
            _ => return,
        };
        if news != News::Restart {
            // SAFETY: still registered; this calls us again, with a reason we
            // leave out above.
            unsafe { ffi::apr_proc_other_child_unregister(watched) };
        }
        W::news(pid, news);
    });
}
