//! Keeps what an input filter answers to a bad request body out of an answer that has begun.
//!
//! `ap_http_filter` sends an error and an end through the output filters when it cannot read
//! a body.  Behind the first part of an application's answer that reads as its last chunk:
//! what was cut would look whole, and what the application still sends would follow it.

use core::cell::Cell;
use core::ffi::{CStr, c_int};

use super::guard::guard;
use super::request::Request;
use crate::ffi;

/// What the filter is registered as.
const NAME: &CStr = c"WSGI_SHIELD";

/// Before every filter that changes an answer: none of those may see an end that is none.
const FIRST: ffi::ap_filter_type = ffi::AP_FTYPE_RESOURCE - 1;

/// What the filter and whoever reads the body share.
#[derive(Debug, Default)]
struct State {
    /// Whether the body is being read, so that what comes is no part of the answer.
    reading: Cell<bool>,
    /// The status an input filter wanted to answer with.
    verdict: Cell<c_int>,
}

/// The filter, in the chain of one request until that ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shield<'r>(&'r State);

impl<'r> Shield<'r> {
    /// Puts the filter before the others of `request`.
    pub(super) fn raise(request: &'r Request) -> Self {
        let state = request.pool().own(State::default());
        let (r, connection) = (request.as_ptr(), request.raw().connection);
        // SAFETY: request and connection are live, and the state belongs to the
        // request's pool, as the filter does.
        unsafe {
            ffi::ap_add_output_filter(
                NAME.as_ptr(),
                core::ptr::from_ref(state).cast_mut().cast(),
                r,
                connection,
            )
        };
        Self(state)
    }

    /// Runs `read`, which may ask the input filters; the status one of them wanted to
    /// answer with, if it did.
    pub(super) fn during<T>(self, read: impl FnOnce() -> T) -> (T, Option<u16>) {
        self.0.reading.set(true);
        let value = read();
        self.0.reading.set(false);
        let verdict = u16::try_from(self.0.verdict.take()).ok().filter(|status| *status > 0);
        (value, verdict)
    }
}

/// Registers the filter with httpd.
pub fn register() {
    // SAFETY: httpd registers filters while it loads modules, on its only thread; the
    // function is ours and stays as long as the module does.
    unsafe { ffi::ap_register_output_filter(NAME.as_ptr(), Some(filter), None, FIRST) };
}

/// # Safety
///
/// For httpd only, as the filter [`Shield::raise`] adds.
unsafe extern "C" fn filter(
    filter: *mut ffi::ap_filter_t,
    brigade: *mut ffi::apr_bucket_brigade,
) -> ffi::apr_status_t {
    guard(ffi::AP_FILTER_ERROR, || {
        // SAFETY: httpd calls a filter with its own live record.
        let it = unsafe { &*filter };
        // SAFETY: what `raise` gave, which lives as long as the request.
        let state = unsafe { &*it.ctx.cast::<State>() };
        if !state.reading.get() {
            // SAFETY: the rest of the live chain; the brigade is the caller's.
            return unsafe { ffi::ap_pass_brigade(it.next, brigade) };
        }
        // SAFETY: the caller's live brigade.
        state.verdict.set(unsafe { ffi::wsgi_brigade_error(brigade) });
        // SAFETY: as above.
        unsafe { ffi::apr_brigade_cleanup(brigade.cast()) };
        // SAFETY: a filter's request is live; httpd noted the end before it called us.
        unsafe { ffi::wsgi_clear_eos_sent(it.r) };
        ffi::AP_FILTER_ERROR
    })
}
