//! What the host's watch thread asks for: a sign of life, the end of a request
//! that takes too long, the stacks of all threads.
#![forbid(unsafe_code)]

use crate::interpreter::{Group, Place};
use crate::log;
use crate::raw::{Attached, Object, Raised, Thread};
use crate::runtime::{self, Runtime};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wsgi_wire::vtable::level;

/// More threads than this are counted, not shown: their stacks are wanted in a
/// log that somebody reads.
const MOST_THREADS: usize = 200;

/// So many calls of a stack are shown, the latest ones: endless recursion has
/// thousands that are all alike.
const MOST_CALLS: i64 = 100;

/// A request that runs.
struct Seat {
    request: u64,
    thread: Thread,
    group: Arc<Group>,
    /// Whether its thread was told to raise.
    interrupted: bool,
}

/// The requests that run.
///
/// The lock is held for no longer than it takes to look, and never while Python
/// code runs: who holds it may be keeping the GIL.
#[derive(Default)]
pub struct Running(Mutex<Vec<Seat>>);

impl Running {
    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `request` begins on this thread, which is attached to `group`.
    pub fn begin(&self, py: Attached<'_>, request: u64, group: &Arc<Group>) {
        let (thread, group) = (py.thread(), Arc::clone(group));
        self.seats().push(Seat { request, thread, group, interrupted: false });
    }

    /// `request` ends on this thread: what it was told to raise and has not raised
    /// yet must not meet whatever runs here next.
    pub fn end(&self, py: Attached<'_>, request: u64) {
        let thread = py.thread();
        let mut seats = self.seats();
        let own = |seat: &Seat| seat.request == request && seat.thread == thread;
        let Some(at) = seats.iter().position(own) else { return };
        let seat = seats.swap_remove(at);
        // Under the lock: from here on nobody can tell this thread to raise.
        if seat.interrupted {
            py.forget_raise();
        }
    }

    /// Where `request` runs.
    fn find(&self, request: u64) -> Option<(Thread, Arc<Group>)> {
        let seats = self.seats();
        let seat = seats.iter().find(|seat| seat.request == request)?;
        Some((seat.thread, Arc::clone(&seat.group)))
    }

    /// Which request runs on `thread` in `group`.
    fn request_on(&self, thread: Thread, group: &Group) -> Option<u64> {
        let seats = self.seats();
        let is_it = |seat: &&Seat| {
            seat.thread == thread
                && std::ptr::eq(Arc::as_ptr(&seat.group), std::ptr::from_ref(group))
        };
        seats.iter().find(is_it).map(|seat| seat.request)
    }

    /// Makes the thread that runs `request` raise, if one still does; for who is
    /// attached to the request's interpreter.
    fn raise(&self, py: Attached<'_>, request: u64, error: &Object<'_>) -> bool {
        let mut seats = self.seats();
        let Some(seat) = seats.iter_mut().find(|seat| seat.request == request) else {
            return false;
        };
        let told = py.raise_in(seat.thread, error);
        seat.interrupted |= told;
        told
    }
}

/// Waits for the main interpreter's lock and gives it back.
pub fn beat() {
    let Some(runtime) = runtime::running() else { return };
    let _inside = runtime.enter();
    if let Some(main) = runtime.main() {
        drop(main.interpreter.attach());
    }
}

/// Raises `RequestTimeout` in the thread that runs `request`; false if none does.
pub fn interrupt(request: u64) -> bool {
    let Some(runtime) = runtime::running() else { return false };
    let _inside = runtime.enter();
    let Some((thread, group)) = runtime.requests.find(request) else { return false };
    let Some(lease) = group.interpreter.attach() else { return false };
    let (py, place) = (lease.py(), &group.place);
    // Looked up first: while that runs, the request may end.
    let stack = stack_of(py, place, thread);
    if !runtime.requests.raise(py, request, &place.request_timeout.lend(py)) {
        return false;
    }
    let name = String::from_utf8_lossy(&group.name);
    let header = format!(
        "Dumping stack trace of thread {thread}, request {request}, application group '{name}'; \
         most recent call last:"
    );
    match stack {
        Ok(lines) => {
            runtime.log.line(level::INFO, &header);
            lines.iter().for_each(|line| runtime.log.line(level::INFO, line));
        }
        Err(reason) => unavailable(runtime, &reason),
    }
    let message = format!("Injected RequestTimeout into thread {thread}, request {request}.");
    runtime.log.line(level::INFO, &message);
    true
}

