//! Telemetry: a thread that reports, at every interval, what the process does to a
//! datagram socket.  What is lost is lost: nobody but that thread ever waits for a
//! receiver, and that for moments only.
//!
//! The reporting thread never attaches to Python, so that a process whose lock nobody
//! gives up is reported all the same.  The counters of garbage collectors need that
//! lock: a second thread asks for them.
#![forbid(unsafe_code)]

use crate::collector::{Collector, Counters, Passes};
use crate::metrics::{Phase, Sample, Share, lock, now};
use crate::raw::{self, Attached, HostLog, Raised, Settings, system};
use crate::runtime::{self, Runtime};
use crate::slow::Slow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use wsgi_wire::datagram::{Datagram, Kind, field};
use wsgi_wire::vtable::level;

/// Threads that are told of one by one: what more there are do not fit a datagram.
const MOST_THREADS: usize = 128;

/// Running requests told of at a time.
const MOST_RUNNING: usize = 16;

/// Passes of garbage collectors told of at a time.
const MOST_PASSES: usize = 64;

/// Interpreters whose garbage collector is watched.
const MOST_INTERPRETERS: usize = 32;

/// How long the end of Python waits for each of the two threads.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// How often a receiver that is behind is waited for in one report, and how long: its
/// kernel may keep but ten datagrams for it.  At the end of the process never.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// Python's own, until it was asked.
const SWITCH_INTERVAL: f64 = 0.005;

/// What is reported, and where.
struct Telemetry {
    settings: Settings,
    wanted: raw::Telemetry,
    socket: UnixDatagram,
    sequence: AtomicU32,
    hostname: Vec<u8>,
    python_version: &'static str,
    /// Seconds, as bits.
    switch_interval: AtomicU64,
    slow: Option<Slow>,
    passes: Passes,
    /// How many interpreters are watched.
    watched: AtomicU32,
    /// Why the process stops.
    reason: OnceLock<Vec<u8>>,
    /// Whether that was told.
    is_stopping: AtomicBool,
    /// Whether it was told that it has stopped.
    is_stopped: AtomicBool,
    /// How often a receiver may be waited for until the next report.
    patience: AtomicU32,
    threads: Mutex<Option<Threads>>,
}

/// The two threads, while they run.
struct Threads {
    /// Its end ends the reporter.
    stop: Sender<()>,
    reporter: Receiver<()>,
    collector: Option<JoinHandle<()>>,
}

/// Set once, before the first interpreter is.
static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();

/// Whether somebody is reported to: then nobody else takes the periods.
pub fn is_on() -> bool {
    TELEMETRY.get().is_some()
}

/// What watches for requests that take long, if they are to be reported.
pub fn slow() -> Option<&'static Slow> {
    TELEMETRY.get()?.slow.as_ref()
}

/// Makes ready for the first interpreter, if telemetry is wished.
pub fn prepare(log: HostLog, settings: &Settings) {
    let Some(wanted) = settings.telemetry.clone() else { return };
    let socket =
        UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    let socket = match socket {
        Ok(socket) => socket,
        Err(cause) => {
            let text = format!("WSGI0132: no telemetry from this process: no socket: {cause}");
            return log.line(level::WARN, &text);
        }
    };
    let slow = wanted.slow_requests.map(|threshold| {
        let threads = settings.threads_per_process;
        Slow::new(threshold, wanted.interval, threads, wanted.captures_user_agent)
    });
    let interval = settings.switch_interval.unwrap_or(SWITCH_INTERVAL);
    let _ = TELEMETRY.set(Telemetry {
        settings: settings.clone(),
        wanted,
        socket,
        sequence: AtomicU32::new(0),
        hostname: system::host_name(),
        python_version: raw::version_number(),
        switch_interval: AtomicU64::new(interval.to_bits()),
        slow,
        passes: Passes::default(),
        watched: AtomicU32::new(0),
        reason: OnceLock::new(),
        is_stopping: AtomicBool::new(false),
        is_stopped: AtomicBool::new(false),
        patience: AtomicU32::new(PATIENCE),
        threads: Mutex::default(),
    });
}

