//! The functions of the module `mod_wsgi` that tell what the process has done.
#![forbid(unsafe_code)]

use crate::metrics::{Phase, Sample, Share};
use crate::raw::system;
use crate::raw::{Args, Attached, Builtin, Class, ClassOf, Method, Object, Raised, This};
use crate::runtime::{self, Runtime};
use crate::telemetry;
use wsgi_wire::cursor::FrameError;
use wsgi_wire::server_record::{Reader, Worker};

/// What the functions are methods of.
pub struct Functions;

impl Class for Functions {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Metrics";
    const METHODS: &'static [Method<Self>] = &[Method::END];
}

/// `process_metrics()`
static PROCESS: Method<Functions> = Method::new(c"process_metrics", process_metrics);

/// `request_metrics()`
static REQUEST: Method<Functions> = Method::new(c"request_metrics", request_metrics);

/// `start_recording_metrics()`
static START: Method<Functions> = Method::new(c"start_recording_metrics", start_recording);

/// `server_metrics()`
static SERVER: Method<Functions> = Method::new(c"server_metrics", server_metrics);

/// Puts the functions into `module`.
pub fn furnish(py: Attached<'_>, module: &Object<'_>) -> Result<(), Raised> {
    let class = ClassOf::new(py)?;
    let functions = class.instance(py, Functions)?;
    module.set_attr(c"server_metrics", &class.bind(&functions, &SERVER)?)?;
    module.set_attr(c"process_metrics", &class.bind(&functions, &PROCESS)?)?;
    module.set_attr(c"request_metrics", &class.bind(&functions, &REQUEST)?)?;
    module.set_attr(c"start_recording_metrics", &class.bind(&functions, &START)?)
}

/// Raises if there are arguments.
fn no_arguments(args: Args<'_, '_>, name: &str) -> Result<(), Raised> {
    if args.len() == 0 {
        return Ok(());
    }
    let message = format!("{name}() takes no arguments ({} given)", args.len());
    Err(args.py().raise(Builtin::TypeError, &message))
}

/// Seconds of so many µs.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A dict in the making.
struct Dict<'p> {
    dict: Object<'p>,
}

impl<'p> Dict<'p> {
    fn new(py: Attached<'p>) -> Result<Self, Raised> {
        Ok(Self { dict: py.dict()? })
    }

    fn py(&self) -> Attached<'p> {
        self.dict.py()
    }

    fn set(&self, key: &str, value: &Object<'p>) -> Result<(), Raised> {
        self.dict.dict_set(&self.py().name(key)?, value)
    }

    fn int(&self, key: &str, value: u64) -> Result<(), Raised> {
        self.set(key, &int(self.py(), value)?)
    }

    fn float(&self, key: &str, value: f64) -> Result<(), Raised> {
        self.set(key, &self.py().float(value)?)
    }

    /// A list, an item for each of `values`.
    fn list<T>(
        &self,
        key: &str,
        values: impl IntoIterator<Item = T>,
        item: impl Fn(Attached<'p>, T) -> Result<Object<'p>, Raised>,
    ) -> Result<(), Raised> {
        let list = self.py().list()?;
        for value in values {
            list.list_append(&item(self.py(), value)?)?;
        }
        self.set(key, &list)
    }
}

/// An `int` that is not negative.
fn int(py: Attached<'_>, value: u64) -> Result<Object<'_>, Raised> {
    py.int(i64::try_from(value).unwrap_or(i64::MAX))
}

/// See [`PROCESS`].
fn process_metrics<'p>(
    _: This<'_, 'p, Functions>,
    args: Args<'_, 'p>,
) -> Result<Object<'p>, Raised> {
    no_arguments(args, "process_metrics")?;
    let py = args.py();
    let Some(runtime) = runtime::running() else { return Ok(py.none()) };
    let account = runtime.metrics.account();
    let usage = system::process_usage().unwrap_or_default();
    let dict = Dict::new(py)?;
    dict.int("pid", std::process::id().into())?;
    dict.float("request_busy_time", seconds(account.busy))?;
    dict.int("request_count", account.ended)?;
    dict.int("memory_max_rss", usage.most_memory)?;
    dict.int("memory_rss", system::resident_memory().unwrap_or(0))?;
    dict.float("cpu_user_time", seconds(usage.user))?;
    dict.float("cpu_system_time", seconds(usage.system))?;
    dict.float("cpu_time", seconds(usage.user + usage.system))?;
    dict.float("restart_time", seconds(account.begun))?;
    dict.float("current_time", seconds(account.now))?;
    dict.int("running_time", account.now.saturating_sub(account.begun) / 1_000_000)?;
    dict.int("request_threads", account.threads.len() as u64)?;
    dict.int("active_requests", account.active)?;
    dict.list("threads", account.threads, |py, thread| {
        let dict = Dict::new(py)?;
        dict.set("thread_id", &py.int(thread.number)?)?;
        dict.int("request_count", thread.begun)?;
        Ok(dict.dict)
    })?;
    Ok(dict.dict)
}

