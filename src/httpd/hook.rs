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
    /// The answer has been sent; nothing more is to be done.
    Done,
    /// A filter has answered already, with an error of its own.
    Answered,
    /// The request, or the start of httpd, ends with this status.
    Status(u16),
}

impl Outcome {
    /// httpd's number.
    const fn code(self) -> c_int {
        match self {
            Self::Ok => ffi::OK,
            Self::Declined => ffi::DECLINED,
            Self::Done => ffi::DONE,
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
    /// Before `First`.
    ReallyFirst,
    /// Before most.
    First,
    /// In the midst.
    Middle,
    /// After most.
    Last,
    /// After `Last`.
    ReallyLast,
}

impl Order {
    /// httpd's number.
    const fn number(self) -> c_int {
        match self {
            Self::ReallyFirst => ffi::APR_HOOK_REALLY_FIRST,
            Self::First => ffi::APR_HOOK_FIRST,
            Self::Middle => ffi::APR_HOOK_MIDDLE,
            Self::Last => ffi::APR_HOOK_LAST,
            Self::ReallyLast => ffi::APR_HOOK_REALLY_LAST,
        }
    }
}

/// The pools of a configuration.
#[derive(Clone, Copy)]
pub struct Pools<'p> {
    /// Lives as long as the configuration.
    pub conf: &'p Pool,
    /// Lives as long as the logs stay open.
    pub log: &'p Pool,
    /// Lives until the configuration has been read.
    pub temp: &'p Pool,
}

impl Pools<'_> {
    /// # Safety
    ///
    /// The pools are those httpd hands to a configuration hook.
    unsafe fn borrow(
        conf: *mut ffi::apr_pool_t,
        log: *mut ffi::apr_pool_t,
        temp: *mut ffi::apr_pool_t,
    ) -> Self {
        Self {
            // SAFETY: the caller's promise.
            conf: unsafe { Pool::borrow(conf) },
            // SAFETY: the caller's promise.
            log: unsafe { Pool::borrow(log) },
            // SAFETY: the caller's promise.
            temp: unsafe { Pool::borrow(temp) },
        }
    }
}

/// Runs before the configuration is read.
pub trait PreConfig {
    /// Anything but `Ok` ends httpd.
    fn pre_config(pools: Pools<'_>) -> Outcome;
}

/// Runs when the configuration has been read, before logs are opened.
pub trait CheckConfig {
    /// Anything but `Ok` ends httpd.
    fn check_config(pools: Pools<'_>, main: &Server) -> Outcome;
}

/// Runs when logs are open, before children are forked.
pub trait PostConfig {
    /// Anything but `Ok` ends httpd.
    fn post_config(pools: Pools<'_>, main: &Server) -> Outcome;
}

/// Runs for `apachectl -t`, when the configuration is correct.
pub trait TestConfig {
    /// Prints what it has to say.
    fn test_config(conf: &Pool, main: &Server);
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
struct Names<const N: usize>([*const c_char; N]);

// SAFETY: addresses of constants, never written.
unsafe impl<const N: usize> Sync for Names<N> {}

/// `Alias` and `Redirect` go before us, as documented.
static BEFORE_US: Names<2> = Names([c"mod_alias.c".as_ptr(), ptr::null()]);

/// These would take any URL.
static AFTER_US: Names<3> =
    Names([c"mod_userdir.c".as_ptr(), c"mod_vhost_alias.c".as_ptr(), ptr::null()]);

/// Joins `H` to the hook before the configuration.
pub fn pre_config<H: PreConfig>(order: Order) {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_pre_config(Some(pre::<H>), ptr::null(), ptr::null(), order.number());
    }
}

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

/// Joins `H` to the hook of `apachectl -t`.
pub fn test_config<H: TestConfig>(order: Order) {
    // SAFETY: called while httpd registers hooks; our shim fits the hook.
    unsafe {
        ffi::ap_hook_test_config(Some(test::<H>), ptr::null(), ptr::null(), order.number());
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
/// For httpd only, through the hook joined in [`pre_config`].
unsafe extern "C" fn pre<H: PreConfig>(
    conf: *mut ffi::apr_pool_t,
    log: *mut ffi::apr_pool_t,
    temp: *mut ffi::apr_pool_t,
) -> c_int {
    guard(Outcome::PANICKED, || {
        // SAFETY: httpd's pools for this hook.
        H::pre_config(unsafe { Pools::borrow(conf, log, temp) })
    })
    .code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`check_config`].
unsafe extern "C" fn check<H: CheckConfig>(
    conf: *mut ffi::apr_pool_t,
    log: *mut ffi::apr_pool_t,
    temp: *mut ffi::apr_pool_t,
    main: *mut ffi::server_rec,
) -> c_int {
    guard(Outcome::PANICKED, || {
        // SAFETY: httpd's pools for this hook.
        let pools = unsafe { Pools::borrow(conf, log, temp) };
        // SAFETY: httpd's main server.
        H::check_config(pools, unsafe { Server::borrow(main) })
    })
    .code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`post_config`].
unsafe extern "C" fn post<H: PostConfig>(
    conf: *mut ffi::apr_pool_t,
    log: *mut ffi::apr_pool_t,
    temp: *mut ffi::apr_pool_t,
    main: *mut ffi::server_rec,
) -> c_int {
    guard(Outcome::PANICKED, || {
        // SAFETY: httpd's pools for this hook.
        let pools = unsafe { Pools::borrow(conf, log, temp) };
        // SAFETY: httpd's main server.
        H::post_config(pools, unsafe { Server::borrow(main) })
    })
    .code()
}

/// # Safety
///
/// For httpd only, through the hook joined in [`test_config`].
unsafe extern "C" fn test<H: TestConfig>(conf: *mut ffi::apr_pool_t, main: *mut ffi::server_rec) {
    guard((), || {
        // SAFETY: httpd's pool for this hook.
        let conf = unsafe { Pool::borrow(conf) };
        // SAFETY: httpd's main server.
        H::test_config(conf, unsafe { Server::borrow(main) });
    });
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