/// Watches the garbage collector of the interpreter `py` is attached to, if telemetry
/// is wished.
pub fn watch(py: Attached<'_>, name: &[u8]) -> Result<Option<Collector>, Raised> {
    let Some(telemetry) = TELEMETRY.get() else { return Ok(None) };
    let number = telemetry.watched.fetch_add(1, Ordering::Relaxed);
    if number as usize >= MOST_INTERPRETERS {
        return Ok(None);
    }
    Collector::watch(py, name, &telemetry.passes).map(Some)
}

/// Starts to report on the running Python.
pub fn begin(runtime: &'static Runtime) {
    let Some(telemetry) = TELEMETRY.get() else { return };
    runtime.metrics.record();
    if let Err(cause) = telemetry.start(runtime) {
        let text = format!("WSGI0133: no telemetry from this process: no thread: {cause}");
        runtime.log.line(level::WARN, &text);
    }
}

/// Tells that the process is about to stop, and why.
pub fn stopping(reason: &[u8]) {
    let Some(telemetry) = TELEMETRY.get() else { return };
    let _ = telemetry.reason.set(reason.to_vec());
    telemetry.tell_stopping();
}

/// Reports for the last time of a process that is ended though requests run, or though
/// Python does not end.
pub fn abandon() {
    if let (Some(telemetry), Some(runtime)) = (TELEMETRY.get(), runtime::running()) {
        telemetry.tell_stopping();
        telemetry.tick(runtime);
        telemetry.tell_stopped(runtime);
    }
}

/// Reports for the last time; before Python ends.
pub fn stop() {
    let Some(telemetry) = TELEMETRY.get() else { return };
    let Some(threads) = lock(&telemetry.threads).and_then(|mut threads| threads.take()) else {
        return;
    };
    telemetry.tell_stopping();
    drop(threads.stop);
    let _ = threads.reporter.recv_timeout(LAST_WAIT);
    let deadline = Instant::now() + LAST_WAIT;
    if let Some(collector) = threads.collector {
        // It gives up its states when it ends, before Python does.  One that waits for
        // a lock nobody gives up is left behind, as Python will be.
        while !collector.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if collector.is_finished() {
            let _ = collector.join();
        }
    }
}

impl Telemetry {
    /// Starts the threads.
    fn start(&'static self, runtime: &'static Runtime) -> io::Result<()> {
        let (stop, is_to_stop) = channel::<()>();
        let (finished, reporter) = channel();
        let (ask, is_asked) = sync_channel(1);
        let collect = move || {
            while is_asked.recv().is_ok() {
                self.report_collectors(runtime);
            }
        };
        // Without it the rest is reported all the same.
        let collector = Builder::new().name("wsgi-collector".to_owned()).spawn(collect).ok();
        let report = move || {
            self.report(runtime, &is_to_stop, &ask);
            let _ = finished.send(());
        };
        Builder::new().name("wsgi-telemetry".to_owned()).spawn(report)?;
        if let Some(mut threads) = lock(&self.threads) {
            *threads = Some(Threads { stop, reporter, collector });
        }
        Ok(())
    }

    /// The reporting thread.
    fn report(&self, runtime: &Runtime, stop: &Receiver<()>, ask: &SyncSender<()>) {
        self.send(Kind::Started, |to| {
            self.describe(to);
            to.number(field::SWITCH_INTERVAL, self.switch_interval());
        });
        while stop.recv_timeout(self.wanted.interval) == Err(RecvTimeoutError::Timeout) {
            // Not while it still waits for the last time.
            let _ = ask.try_send(());
            self.tick(runtime);
        }
        self.tick(runtime);
        self.tell_stopped(runtime);
    }

