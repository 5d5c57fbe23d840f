//! A daemon process, from the fork to its exit.
//!
//! Its main thread is Python's main thread: it starts Python, loads scripts,
//! says that it is ready, then waits for the supervisor, for signals and for its
//! workers; at the end it stops Python.
#![forbid(unsafe_code)]

use super::announcer::Announcer;
use super::changes::{Change, Changed};
use super::control::{self, Message, ToDaemon, ToSupervisorFromDaemon};
use super::heartbeat::Heartbeat;
use super::log::ProcessLog;
use super::plan::{GroupPlan, PythonPlan, Script};
use super::sys;
use super::worker::{Parts, Service, work};
use super::{identity, loading, secrets, service};
use crate::config::environment::{is_inherited, read_file};
use crate::host::{Half, Log, Runtime, Source, Start};
use crate::scoreboard::snapshot::Subscriber;
use crate::scoreboard::{Reason, Scoreboard, Slot, State};
use crate::server_metrics;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a process that drains looks for tickets that came back without a
/// word, because the child that held them died.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// How long a process whose supervisor is gone serves on if nobody replaces it.
/// Shorter, and an application that takes long to load leaves a gap; longer, and
/// what httpd has forgotten stays about.
const ORPHANED: Duration = Duration::from_secs(30);

/// Generations are counted from the time their supervisor started: one that is
/// younger than the loss of ours, give or take this, is another supervisor's.
const SLACK: Duration = Duration::from_secs(1);

/// A supervisor starts fewer processes than this within [`SLACK`]: what is further on
/// than ours by more is another supervisor's.
const MOST_STARTS: u64 = 10_000;

/// How much later than the main thread the reaper ends the process.
const REAPER_DELAY: Duration = Duration::from_millis(700);

/// Everything a new daemon process is given.
pub struct Seat {
    /// Its group.
    pub plan: GroupPlan,
    /// The group's scoreboard.
    pub board: Arc<Scoreboard>,
    /// Its slot.
    pub slot: u32,
    /// Which process it is.
    pub generation: u64,
    /// Where connections come from.
    pub inbox: OwnedFd,
    /// The supervisor.
    pub control: OwnedFd,
    /// The group's error log.
    pub log: Option<OwnedFd>,
    /// What httpd's scoreboard is read from, if it may see it.
    pub snapshot: Option<OwnedFd>,
    /// The variables of its environment, if there are any.
    pub environment: Option<OwnedFd>,
    /// What it loads before it is ready.
    pub scripts: Vec<Script>,
    /// What another process said that could not load these: a hash.
    pub known_failure: Option<u64>,
}

/// The process' own log: the runtime's lines without a request go there too.
static LOG: OnceLock<ProcessLog> = OnceLock::new();

/// A line of the runtime that belongs to no request.
fn log_line(level: u32, message: &str, source: Option<Source<'_>>) {
    if let Some(log) = LOG.get() {
        loading::line(log, level, message, source);
    }
}

/// Whether the process' log takes lines of this level.
fn log_wants(level: u32) -> bool {
    LOG.get().is_some_and(|log| log.wants(level))
}

/// Exit code of a process that could not set itself up.
pub const FAILED: i32 = 1;

/// Exit code of a process that could not end in time, as of timeout(1).
pub const OVERDUE: i32 = 124;

/// Runs the process; never returns.
pub fn run(mut seat: Seat) -> ! {
    let identity = format!(" [group '{}']", seat.plan.name);
    let log = LOG.get_or_init(|| ProcessLog::new(None, seat.plan.log_level, identity));
    let copy = seat.log.as_ref().and_then(|log| log.try_clone().ok());
    log.reopen(copy, seat.plan.log_level);
    // Its descriptor is closed: the application has the view and nothing else.
    match seat.snapshot.take().map(Subscriber::open).transpose() {
        Ok(subscriber) => subscriber.map(server_metrics::subscribe).unwrap_or_default(),
        Err(cause) => {
            let text = format!("WSGI9431: server_metrics() has nothing to show: {cause}");
            log.write(wsgi_wire::vtable::level::WARN, &text);
        }
    }
    // Later handlers take over.  Until then: what asks for a new process has one, and
    // what has no meaning must not end one that loads.
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        sys::ignore_signal(signal);
    }
    let code = match set_up(&seat, log) {
        Ok((runtime, heartbeat)) if seat.plan.is_service() => {
            service::serve(seat, runtime, heartbeat, log)
        }
        Ok((runtime, heartbeat)) => {
            let failure = load(&seat, runtime, log);
            serve(seat, (runtime, failure), heartbeat, log)
        }
        Err(reason) => {
            // The supervisor adds what happens next, so that it is one line.
            let failed = ToSupervisorFromDaemon::Failed { reason: reason.clone() };
            if control::try_send(seat.control.as_fd(), &failed, &[]).is_err() {
                log.write(wsgi_wire::vtable::level::ALERT, &reason);
            }
            FAILED
        }
    };
    sys::exit_now(code)
}

