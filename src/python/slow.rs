//! Requests that take long, for telemetry: those that ended since the last report,
//! and those that run.
#![forbid(unsafe_code)]

use crate::environ::place;
use crate::metrics::lock;
use crate::tally::Tally;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use wsgi_wire::datagram::{Datagram, LONGEST_TEXT, field};
use wsgi_wire::head::{Key, RequestHead, flags};

/// Bounds of how many that ended are kept until the next report.
const FEWEST: usize = 32;
const MOST: usize = 4096;

/// The texts of a request that are told, in the order of [`FIELDS`].
const KEYS: [usize; 8] = [
    place("mod_wsgi.request_id"),
    place("REQUEST_METHOD"),
    place("SERVER_NAME"),
    place("SCRIPT_NAME"),
    place("PATH_INFO"),
    place("SERVER_PROTOCOL"),
    place("REMOTE_ADDR"),
    place("HTTP_USER_AGENT"),
];

/// Where each goes.
const FIELDS: [u16; KEYS.len()] = [
    field::SLOW_LOG_ID,
    field::SLOW_METHOD,
    field::SLOW_HOSTNAME,
    field::SLOW_SCRIPT_NAME,
    field::SLOW_PATH_INFO,
    field::SLOW_PROTOCOL,
    field::SLOW_PEER_IP,
    field::SLOW_USER_AGENT,
];

/// Where the user agent is among them: it is told only if that is wished.
const USER_AGENT: usize = KEYS.len() - 1;

/// A request while it runs.
#[derive(Debug)]
pub struct Details {
    thread: i64,
    server_pid: u32,
    /// µs since the epoch, as all times.
    request_start: u64,
    queue_start: u64,
    arrival: u64,
    is_https: bool,
    texts: [Vec<u8>; KEYS.len()],
    /// How many requests ran when it began, itself among them.
    active: u64,
    /// When the application was called; 0: not yet.
    called: AtomicU64,
    /// What it costs, from when its thread was attached.
    tally: OnceLock<Arc<Tally>>,
}

impl Details {
    /// Notes that the application is called.
    pub fn call(&self, now: u64) {
        self.called.store(now, Ordering::Relaxed);
    }

    /// Notes where its costs are counted.
    pub fn count_with(&self, tally: &Arc<Tally>) {
        let _ = self.tally.set(Arc::clone(tally));
    }

    /// How long it has been in this process, in µs.
    const fn elapsed(&self, now: u64) -> u64 {
        now.saturating_sub(self.arrival)
    }

    /// Tells of it as it stands at `now`; `end` if it ended then.
    fn describe(&self, to: &mut Datagram, now: u64, end: Option<&End>) {
        let (input, output, waits) = self.tally.get().map_or_else(Default::default, |tally| {
            (tally.input.read(), tally.output.read(), tally.waits.read())
        });
        let (user, system) = end.map_or((0, 0), |end| end.processor);
        let called = match self.called.load(Ordering::Relaxed) {
            0 => now,
            called => called,
        };
        let (server, queue, daemon) = match self.queue_start {
            0 => (called.saturating_sub(self.request_start), 0, 0),
            queued => (
                queued.saturating_sub(self.request_start),
                self.arrival.saturating_sub(queued),
                called.saturating_sub(self.arrival),
            ),
        };
        to.count(field::SLOW_RECORD_STATE, end.is_some().into())
            .micros(field::SLOW_START_STAMP, self.arrival)
            .micros(field::SLOW_DURATION, self.elapsed(now))
            .count(field::SLOW_THREAD_ID, self.thread.unsigned_abs())
            .count(field::SLOW_SERVER_PID, self.server_pid.into())
            .count(field::SLOW_INPUT_BYTES, input.bytes)
            .count(field::SLOW_INPUT_READS, input.steps)
            .count(field::SLOW_OUTPUT_BYTES, output.bytes)
            .count(field::SLOW_OUTPUT_WRITES, output.steps)
            .micros(field::SLOW_CPU_USER_TIME, user)
            .micros(field::SLOW_CPU_SYSTEM_TIME, system)
            .micros(field::SLOW_SERVER_TIME, server)
            .micros(field::SLOW_QUEUE_TIME, queue)
            .micros(field::SLOW_DAEMON_TIME, daemon)
            .micros(field::SLOW_APPLICATION_TIME, now.saturating_sub(called))
            .micros(field::SLOW_GIL_WAIT_TIME, waits.micros)
            .count(field::SLOW_GIL_WAIT_COUNT, waits.steps)
            .micros(field::SLOW_INPUT_READ_TIME, input.micros)
            .micros(field::SLOW_OUTPUT_WRITE_TIME, output.micros)
            .count(field::SLOW_ACTIVE_AT_START, self.active)
            .count(field::SLOW_ACTIVE_AT_COMPLETION, end.map_or(0, |end| end.active))
            .count(field::SLOW_STATUS, end.map_or(0, |end| end.status.into()))
            .text(field::SLOW_SCHEME, if self.is_https { b"https" } else { b"http" });
        for (number, text) in FIELDS.iter().zip(&self.texts) {
            to.text(*number, text);
        }
    }
}