/// See [`START`].
fn start_recording<'p>(
    _: This<'_, 'p, Functions>,
    args: Args<'_, 'p>,
) -> Result<Object<'p>, Raised> {
    no_arguments(args, "start_recording_metrics")?;
    if let Some(runtime) = runtime::running() {
        runtime.metrics.record();
    }
    Ok(args.py().none())
}

/// See [`REQUEST`].
fn request_metrics<'p>(
    _: This<'_, 'p, Functions>,
    args: Args<'_, 'p>,
) -> Result<Object<'p>, Raised> {
    no_arguments(args, "request_metrics")?;
    let py = args.py();
    let Some(runtime) = runtime::running() else { return Ok(py.none()) };
    // Its reporter takes the periods.
    let sample = (!telemetry::is_on()).then(|| runtime.metrics.sample()).flatten();
    let Some(sample) = sample else { return Ok(py.none()) };
    let dict = Dict::new(py)?;
    dict.int("pid", std::process::id().into())?;
    dict.float("start_time", seconds(sample.begun))?;
    dict.float("stop_time", seconds(sample.ended))?;
    dict.float("sample_period", sample.seconds())?;
    usage(&dict, &sample)?;
    threads(&dict, runtime, &sample)?;
    requests(&dict, &sample)?;
    for (phase, name) in PHASES {
        times(&dict, &sample, phase, name)?;
    }
    dict.int("gil_wait_count", sample.totals.waits)?;
    Ok(dict.dict)
}

/// The phases and what their keys begin with.
const PHASES: [(Phase, &str); 8] = [
    (Phase::Server, "server_time"),
    (Phase::Queue, "queue_time"),
    (Phase::Daemon, "daemon_time"),
    (Phase::Application, "application_time"),
    (Phase::Request, "request_time"),
    (Phase::LockWait, "gil_wait_time"),
    (Phase::Input, "input_read_time"),
    (Phase::Output, "output_write_time"),
];

/// Processor and memory.
fn usage(dict: &Dict<'_>, sample: &Sample) -> Result<(), Raised> {
    let (user, system) = sample.processor;
    for (time, names) in [
        (user, ["cpu_user_utilization", "cpu_user_time"]),
        (system, ["cpu_system_utilization", "cpu_system_time"]),
        (user + system, ["cpu_utilization", "cpu_time"]),
    ] {
        // The second is no time either: the module we replace says it twice.
        for name in names {
            dict.float(name, seconds(time) / sample.seconds())?;
        }
    }
    dict.int("memory_max_rss", sample.memory.1)?;
    dict.int("memory_rss", sample.memory.0)
}

