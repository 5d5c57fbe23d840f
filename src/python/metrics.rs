//! What the process has done: totals always, a period's figures once somebody asked.
//!
//! Each thread that serves requests has a record that it alone writes.  Without
//! anybody asking, a request costs a few stores there.  Nobody runs Python with a
//! lock of this file held.
#![forbid(unsafe_code)]

use crate::raw::system::{self, Usage};
use crate::slow::{Details, End};
use crate::tally::{Counted, Flowed, Tally};
use crate::telemetry;
use core::ffi::c_int;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wsgi_wire::head::RequestHead;
use wsgi_wire::histogram::Times;
use wsgi_wire::vtable::outcome;

/// µs since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// Locks; None where it would be waiting for a thread that was not forked along.
pub fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match system::is_forked() {
        true => mutex.try_lock().ok(),
        false => Some(mutex.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// The parts of a request's time, and what goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In httpd, until a daemon process is asked for; embedded, until the application
    /// is called.
    Server,
    /// Until a daemon process has it.
    Queue,
    /// In the daemon process, until the application is called.
    Daemon,
    /// In the application.
    Application,
    /// All of it.
    Request,
    /// Waiting for Python's lock.
    LockWait,
    /// Reading the request's body.
    Input,
    /// Passing on the answer.
    Output,
}

impl Phase {
    /// All of them, in the order of telemetry's fields.
    pub const ALL: [Self; PHASES] = [
        Self::Server,
        Self::Queue,
        Self::Daemon,
        Self::Application,
        Self::Request,
        Self::LockWait,
        Self::Input,
        Self::Output,
    ];
}

/// How many [`Phase`]s there are.
pub const PHASES: usize = 8;

/// A thread that serves requests.
#[derive(Debug)]
pub struct Thread {
    /// `mod_wsgi.thread_id`.
    pub number: i64,
    /// Requests it began.
    begun: AtomicU64,
    /// Requests it ended.
    ended: AtomicU64,
    /// Time of those, in µs.
    busy: AtomicU64,
    /// When the request it serves came; 0: it serves none.
    since: AtomicU64,
    /// Processor time of its requests, in µs, as far as they were recorded.
    processor: AtomicU64,
    /// Longest of its requests since somebody looked, in µs.
    longest: AtomicU64,
    /// The request it serves, where those that take long are reported.
    running: Mutex<Option<Arc<Details>>>,
}

/// Adds to a number that only this thread writes.
fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

thread_local! {
    /// This thread's record.
    static OWN: RefCell<Option<Arc<Thread>>> = const { RefCell::new(None) };
}

impl Thread {
    /// A thread's record with the next number.
    fn new() -> Arc<Self> {
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            begun: zero(),
            ended: zero(),
            busy: zero(),
            since: zero(),
            processor: zero(),
            longest: zero(),
            running: Mutex::default(),
        })
    }

    /// How long the request it serves has been running at `now`, in µs.
    fn elapsed(&self, now: u64) -> u64 {
        match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }

    /// How long it has been serving requests in all, in µs.
    fn busy(&self, now: u64) -> u64 {
        self.busy.load(Ordering::Relaxed).saturating_add(self.elapsed(now))
    }

    /// Where it stands.
    fn mark(&self, now: u64) -> Mark {
        Mark {
            ended: self.ended.load(Ordering::Relaxed),
            busy: self.busy(now),
            processor: self.processor.load(Ordering::Relaxed),
        }
    }
}

/// Where a thread stands.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    ended: u64,
    busy: u64,
    processor: u64,
}

/// What has been recorded since somebody looked.
#[derive(Debug, Clone)]
struct Period {
    /// When it began, µs since the epoch.
    begun: u64,
    /// What the process had used then.
    usage: Usage,
    /// Where the threads stood then.
    marks: Vec<Mark>,
    /// The requests that ended since.
    totals: Totals,
}

/// The requests that ended in a period.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// How many.
    pub requests: u64,
    /// How many with a status of 1xx to 5xx.
    pub statuses: [u64; 5],
    /// What was read of their bodies.
    pub input: Flowed,
    /// What was passed on of their answers.
    pub output: Flowed,
    /// How often they waited for Python's lock.
    pub waits: u64,
    /// Their times, by [`Phase`].
    phases: [Times; PHASES],
}

impl Totals {
    /// The times of one phase.
    pub const fn times(&self, phase: Phase) -> &Times {
        &self.phases[phase as usize]
    }

    /// Counts a time.
    fn time(&mut self, phase: Phase, micros: u64) {
        self.phases[phase as usize].add(micros);
    }