/// How a request ended.
#[derive(Debug)]
pub struct End {
    /// When, µs since the epoch.
    pub at: u64,
    /// The status of its answer.
    pub status: u16,
    /// Processor time of its thread: user's and system's, in µs.
    pub processor: (u64, u64),
    /// How many requests ran then, itself among them.
    pub active: u64,
}

/// The requests that took long.
#[derive(Debug)]
pub struct Slow {
    /// From how many µs on a request does.
    threshold: u64,
    captures_user_agent: bool,
    most: usize,
    ended: Mutex<VecDeque<(Arc<Details>, End)>>,
}

impl Slow {
    /// Those that take at least `threshold`, of so many threads, reported every
    /// `interval`.
    pub fn new(
        threshold: Duration,
        interval: Duration,
        threads: u32,
        captures_user_agent: bool,
    ) -> Self {
        // So many can end between two reports.
        let each = interval.as_secs_f64() / threshold.as_secs_f64().max(1e-6) + 1.0;
        let most = (f64::from(threads) * each).clamp(FEWEST as f64, MOST as f64) as usize;
        let threshold = u64::try_from(threshold.as_micros()).unwrap_or(u64::MAX);
        Self { threshold, captures_user_agent, most, ended: Mutex::default() }
    }

    /// Notes what is to be told of a request that begins.
    pub fn watch(
        &self,
        head: &RequestHead<'_>,
        (thread, arrival, active): (i64, u64, u64),
    ) -> Arc<Details> {
        let mut texts: [Vec<u8>; KEYS.len()] = Default::default();
        for (key, value) in head.environ().flatten() {
            let Key::Known(key) = key else { continue };
            let Some(at) = KEYS.iter().position(|known| *known == key) else { continue };
            if at != USER_AGENT || self.captures_user_agent {
                texts[at] = value[..value.len().min(LONGEST_TEXT)].to_vec();
            }
        }
        Arc::new(Details {
            thread,
            server_pid: head.server_pid,
            request_start: head.request_start,
            queue_start: head.queue_start,
            arrival,
            is_https: head.flags & flags::HTTPS != 0,
            texts,
            active,
            called: AtomicU64::new(0),
            tally: OnceLock::new(),
        })
    }

    /// Whether a request that took so many µs is to be told of.
    pub const fn is_slow(&self, micros: u64) -> bool {
        micros >= self.threshold
    }

    /// Keeps a request that ended until the next report; the oldest has to go if there
    /// is no room.
    pub fn keep(&self, details: Arc<Details>, end: End) {
        let Some(mut ended) = lock(&self.ended) else { return };
        if ended.len() >= self.most {
            ended.pop_front();
        }
        ended.push_back((details, end));
    }

    /// Tells of those that ended since the last report, each through `send`.
    pub fn report_ended(&self, mut send: impl FnMut(&dyn Fn(&mut Datagram))) {
        let ended = lock(&self.ended).map(|mut ended| std::mem::take(&mut *ended));
        for (details, end) in ended.unwrap_or_default() {
            send(&|to| details.describe(to, end.at, Some(&end)));
        }
    }

    /// Tells of those among `running` that take long already, the longest first, at
    /// most so many.
    pub fn report_running(
        &self,
        mut running: Vec<Arc<Details>>,
        now: u64,
        most: usize,
        mut send: impl FnMut(&dyn Fn(&mut Datagram)),
    ) {
        running.retain(|details| self.is_slow(details.elapsed(now)));
        running.sort_by_key(|details| details.arrival);
        for details in running.iter().take(most) {
            send(&|to| details.describe(to, now, None));
        }
    }
}
