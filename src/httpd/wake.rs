//! Wakes httpd's main process after a graceful restart: it sleeps a whole second
//! before it starts new child processes, while the old ones have closed their
//! listeners and nobody accepts connections.
//!
//! `ap_wait_or_timeout` sleeps in `select`, which any handled signal ends; what
//! the MPM does then is what it would do after the second.  So a timer sends
//! signals whose handler does nothing.

use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::{AtomicI32, Ordering};
use core::time::Duration;

use super::pool::Pool;

/// What a timer of the process sends.
const SIGNAL: c_int = libc::SIGALRM;

/// Between signals.  Shorter, and a busy machine may not be asleep yet when the
/// last one comes; longer, and the pause is one that people notice.
const INTERVAL: Duration = Duration::from_millis(20);

/// How many signals.  The first may come before the sleep begins; one too many
/// only lets the MPM count its idle children once more.
const SIGNALS: i32 = 3;

/// How many signals are still to come.
static LEFT: AtomicI32 = AtomicI32::new(0);

/// Whether this process has our handler.
struct Awake;

impl Drop for Awake {
    /// Before httpd unloads the module, and with it the handler.
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
        set_handler(libc::SIG_DFL);
    }
}

/// Ends the next few sleeps of this process early; call it last in post_config.
///
/// Left undone where another module uses the signal or its timer.
pub fn soon(conf: &Pool) {
    if !is_free() {
        return;
    }
    LEFT.store(SIGNALS, Ordering::Relaxed);
    let handler: extern "C" fn(c_int) = on_signal;
    set_handler(handler as libc::sighandler_t);
    conf.own(Awake);
    set_timer(INTERVAL);
}

/// In a child process, which inherits the handler but not the timer.
pub fn forget() {
    let handler: extern "C" fn(c_int) = on_signal;
    if handler_now() == Some(handler as libc::sighandler_t) {
        set_handler(libc::SIG_DFL);
    }
}

/// Comes back to whatever slept; calls what is async-signal-safe only.
extern "C" fn on_signal(_number: c_int) {
    if LEFT.fetch_sub(1, Ordering::Relaxed) <= 1 {
        set_timer(Duration::ZERO);
    }
}

/// Whether nobody else uses signal or timer.
fn is_free() -> bool {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut timer = libc::itimerval { it_interval: none, it_value: none };
    // SAFETY: the record is ours.
    let asked = unsafe { libc::getitimer(libc::ITIMER_REAL, &raw mut timer) };
    let is_stopped = timer.it_value.tv_sec == 0 && timer.it_value.tv_usec == 0;
    asked == 0 && is_stopped && handler_now() == Some(libc::SIG_DFL)
}

/// What the signal does.
fn handler_now() -> Option<libc::sighandler_t> {
    let mut action = core::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the record is ours.
    let asked = unsafe { libc::sigaction(SIGNAL, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroed, and a record of numbers: initialised either way.
    let action = unsafe { action.assume_init() };
    (asked == 0).then_some(action.sa_sigaction)
}

/// Decides what the signal does.  Calls it interrupts go on, but for the sleeps:
/// those end whatever is asked.
fn set_handler(handler: libc::sighandler_t) {
    // SAFETY: a record of numbers and pointers, for which 0 is valid.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler lives as long as the module, which gives it up before.
    unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) };
}

/// Lets the signal come every `interval`; zero stops it.
fn set_timer(interval: Duration) {
    let micros = libc::suseconds_t::from(interval.subsec_micros());
    let every = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the record is ours; a single call of the kernel, safe in a handler.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}
