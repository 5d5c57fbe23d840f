//! What the host's watch thread asks for: a sign of life, the end of a request
//! that takes too long, the stacks of all threads.
#![forbid(unsafe_code)]

use crate::interpreter::Group;
use crate::log;
use crate::raw::{Attached, Extent, Object, Raised, Stack, Thread, shares_lock_fairly, system};
use crate::runtime::{self, Runtime};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wsgi_wire::vtable::level;

/// More threads than this are counted, not shown: their stacks are wanted in a
/// log that somebody reads.
const MOST_THREADS: usize = 200;

/// So many calls of a stack are shown, the latest ones: endless recursion has
/// thousands that are all alike.
const MOST_CALLS: usize = 100;

/// A request that runs, or a script that is loaded without one.
struct Seat {
    request: Option<u64>,
    thread: Thread,
    group: Arc<Group>,
    /// Whether its thread was told to raise.
    interrupted: bool,
}

/// The requests that run.
///
/// The lock is held for no longer than it takes to look, and never while Python
/// code runs: who holds it may be keeping the GIL.  One exception cannot be seen from
/// here: an application that sets an exception of its own on a worker's thread, from
/// C, has that one's `__del__` run when ours takes its place.
#[derive(Default)]
pub struct Running(Mutex<Vec<Seat>>);

impl Running {
    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `request` begins on this thread, which is attached to `group`; None is the
    /// loading of a script without one.  It ends when the answer is dropped.
    pub fn begin<'r, 'p>(
        &'r self,
        py: Attached<'p>,
        request: Option<u64>,
        group: &Arc<Group>,
    ) -> Seated<'r, 'p> {
        let (thread, group) = (py.thread(), Arc::clone(group));
        self.seats().push(Seat { request, thread, group, interrupted: false });
        Seated { running: self, py, request }
    }

    /// Where `request` runs.
    fn find(&self, request: u64) -> Option<(Thread, Arc<Group>)> {
        let seats = self.seats();
        let seat = seats.iter().find(|seat| seat.request == Some(request))?;
        Some((seat.thread, Arc::clone(&seat.group)))
    }

    /// Which request runs there, if it is ours to know.
    fn request_of(&self, stack: &Stack) -> Option<(Option<u64>, Thread)> {
        let seats = self.seats();
        let seat = seats.iter().find(|seat| stack.is_of(seat.thread))?;
        Some((seat.request, seat.thread))
    }

    /// Makes the thread that runs `request` raise, if one still does; for who is
    /// attached to the request's interpreter.
    fn raise(&self, py: Attached<'_>, request: u64, error: &Object<'_>) -> bool {
        let mut seats = self.seats();
        let Some(seat) = seats.iter_mut().find(|seat| seat.request == Some(request)) else {
            return false;
        };
        let told = py.raise_in(seat.thread, error);
        seat.interrupted |= told;
        told
    }

