//! Joining httpd's hooks: a trait per hook, and one C function per hook that
//! serves everything with that trait.

use core::ffi::{c_char, c_int};
use core::ptr;

use super::answer::Answer;
use super::guard::{guard, guard_for};
use super::pool::Pool;
use super::request::Request;
use super::server::Server;
use crate::ffi;

/// How a hook ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done what was to do.
    Ok,
    /// Not mine.
    Declined,
    /// A filter has answered already, with an error of its own.
    Answered,
    /// The request, or the start of httpd, ends with this status.
    Status(u16),
}

impl Outcome {
    /// httpd's number.
    pub(super) const fn code(self) -> c_int {
        match self {
            Self::Ok => ffi::OK,
            Self::Declined => ffi::DECLINED,
            Self::Answered => ffi::AP_FILTER_ERROR,
            Self::Status(status) => status as c_int,
        }
    }

    /// What a hook that panicked ends with.
    const PANICKED: Self = Self::Status(500);
}

/// When among the modules a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Before most.
    First,
    /// In the midst.
    Middle,
    /// After all others.
    ReallyLast,
}

impl Order {
    /// httpd's number.
    const fn number(self) -> c_int {
        match self {
            Self::First => ffi::APR_HOOK_FIRST,
            Self::Middle => ffi::APR_HOOK_MIDDLE,
            Self::ReallyLast => ffi::APR_HOOK_REALLY_LAST,
        }
    }
}

/// Runs when the configuration has been read, before logs are opened.
pub trait CheckConfig {
    /// Anything but `Ok` ends httpd.
    fn check_config(main: &Server) -> Outcome;
}

/// Runs when logs are open, before children are forked.
pub trait PostConfig {
    /// Anything but `Ok` ends httpd.  `conf` lives as long as the configuration.
    fn post_config(conf: &Pool, main: &Server) -> Outcome;
}

/// Runs in each child process when it starts.
pub trait ChildInit {
    /// `child` lives as long as the process: what it owns is dropped at its exit.
    fn child_init(child: &Pool, main: &Server);
}

/// Maps a URL to a file.
pub trait TranslateName {
    /// `Ok` ends the translation.
    fn translate_name(request: &Request) -> Outcome;
}

/// Answers requests.
pub trait Handler {
    /// `Declined` passes the request on.
    fn handle(request: &Request) -> Outcome;
}

/// Names of modules, ended by a null, in the form httpd keeps.
pub(super) struct Names<const N: usize>(pub(super) [*const c_char; N]);

// SAFETY: addresses of constants, never written.
unsafe impl<const N: usize> Sync for Names<N> {}

/// `Alias` and `Redirect` go before us, as documented.
static BEFORE_US: Names<2> = Names([c"mod_alias.c".as_ptr(), ptr::null()]);

/// These would take any URL.
static AFTER_US: Names<3> =
    Names([c"mod_userdir.c".as_ptr(), c"mod_vhost_alias.c".as_ptr(), ptr::null()]);

/// Joins `H` to the hook that checks the configuration.
pub fn check_config<H: CheckConfig>(order: Order) {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_check_config(Some(check::<H>), ptr::null(), ptr::null(), order.number());
    }
}

/// Joins `H` to the hook after the configuration.
pub fn post_config<H: PostConfig>(order: Order) {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_post_config(Some(post::<H>), ptr::null(), ptr::null(), order.number());
    }
}

/// Joins `H` to the hook of new child processes.
pub fn child_init<H: ChildInit>(order: Order) {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_child_init(Some(child::<H>), ptr::null(), ptr::null(), order.number());
    }
}

/// Joins `H` to the translation of URLs, after `mod_alias`.
pub fn translate_name<H: TranslateName>() {
    // SAFETY: called while httpd registers hooks; our shim fits the hook, and
    // the names are static.
    unsafe {
        ffi::ap_hook_translate_name(
            Some(translate::<H>),
            BEFORE_US.0.as_ptr(),
            AFTER_US.0.as_ptr(),
            ffi::APR_HOOK_MIDDLE,
        );
    }
}

/// Joins `H` to the content handlers.
pub fn handler<H: Handler>() {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_handler(Some(handle::<H>), ptr::null(), ptr::null(), ffi::APR_HOOK_MIDDLE);
    }
}

/// # Safety
///
/// For httpd only, through the hook joined in [`check_config`].
unsafe extern "C" fn check<H: CheckConfig>(
    _conf: *mut ffi::apr_pool_t,
    _log: *mut ffi::apr_pool_t,
    _temp: *mut ffi::apr_pool_t,
    main: *mut ffi::server_rec,
) -> c_int {
    guard(Outcome::PANICKED, || {
        // SAFETY: httpd's main server.
        H::check_config(unsafe { Server::borrow(main) })
    })
    .code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`post_config`].
unsafe extern "C" fn post<H: PostConfig>(
    conf: *mut ffi::apr_pool_t,
    _log: *mut ffi::apr_pool_t,
    _temp: *mut ffi::apr_pool_t,
    main: *mut ffi::server_rec,
) -> c_int {
    guard(Outcome::PANICKED, || {
        // SAFETY: httpd's pool of the configuration.
        let conf = unsafe { Pool::borrow(conf) };
        // SAFETY: httpd's main server.
        H::post_config(conf, unsafe { Server::borrow(main) })
    })
    .code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`child_init`].
unsafe extern "C" fn child<H: ChildInit>(pool: *mut ffi::apr_pool_t, main: *mut ffi::server_rec) {
    guard((), || {
        // SAFETY: httpd's pool for this child process; the hook runs before
        // the process has other threads.
        let pool = unsafe { Pool::borrow(pool) };
        // SAFETY: httpd's main server.
        H::child_init(pool, unsafe { Server::borrow(main) });
    });
}

/// # Safety
///
/// For httpd only, through the hook joined in [`translate_name`].
unsafe extern "C" fn translate<H: TranslateName>(r: *mut ffi::request_rec) -> c_int {
    // SAFETY: httpd hands each hook a live request that no other thread uses
    // until the hook returns.
    let request = unsafe { Request::borrow(r) };
    guard_for(request, Outcome::PANICKED, || H::translate_name(request)).code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`handler`].
unsafe extern "C" fn handle<H: Handler>(r: *mut ffi::request_rec) -> c_int {
    // SAFETY: httpd hands each handler a live request that no other thread
    // uses until the handler returns.
    let request = unsafe { Request::borrow(r) };
    let outcome = guard_for(request, Outcome::PANICKED, || H::handle(request));
    match outcome {
        // The client has its answer: a filter refused the request body.
        Outcome::Status(_) if request.is_answered() => Outcome::Answered.code(),
        // An error page would be taken for the rest of the answer.
        Outcome::Status(_) if request.has_begun() => {
            guard((), || Answer::new(request).cut());
            Outcome::Ok.code()
        }
        outcome => outcome.code(),
    }
}