/// The steps that make a fork of the supervisor a process of its group, up to a
/// running Python; or why a step failed.
fn set_up(seat: &Seat, log: &'static ProcessLog) -> Result<(Runtime, Heartbeat), String> {
    let plan = &seat.plan;
    sys::set_title(&plan.title);
    sys::set_standard_streams(seat.log.as_ref().map(AsFd::as_fd))
        .map_err(|cause| format!("WSGI9107: cannot set up the standard streams: {cause}"))?;
    identity::set_limits(plan, |warning| {
        log.write(wsgi_wire::vtable::level::WARN, warning);
    });
    // As root, and while the files of the whole system can be reached.
    let environment = environment(seat)?;
    let half = match plan.identity.chroot {
        Some(_) => Half::find_before_chroot()
            .map_err(|error| format!("WSGI0028: cannot start Python: {error}"))?,
        None => Half::find(),
    };
    let threads = sys::list_threads().map_err(|cause| format!("WSGI9114: {cause}"))?;
    identity::assume(&plan.identity).map_err(|error| error.to_string())?;
    identity::go_home(plan).map_err(|error| error.to_string())?;
    if let Some(umask) = plan.umask {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    }
    // Not before: what the group says is not to guide what root does.
    sys::change_environment(
        threads,
        environment
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_ref().map(OsString::as_os_str))),
    )
    .map_err(|cause| format!("WSGI9114: {cause}"))?;
    if let Some(locale) = &plan.locale
        && !sys::set_locale(locale)
    {
        let text = format!("WSGI0079: the system has no locale '{locale}'; left as it is");
        log.write(wsgi_wire::vtable::level::WARN, &text);
    }
    let python = plan.find_python();
    let name = python.as_ref().map_or("none", |python| {
        python.libpython.file_name().and_then(OsStr::to_str).unwrap_or_default()
    });
    log.info(&format!(
        "Starting daemon process, uid={}, gid={}, threads={}, python={name}",
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
        plan.threads
    ));
    let python = python.map_err(|reason| format!("WSGI0028: {reason}"))?;
    let runtime = start_python(plan, &python, half)?;
    let place = (Arc::clone(&seat.board), seat.slot);
    let heartbeat = Heartbeat::start(runtime, place, plan.limits.deadlock, log)
        .map_err(|cause| format!("WSGI0069: cannot start the heartbeat: {cause}"))?;
    Ok((runtime, heartbeat))
}

/// Loads what the process is to have loaded before it takes requests; if not all of
/// it could be, a hash of what was logged about that.
fn load(seat: &Seat, runtime: Runtime, log: &ProcessLog) -> Option<u64> {
    let plan = &seat.plan;
    loading::begin(seat.known_failure);
    let mut tried = Vec::new();
    // Looked for as the group's user and below its root: a predecessor says what
    // it has loaded, and is not to make root look anywhere.
    let is_wanted = |script: &&Script| {
        plan.preload.contains(script) || Path::new(OsStr::from_bytes(&script.path)).exists()
    };
    for script in seat.scripts.iter().filter(is_wanted) {
        // The time first: a change while it is read is another one.
        let changed = Changed::of(&script.path).unwrap_or_default();
        let loaded = runtime.load_script(&script.application_group, &script.path);
        tried.push((Change { script: script.clone(), changed }, loaded));
    }
    if tried.iter().any(|(_, loaded)| *loaded)
        && let Some(slot) = seat.board.slot(seat.slot)
    {
        slot.note_load();
    }
    let is_complete = tried.iter().all(|(_, loaded)| *loaded);
    if !is_complete {
        for (change, loaded) in tried {
            let message = ToSupervisorFromDaemon::Tried { change, loaded };
            let _ = control::send(seat.control.as_fd(), &message, &[]);
        }
    }
    loading::end(log, is_complete, seat.known_failure)
}