    /// Counts a request.
    fn add(&mut self, watch: &Stopwatch<'_>, end: u64) {
        self.requests += 1;
        // What never called `start_response` ends as a 500.
        let class = match watch.status.get() / 100 {
            class @ 1..=5 => usize::from(class) - 1,
            _ => 4,
        };
        self.statuses[class] += 1;
        let called = match watch.called.get() {
            0 => end,
            called => called,
        };
        let (begin, queued) = (watch.request_start, watch.queue_start);
        if queued > 0 {
            self.time(Phase::Server, queued.saturating_sub(begin));
            self.time(Phase::Queue, watch.arrival.saturating_sub(queued));
            self.time(Phase::Daemon, called.saturating_sub(watch.arrival));
        } else {
            self.time(Phase::Server, called.saturating_sub(begin));
        }
        self.time(Phase::Application, end.saturating_sub(called));
        self.time(Phase::Request, end.saturating_sub(begin));
        let (input, output, waits) =
            watch.tally.borrow().as_ref().map_or_else(Default::default, |tally| {
                (tally.input.read(), tally.output.read(), tally.waits.read())
            });
        self.time(Phase::LockWait, waits.micros);
        self.time(Phase::Input, input.micros);
        self.time(Phase::Output, output.micros);
        self.waits += waits.steps;
        for (total, more) in [(&mut self.input, input), (&mut self.output, output)] {
            total.bytes += more.bytes;
            total.steps += more.steps;
        }
    }
}

/// What a thread did in a period.
#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    /// Requests it ended.
    pub ended: u64,
    /// Time it served requests, in µs.
    pub busy: u64,
    /// Processor time of the requests it ended, in µs.
    pub processor: u64,
    /// How long the request it serves at the end of the period has been running.
    pub elapsed: u64,
    /// Longest of those it ended.
    pub longest: u64,
}

/// A period, at its end.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it began, µs since the epoch.
    pub begun: u64,
    /// When it ended.
    pub ended: u64,
    /// Processor time of the process in it: user's and system's, in µs.
    pub processor: (u64, u64),
    /// Memory of the process at its end, and the most there ever was, in bytes.
    pub memory: (u64, u64),
    /// The requests that ended in it.
    pub totals: Totals,
    /// What each thread that has served requests did.
    pub shares: Vec<Share>,
}

impl Sample {
    /// Its length in seconds, never 0.
    pub fn seconds(&self) -> f64 {
        (self.ended.saturating_sub(self.begun)).max(1) as f64 / 1e6
    }

    /// How much of what `threads` could do was done, at most 1.
    pub fn capacity(&self, threads: usize) -> f64 {
        let busy: u64 = self.shares.iter().map(|share| share.busy).sum();
        let could = self.seconds() * 1e6 * threads.max(self.shares.len()).max(1) as f64;
        (busy as f64 / could).min(1.0)
    }
}

/// A thread and what it has done since the process began.
#[derive(Debug, Clone, Copy)]
pub struct ThreadTotal {
    /// Its `mod_wsgi.thread_id`.
    pub number: i64,
    /// Requests it began.
    pub begun: u64,
}

/// What the process has done since it began.
#[derive(Debug, Clone)]
pub struct Account {
    /// When Python was started, µs since the epoch.
    pub begun: u64,
    /// The moment this was written.
    pub now: u64,
    /// Time threads served requests, in µs.
    pub busy: u64,
    /// Requests that ended.
    pub ended: u64,
    /// Requests that run.
    pub active: u64,
    /// The threads that have served requests.
    pub threads: Vec<ThreadTotal>,
}

/// What the process has done.
#[derive(Debug)]
pub struct Metrics {
    begun: u64,
    /// Whether [`Period`]s are kept.
    is_recording: AtomicBool,
    threads: Mutex<Vec<Arc<Thread>>>,
    period: Mutex<Option<Period>>,
}

impl Metrics {
    /// Of a process that begins.
    pub fn new() -> Self {
        let (threads, period) = (Mutex::default(), Mutex::default());
        Self { begun: now(), is_recording: AtomicBool::new(false), threads, period }
    }

    /// Whether requests are to be measured.
    pub fn is_recording(&self) -> bool {
        self.is_recording.load(Ordering::Relaxed)
    }

    /// Has requests measured from here on.
    pub fn record(&self) {
        let marks = self.marks(now());
        let Some(mut period) = lock(&self.period) else { return };
        if period.is_none() {
            *period = Some(Period::begin(now(), marks));
        }
        drop(period);
        self.is_recording.store(true, Ordering::Relaxed);
    }

    /// Where each thread stands.
    fn marks(&self, now: u64) -> Vec<Mark> {
        self.threads().iter().map(|thread| thread.mark(now)).collect()
    }

