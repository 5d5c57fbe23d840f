//! The supervisor: starts, watches and replaces daemon processes.
//!
//! Runs in its own process, forked from httpd's parent before that has secrets;
//! one thread, no Python, no httpd code.  It outlives graceful restarts: a new
//! configuration arrives as a message, and every group changes over to it by a
//! **rolling restart**: replacements start beside the running processes, and a
//! running process is drained only once its replacement is ready.
#![forbid(unsafe_code)]

use super::control::{self, Message, ToSupervisor};
use super::group::Group;
use super::legacy::{Entry, Legacy};
use super::log::ProcessLog;
use super::memory::Killer;
use super::plan::Plan;
use super::process::{self, Seat};
use super::sys;
use crate::scoreboard::How;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use wsgi_wire::vtable::level;

/// How often the supervisor looks for what nobody tells it: tickets of dead
/// children, processes of a supervisor that is no more.
const TICK: Duration = Duration::from_secs(1);

/// What `ps` shows.
const TITLE: &str = "wsgi: supervisor";

/// How long a daemon process may live on after httpd was killed.
const AFTER_HTTPD: Duration = Duration::from_millis(600);

/// What a supervisor is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To have a configuration at once.
    Active,
    /// To have one if the active one dies.
    Spare,
}

/// What the supervisor is started with.
pub struct Orders {
    /// Where configurations come from.
    pub control: OwnedFd,
    /// Ends when httpd's parent and all its children are gone.
    pub lifeline: OwnedFd,
    /// Readable when httpd's parent is gone.
    pub parent: OwnedFd,
    /// What it is.
    pub role: Role,
    /// The main error log, until a configuration brings another.
    pub log: Option<OwnedFd>,
    /// What is least grave of what is logged.
    pub log_level: u32,
    /// Whether it could forget what only processes of one group are to know.
    pub forgotten: io::Result<()>,
}

/// Everything the supervisor knows.
struct Supervisor {
    /// None once the parent has no more use for this supervisor.
    control: Option<OwnedFd>,
    lifeline: OwnedFd,
    parent: OwnedFd,
    signals: OwnedFd,
    log: Rc<ProcessLog>,
    groups: Vec<Group>,
    /// What a successor will know, once there is a configuration.
    legacy: Option<Legacy>,
    /// A configuration that has begun to arrive.
    arriving: Option<Arriving>,
    /// Generation of the next process; begins at the time of day, so that it
    /// does not repeat what an earlier supervisor used.
    next_generation: u64,
    /// The parent has ended its configuration, to stop or to read another.
    has_farewell: bool,
    /// httpd is gone: everything stops.
    stopping: bool,
    killer: Killer,
}

/// A plan and the descriptors of its groups.
struct Arriving {
    plan: Plan,
    legacy: Option<Legacy>,
    /// The main error log.
    log: Option<OwnedFd>,
    descriptors: Vec<Descriptors>,
}

/// The descriptors of one group.
#[derive(Default)]
pub struct Descriptors {
    /// Its error log.
    pub log: Option<OwnedFd>,
    /// The memory of its scoreboard.
    pub board: Option<OwnedFd>,
    /// What httpd's scoreboard is read from, if the group may see it.
    pub snapshot: Option<OwnedFd>,
    /// The variables of its environment, if there are any.
    pub environment: Option<OwnedFd>,
    /// Its inboxes, by slot.
    pub inboxes: Vec<OwnedFd>,
}

/// Runs the supervisor; never returns.
pub fn run(orders: Orders) -> ! {
    sys::set_title(match orders.role {
        Role::Active => TITLE,
        Role::Spare => "wsgi: spare supervisor",
    });
    let keep = [&orders.control, &orders.lifeline, &orders.parent];
    sys::close_all_but(keep.into_iter().chain(&orders.log));
    let _ = sys::set_standard_streams(orders.log.as_ref().map(AsFd::as_fd));
    // A terminal's Ctrl-C is httpd's to act on; it tells us by leaving.
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGWINCH] {
        sys::ignore_signal(signal);
    }
    let log = Rc::new(ProcessLog::new(orders.log, orders.log_level, String::new()));
    if let Err(cause) = orders.forgotten {
        let text = format!(
            "WSGI9470: daemon processes inherit what env= says of other groups than theirs: {cause}"
        );
        log.write(level::WARN, &text);
    }
    let signals = match sys::catch_signals(&[Signal::SIGCHLD, Signal::SIGTERM]) {
        Ok(signals) => signals,
        Err(cause) => {
            log.error(&format!("WSGI9109: the supervisor cannot catch signals: {cause}"));
            sys::exit_now(1);
        }
    };
    let mut supervisor = Supervisor {
        control: Some(orders.control),
        lifeline: orders.lifeline,
        parent: orders.parent,
        signals,
        log,
        groups: Vec::new(),
        legacy: None,
        arriving: None,
        next_generation: sys::now_micros(),
        has_farewell: false,
        stopping: false,
        killer: Killer::new(),
    };
    let seat = supervisor.supervise();
    // Only a new daemon process gets here with a seat; what it inherited of the
    // other groups goes first.
    let Some(seat) = seat else { sys::exit_now(0) };
    drop(supervisor);
    sit_down(*seat)
}