/// How the environment changes: what is removed, what is set.
fn environment(seat: &Seat) -> Result<Vec<(OsString, Option<OsString>)>, String> {
    let plan = &seat.plan;
    let from_file = match &plan.env_file {
        Some(file) => read_file(file)
            .map_err(|fault| format!("WSGI9206: env-file '{}': {fault}", file.display()))?,
        None => Vec::new(),
    };
    let from_file = from_file.into_iter().map(|variable| {
        (OsString::from_vec(variable.name), Some(OsString::from_vec(variable.value)))
    });
    let is_kept = |name: &OsStr| is_inherited(name.as_bytes(), plan.clear_environment);
    let removed =
        std::env::vars_os().filter(|(name, _)| !is_kept(name)).map(|(name, _)| (name, None));
    let own =
        secrets::open(seat.environment.as_ref()).map_err(|cause| format!("WSGI9114: {cause}"))?;
    let set = own.into_iter().map(|(name, value)| (name.into(), Some(value.into())));
    Ok(removed.chain(from_file).chain(set).collect())
}

fn start_python(plan: &GroupPlan, python: &PythonPlan, half: Half) -> Result<Runtime, String> {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let start = Start {
        program: python.program.clone(),
        python_path: plan.python_path.clone(),
        home: plan.home.as_deref().map(text).unwrap_or_default(),
        user_name: plan.identity.user_name.clone(),
        user_home: text(&plan.identity.user_home),
        process_group: plan.name.clone(),
        maximum_processes: plan.processes,
        threads_per_process: plan.threads,
        multithread: plan.threads != 1,
        multiprocess: plan.multiprocess,
        run_once: plan.run_once,
        apache_version: plan.apache_version,
        apache: plan.apache.clone(),
        reload_in_place: false,
        service: plan.is_service(),
        stdout_level: plan.stream_levels.0,
        stderr_level: plan.stream_levels.1,
        switch_interval: plan.switch_interval,
        stacks_signal: Some(sys::stacks_signal()),
        interpreters: plan.interpreters.clone(),
        server_metrics: plan.server_metrics.then_some(server_metrics::view),
        telemetry: plan.telemetry.clone(),
    };
    let log = Log { write: log_line, wants: log_wants };
    Runtime::start(&python.libpython, half, &start, log)
        .map_err(|error| format!("WSGI0028: cannot start Python: {error}"))
}

/// What somebody wants of the process.
enum Order {
    /// Nothing.
    None,
    /// To finish, within this time unless it is zero.
    Drain(Reason, Duration),
    /// To end.
    Stop(Reason),
}

impl Order {
    /// This one, or if it is none the other.
    fn or(self, other: Self) -> Self {
        if matches!(self, Self::None) { other } else { self }
    }
}

/// What the main thread is waiting for.
enum Phase {
    /// Requests are served.
    Serving,
    /// What was sent is finished; at the deadline the process stops.
    Draining {
        deadline: Option<Instant>,
        /// Tickets out of circulation.
        held: Vec<u64>,
    },
}

/// Serves until the process is to stop, then stops it; the exit code.
fn serve(
    seat: Seat,
    (runtime, failure): (Runtime, Option<u64>),
    heartbeat: Heartbeat,
    log: &'static ProcessLog,
) -> i32 {
    let Seat { plan, board, slot, generation, inbox, control, .. } = seat;
    let signals = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGHUP,
        Signal::SIGUSR2,
        Signal::SIGXCPU,
    ];
    let (threads, stack_size) = (plan.threads, plan.stack_size);
    let parts = Parts { runtime, plan, board, slot, generation, inbox, log };
    let made = sys::catch_signals(&signals).and_then(|pipe| Ok((pipe, Service::new(parts)?)));
    let (signals, service) = match made {
        Ok((signals, service)) => (signals, Arc::new(service)),
        Err(cause) => {
            log.error(&format!("WSGI9108: cannot set up the workers: {cause}"));
            return FAILED;
        }
    };
    let working = Arc::new(AtomicU32::new(0));
    for thread in 0..threads {
        if let Err(cause) = start_worker(&service, &working, thread, stack_size) {
            log.error(&format!("WSGI0022: cannot start worker {thread}: {cause}"));
            return FAILED;
        }
    }
    let ready = ToSupervisorFromDaemon::Ready { failure };
    if control::send(control.as_fd(), &ready, &[]).is_err() {
        return FAILED;
    }
    let announcer = {
        let service = Arc::clone(&service);
        Announcer::new(runtime, move || {
            let _ = service.attention.write(1);
        })
    };
    let (control, lost, is_unopened, has_shown_stacks) = (Some(control), None, false, false);
    let own = Main {
        service,
        heartbeat,
        announcer,
        working,
        signals,
        control,
        lost,
        is_unopened,
        has_shown_stacks,
        log,
    };
    own.run()
}

