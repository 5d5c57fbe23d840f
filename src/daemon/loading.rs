//! What is logged while a process loads its scripts: held back if a process before
//! it said the same.
#![forbid(unsafe_code)]

use super::log::ProcessLog;
use crate::host::Source;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use wsgi_wire::vtable::level;

/// The lines of the errors of one loading.
struct Lines {
    hasher: DefaultHasher,
    /// Held back, until it is known whether they are news; none: they are.
    held: Option<Vec<(u32, String)>>,
}

/// Held lines are not news after all if they are more than this: whoever logs
/// without end while loading is not to fill the memory.
const MOST_HELD: usize = 1000;

/// The loading of this process' scripts, while it lasts.
static LOADING: Mutex<Option<Lines>> = Mutex::new(None);

/// The process whose loading it is; 0: none loads.  One that it forked must not ask for
/// a lock that a thread may have held which it does not have.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// From here on lines are looked at; held back if there is a failure that they may
/// only repeat.
pub fn begin(known_failure: Option<u64>) {
    let held = known_failure.map(|_| Vec::new());
    *lock() = Some(Lines { hasher: DefaultHasher::new(), held });
    OWNER.store(std::process::id(), Ordering::Relaxed);
}

/// A line of the runtime, on its way to `log`.
pub fn line(log: &ProcessLog, level: u32, message: &str, source: Option<Source<'_>>) {
    let owner = OWNER.load(Ordering::Relaxed);
    let is_looked_at = level <= level::ERROR && owner != 0 && owner == std::process::id();
    if is_looked_at && let Some(lines) = lock().as_mut() {
        message.hash(&mut lines.hasher);
        if let Some(held) = &mut lines.held
            && held.len() < MOST_HELD
        {
            held.push((level, message.to_owned()));
            return;
        }
    }
    log.write_from(level, message, source);
}

/// The loading is over: a hash of what was logged about its failure, if it has one.
/// Lines that were held back are written unless they repeat `known_failure`.
pub fn end(log: &ProcessLog, is_complete: bool, known_failure: Option<u64>) -> Option<u64> {
    OWNER.store(0, Ordering::Relaxed);
    let lines = lock().take()?;
    let failure = (!is_complete).then(|| lines.hasher.finish());
    if failure.is_none() || failure != known_failure {
        for (level, message) in lines.held.unwrap_or_default() {
            log.write(level, &message);
        }
    }
    failure
}

fn lock() -> std::sync::MutexGuard<'static, Option<Lines>> {
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}