/// In the new process: gives up what belongs to others, then runs.
fn sit_down(seat: Seat) -> ! {
    let keep = [&seat.inbox, &seat.control];
    let keep = keep.into_iter().chain(&seat.log).chain(&seat.snapshot).chain(&seat.environment);
    sys::close_all_but(keep);
    process::run(seat)
}

impl Supervisor {
    /// Works until everything has stopped; in a new daemon process, returns its
    /// seat.
    fn supervise(&mut self) -> Option<Box<Seat>> {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let is_leaving = self.stopping || self.control.is_none();
            if is_leaving && self.groups.iter().all(Group::is_empty) {
                return None;
            }
            self.wait(next_tick);
            self.read_signals();
            self.reap();
            // Before a configuration: a process that says it is ready is to be asked to
            // end by that, not killed as one that only starts.
            self.groups.iter_mut().for_each(Group::read_messages);
            self.look_for_httpd();
            self.read_control();
            let now = Instant::now();
            if next_tick <= now {
                next_tick = now + TICK;
                self.killer.look();
                for group in &mut self.groups {
                    group.tick(now);
                }
            }
            for index in 0..self.groups.len() {
                let may_start = !self.has_old_service(index);
                let group = &mut self.groups[index];
                group.read_messages();
                if let Some(seat) = group.advance(now, may_start, &mut self.next_generation) {
                    return Some(seat);
                }
            }
            self.leave_word();
            if self.arriving.is_none() {
                self.groups.retain(|group| !group.is_finished());
            }
        }
    }

    /// Writes down for a successor what was learned since the last time.
    fn leave_word(&mut self) {
        // Every group is asked: it answers once.
        let news = self.groups.iter_mut().filter_map(|group| group.has_learned().then_some(()));
        if news.count() == 0 {
            return;
        }
        let Some(legacy) = &mut self.legacy else { return };
        let entries: Vec<Entry> =
            self.groups.iter().map(|group| (group.board_number(), group.learned())).collect();
        // Without it a successor learns anew.
        if let Err(cause) = legacy.write(&entries) {
            self.log.info(&format!("Cannot note which scripts are loaded: {cause}"));
        }
    }

    /// Whether a service is to wait for the end of what it was before: a group of
    /// another user, for instance, is another group of the same name.
    fn has_old_service(&self, index: usize) -> bool {
        let group = &self.groups[index];
        group.is_service()
            && self.groups.iter().any(|old| old.is_retired() && old.name() == group.name())
    }

    /// Waits for whatever comes first: a message, a signal, a deadline.
    fn wait(&self, next_tick: Instant) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if !self.stopping {
            fds.push(PollFd::new(self.parent.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(self.lifeline.as_fd(), PollFlags::POLLIN));
            fds.extend(self.control.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        }
        let controls = self.groups.iter().flat_map(Group::controls);
        fds.extend(controls.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let next = self.groups.iter().filter_map(Group::next_deadline).chain([next_tick]).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        if let Err(cause) = sys::poll(&mut fds, timeout) {
            self.log.error(&format!("WSGI9110: the supervisor cannot wait: {cause}"));
        }
    }

    fn read_signals(&mut self) {
        let mut bytes = [0; 64];
        while let Ok(count) = nix::unistd::read(&self.signals, &mut bytes) {
            if bytes[..count].contains(&(Signal::SIGTERM as u8)) {
                self.stop();
            }
            if count < bytes.len() {
                break;
            }
        }
    }

    /// Learns which daemon processes have ended.
    fn reap(&mut self) {
        while let Some((pid, how)) = sys::reap() {
            let killed = how == How::Signal(Signal::SIGKILL as i32);
            let how = if killed && self.killer.has_struck() { How::OutOfMemory } else { how };
            self.ended(pid, how);
        }
    }

    fn ended(&mut self, pid: Pid, how: How) {
        for group in &mut self.groups {
            if group.ended(pid, how) {
                return;
            }
        }
    }

    /// Stops everything if httpd is gone.
    fn look_for_httpd(&mut self) {
        if self.stopping {
            return;
        }
        let mut fds = [
            PollFd::new(self.parent.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.lifeline.as_fd(), PollFlags::POLLIN),
        ];
        if sys::poll(&mut fds, Some(Duration::ZERO)).is_ok_and(|count| count > 0) {
            self.read_control();
            self.stop();
            // It was killed: nothing is to outlive it long.
            if !self.has_farewell {
                for group in &mut self.groups {
                    group.hurry(AFTER_HTTPD);
                }
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.arriving = None;
        for group in &mut self.groups {
            group.stop();
        }
    }

    /// Takes in what the parent says.
    fn read_control(&mut self) {
        while !self.stopping {
            let Some(control) = &self.control else { return };
            match control::receive_whole::<ToSupervisor>(control) {
                Ok(Message::One(message, fds)) => self.obey(message, fds),
                Ok(Message::None) => return,
                // A parent that has no more use for this supervisor: it was
                // upgraded, or this one seemed stuck.  Another one serves.
                Ok(Message::Closed) => {
                    self.control = None;
                    for group in &mut self.groups {
                        group.retire();
                    }
                    return;
                }
                Err(cause) => {
                    self.reject(&cause);
                    return;
                }
            }
        }
    }

    /// Nothing of a configuration takes effect that has not come whole: a group would
    /// run without its variables, or not at all.
    fn reject(&mut self, cause: &io::Error) {
        self.arriving = None;
        let text = format!("WSGI9111: unreadable configuration: {cause}; the last one stays");
        self.log.error(&text);
    }

    fn obey(&mut self, message: ToSupervisor, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match message {
            ToSupervisor::Farewell => self.has_farewell = true,
            ToSupervisor::Begin => match fds.next().map(read_plan) {
                Some(Ok(plan)) => {
                    let descriptors = plan.groups.iter().map(|_| Descriptors::default()).collect();
                    let legacy = fds.next().map(Legacy::new);
                    self.arriving = Some(Arriving { plan, legacy, log: fds.next(), descriptors });
                }
                Some(Err(cause)) => self.reject(&cause),
                None => {}
            },
            ToSupervisor::Group { index, log, board, snapshot, environment, first_inbox } => {
                let Some(group) = self
                    .arriving
                    .as_mut()
                    .and_then(|arriving| arriving.descriptors.get_mut(index as usize))
                else {
                    return;
                };
                if log {
                    group.log = fds.next();
                }
                if board {
                    group.board = fds.next();
                }
                if snapshot {
                    group.snapshot = fds.next();
                }
                if environment {
                    group.environment = fds.next();
                }
                if first_inbox as usize == group.inboxes.len() {
                    group.inboxes.extend(fds);
                }
            }
            ToSupervisor::Commit => {
                self.has_farewell = false;
                if let Some(arriving) = self.arriving.take() {
                    self.apply(arriving);
                }
            }
        }
    }

    /// What a spare one was started with may be out of date.
    fn begin_work(&mut self) {
        sys::set_title(TITLE);
        self.next_generation = self.next_generation.max(sys::now_micros());
        self.killer = Killer::new();
    }

    /// A new configuration takes effect: by name and scoreboard, what is new
    /// starts, what is gone drains, what stays rolls over.
    fn apply(&mut self, arriving: Arriving) {
        // Where httpd's lines go from here on, so that a log can be rotated.
        let _ = sys::set_error_stream(arriving.log.as_ref().map(AsFd::as_fd));
        if self.groups.is_empty() {
            self.begin_work();
        }
        self.log.reopen(arriving.log, arriving.plan.log_level);
        self.legacy = arriving.legacy;
        let learned = self.legacy.as_mut().map(Legacy::read).unwrap_or_default();
        let mut wanted: Vec<u64> = Vec::new();
        for (plan, descriptors) in arriving.plan.groups.into_iter().zip(arriving.descriptors) {
            let wanted_board = plan.board;
            wanted.push(wanted_board);
            match self.groups.iter_mut().find(|group| group.board_number() == plan.board) {
                Some(group) => group.update(plan, descriptors),
                None => match Group::new(plan, descriptors) {
                    Ok(mut group) => {
                        let of_group = learned.iter().find(|(board, _)| *board == wanted_board);
                        group.inherit(of_group.map_or_else(Vec::new, |(_, it)| it.clone()));
                        self.groups.push(group);
                    }
                    Err(cause) => self.log.error(&format!("WSGI9112: {cause}")),
                },
            }
        }
        for group in &mut self.groups {
            if !wanted.contains(&group.board_number()) {
                group.retire();
            }
        }
    }
}

fn read_plan(file: OwnedFd) -> io::Result<Plan> {
    let mut file = std::fs::File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}