fn start_worker(
    service: &Arc<Service>,
    working: &Arc<AtomicU32>,
    thread: u32,
    stack_size: Option<usize>,
) -> std::io::Result<()> {
    let (service, working) = (Arc::clone(service), Arc::clone(working));
    let mut builder = std::thread::Builder::new().name(format!("wsgi-{thread}"));
    if let Some(size) = stack_size {
        builder = builder.stack_size(size);
    }
    working.fetch_add(1, Ordering::SeqCst);
    builder.spawn(move || {
        work(&service, thread);
        working.fetch_sub(1, Ordering::SeqCst);
        let _ = service.attention.write(1);
    })?;
    Ok(())
}

/// The main thread once the workers run.
struct Main {
    service: Arc<Service>,
    heartbeat: Heartbeat,
    announcer: Announcer,
    working: Arc<AtomicU32>,
    signals: OwnedFd,
    /// None once the supervisor is gone.
    control: Option<OwnedFd>,
    /// When it was found to be gone: by both clocks, the second in µs since the epoch.
    lost: Option<(Instant, u64)>,
    /// Whether the supervisor has died before it let anybody send requests: nobody will.
    is_unopened: bool,
    /// Whether the stacks are in the log already, of the moment they were wanted for.
    has_shown_stacks: bool,
    log: &'static ProcessLog,
}

impl Main {
    fn run(mut self) -> i32 {
        let mut phase = Phase::Serving;
        loop {
            let timeout = match &mut phase {
                Phase::Serving => self.control.is_none().then_some(DRAIN_LOOK),
                Phase::Draining { deadline, held } => {
                    let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                    if self.is_drained(held) || left == Some(Duration::ZERO) {
                        return self.stop("no request runs any more, or its time has passed");
                    }
                    Some(left.map_or(DRAIN_LOOK, |left| left.min(DRAIN_LOOK)))
                }
            };
            self.wait(timeout);
            let _ = self.service.attention.read();
            let mut order = match self.obey_signals() {
                Order::Stop(why) => {
                    self.tell(&ToSupervisorFromDaemon::Leaving);
                    self.announcer.note(why);
                    return self.stop(&why.to_string());
                }
                order => order,
            };
            while let Some(message) = self.next_message() {
                match message {
                    ToDaemon::Drain { why, timeout } => order = Order::Drain(why, timeout),
                    ToDaemon::Stop { why } => {
                        // For these the supervisor had them shown before it said so.
                        self.has_shown_stacks |=
                            matches!(why, Reason::DeadlockTimeout | Reason::StartupTimeout);
                        self.announcer.note(why);
                        return self.stop(&why.to_string());
                    }
                    ToDaemon::Interrupt { request } => self.heartbeat.interrupt(request),
                    ToDaemon::Stacks => {
                        self.has_shown_stacks = true;
                        self.heartbeat.log_stacks();
                    }
                    ToDaemon::Load(script) => self.load_beside(script),
                    ToDaemon::Keep(change) => self.service.changes.keep(change),
                    ToDaemon::Resume => self.resume(),
                    ToDaemon::Log { .. } => {}
                }
            }
            if self.working.load(Ordering::SeqCst) == 0 {
                self.tell(&ToSupervisorFromDaemon::Leaving);
                return self.stop("no worker is left");
            }
            if self.is_forsaken() {
                order = self.own_drain(Reason::Configuration);
            }
            let said = self.speak();
            if let Order::Drain(why, timeout) = order.or(said)
                && matches!(phase, Phase::Serving)
            {
                self.log.info(&format!("Finishing requests: {why}"));
                self.announcer.note(why);
                phase = self.drain(timeout);
            }
        }
    }

