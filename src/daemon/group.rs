//! One process group as the supervisor runs it.
#![forbid(unsafe_code)]

use super::control::{self, Message, ToDaemon, ToSupervisorFromDaemon};
use super::log::ProcessLog;
use super::plan::{GroupPlan, Script};
use super::process::Seat;
use super::supervisor::Descriptors;
use super::sys::{self, Fork, Rights, Wait};
use crate::scoreboard::{Exit, MEMORY_NAME, Scoreboard, State};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a process gets on top of its own time to stop before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// First and longest pause between failed starts: a broken configuration must
/// not keep the machine busy, and a mended one not wait long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a group that is no longer configured serves the child processes of
/// the configuration it was in.  Shorter, and a request that waits there for a
/// thread fails; longer, and one endless download keeps old processes about.
const LINGER: Duration = Duration::from_secs(60);

/// What a process is doing, as far as the supervisor had a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Loading Python and scripts.
    Starting,
    /// Taking requests.
    Ready,
    /// Told to finish and leave.
    Leaving,
}

/// One daemon process.
struct Member {
    pid: Pid,
    slot: u32,
    generation: u64,
    /// The configuration it was started for: [`Group::epoch`] at that time.
    epoch: u64,
    phase: Phase,
    control: OwnedFd,
    /// When it is killed.
    deadline: Option<Instant>,
    overdue: bool,
}

/// A process group: its plan, its scoreboard, its processes.
pub struct Group {
    plan: GroupPlan,
    board: Scoreboard,
    memory: OwnedFd,
    inboxes: Vec<OwnedFd>,
    log_fd: Option<OwnedFd>,
    log: ProcessLog,
    members: Vec<Member>,
    /// Counts the occasions to replace all processes: configurations, changed scripts.
    epoch: u64,
    /// No longer configured, or httpd is stopping: nothing is started.
    retired: bool,
    /// No longer configured, but still serving: until when at the latest.
    lingers: Option<Instant>,
    /// Consecutive starts that failed.
    failures: u32,
    /// No start before this.
    not_before: Option<Instant>,
    /// What its processes had to load for requests.
    loaded: BTreeSet<Script>,
}

impl Group {
    /// A group of a new configuration; its processes are started by
    /// [`advance`](Self::advance).
    pub fn new(plan: GroupPlan, descriptors: Descriptors) -> io::Result<Self> {
        let memory = descriptors.board.ok_or(io::ErrorKind::InvalidData)?;
        let board = Scoreboard::open(&memory, plan.shape())?;
        let identity = format!(" [group '{}']", plan.name);
        let log = ProcessLog::new(copy(descriptors.log.as_ref()), plan.log_level, identity);
        Ok(Self {
            board,
            memory,
            inboxes: descriptors.inboxes,
            log_fd: descriptors.log,
            log,
            members: Vec::new(),
            epoch: 0,
            retired: false,
            lingers: None,
            failures: 0,
            not_before: None,
            loaded: BTreeSet::new(),
            plan,
        })
    }

    /// Takes on a new configuration: every process will be replaced.
    pub fn update(&mut self, plan: GroupPlan, descriptors: Descriptors) {
        if descriptors.inboxes.len() > self.inboxes.len() {
            let known = self.inboxes.len();
            self.inboxes.extend(descriptors.inboxes.into_iter().skip(known));
        }
        self.log_fd = descriptors.log;
        self.log.reopen(copy(self.log_fd.as_ref()), plan.log_level);
        let message = ToDaemon::Log { level: plan.log_level };
        let fds: Vec<BorrowedFd<'_>> = self.log_fd.iter().map(AsFd::as_fd).collect();
        for member in &self.members {
            let _ = control::try_send(member.control.as_fd(), &message, &fds);
        }
        self.plan = plan;
        self.retired = false;
        self.lingers = None;
        self.failures = 0;
        self.not_before = None;
        self.epoch += 1;
    }

    /// Which scoreboard it has.
    pub const fn board_number(&self) -> u64 {
        self.plan.board
    }

    /// Whether it has no process.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it can be forgotten.
    pub fn is_finished(&self) -> bool {
        self.retired && self.is_empty()
    }

    /// Starts no more processes, and drains those there are when nobody can send
    /// them anything any more: requests may be waiting for them.
    pub fn retire(&mut self) {
        if !self.retired {
            self.retired = true;
            self.lingers = Some(Instant::now() + LINGER);
        }
    }

