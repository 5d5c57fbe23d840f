//! What one request costs: counted only where somebody asked, by whichever thread
//! does something for it, for anybody to read while it runs.
#![forbid(unsafe_code)]

use crate::raw::system::{self, Usage};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much went one way, in how many steps, and how long they took.
#[derive(Debug, Default)]
pub struct Flow {
    bytes: AtomicU64,
    steps: AtomicU64,
    nanos: AtomicU64,
}

/// A [`Flow`] at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flowed {
    /// Bytes.
    pub bytes: u64,
    /// Steps.
    pub steps: u64,
    /// Time of all steps, in µs.
    pub micros: u64,
}

impl Flow {
    /// Counts a step.
    pub fn add(&self, bytes: usize, took: Duration) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// So far.
    pub fn read(&self) -> Flowed {
        Flowed {
            bytes: self.bytes.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            micros: self.nanos.load(Ordering::Relaxed) / 1000,
        }
    }
}

/// The counters of one request.
#[derive(Debug, Default)]
pub struct Tally {
    /// The request's body, as it is read from the host.
    pub input: Flow,
    /// The answer, as the application gave it.
    pub output: Flow,
    /// Waits for Python's lock: its steps.  There are no bytes.
    pub waits: Flow,
    /// The processor time of its thread when it began.
    begun: Option<Usage>,
}

impl Tally {
    /// Of a request that begins on this thread, which has waited for Python's lock
    /// since `attaching`, if it was noted.
    pub fn begin(attaching: Option<Instant>) -> Arc<Self> {
        let tally = Self { begun: system::thread_usage(), ..Self::default() };
        if let Some(since) = attaching {
            tally.waits.add(0, since.elapsed());
        }
        Arc::new(tally)
    }

    /// Processor time its thread, which is this one, has used for it: user's and
    /// system's, in µs.
    pub fn processor(&self) -> Option<(u64, u64)> {
        let (begun, now) = (self.begun?, system::thread_usage()?);
        let user = now.user.saturating_sub(begun.user);
        Some((user, now.system.saturating_sub(begun.system)))
    }
}

thread_local! {
    /// Whether this thread's waits are counted: all that is looked at where not.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
    /// Whose they are.
    static CURRENT: RefCell<Option<Arc<Tally>>> = const { RefCell::new(None) };
}

/// This thread's waits for Python's lock are counted until this is dropped, and then as
/// they were before: a request may be handled within another.
#[derive(Debug)]
pub struct Counted(Option<Arc<Tally>>);

impl Counted {
    /// Counts them with `tally`.
    pub fn with(tally: Arc<Tally>) -> Self {
        IS_COUNTED.set(true);
        Self(CURRENT.replace(Some(tally)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        IS_COUNTED.set(self.0.is_some());
        CURRENT.set(self.0.take());
    }
}

/// Runs `attach`, which waits for Python's lock, and counts the wait.
#[inline]
pub fn wait(attach: impl FnOnce()) {
    if !IS_COUNTED.get() {
        return attach();
    }
    let since = Instant::now();
    attach();
    let took = since.elapsed();
    let _ = CURRENT.try_with(|current| {
        if let Some(tally) = &*current.borrow() {
            tally.waits.add(0, took);
        }
    });
}

/// Runs `step`, which gives a number of bytes besides its result, and counts it
/// where `flow` names a counter.
#[inline]
pub fn step<T>(
    tally: Option<Arc<Tally>>,
    flow: fn(&Tally) -> &Flow,
    step: impl FnOnce() -> T,
    bytes: impl FnOnce(&T) -> usize,
) -> T {
    let Some(tally) = tally else { return step() };
    let since = Instant::now();
    let result = step();
    flow(&tally).add(bytes(&result), since.elapsed());
    result
}
