//! The process: one Python, its interpreters by the name of their application
//! group.
#![forbid(unsafe_code)]

use crate::exchange;
use crate::interpreter::{Group, Place};
use crate::log::Sink;
use crate::metrics::Metrics;
use crate::raw::{self, Attached, Exception, HostLog, Interpreter, Raised, Settings, stacks};
use crate::telemetry;
use crate::watch::{Nudges, Running};
use std::collections::HashMap;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use wsgi_wire::vtable::level;

/// A started Python.
pub struct Runtime {
    /// The process' log.
    pub log: HostLog,
    /// What it was started with.
    pub settings: Settings,
    /// Serialises the loading of scripts.
    pub loading: Mutex<()>,
    /// By name; the main interpreter's is empty.
    groups: RwLock<HashMap<Vec<u8>, Arc<Group>>>,
    /// Serialises the making of interpreters.
    making: Mutex<()>,
    /// How many sub-interpreters were made; none has a number twice.
    made: AtomicUsize,
    /// How many calls are inside Python.
    inside: AtomicUsize,
    /// The requests that run.
    pub requests: Running,
    /// What makes other threads give up the GIL.
    pub nudges: Nudges,
    /// What the process has done.
    pub metrics: Metrics,
}

/// Set once, by [`start`].
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The process' log, as soon as there is one.
static LOG: OnceLock<HostLog> = OnceLock::new();

/// The started Python.
pub fn running() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// The process' log.
pub fn log() -> Option<HostLog> {
    LOG.get().copied()
}

/// Starts Python with its main interpreter; false after logging why not.
pub fn start(log: HostLog, mut settings: Settings) -> bool {
    let _ = LOG.set(log);
    log_panics(log);
    if !raw::system::watch_forks() {
        log.line(level::CRIT, "WSGI0036: Python cannot be started: no memory for a fork handler");
        return false;
    }
    telemetry::prepare(log, &settings);
    for directive in raw::configuration::prepare(&settings.options) {
        let message = format!("WSGI9412: {directive} is not in force: this Python cannot do it");
        log.line(level::WARN, &message);
    }
    let interpreter = match raw::initialize(&settings.program, &settings.options) {
        Ok(interpreter) => interpreter,
        Err(error) => {
            let message = format!("WSGI0036: Python cannot be started: {error}");
            log.line(level::CRIT, &message);
            return false;
        }
    };
    if settings.options.wants_free_threading() && !cfg!(free_threaded) {
        let text = "WSGI0200: WSGIFreeThreading has no effect: this Python has a lock";
        log.line(level::WARN, text);
    }
    // What is left to do falls to `faulthandler`.
    settings.stacks_signal = settings.stacks_signal.filter(|signal| !stacks::write_on(*signal));
    let runtime = Runtime {
        log,
        settings,
        loading: Mutex::new(()),
        groups: RwLock::default(),
        making: Mutex::new(()),
        made: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
        requests: Running::default(),
        nudges: Nudges::default(),
        metrics: Metrics::new(),
    };
    let main = runtime.furnish(interpreter, b"");
    let started = main.is_some();
    if let Some(main) = main {
        runtime.insert(main);
    }
    let started = RUNTIME.set(runtime).is_ok() && started;
    if let Some(runtime) = running().filter(|_| started) {
        telemetry::begin(runtime);
    }
    started
}

/// Makes every panic of this library one line of the process' log; the call it
/// happened in fails.
fn log_panics(log: HostLog) {
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let reason = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no reason given");
        let message = format!("WSGI9406: panicked at {place}: {reason}; the request fails");
        log.line(level::CRIT, &message.replace('\n', " "));
    }));
}

/// One call that is inside Python.
pub struct Inside<'r>(&'r Runtime);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Release);
    }
}