/// What is told of each thread, and under which key.
type Column = (&'static str, fn(&Share) -> u64);

/// What the threads did.
fn threads(dict: &Dict<'_>, runtime: &Runtime, sample: &Sample) -> Result<(), Raised> {
    let most = runtime.settings.threads_per_process as usize;
    let mut shares = sample.shares.clone();
    shares.resize(shares.len().max(most), Share::default());
    let active = shares.iter().filter(|share| share.busy > 0).count();
    dict.int("request_threads_maximum", most as u64)?;
    dict.int("request_threads_started", sample.shares.len() as u64)?;
    dict.int("request_threads_active", active as u64)?;
    dict.float("capacity_utilization", sample.capacity(most))?;
    for name in ["request_threads_completed", "request_threads_buckets"] {
        dict.list(name, &shares, |py, share| int(py, share.ended))?;
    }
    let columns: [Column; 4] = [
        ("request_threads_busy_time", |share| share.busy),
        ("request_threads_cpu_time", |share| share.processor),
        ("request_threads_current_elapsed", |share| share.elapsed),
        ("request_threads_max_duration", |share| share.longest),
    ];
    for (name, of) in columns {
        dict.list(name, &shares, |py, share| py.float(seconds(of(share))))?;
    }
    Ok(())
}

/// How many requests there were, and what they moved.
fn requests(dict: &Dict<'_>, sample: &Sample) -> Result<(), Raised> {
    let totals = &sample.totals;
    dict.int("request_count", totals.requests)?;
    dict.float("request_throughput", totals.requests as f64 / sample.seconds())?;
    let names = ["status_1xx", "status_2xx", "status_3xx", "status_4xx", "status_5xx"];
    for (name, count) in names.into_iter().zip(totals.statuses) {
        dict.int(name, count)?;
    }
    dict.int("input_bytes", totals.input.bytes)?;
    dict.int("input_reads", totals.input.steps)?;
    dict.int("output_bytes", totals.output.bytes)?;
    dict.int("output_writes", totals.output.steps)
}

/// Mean, extremes and histogram of a phase.
fn times(dict: &Dict<'_>, sample: &Sample, phase: Phase, name: &str) -> Result<(), Raised> {
    let (py, times) = (dict.py(), sample.totals.times(phase));
    // Embedded, nothing ever waits for a daemon process.
    let is_optional = matches!(phase, Phase::Queue | Phase::Daemon);
    match times.is_empty() && is_optional {
        true => dict.set(name, &py.none())?,
        false => dict.float(name, times.mean())?,
    }
    let (least, most) = times.extremes().unzip();
    for (end, value) in [("min", least), ("max", most)] {
        let value = value.map_or_else(|| Ok(py.none()), |value| int(py, value))?;
        dict.set(&format!("{name}_{end}_us"), &value)?;
    }
    dict.list(&format!("{name}_buckets"), times.places(), |py, count| int(py, (*count).into()))
}

/// See [`SERVER`].
fn server_metrics<'p>(
    _: This<'_, 'p, Functions>,
    args: Args<'_, 'p>,
) -> Result<Object<'p>, Raised> {
    no_arguments(args, "server_metrics")?;
    let py = args.py();
    // A thread that was not forked along may have the host's locks for ever.
    let Some(log) = runtime::log().filter(|_| !system::is_forked()) else { return Ok(py.none()) };
    let Some(record) = py.detached(|| log.server_metrics()) else { return Ok(py.none()) };
    match server(py, &record) {
        Ok(dict) => Ok(dict),
        Err(Unshown::Raised(raised)) => Err(raised),
        // Somebody wrote what we would not: there is nothing to tell.
        Err(Unshown::Record) => Ok(py.none()),
    }
}

/// Why a record cannot be shown.
enum Unshown {
    /// It is none.
    Record,
    /// Python raised.
    Raised(Raised),
}

impl From<FrameError> for Unshown {
    fn from(_: FrameError) -> Self {
        Self::Record
    }
}

impl From<Raised> for Unshown {
    fn from(raised: Raised) -> Self {
        Self::Raised(raised)
    }
}

/// A record as a dict.
fn server<'p>(py: Attached<'p>, record: &[u8]) -> Result<Object<'p>, Unshown> {
    let (server, mut reader) = Reader::new(record)?;
    let dict = Dict::new(py)?;
    dict.int("server_limit", server.server_limit.into())?;
    dict.int("thread_limit", server.thread_limit.into())?;
    dict.int("running_generation", server.generation.into())?;
    dict.float("restart_time", seconds(server.restarted))?;
    dict.float("current_time", seconds(server.read))?;
    dict.int("running_time", server.read.saturating_sub(server.restarted) / 1_000_000)?;
    let processes = py.list()?;
    let mut number = 0;
    while let Some(child) = reader.child()? {
        let process = Dict::new(py)?;
        process.int("process_num", number)?;
        process.int("pid", child.pid.into())?;
        process.int("generation", child.generation.into())?;
        process.set("quiescing", &py.boolean(child.is_quiescing)?)?;
        let workers = py.list()?;
        for _ in 0..child.threads {
            workers.list_append(&worker(py, &reader.worker()?)?)?;
        }
        process.set("workers", &workers)?;
        processes.list_append(&process.dict)?;
        number += 1;
    }
    dict.set("processes", &processes)?;
    Ok(dict.dict)
}

/// A thread of a child process as a dict.
fn worker<'p>(py: Attached<'p>, worker: &Worker<'_>) -> Result<Object<'p>, Raised> {
    let dict = Dict::new(py)?;
    dict.int("thread_num", worker.thread.into())?;
    dict.int("generation", worker.generation.into())?;
    dict.set("status", &py.latin1(&[worker.status])?)?;
    dict.int("access_count", worker.requests)?;
    dict.int("bytes_served", worker.bytes)?;
    dict.float("start_time", seconds(worker.started))?;
    dict.float("stop_time", seconds(worker.stopped))?;
    dict.float("last_used", seconds(worker.used))?;
    dict.set("client", &py.latin1(worker.client)?)?;
    dict.set("request", &py.latin1(worker.request)?)?;
    dict.set("vhost", &py.latin1(worker.vhost)?)?;
    Ok(dict.dict)
}
