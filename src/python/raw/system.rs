//! The few calls to the system that std does not offer safely.

use core::ffi::c_int;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process was forked after [`watch_forks`].
static FORKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether the child of a fork by this thread ends at once.  Interpreters with
    /// locks of their own may fork at the same time.
    static BARRED: Cell<bool> = const { Cell::new(false) };
}

/// What such a child says: its own way to the host's log may be locked for ever.
static CANNOT_RUN: &str = "WSGI9408: a process forked by the application ends at once: Python \
    cannot fork in a process with several interpreters; give the application a process group of \
    its own and WSGIApplicationGroup %{GLOBAL}\n";

/// Says whether the child of a fork by this thread is to end at once.
pub fn bar_forks(barred: bool) {
    BARRED.set(barred);
}

/// Whether this process was forked from the one that started Python.
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Notes forks from now on; false if the system refuses.
pub fn watch_forks() -> bool {
    /// Runs in the child.
    extern "C" fn note() {
        FORKED.store(true, Ordering::Relaxed);
        if BARRED.get() {
            // SAFETY: a static text, to the standard error stream, whatever that is.
            unsafe { libc::write(2, CANNOT_RUN.as_ptr().cast(), CANNOT_RUN.len()) };
            leave(1);
        }
    }
    // SAFETY: the handler does what is allowed after a fork of a process with
    // threads: atomics, `write` and `_exit`; this library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(note)) == 0 }
}

/// Ends a forked process without what is its parent's to do at the end.
pub fn leave(status: c_int) -> ! {
    // SAFETY: runs nothing of this process' and does not return.
    unsafe { libc::_exit(status) }
}

/// The size of the regular file `fd`; None if it is not one, or not open for
/// reading.
pub fn regular_file_size(fd: c_int) -> Option<u64> {
    // SAFETY: `fcntl` answers or fails, whatever `fd` is.
    let mode = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if mode < 0 || mode & libc::O_ACCMODE == libc::O_WRONLY {
        return None;
    }
    // SAFETY: `stat` is plain numbers, for which zero is a value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `fstat` fills the structure or fails, whatever `fd` is.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return None;
    }
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    u64::try_from(stat.st_size).ok()
}

/// What a thread or the process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode, in µs.
    pub user: u64,
    /// Processor time in the kernel, in µs.
    pub system: u64,
    /// Most memory the process ever had, in bytes.
    pub most_memory: u64,
}

/// What this thread has used.
pub fn thread_usage() -> Option<Usage> {
    usage(libc::RUSAGE_THREAD)
}

/// What this process has used.
pub fn process_usage() -> Option<Usage> {
    usage(libc::RUSAGE_SELF)
}

/// What `who` has used.
fn usage(who: c_int) -> Option<Usage> {
    // SAFETY: `rusage` is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: fills the structure or fails.
    if unsafe { libc::getrusage(who, &raw mut usage) } != 0 {
        return None;
    }
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Some(Usage {
        user: micros(usage.ru_utime),
        system: micros(usage.ru_stime),
        most_memory: usage.ru_maxrss as u64 * 1024,
    })
}

/// Bytes of memory the process has at the moment; None where `/proc` is not to be
/// seen.
pub fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// The name of this machine.
pub fn host_name() -> Vec<u8> {
    let mut name = vec![0_u8; 256];
    // SAFETY: fills at most so many bytes, or fails.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return Vec::new();
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}