    /// Drains the processes of a retired group that nobody needs any more.
    fn end_lingering(&mut self, now: Instant) {
        let is_over = |until| until <= now || self.is_out_of_reach() || self.is_served_elsewhere();
        if self.lingers.is_some_and(is_over) {
            self.lingers = None;
            for index in 0..self.members.len() {
                self.drain(index);
            }
        }
    }

    /// Whether no process of httpd is left that could send a request: the parent
    /// and all child processes have closed their end of the inbox.
    fn is_out_of_reach(&self) -> bool {
        self.inboxes.first().is_none_or(|inbox| sys::is_hung_up(inbox.as_fd()))
    }

    /// Whether another supervisor's processes have taken over.
    fn is_served_elsewhere(&self) -> bool {
        let is_ours = |number| self.members.iter().any(|member| member.slot == number);
        (0..)
            .zip(self.board.slots())
            .any(|(number, slot)| slot.state() == State::Ready && !is_ours(number))
    }

    /// Stops every process and starts no more.
    pub fn stop(&mut self) {
        self.retired = true;
        self.lingers = None;
        let allowance = stop_allowance(&self.plan);
        for member in &mut self.members {
            let _ = control::try_send(member.control.as_fd(), &ToDaemon::Stop, &[]);
            // Also for one that is still loading and does not read.
            let _ = kill(member.pid, Signal::SIGTERM);
            member.phase = Phase::Leaving;
            member.deadline = allowance.map(|allowance| Instant::now() + allowance);
        }
    }

    /// Where its processes speak to us.
    pub fn controls(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().map(|member| member.control.as_fd())
    }