    /// What the signals of this process ask for.
    fn obey_signals(&mut self) -> Order {
        let mut order = Order::None;
        while let Some(signal) = next_signal(&self.signals) {
            let why = match signal {
                Signal::SIGTERM | Signal::SIGINT => return Order::Stop(Reason::ShutdownSignal),
                Signal::SIGXCPU => Reason::CpuTimeLimit,
                Signal::SIGUSR1 if self.plan().limits.eviction.is_some() => Reason::EvictionSignal,
                Signal::SIGUSR1 => Reason::GracefulSignal,
                other => {
                    announce(&mut self.announcer, other, self.log);
                    continue;
                }
            };
            order = order.or(self.ask_to_retire(why));
        }
        order
    }

    /// Tells the supervisor what the workers have noted.
    fn speak(&self) -> Order {
        let mut order = Order::None;
        for change in self.service.changes.take() {
            if self.tell(&ToSupervisorFromDaemon::Stale(change.clone())) {
                continue;
            }
            match &self.control {
                Some(_) => self.service.changes.forget(&change),
                // The next supervisor's processes will have read it.
                None => self.service.changes.keep(change),
            }
            self.resume();
        }
        for change in self.service.take_failed() {
            self.tell(&ToSupervisorFromDaemon::Tried { change, loaded: false });
        }
        if let Some(why) = self.service.take_wish() {
            order = order.or(self.ask_to_retire(why));
        }
        for script in self.service.take_loaded() {
            self.tell(&ToSupervisorFromDaemon::Loaded(script));
        }
        order
    }

    /// Loads a script without keeping the main thread from what it listens to.
    fn load_beside(&self, script: Script) {
        let service = Arc::clone(&self.service);
        let loader = std::thread::Builder::new().name("wsgi-loader".to_owned());
        let begun = loader.spawn(move || {
            service.load_ahead(script);
            let _ = service.attention.write(1);
        });
        if let Err(cause) = begun {
            // Then the first request for it does that.
            self.log.info(&format!("Cannot load a script ahead: {cause}"));
        }
    }

    /// Takes requests again, if a change of a script has kept it from that.
    fn resume(&self) {
        if let Some(slot) = self.service.own_slot() {
            self.service.changes.resume(slot);
        }
    }

    /// Asks the supervisor for a replacement.
    fn ask_to_retire(&self, why: Reason) -> Order {
        let is_told = self.tell(&ToSupervisorFromDaemon::Retire { why });
        // While there is no supervisor the next one's processes are awaited.
        let waits = self.control.is_none() && !self.plan().run_once;
        if is_told || waits { Order::None } else { self.own_drain(why) }
    }

    /// What is done where there is no supervisor to say it.
    fn own_drain(&self, why: Reason) -> Order {
        Order::Drain(why, self.plan().graceful_timeout)
    }

    fn plan(&self) -> &GroupPlan {
        &self.service.parts.plan
    }

    fn wait(&self, timeout: Option<Duration>) {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.service.attention.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(control) = &self.control {
            fds.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
        }
        if let Err(cause) = sys::poll(&mut fds, timeout) {
            self.log.error(&format!("WSGI0023: cannot wait: {cause}"));
        }
    }

    fn next_message(&mut self) -> Option<ToDaemon> {
        let message = control::receive(self.control.as_ref()?);
        match message {
            Ok(Message::One(ToDaemon::Log { level }, mut fds)) => {
                let log = fds.pop();
                // What the application's C code says follows.
                let _ = sys::set_error_stream(log.as_ref().map(AsFd::as_fd));
                self.log.reopen(log, level);
                Some(ToDaemon::Log { level })
            }
            Ok(Message::One(message, _)) => Some(message),
            Ok(Message::None) => None,
            Ok(Message::Closed) | Err(_) => {
                self.control = None;
                self.lost = Some((Instant::now(), sys::now_micros()));
                let slot = self.service.own_slot();
                self.is_unopened = slot.is_some_and(|slot| slot.state() == State::Starting);
                self.service.changes.keep_all();
                self.resume();
                None
            }
        }
    }

    /// Tells the supervisor; false if it is gone.
    fn tell(&self, message: &ToSupervisorFromDaemon) -> bool {
        self.control
            .as_ref()
            .is_some_and(|control| control::try_send(control.as_fd(), message, &[]).is_ok())
    }