    /// The threads that have served requests, in the order they began to.
    fn threads(&self) -> Vec<Arc<Thread>> {
        lock(&self.threads).map_or_else(Vec::new, |threads| threads.clone())
    }

    /// This thread's record.
    fn own(&self) -> Arc<Thread> {
        OWN.with_borrow_mut(|own| {
            let thread = own.get_or_insert_with(|| {
                let thread = Thread::new();
                if let Some(mut threads) = lock(&self.threads) {
                    threads.push(Arc::clone(&thread));
                }
                thread
            });
            Arc::clone(thread)
        })
    }

    /// A request that came to this thread at `arrival`.
    pub fn begin(&self, arrival: u64, head: &RequestHead<'_>) -> Stopwatch<'_> {
        let thread = self.own();
        add(&thread.begun, 1);
        let is_within = thread.since.load(Ordering::Relaxed) != 0;
        if !is_within {
            thread.since.store(arrival, Ordering::Relaxed);
        }
        let mut outer = None;
        if let Some(slow) = telemetry::slow() {
            let details = slow.watch(head, (thread.number, arrival, self.active()));
            if let Some(mut running) = lock(&thread.running) {
                outer = running.replace(details);
            }
        }
        Stopwatch {
            metrics: self,
            thread,
            arrival,
            request_start: head.request_start,
            queue_start: head.queue_start,
            called: Cell::new(0),
            status: Cell::new(0),
            is_run: Cell::new(true),
            is_within,
            outer: RefCell::new(outer),
            attaching: self.is_recording().then(Instant::now),
            tally: RefCell::new(None),
            counted: RefCell::new(None),
        }
    }

    /// What the process has done since it began.
    pub fn account(&self) -> Account {
        let threads = self.threads();
        let now = now();
        let sum = |of: &dyn Fn(&Thread) -> u64| threads.iter().map(|thread| of(thread)).sum();
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Account {
            begun: self.begun,
            now,
            busy: sum(&|thread| thread.busy(now)),
            ended: sum(&|thread| load(&thread.ended)),
            active: sum(&|thread| u64::from(load(&thread.since) != 0)),
            threads: threads
                .iter()
                .map(|thread| ThreadTotal { number: thread.number, begun: load(&thread.begun) })
                .collect(),
        }
    }

    /// How many requests run.
    pub fn active(&self) -> u64 {
        let threads = self.threads();
        let is_active = |thread: &&Arc<Thread>| thread.since.load(Ordering::Relaxed) != 0;
        threads.iter().filter(is_active).count() as u64
    }

    /// The requests that run, where those that take long are reported.
    pub fn running(&self) -> Vec<Arc<Details>> {
        let running = |thread: &Arc<Thread>| lock(&thread.running)?.clone();
        self.threads().iter().filter_map(running).collect()
    }

    /// The period that ends here, if there is one; another one begins.
    pub fn sample(&self) -> Option<Sample> {
        let (threads, now) = (self.threads(), now());
        let marks: Vec<Mark> = threads.iter().map(|thread| thread.mark(now)).collect();
        let next = Period::begin(now, marks.clone());
        let usage = next.usage;
        let ended = lock(&self.period)?.as_mut().map(|period| std::mem::replace(period, next))?;
        let share = |(at, (thread, mark)): (usize, (&Arc<Thread>, &Mark))| {
            let before = ended.marks.get(at).copied().unwrap_or_default();
            Share {
                ended: mark.ended.saturating_sub(before.ended),
                busy: mark.busy.saturating_sub(before.busy),
                processor: mark.processor.saturating_sub(before.processor),
                elapsed: thread.elapsed(now),
                longest: thread.longest.swap(0, Ordering::Relaxed),
            }
        };
        Some(Sample {
            begun: ended.begun,
            ended: now,
            processor: (
                usage.user.saturating_sub(ended.usage.user),
                usage.system.saturating_sub(ended.usage.system),
            ),
            memory: (system::resident_memory().unwrap_or(0), usage.most_memory),
            totals: ended.totals,
            shares: threads.iter().zip(&marks).enumerate().map(share).collect(),
        })
    }
}

impl Period {
    /// One that begins.
    fn begin(now: u64, marks: Vec<Mark>) -> Self {
        let usage = system::process_usage().unwrap_or_default();
        Self { begun: now, usage, marks, totals: Totals::default() }
    }
}

/// Measures one request, on the thread that serves it; the request ends when it is
/// dropped.
pub struct Stopwatch<'m> {
    metrics: &'m Metrics,
    thread: Arc<Thread>,
    arrival: u64,
    request_start: u64,
    queue_start: u64,
    /// When the application was called; 0: not yet.
    called: Cell<u64>,
    /// The status of the answer; 0 if there is none.
    status: Cell<u16>,
    /// False if it was given back: another process runs it.
    is_run: Cell<bool>,
    /// Whether the thread serves another one meanwhile, as where a filter of httpd's makes
    /// a request: the thread's time is counted with that.
    is_within: bool,
    /// What is told of that one.
    outer: RefCell<Option<Arc<Details>>>,
    /// Since when the thread waits for Python's lock, where that is counted.
    attaching: Option<Instant>,
    tally: RefCell<Option<Arc<Tally>>>,
    counted: RefCell<Option<Counted>>,
}