impl Runtime {
    /// Counts a call as being inside Python.
    pub fn enter(&self) -> Inside<'_> {
        self.inside.fetch_add(1, Ordering::Acquire);
        Inside(self)
    }

    /// Whether this is a child process of httpd, not a daemon process.
    pub fn is_embedded(&self) -> bool {
        self.settings.process_group.is_empty()
    }

    /// Whether there is, or was, an interpreter beside the main one.
    pub fn has_several_interpreters(&self) -> bool {
        self.made.load(Ordering::Relaxed) > 0
    }

    /// The application group `name`, made on first use; None after logging why
    /// not.
    pub fn group(&self, name: &[u8]) -> Option<Arc<Group>> {
        if let Some(group) = self.find(name) {
            return Some(group);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = self.find(name) {
            return Some(group);
        }
        // A request this thread is handling may be locked while httpd's filters, which
        // made another one, have it: what is said here must not go to its log.
        let _aside = exchange::step_aside();
        let main = self.main()?;
        let shown = String::from_utf8_lossy(name);
        self.log.line(level::INFO, &format!("Creating interpreter '{shown}'."));
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let owns_gil = self.may_own_gil(&main, &shown, self.settings.options.of(name).own_gil);
        let Some(interpreter) = Interpreter::create(&main.interpreter, number, owns_gil) else {
            let message = format!("WSGI0103: interpreter '{shown}' cannot be created");
            self.log.line(level::ERROR, &message);
            return None;
        };
        let group = self.furnish(interpreter, name)?;
        self.insert(Arc::clone(&group));
        Some(group)
    }

    /// Whether interpreter `name` has a lock of its own where that is `wanted`; `main` is
    /// the main interpreter's group.
    fn may_own_gil(&self, main: &Group, name: &str, wanted: bool) -> bool {
        static WARNED: AtomicBool = AtomicBool::new(false);
        if !wanted {
            return false;
        }
        let without = if !raw::configuration::can_own_gil() {
            "WSGI0198: WSGIPerInterpreterGIL needs Python 3.12 or newer"
        } else if !main.has_lock() {
            "WSGI0202: WSGIPerInterpreterGIL is not used: this process runs without a lock"
        } else {
            return true;
        };
        if !WARNED.swap(true, Ordering::Relaxed) {
            let shares = match without.starts_with("WSGI0198") {
                true => format!("{without}: interpreter '{name}', and others, share one lock"),
                false => format!("{without} [application group '{name}']"),
            };
            self.log.line(level::WARN, &shares);
        }
        false
    }

    /// The application group `name`, if it was made.
    fn find(&self, name: &[u8]) -> Option<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The main interpreter's group.
    pub fn main(&self) -> Option<Arc<Group>> {
        self.find(b"")
    }

    /// All application groups, the main interpreter's last.
    pub fn groups_main_last(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut groups: Vec<_> = groups.values().cloned().collect();
        groups.sort_by_key(|group| group.name.is_empty());
        groups
    }

    /// Remembers an application group.
    fn insert(&self, group: Arc<Group>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(group.name.clone(), group);
    }

    /// Sets up a new interpreter; None after logging why not.
    fn furnish(&self, interpreter: Interpreter, name: &[u8]) -> Option<Arc<Group>> {
        let lease = interpreter.attach()?;
        let py = lease.py();
        let place =
            Place::new(py, &self.settings, name, interpreter.owns_gil()).map_err(|raised| {
                let error = raised.take(py);
                self.log_setup_failure(name, &error);
            });
        drop(lease);
        match place {
            Ok(place) => Some(Arc::new(Group::new(name, interpreter, place))),
            Err(()) => {
                // Each request to the group tries again; they must not pile up.
                interpreter.end();
                None
            }
        }
    }

    /// Logs why an interpreter was not set up.
    fn log_setup_failure(&self, name: &[u8], error: &Exception<'_>) {
        let name = String::from_utf8_lossy(name);
        let summary = crate::log::summary(error);
        let message = format!("WSGI0035: interpreter '{name}' cannot be set up: {summary}");
        self.log.line(level::CRIT, &message);
    }
}

/// Warns, once in the process, that a binary log stream was given text.
pub fn warn_about_text(py: Attached<'_>) -> Result<(), Raised> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    py.warn_deprecated("writing str to a binary log stream")
}

/// Ends Python as far as it can be ended without aborting the process.
pub fn stop() {
    let Some(runtime) = running() else { return };
    telemetry::stop();
    if runtime.settings.options.keeps_interpreters {
        return;
    }
    raw::stop_threads();
    let busy = runtime.inside.load(Ordering::Acquire) > 0;
    let mut left = busy || !runtime.nudges.are_over();
    for group in runtime.groups_main_last() {
        run_callbacks(&group);
        match group.name.is_empty() {
            false => left |= !group.interpreter.end(),
            // CPython aborts the process if it ends before a sub-interpreter; and
            // a thread that comes back to an ended Python never returns.
            true if !left => raw::finalize(&group.interpreter),
            true => {}
        }
    }
}

/// Waits for an interpreter's threads and runs its atexit callbacks.
fn run_callbacks(group: &Group) {
    let Some(lease) = group.interpreter.attach() else { return };
    let (py, place) = (lease.py(), &group.place);
    if let Err(raised) = place.finish.lend(py).call(&[]) {
        let error = raised.take(py);
        let header = "WSGI0098: exception at the end of an interpreter";
        Sink::Process.traceback(place, header, &error);
    }
}