    /// Whether the supervisor is gone and nothing keeps us any more: a process of
    /// the next one serves, or there will be none.
    fn is_forsaken(&self) -> bool {
        let Some((at, micros)) = self.lost else { return false };
        self.is_unopened
            || at.elapsed() >= ORPHANED
            || sys::is_hung_up(self.service.parts.inbox.as_fd())
            || self.has_successor(micros)
    }

    /// Whether a process of another supervisor than ours takes requests.
    fn has_successor(&self, lost: u64) -> bool {
        let parts = &self.service.parts;
        let oldest = lost.saturating_sub(SLACK.as_micros() as u64);
        let oldest = oldest.max(parts.generation.saturating_add(MOST_STARTS));
        let is_other = |slot: Slot<'_>| slot.generation() > oldest;
        parts.board.slots().any(|slot| slot.state() == State::Ready && is_other(slot))
    }

    fn drain(&self, timeout: Duration) -> Phase {
        if let Some(slot) = self.service.own_slot() {
            slot.set_state(State::Draining);
        }
        let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        Phase::Draining { deadline, held: Vec::new() }
    }

    /// Whether no child process may send us anything, and nothing runs.
    fn is_drained(&self, held: &mut Vec<u64>) -> bool {
        self.is_unopened
            || self.service.own_slot().is_none_or(|slot| slot.withdraw(held) >= self.plan().threads)
    }

    /// Lets what runs end within the shutdown-timeout, then ends Python.
    fn stop(mut self, why: &str) -> i32 {
        if let Some(slot) = self.service.own_slot() {
            slot.set_state(State::Draining);
            slot.withdraw(&mut Vec::new());
        }
        self.log.info(&format!("Shutdown requested: {why}"));
        let timeout = self.plan().shutdown_timeout;
        let deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        self.start_reaper(deadline);
        self.service.stop();
        self.announcer.stop();
        while self.working.load(Ordering::SeqCst) > 0 || !self.announcer.is_done() {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return overdue(self.log, self.service.parts.runtime, || {
                    if !self.has_shown_stacks {
                        self.heartbeat.log_stacks_now();
                    }
                });
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut fds = [PollFd::new(self.service.attention.as_fd(), PollFlags::POLLIN)];
            let _ = sys::poll(&mut fds, left);
            let _ = self.service.attention.read();
        }
        self.log.info("Stopping daemon process");
        // They must not be in Python when that ends.
        let _ = self.announcer.take_thread().map(JoinHandle::join);
        self.heartbeat.end();
        self.service.parts.runtime.stop();
        0
    }

    /// Ends the process for good when its time has passed, even if Python hangs.
    fn start_reaper(&self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let (log, runtime) = (self.log, self.service.parts.runtime);
        let reaper = std::thread::Builder::new().name("wsgi-reaper".to_owned()).spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            // Later than the main thread, which says it better, but not after the
            // supervisor has lost its patience.
            std::thread::sleep(left + REAPER_DELAY);
            sys::exit_now(overdue(log, runtime, sys::show_stacks));
        });
        if let Err(cause) = reaper {
            let text = format!("WSGI0070: cannot start the reaper: {cause}");
            self.log.write(wsgi_wire::vtable::level::WARN, &text);
        }
    }
}

/// Has subscribers told of a signal.
pub fn announce(announcer: &mut Announcer, signal: Signal, log: &ProcessLog) {
    match announcer.signal(signal) {
        Ok(true) => {}
        Ok(false) => log.info(&format!("Too many signals wait for their subscribers: {signal}")),
        Err(cause) => log.error(&format!("WSGI0209: nobody is told of {signal}: {cause}")),
    }
}

/// Shows what the process is doing that is not over in time; its exit code.
pub fn overdue(log: &ProcessLog, runtime: Runtime, show_stacks: impl FnOnce()) -> i32 {
    log.info("Aborting daemon process: its shutdown-timeout has passed");
    runtime.abandon();
    show_stacks();
    OVERDUE
}

/// The next signal that [`sys::catch_signals`] caught.
pub fn next_signal(signals: &OwnedFd) -> Option<Signal> {
    let mut byte = [0];
    match nix::unistd::read(signals, &mut byte) {
        Ok(1) => Signal::try_from(i32::from(byte[0])).ok(),
        _ => None,
    }
}