/// Logs the stacks of all threads of all interpreters.
pub fn stacks() {
    let Some(runtime) = runtime::running() else { return };
    let _inside = runtime.enter();
    let header = "WSGI9409: Dumping stack trace of all Python threads; most recent call last:";
    runtime.log.line(level::ERROR, header);
    let mut shown = Vec::new();
    // The main interpreter comes last, and shows what no other took for its own.
    for group in runtime.groups_main_last() {
        let Some(lease) = group.interpreter.attach() else { continue };
        let threads = match threads_of(lease.py(), &group, &shown) {
            Ok(threads) => threads,
            Err(reason) => {
                unavailable(runtime, &reason);
                continue;
            }
        };
        drop(lease);
        for thread in threads {
            if shown.len() < MOST_THREADS {
                show(runtime, &group, &thread);
            }
            shown.push(thread.number);
        }
    }
    if let Some(more) = shown.len().checked_sub(MOST_THREADS).filter(|more| *more > 0) {
        runtime.log.line(level::ERROR, &format!("({more} more threads are not shown)"));
    }
}

/// Logs that there is no stack to see.
fn unavailable(runtime: &Runtime, reason: &str) {
    let message = format!("WSGI0067: stacks are not available: {reason}");
    runtime.log.line(level::WARN, &message);
}

/// The stack of a thread.
struct Stack {
    number: i64,
    /// What `threading` calls it; empty where that does not know it.
    name: String,
    lines: Vec<String>,
}

/// Logs one thread's stack.
fn show(runtime: &Runtime, group: &Group, stack: &Stack) {
    let number = stack.number;
    let mut header = format!("Thread {number}");
    if !stack.name.is_empty() {
        header.push_str(&format!(" '{}'", stack.name));
    }
    if let Some(request) = runtime.requests.request_on(Thread::from_number(number), group) {
        header.push_str(&format!(", request {request}"));
    }
    let name = String::from_utf8_lossy(&group.name);
    header.push_str(&format!(", application group '{name}':"));
    runtime.log.line(level::ERROR, &header);
    stack.lines.iter().for_each(|line| runtime.log.line(level::ERROR, line));
}

/// What `raised` says.
fn reason(py: Attached<'_>, raised: Raised) -> String {
    log::summary(&raised.take(py))
}

/// The texts of a list.
fn texts(list: &Object<'_>) -> Result<Vec<String>, Raised> {
    let mut lines = Vec::new();
    while let Some(line) = list.list_item(lines.len()) {
        lines.push(line.to_text()?);
    }
    Ok(lines)
}

/// The stack of `thread`; or why it cannot be shown.
fn stack_of(py: Attached<'_>, place: &Place, thread: Thread) -> Result<Vec<String>, String> {
    let look = || {
        let arguments = [&py.int(thread.number())?, &py.int(MOST_CALLS)?];
        texts(&place.stack_of.lend(py).call(&arguments)?)
    };
    look().map_err(|raised| reason(py, raised))
}

/// The stacks of the threads that run in `group`, but those `shown` already; or
/// why they cannot be shown.
fn threads_of(py: Attached<'_>, group: &Group, shown: &[i64]) -> Result<Vec<Stack>, String> {
    let look = || {
        let known = py.list()?;
        for number in shown {
            known.list_append(&py.int(*number)?)?;
        }
        let takes_all = py.boolean(group.name.is_empty())?;
        let place = &group.place;
        let found = place.stacks.lend(py).call(&[&known, &takes_all, &py.int(MOST_CALLS)?])?;
        let mut threads = Vec::new();
        while let Some(item) = found.list_item(threads.len()) {
            let (Some(number), Some(name), Some(lines)) =
                (item.tuple_item(0), item.tuple_item(1), item.tuple_item(2))
            else {
                break;
            };
            let (number, name) = (number.to_i64()?, name.to_text()?);
            threads.push(Stack { number, name, lines: texts(&lines)? });
        }
        Ok(threads)
    };
    look().map_err(|raised| reason(py, raised))
}