impl Stopwatch<'_> {
    /// The number of the thread.
    pub fn thread_number(&self) -> i64 {
        self.thread.number
    }

    /// When the request came, µs since the epoch.
    pub const fn arrival(&self) -> u64 {
        self.arrival
    }

    /// Somebody will probably want to know what the request costs.
    pub fn expect(&mut self) {
        self.attaching.get_or_insert_with(Instant::now);
    }

    /// The thread has Python's lock: its waits are counted from here on, if anybody
    /// records or will probably want to know.
    pub fn attached(&self) {
        if self.metrics.is_recording() || self.attaching.is_some() {
            self.tally();
        }
    }

    /// The counters of the request, which are kept from the first call on.
    pub fn tally(&self) -> Arc<Tally> {
        let mut tally = self.tally.borrow_mut();
        let tally = tally.get_or_insert_with(|| {
            let tally = Tally::begin(self.attaching);
            self.counted.replace(Some(Counted::with(Arc::clone(&tally))));
            self.tell_slow(|details| details.count_with(&tally));
            tally
        });
        Arc::clone(tally)
    }

    /// The application is about to be called, at `now`; gives what counts for the
    /// request, where anybody records: its script may have been who asked.
    pub fn call(&self, now: u64) -> Option<Arc<Tally>> {
        self.called.set(now);
        self.tell_slow(|details| details.call(now));
        self.attached();
        self.tally.borrow().clone()
    }

    /// The request ends with this [`outcome`]; `answered` tells the status of the
    /// answer, where there is one.
    pub fn end(&self, outcome: c_int, answered: impl FnOnce() -> u16) {
        match outcome {
            outcome::STALE => self.is_run.set(false),
            outcome::TIMED_OUT => self.status.set(504),
            outcome::BAD_BODY => self.status.set(400),
            outcome::BODY_TIMED_OUT => self.status.set(408),
            outcome::DONE | outcome::CUT | outcome::CUT_NO_MEMORY | outcome::GONE
                if self.metrics.is_recording() =>
            {
                self.status.set(answered());
            }
            // Nothing was sent: 0 counts as 500.
            _ => {}
        }
    }

    /// Notes something for the report of requests that take long, where there is one.
    fn tell_slow(&self, note: impl FnOnce(&Details)) {
        if telemetry::slow().is_some()
            && let Some(running) = lock(&self.thread.running)
            && let Some(details) = &*running
        {
            note(details);
        }
    }

    /// Keeps the request for the report of those that took long, if it did.
    fn keep_if_slow(&self, (end, took): (u64, u64), processor: Option<(u64, u64)>) {
        let Some(slow) = telemetry::slow() else { return };
        let outer = self.outer.take();
        let details = lock(&self.thread.running)
            .and_then(|mut running| std::mem::replace(&mut *running, outer));
        let Some(details) = details.filter(|_| self.is_run.get() && slow.is_slow(took)) else {
            return;
        };
        let status = match self.status.get() {
            0 => 500,
            status => status,
        };
        // With this one, whose thread is mostly marked as idle already.
        let active = self.metrics.active() + u64::from(!self.is_within);
        let processor = processor.unwrap_or_default();
        slow.keep(details, End { at: end, status, processor, active });
    }

    /// Counts the request.
    fn count(&self) {
        let (thread, end) = (&self.thread, now());
        let took = end.saturating_sub(self.arrival);
        if !self.is_within {
            thread.since.store(0, Ordering::Relaxed);
            add(&thread.busy, took);
        }
        let is_recording = self.metrics.is_recording();
        let processor = is_recording
            .then(|| self.tally.borrow().as_ref().and_then(|tally| tally.processor()))
            .flatten();
        if is_recording {
            self.keep_if_slow((end, took), processor);
        }
        if !self.is_run.get() {
            return;
        }
        add(&thread.ended, 1);
        if !is_recording {
            return;
        }
        add(&thread.processor, processor.map_or(0, |(user, system)| user + system));
        thread.longest.fetch_max(took, Ordering::Relaxed);
        if let Some(mut period) = lock(&self.metrics.period)
            && let Some(period) = &mut *period
        {
            period.totals.add(self, end);
        }
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        if !system::is_forked() {
            self.count();
        }
    }
}