    /// Sends a datagram with what `describe` puts into it.
    fn send(&self, kind: Kind, describe: impl FnOnce(&mut Datagram)) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut datagram = Datagram::new(kind, std::process::id(), sequence, now() as f64 / 1e6);
        describe(&mut datagram);
        let path = Path::new(OsStr::from_bytes(&self.wanted.service));
        loop {
            let sent = self.socket.send_to(datagram.finish(), path);
            // A kernel keeps as few as ten datagrams for a receiver.
            let is_full = sent.is_err_and(|cause| cause.kind() == io::ErrorKind::WouldBlock);
            // Nobody there, or too slow to take it: lost.
            if !is_full || self.is_stopping.load(Ordering::Relaxed) || !self.has_patience() {
                return;
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Whether a receiver that is behind may be waited for once more in this report.
    fn has_patience(&self) -> bool {
        let less = |patience: u32| patience.checked_sub(1);
        self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn switch_interval(&self) -> f64 {
        f64::from_bits(self.switch_interval.load(Ordering::Relaxed))
    }

    /// Tells who the process is.
    fn describe(&self, to: &mut Datagram) {
        let apache = self.settings.apache.description.split(|byte| *byte == b' ').next();
        to.text(field::MOD_WSGI_VERSION, crate::interpreter::VERSION_TEXT.as_bytes())
            .text(field::PYTHON_VERSION, self.python_version.as_bytes())
            .text(field::APACHE_VERSION, apache.unwrap_or_default())
            .text(field::MPM_NAME, &self.settings.apache.mpm_name);
        self.describe_place(to);
        to.count(field::PROCESS_PARENT_PID, self.wanted.parent.into());
    }

    /// Tells where it is.
    fn describe_place(&self, to: &mut Datagram) {
        to.text(field::HOSTNAME, &self.hostname)
            .text(field::PROCESS_GROUP, &self.settings.process_group);
    }

    /// Tells that the process is about to stop, unless that was told.
    fn tell_stopping(&self) {
        if self.is_stopping.swap(true, Ordering::Relaxed) {
            return;
        }
        let active = runtime::running().map_or(0, |runtime| runtime.metrics.active());
        self.send(Kind::Stopping, |to| {
            self.describe_place(to);
            to.text(field::SHUTDOWN_REASON, self.reason.get().map_or(&[], Vec::as_slice))
                .count(field::ACTIVE_REQUESTS_AT_DECISION, active);
        });
    }

    /// Tells that nothing is served any more, unless that was told.
    fn tell_stopped(&self, runtime: &Runtime) {
        if self.is_stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        let account = runtime.metrics.account();
        self.send(Kind::Stopped, |to| {
            self.describe_place(to);
            to.text(field::SHUTDOWN_REASON, self.reason.get().map_or(&[], Vec::as_slice))
                .micros(field::PROCESS_UPTIME, account.now.saturating_sub(account.begun))
                .count(field::LIFETIME_REQUEST_COUNT, account.ended)
                .count(field::ACTIVE_REQUESTS_AT_EXIT, account.active)
                .count(field::GRACEFUL_DRAIN, (account.active == 0).into());
        });
    }

    /// One report.
    fn tick(&self, runtime: &Runtime) {
        self.patience.store(PATIENCE, Ordering::Relaxed);
        if let Some(sample) = runtime.metrics.sample() {
            self.send(Kind::Requests, |to| self.describe_sample(to, &sample));
        }
        if let Some(slow) = &self.slow {
            slow.report_ended(|describe| self.send(Kind::SlowRequest, describe));
            let running = runtime.metrics.running();
            slow.report_running(running, now(), MOST_RUNNING, |describe| {
                self.send(Kind::SlowRequest, describe);
            });
        }
        for pass in self.passes.take(MOST_PASSES) {
            self.send(Kind::Collection, |to| pass.describe(to));
        }
    }

    /// The counters of all garbage collectors, on the thread for that.
    fn report_collectors(&self, runtime: &Runtime) {
        let _inside = runtime.enter();
        for group in runtime.groups_main_last() {
            let Some(collector) = &group.place.collector else { continue };
            let counters = group.interpreter.attach().and_then(|lease| {
                let counters = self.ask(lease.py(), collector, group.name.is_empty());
                counters.map_err(|raised| raised.clear(lease.py())).ok()
            });
            if let Some(counters) = counters {
                self.send(Kind::Collector, |to| counters.describe(to));
            }
        }
    }

    /// The counters of one, and of the main interpreter its switch interval.
    fn ask(&self, py: Attached<'_>, of: &Collector, is_main: bool) -> Result<Counters, Raised> {
        if is_main {
            let interval = of.switch_interval(py)?;
            self.switch_interval.store(interval.to_bits(), Ordering::Relaxed);
        }
        of.count(py)
    }

    /// A period; the arrays last, because they may not fit.
    fn describe_sample(&self, to: &mut Datagram, sample: &Sample) {
        let (seconds, totals) = (sample.seconds(), &sample.totals);
        let most = self.settings.threads_per_process as usize;
        let (user, system) = sample.processor;
        let rate = |micros: u64| micros as f64 / 1e6 / seconds;
        self.describe(to);
        to.number(field::SAMPLE_PERIOD, seconds)
            .number(field::TELEMETRY_INTERVAL, self.wanted.interval.as_secs_f64())
            .number(
                field::SLOW_REQUESTS_THRESHOLD,
                self.wanted.slow_requests.unwrap_or_default().as_secs_f64(),
            )
            .number(field::SWITCH_INTERVAL, self.switch_interval())
            .count(field::REQUEST_COUNT, totals.requests)
            .number(field::REQUEST_THROUGHPUT, totals.requests as f64 / seconds)
            .number(field::CAPACITY_UTILIZATION, sample.capacity(most))
            .number(field::CPU_USER_UTILIZATION, rate(user))
            .number(field::CPU_SYSTEM_UTILIZATION, rate(system))
            .number(field::CPU_UTILIZATION, rate(user + system))
            .count(field::MEMORY_RSS, sample.memory.0)
            .count(field::MEMORY_MAX_RSS, sample.memory.1);
        let active = sample.shares.iter().filter(|share| share.busy > 0).count();
        to.count(field::REQUEST_THREADS_MAXIMUM, most as u64)
            .count(field::REQUEST_THREADS_STARTED, sample.shares.len() as u64)
            .count(field::REQUEST_THREADS_ACTIVE, active as u64)
            .count(field::INPUT_BYTES, totals.input.bytes)
            .count(field::INPUT_READS, totals.input.steps)
            .count(field::OUTPUT_BYTES, totals.output.bytes)
            .count(field::OUTPUT_WRITES, totals.output.steps);
        for (number, count) in (field::STATUS_CLASSES..).zip(totals.statuses) {
            to.count(number, count);
        }
        describe_phases(to, sample);
        describe_threads(to, &sample.shares, most);
    }
}

/// The times of a period's requests.
fn describe_phases(to: &mut Datagram, sample: &Sample) {
    for (at, phase) in (0..).zip(Phase::ALL) {
        let times = sample.totals.times(phase);
        // Embedded, nothing ever waits for a daemon process.
        if times.is_empty() && matches!(phase, Phase::Queue | Phase::Daemon) {
            continue;
        }
        to.number(field::PHASE_MEANS + at, times.mean());
        if let Some((least, most)) = times.extremes() {
            to.micros(field::PHASE_MINIMA + at, least).micros(field::PHASE_MAXIMA + at, most);
        }
        to.counts(field::PHASE_BUCKETS + at, times.places());
    }
}

/// What each thread did in a period: as many as there are, whether they began or not.
fn describe_threads(to: &mut Datagram, shares: &[Share], most: usize) {
    let mut shares = shares.to_vec();
    shares.resize(shares.len().max(most), Share::default());
    shares.truncate(MOST_THREADS);
    let ended: Vec<u32> =
        shares.iter().map(|share| u32::try_from(share.ended).unwrap_or(u32::MAX)).collect();
    to.counts(field::THREADS_COMPLETED, &ended);
    let columns: [fn(&Share) -> u64; 4] =
        [|share| share.busy, |share| share.processor, |share| share.elapsed, |share| share.longest];
    for (number, of) in (field::THREADS_BUSY_TIME..).zip(columns) {
        let column: Vec<u64> = shares.iter().map(of).collect();
        to.all_micros(number, &column);
    }
}
