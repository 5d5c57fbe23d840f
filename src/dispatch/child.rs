//! The child process requests are dispatched from.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of this process: asking the kernel three times per request for what
/// never changes would be three system calls too many.
static PID: AtomicU32 = AtomicU32::new(0);

/// Notes which process this is; first thing in a child process.
pub fn begin() {
    PID.store(std::process::id(), Ordering::Relaxed);
}

/// The number of this process.
pub fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => std::process::id(),
        pid => pid,
    }
}