    /// When something is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let start = self.not_before.filter(|_| !self.retired);
        self.members
            .iter()
            .filter_map(|member| member.deadline)
            .chain(start)
            .chain(self.lingers)
            .min()
    }

    /// Takes in what the processes say.
    pub fn read_messages(&mut self) {
        for index in 0..self.members.len() {
            while let Some(member) = self.members.get_mut(index) {
                match control::receive(&member.control) {
                    Ok(Message::One(message, _)) => self.heard(index, &message),
                    // Its death follows.
                    _ => break,
                }
            }
        }
    }

    fn heard(&mut self, index: usize, message: &ToSupervisorFromDaemon) {
        match message {
            ToSupervisorFromDaemon::Ready { complete } => {
                if *complete || !self.is_served_by_others(index) {
                    self.ready(index);
                } else {
                    self.reject(index);
                }
            }
            ToSupervisorFromDaemon::Loaded(script) => {
                self.loaded.insert(script.clone());
            }
            ToSupervisorFromDaemon::Leaving => self.leaving(index),
            ToSupervisorFromDaemon::Stale => self.stale(index),
            ToSupervisorFromDaemon::Retire => {
                // Of an older epoch: replaced, and drained when that one is ready.
                self.members[index].epoch = u64::MAX;
            }
        }
    }

    /// Whether there are processes of an earlier configuration that still serve.
    fn is_served_by_others(&self, index: usize) -> bool {
        let epoch = self.members[index].epoch;
        self.members.iter().any(|member| member.epoch != epoch && member.phase == Phase::Ready)
    }

    /// A replacement could not load what its predecessor runs: that one stays.
    fn reject(&mut self, index: usize) {
        let pause = self.next_pause();
        let pid = self.members[index].pid;
        self.log.error(&format!(
            "WSGI9104: daemon process {pid} cannot load its scripts; the old processes serve on; \
             trying again in {} s",
            pause.as_secs()
        ));
        self.drain(index);
    }

    /// A process was told to stop by someone else.
    fn leaving(&mut self, index: usize) {
        let deadline = stop_allowance(&self.plan).map(|allowance| Instant::now() + allowance);
        let member = &mut self.members[index];
        member.phase = Phase::Leaving;
        member.deadline = deadline;
    }

    /// A process takes requests from now on, and one that it replaces no more.
    fn ready(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.phase != Phase::Starting {
            return;
        }
        member.phase = Phase::Ready;
        self.failures = 0;
        let (slot, generation) = (member.slot, member.generation);
        if let Some(slot) = self.board.slot(slot) {
            slot.open(generation, self.plan.threads);
        }
        let is_old = |member: &Member| member.epoch != self.epoch && member.phase == Phase::Ready;
        let old: Vec<usize> =
            (0..self.members.len()).filter(|index| is_old(&self.members[*index])).collect();
        let is_new = |member: &&Member| member.epoch == self.epoch && member.phase == Phase::Ready;
        let new = self.members.iter().filter(is_new).count();
        // So many old ones stay as new ones are still wanting.
        let stay = (self.plan.processes as usize).saturating_sub(new);
        for index in old.into_iter().skip(stay) {
            self.drain(index);
        }
    }

    /// A script changed: no request is to see old code again.
    fn stale(&mut self, index: usize) {
        if self.members[index].epoch != self.epoch {
            return;
        }
        self.log.info("Script changed, replacing the daemon processes");
        self.epoch += 1;
        self.not_before = None;
        for index in 0..self.members.len() {
            // One that is still loading may have read the old file.
            self.drain(index);
        }
    }

    /// Tells a process to finish and leave.
    fn drain(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.phase == Phase::Leaving {
            return;
        }
        if let Some(slot) = self.board.slot(member.slot) {
            slot.set_state(State::Draining);
        }
        let told = control::try_send(member.control.as_fd(), &ToDaemon::Drain, &[]);
        if member.phase == Phase::Starting || told.is_err() {
            // Nothing was sent to it yet, and it does not listen.
            let _ = kill(member.pid, Signal::SIGKILL);
        }
        member.phase = Phase::Leaving;
        let graceful = self.plan.graceful_timeout;
        member.deadline = stop_allowance(&self.plan)
            .filter(|_| !graceful.is_zero())
            .map(|allowance| Instant::now() + graceful + allowance);
    }

    /// A process has ended; false if it was none of ours.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(index) = self.members.iter().position(|member| member.pid == pid) else {
            return false;
        };
        let member = self.members.swap_remove(index);
        let exit = if member.overdue { Exit::Overdue } else { exit };
        self.clear_slot(&member, exit);
        let expected = member.phase == Phase::Leaving;
        if member.phase == Phase::Starting && !expected {
            self.pause(&member, exit);
        } else if expected {
            self.log.info(&format!("Daemon process {pid} {exit}"));
        } else {
            self.log.error(&format!("WSGI9101: daemon process {pid} {exit}; starting another"));
        }
        true
    }

    /// The slot of a process that is no more: children learn that nothing sent
    /// there will be read.
    fn clear_slot(&self, member: &Member, exit: Exit) {
        let Some(slot) = self.board.slot(member.slot) else { return };
        slot.set_exit(member.generation, exit);
        slot.set_state(State::Empty);
        slot.set_pid(0);
        // After the state: a child looks at the state after it has sent, so
        // either we find its connection here or it finds the slot empty.
        let Some(inbox) = self.inboxes.get(member.slot as usize) else { return };
        let mut rights = Rights::one();
        while matches!(
            sys::receive(inbox.as_fd(), &mut [0; 8], &mut rights, Wait::No, drop),
            Ok(count) if count > 0
        ) {}
    }

    /// How long the next start waits after one that failed.
    fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        pause
    }

    /// A start failed: the next one waits, longer each time.
    fn pause(&mut self, member: &Member, exit: Exit) {
        let pause = self.next_pause();
        let others = self.members.iter().any(|member| member.phase == Phase::Ready);
        let meanwhile = if others { ", the old processes serve on" } else { "" };
        self.log.error(&format!(
            "WSGI9102: daemon process {} {exit} before it was ready; trying again in {} s{meanwhile}",
            member.pid,
            pause.as_secs(),
        ));
    }

    /// Looks for what nobody tells: tickets of dead children, processes left by
    /// an earlier supervisor.
    pub fn tick(&mut self) {
        for (number, slot) in self.board.slots().enumerate() {
            if slot.state() == State::Empty {
                continue;
            }
            if slot.reclaim(sys::is_alive) {
                self.board.wake_one();
            }
            let ours = self.members.iter().any(|member| member.slot as usize == number);
            if !ours && !sys::is_alive(slot.pid()) {
                slot.set_state(State::Empty);
            }
        }
    }

    /// Does what is due: kills what is overdue, starts what is wanting.  In a
    /// new process, returns its seat.
    pub fn advance(&mut self, now: Instant, next_generation: &mut u64) -> Option<Box<Seat>> {
        self.end_lingering(now);
        for member in &mut self.members {
            if member.deadline.is_some_and(|deadline| deadline <= now) {
                member.deadline = None;
                member.overdue = true;
                let _ = kill(member.pid, Signal::SIGKILL);
            }
        }
        while self.wants_another(now) {
            let slot = self.free_slot()?;
            *next_generation += 1;
            match self.start(slot, *next_generation) {
                Ok(None) => {}
                Ok(Some(seat)) => return Some(seat),
                Err(cause) => {
                    self.log.error(&format!(
                        "WSGI0024: cannot start a daemon process: {cause}; trying again in {} s",
                        FIRST_PAUSE.as_secs()
                    ));
                    self.not_before = Some(now + FIRST_PAUSE);
                }
            }
        }
        None
    }

    fn wants_another(&mut self, now: Instant) -> bool {
        if self.retired || self.not_before.is_some_and(|at| at > now) {
            return false;
        }
        let current = self.members.iter().filter(|m| m.is_current(self.epoch)).count();
        let starting = self.members.iter().any(|m| m.phase == Phase::Starting);
        // While starts fail, one try at a time.
        if self.failures > 0 && starting {
            return false;
        }
        current < self.plan.processes as usize
    }

    /// A slot with nobody in it, neither ours nor an earlier supervisor's.
    fn free_slot(&self) -> Option<u32> {
        (0..self.inboxes.len() as u32).find(|number| {
            self.board.slot(*number).is_some_and(|slot| {
                slot.state() == State::Empty && self.members.iter().all(|m| m.slot != *number)
            })
        })
    }

    fn start(&mut self, slot: u32, generation: u64) -> io::Result<Option<Box<Seat>>> {
        let (ours, theirs) = sys::message_pair()?;
        let record = self.board.slot(slot).ok_or(io::ErrorKind::InvalidInput)?;
        record.prepare(generation);
        match sys::fork_apart(Some(MEMORY_NAME))? {
            Fork::Parent(pid) => {
                record.set_pid(pid.as_raw() as u32);
                self.not_before = None;
                self.members.push(Member {
                    pid,
                    slot,
                    generation,
                    epoch: self.epoch,
                    phase: Phase::Starting,
                    control: ours,
                    deadline: None,
                    overdue: false,
                });
                Ok(None)
            }
            Fork::Child => match self.take_seat(slot, generation, theirs) {
                Ok(seat) => Ok(Some(Box::new(seat))),
                // Never back into the supervisor's work.
                Err(cause) => {
                    self.log.error(&format!("WSGI9108: cannot set up a daemon process: {cause}"));
                    sys::exit_now(1);
                }
            },
        }
    }

    /// What a new process loads before it takes requests: what the configuration
    /// says, then what its predecessors had to load and is still there.
    fn scripts(&self) -> Vec<Script> {
        let is_there = |script: &&Script| Path::new(OsStr::from_bytes(&script.path)).exists();
        let mut scripts = self.plan.preload.clone();
        let learned = self.loaded.iter().filter(|script| !self.plan.preload.contains(script));
        scripts.extend(learned.filter(is_there).cloned());
        scripts
    }

    /// In the new process: what it needs of its group.
    fn take_seat(&self, slot: u32, generation: u64, control: OwnedFd) -> io::Result<Seat> {
        let inbox = self.inboxes.get(slot as usize).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Seat {
            board: Scoreboard::open(&self.memory, self.plan.shape())?,
            slot,
            generation,
            inbox: inbox.try_clone()?,
            control,
            log: copy(self.log_fd.as_ref()),
            scripts: self.scripts(),
            plan: self.plan.clone(),
        })
    }
}

impl Member {
    /// Whether it counts towards the processes of the current configuration.
    fn is_current(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.phase != Phase::Leaving
    }
}

/// How long a process may take to stop before it is killed; none: for ever.
fn stop_allowance(plan: &GroupPlan) -> Option<Duration> {
    (!plan.shutdown_timeout.is_zero()).then(|| plan.shutdown_timeout + GRACE)
}

fn copy(fd: Option<&OwnedFd>) -> Option<OwnedFd> {
    fd.and_then(|fd| fd.try_clone().ok())
}