    /// Ends `request`, which runs on this thread, if it has not ended: what its thread
    /// was told to raise and has not raised yet must not meet whatever runs here next.
    pub fn end(&self, py: Attached<'_>, request: Option<u64>) {
        if system::is_forked() {
            // A thread of the parent may have the lock for ever.
            return;
        }
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

    /// Takes back what the thread of `request`, which is this one, was told to raise
    /// and has not raised yet.  It may be told again.
    pub fn spare(&self, py: Attached<'_>, request: u64) {
        if system::is_forked() {
            return;
        }
        let thread = py.thread();
        let mut seats = self.seats();
        let own = |seat: &&mut Seat| seat.request == Some(request) && seat.thread == thread;
        let Some(seat) = seats.iter_mut().find(own) else { return };
        // Under the lock: what it is told after this is for what runs after this.
        if std::mem::take(&mut seat.interrupted) {
            py.forget_raise();
        }
    }
}

/// A request that runs on this thread.
pub struct Seated<'r, 'p> {
    running: &'r Running,
    py: Attached<'p>,
    request: Option<u64>,
}

impl Drop for Seated<'_, '_> {
    fn drop(&mut self) {
        self.running.end(self.py, self.request);
    }
}

/// How long a wait for the GIL is nobody's fault: threads let go of it every 5 ms.
const PATIENCE: Duration = Duration::from_millis(30);

/// How long the end of Python waits for the last nudges.
const LAST_NUDGES: Duration = Duration::from_secs(1);

/// The threads that make others give up the GIL: one for each interpreter, while
/// somebody gets it only that way.
#[derive(Default)]
pub struct Nudges {
    /// How many wait for the GIL.
    waiting: AtomicUsize,
    /// How many threads nudge.
    running: AtomicUsize,
}

impl Nudges {
    /// Whether all threads are gone; for the end of Python.
    pub fn are_over(&self) -> bool {
        let begin = Instant::now();
        while self.running.load(Ordering::Acquire) > 0 {
            if begin.elapsed() > LAST_NUDGES {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    /// Starts a thread for each interpreter that has none.
    fn start(runtime: &'static Runtime) {
        for group in runtime.groups_main_last() {
            // What computes in one with a lock of its own keeps it from nobody else.
            if group.interpreter.owns_gil() || group.is_nudged.swap(true, Ordering::AcqRel) {
                continue;
            }
            let undo = Arc::clone(&group);
            runtime.nudges.running.fetch_add(1, Ordering::AcqRel);
            let thread = std::thread::Builder::new().name("wsgi-nudge".to_owned());
            let body = move || {
                runtime.nudges.nudge(&group);
                runtime.nudges.running.fetch_sub(1, Ordering::AcqRel);
            };
            if thread.spawn(body).is_err() {
                undo.is_nudged.store(false, Ordering::Release);
                runtime.nudges.running.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Makes a thread that computes in `group` give up the GIL now and then, while
    /// somebody waits.  Where nothing computes this waits itself, and ends late.
    fn nudge(&self, group: &Group) {
        loop {
            while self.waiting.load(Ordering::Acquire) > 0 {
                group.interpreter.nudge();
            }
            group.is_nudged.store(false, Ordering::Release);
            let is_wanted = self.waiting.load(Ordering::Acquire) > 0;
            if !is_wanted || group.is_nudged.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

/// Runs `body` attached to `group`, which no thread that computes in another
/// interpreter can prevent.
pub fn attached<T>(
    runtime: &'static Runtime,
    group: &Group,
    body: impl FnOnce(Attached<'_>) -> T,
) -> Option<T> {
    if shares_lock_fairly() || group.interpreter.owns_gil() {
        return group.interpreter.attach().map(|lease| body(lease.py()));
    }
    let is_attached = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().name("wsgi-nudge".to_owned());
        let helper = helper.spawn_scoped(scope, || {
            std::thread::park_timeout(PATIENCE);
            if is_attached.load(Ordering::Acquire) {
                return;
            }
            runtime.nudges.waiting.fetch_add(1, Ordering::AcqRel);
            Nudges::start(runtime);
            while !is_attached.load(Ordering::Acquire) {
                std::thread::park();
            }
            runtime.nudges.waiting.fetch_sub(1, Ordering::AcqRel);
        });
        let lease = group.interpreter.attach();
        is_attached.store(true, Ordering::Release);
        if let Ok(helper) = helper {
            helper.thread().unpark();
        }
        lease.map(|lease| body(lease.py()))
    })
}

/// Waits for each lock there is and gives it back.
pub fn beat() {
    let Some(runtime) = runtime::running() else { return };
    let _inside = runtime.enter();
    let has_a_lock = |group: &Arc<Group>| group.name.is_empty() || group.interpreter.owns_gil();
    for group in runtime.groups_main_last().into_iter().filter(has_a_lock) {
        attached(runtime, &group, |_| ());
    }
}

/// Raises `RequestTimeout` in the thread that runs `request`; false if none does.
pub fn interrupt(request: u64) -> bool {
    let Some(runtime) = runtime::running() else { return false };
    let _inside = runtime.enter();
    let Some((thread, group)) = runtime.requests.find(request) else { return false };
    let told = attached(runtime, &group, |py| {
        let stack = stack_of(py, &group, thread).map_err(|raised| reason(py, raised));
        let error = group.place.request_timeout.lend(py);
        runtime.requests.raise(py, request, &error).then_some(stack)
    });
    let Some(stack) = told.flatten() else { return false };
    let name = String::from_utf8_lossy(&group.name);
    let header = format!(
        "Dumping stack trace of thread {thread}, request {request}, application group '{name}'; \
         most recent call last:"
    );
    match stack {
        Ok(Some(stack)) => show(runtime, level::INFO, &header, &stack),
        // It is not in Python code: about to be, or done with it.
        Ok(None) => {}
        Err(reason) => unavailable(runtime, &reason),
    }
    let message = format!("Injected RequestTimeout into thread {thread}, request {request}.");
    runtime.log.line(level::INFO, &message);
    true
}

/// What `thread` runs in `group`, to which the caller is attached.
#[cfg(not(free_threaded))]
fn stack_of(py: Attached<'_>, _: &Group, thread: Thread) -> Result<Option<Stack>, Raised> {
    py.stack_of(thread, MOST_CALLS)
}

/// What `thread` runs in `group`, to which the caller is attached.
#[cfg(free_threaded)]
fn stack_of(py: Attached<'_>, group: &Group, thread: Thread) -> Result<Option<Stack>, Raised> {
    py.stack_of(thread, &group.place.stacks.lend(py), MOST_CALLS)
}

/// What the threads of `group` run, to which the caller is attached, and how many do.
#[cfg(not(free_threaded))]
fn stacks_in(py: Attached<'_>, _: &Group, extent: Extent) -> (Result<Vec<Stack>, Raised>, usize) {
    py.stacks(extent)
}

/// What the threads of `group` run, to which the caller is attached, and how many do.
#[cfg(free_threaded)]
fn stacks_in(
    py: Attached<'_>,
    group: &Group,
    extent: Extent,
) -> (Result<Vec<Stack>, Raised>, usize) {
    py.stacks(&group.place.stacks.lend(py), extent)
}

/// Logs the stacks of all threads of all interpreters.
pub fn stacks() {
    let Some(runtime) = runtime::running() else { return };
    let _inside = runtime.enter();
    let header = "WSGI9409: Dumping stack trace of all Python threads; most recent call last:";
    runtime.log.line(level::ERROR, header);
    let mut count = 0;
    for group in runtime.groups_main_last() {
        let extent = Extent { threads: MOST_THREADS.saturating_sub(count), calls: MOST_CALLS };
        let shown = attached(runtime, &group, |py| {
            let (found, running) = stacks_in(py, &group, extent);
            count += running;
            let headed = |stack: Stack| (heading(runtime, &group, &stack), stack);
            let all = |found: Vec<Stack>| found.into_iter().map(headed).collect::<Vec<_>>();
            found.map(all).map_err(|raised| reason(py, raised))
        });
        // Python's lock is given up: nobody waits for it while this is written.
        match shown {
            Some(Ok(stacks)) => {
                for (header, stack) in stacks {
                    show(runtime, level::ERROR, &header, &stack);
                }
            }
            Some(Err(reason)) => unavailable(runtime, &reason),
            None => {}
        }
    }
    if count > MOST_THREADS {
        let more = count - MOST_THREADS;
        runtime.log.line(level::ERROR, &format!("({more} more threads are not shown)"));
    }
}

/// Logs that there is no stack to see.
fn unavailable(runtime: &Runtime, reason: &str) {
    let message = format!("WSGI0067: stacks are not available: {reason}");
    runtime.log.line(level::WARN, &message);
}

/// Why there is no stack to see.
fn reason(py: Attached<'_>, raised: Raised) -> String {
    log::summary(&raised.take(py))
}

/// The line in front of a thread's stack.
fn heading(runtime: &Runtime, group: &Group, stack: &Stack) -> String {
    let thread = match (runtime.requests.request_of(stack), &stack.name) {
        (Some((Some(request), thread)), _) => format!("{thread}, request {request}"),
        (Some((None, thread)), _) => format!("{thread}, which loads a script"),
        (None, Some((number, name))) => format!("{number} '{name}'"),
        (None, None) => "without a name".to_owned(),
    };
    let name = String::from_utf8_lossy(&group.name);
    format!("Thread {thread}, application group '{name}':")
}

/// Logs one thread's stack.
fn show(runtime: &Runtime, level: u32, header: &str, stack: &Stack) {
    runtime.log.line(level, header);
    if stack.earlier > 0 {
        let earlier = stack.earlier;
        runtime.log.line(level, &format!("  ({earlier} earlier calls are not shown)"));
    }
    stack.lines.iter().for_each(|line| runtime.log.line(level, line));
}
