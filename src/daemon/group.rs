//! One process group as the supervisor runs it.
#![forbid(unsafe_code)]

mod changes;
mod learned;
mod member;
mod starts;
mod timers;

use super::control::{self, Message, ToDaemon, ToSupervisorFromDaemon};
use super::log::ProcessLog;
use super::plan::{GroupPlan, Script};
use super::process::{OVERDUE, Seat};
use super::secrets;
use super::supervisor::Descriptors;
use super::sys::{self, Rights, Wait};
use crate::scoreboard::{Exit, How, Reason, Scoreboard, State};
use changes::Changes;
use learned::{Learned, MOST_SCRIPTS};
use member::{GRACE, Member, Phase, stop_allowance};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starts::most_starts;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Messages taken in from one process at a time: the others have their turn
/// however many it sends.
const MOST_MESSAGES: usize = 16;

/// How long a group that is no longer configured serves the child processes of
/// the configuration it was in.  Shorter, and a request that waits there for a
/// thread fails; longer, and one endless download keeps old processes about.
const LINGER: Duration = Duration::from_secs(60);

/// A process group: its plan, its scoreboard, its processes.
pub struct Group {
    plan: Rc<GroupPlan>,
    board: Scoreboard,
    memory: OwnedFd,
    inboxes: Vec<OwnedFd>,
    /// What httpd's scoreboard is read from, if the group may see it.
    snapshot: Option<OwnedFd>,
    /// The variables of its environment, if there are any.
    environment: Option<OwnedFd>,
    log_fd: Option<OwnedFd>,
    log: ProcessLog,
    members: Vec<Member>,
    /// Counts the occasions to replace all processes: configurations, changed scripts.
    epoch: u64,
    /// What the last of these was.
    occasion: Reason,
    /// No longer configured, or httpd is stopping: nothing is started.
    retired: bool,
    /// No longer configured, but still serving: until when at the latest.
    lingers: Option<Instant>,
    /// Consecutive starts that failed.
    failures: u32,
    /// No start before this.
    not_before: Option<Instant>,
    /// What its processes had to load for requests.
    learned: Learned,
    /// The scripts that changed.
    changes: Changes,
    /// How old a process must be before it is replaced for its memory: grows while
    /// that does not help.
    memory_age: Duration,
    /// What a replacement said when it could not load these, as a hash: the same
    /// traceback is not logged twice.
    known_failure: Option<u64>,
    /// Starts that may follow at once.
    starts: u32,
    /// Since when [`starts`](Self::starts) has been growing again.
    paced: Instant,
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
            snapshot: descriptors.snapshot,
            environment: descriptors.environment,
            log_fd: descriptors.log,
            log,
            members: Vec::new(),
            epoch: 0,
            occasion: Reason::Configuration,
            retired: false,
            lingers: None,
            failures: 0,
            not_before: None,
            learned: Learned::default(),
            changes: Changes::default(),
            memory_age: Duration::ZERO,
            known_failure: None,
            starts: most_starts(&plan),
            paced: Instant::now(),
            plan: Rc::new(plan),
        })
    }

    /// Takes on a new configuration: every process will be replaced, unless the
    /// group is to keep them and nothing changed.
    pub fn update(&mut self, plan: GroupPlan, descriptors: Descriptors) {
        if descriptors.inboxes.len() > self.inboxes.len() {
            let known = self.inboxes.len();
            self.inboxes.extend(descriptors.inboxes.into_iter().skip(known));
        }
        self.snapshot = descriptors.snapshot;
        self.log_fd = descriptors.log;
        self.log.reopen(copy(self.log_fd.as_ref()), plan.log_level);
        let message = ToDaemon::Log { level: plan.log_level };
        let fds: Vec<BorrowedFd<'_>> = self.log_fd.iter().map(AsFd::as_fd).collect();
        for member in &self.members {
            let _ = member.tell(&message, &fds);
        }
        let has_same_environment =
            secrets::are_same(descriptors.environment.as_ref(), self.environment.as_ref());
        let is_same = plan == *self.plan && has_same_environment.unwrap_or(false);
        let stays = plan.keep && is_same && !self.retired;
        if !stays {
            self.plan = Rc::new(plan);
            self.environment = descriptors.environment;
        }
        self.starts = most_starts(&self.plan);
        self.retired = false;
        self.lingers = None;
        self.failures = 0;
        self.known_failure = None;
        self.not_before = None;
        if !stays {
            self.renew(Reason::Configuration);
            self.end_services(Reason::Configuration);
        }
    }

    /// All processes there are belong to the past from here on.  Scripts nobody asked
    /// for over several such occasions are not loaded ahead any more.
    fn renew(&mut self, occasion: Reason) {
        self.learned.renew(self.epoch);
        self.epoch += 1;
        self.occasion = occasion;
    }

    /// Two processes of one service never run at once: the old ones end before the
    /// next start.
    fn end_services(&mut self, why: Reason) {
        if self.plan.is_service() {
            for index in 0..self.members.len() {
                self.drain(index, why);
            }
        }
    }

    /// Which scoreboard it has.
    pub fn board_number(&self) -> u64 {
        self.plan.board
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Whether its processes serve no requests.
    pub fn is_service(&self) -> bool {
        self.plan.is_service()
    }

    /// Whether it is not configured any more.
    pub const fn is_retired(&self) -> bool {
        self.retired
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
            // There will be no other code.
            self.release(self.changes.asked());
            // Nobody can be waiting for one.
            self.end_services(Reason::Configuration);
        }
    }

    /// Drains the processes of a retired group that nobody needs any more.
    fn end_lingering(&mut self, now: Instant) {
        let is_over = |until| until <= now || self.is_out_of_reach() || self.is_served_elsewhere();
        if self.lingers.is_some_and(is_over) {
            self.lingers = None;
            for index in 0..self.members.len() {
                self.drain(index, Reason::Configuration);
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
        for member in &mut self.members {
            let allowance = stop_allowance(&member.plan);
            let why = *member.why.get_or_insert(Reason::ShutdownSignal);
            let told = member.tell(&ToDaemon::Stop { why }, &[]);
            // One that is loading does not read.  A service gets its signal from its own
            // process: a second one would disturb what it does at its end.
            if told.is_err() || member.phase == Phase::Starting {
                let _ = kill(member.pid, Signal::SIGTERM);
            }
            member.phase = Phase::Leaving;
            member.is_stopping = true;
            member.deadline = allowance.map(|allowance| Instant::now() + allowance);
        }
    }

    /// Has every process killed that has not ended within `allowance`.
    pub fn hurry(&mut self, allowance: Duration) {
        let soon = Instant::now() + allowance;
        for member in &mut self.members {
            member.deadline = Some(member.deadline.map_or(soon, |deadline| deadline.min(soon)));
            // Nobody would read them.
            member.has_shown_stacks = true;
        }
    }

    /// Where its processes speak to us.
    pub fn controls(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().filter_map(|member| member.control.as_ref()).map(AsFd::as_fd)
    }

    /// When something is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let start = self.not_before.filter(|_| !self.retired);
        self.members
            .iter()
            .flat_map(|member| [member.deadline, member.look])
            .flatten()
            .chain(start)
            .chain(self.lingers)
            .chain(self.changes.deadline())
            .min()
    }

    /// Takes in what the processes say.
    pub fn read_messages(&mut self) {
        for index in 0..self.members.len() {
            for _ in 0..MOST_MESSAGES {
                let Some(control) = self.members[index].control.as_ref() else { break };
                match control::receive_plain(control) {
                    Ok(Message::One(message, _)) => self.heard(index, &message),
                    Ok(Message::None) => break,
                    // Not a message, or a longer one than fits: not worth a process.
                    Err(error) if error.kind() == io::ErrorKind::Other => {}
                    Ok(Message::Closed) | Err(_) => self.lost_touch(index),
                }
            }
        }
    }

    /// A process has closed its control socket: if its death does not follow it is broken,
    /// and so replaced.
    fn lost_touch(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.control = None;
        let soon = Instant::now() + GRACE;
        member.deadline = Some(member.deadline.map_or(soon, |deadline| deadline.min(soon)));
        if let Some(slot) = self.board.slot(member.slot) {
            slot.set_state(State::Draining);
        }
    }

    fn heard(&mut self, index: usize, message: &ToSupervisorFromDaemon) {
        match message {
            ToSupervisorFromDaemon::Tried { change, loaded } => {
                let most = self.most_scripts();
                self.members[index].tried(change, *loaded, most);
                if self.members[index].phase == Phase::Ready && self.would_be_missed(index) {
                    self.reject(index);
                }
            }
            ToSupervisorFromDaemon::Ready { failure } => self.loaded(index, *failure),
            ToSupervisorFromDaemon::Loaded(script) => {
                self.members[index].missing.remove(script);
                // An honest process says no more of them.
                if self.members[index].known.len() < 2 * self.most_scripts() {
                    self.members[index].known.insert(script.clone());
                }
                self.encourage(index, &BTreeSet::from([script.clone()]));
                self.learn(script, false);
                self.spread();
            }
            ToSupervisorFromDaemon::Failed { reason } => {
                self.members[index].complaint = Some(reason.clone());
            }
            ToSupervisorFromDaemon::Leaving => self.leaving(index),
            ToSupervisorFromDaemon::Stale(change) => self.stale(index, change),
            ToSupervisorFromDaemon::Retire { why } => self.replace(index, *why),
        }
    }

    /// As many scripts are remembered of what processes say: they may say anything.
    fn most_scripts(&self) -> usize {
        MOST_SCRIPTS + self.plan.preload.len()
    }

    /// Replacements load this script ahead.
    fn learn(&mut self, script: &Script, needed: bool) {
        self.learned.learn(script, self.epoch, needed);
    }

    /// Has every process load ahead what others had to load for requests: one that has
    /// not is of no use once its script is broken.
    fn spread(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.phase == Phase::Ready) {
            for script in self.learned.iter() {
                if !member.known.contains(script)
                    && member.tell(&ToDaemon::Load(script.clone()), &[]).is_ok()
                {
                    member.known.insert(script.clone());
                    member.missing.remove(script);
                }
            }
        }
    }

    /// The process with this index has loaded `scripts`: others that could not may be able
    /// to by now.  Without that they are not asked again for what they have just tried.
    fn encourage(&mut self, index: usize, scripts: &BTreeSet<Script>) {
        for (other, member) in self.members.iter_mut().enumerate() {
            if other != index {
                let Member { missing, known, .. } = member;
                missing.intersection(scripts).for_each(|script| drop(known.take(script)));
            }
        }
    }

    /// Takes over what an earlier supervisor had learned of the group.
    pub fn inherit(&mut self, scripts: Vec<Script>) {
        self.learned = Learned::inherited(scripts, self.epoch);
    }

    /// Whether others of its scripts are to be loaded ahead than at the last call.
    pub fn has_learned(&mut self) -> bool {
        self.learned.take_news()
    }

    /// What its processes had to load for requests.
    pub fn learned(&self) -> Vec<Script> {
        self.learned.iter().cloned().collect()
    }

    /// A process has loaded what it could.
    fn loaded(&mut self, index: usize, failure: Option<u64>) {
        self.known_failure = failure;
        if failure.is_some() && self.would_be_missed(index) {
            self.reject(index);
        } else {
            self.ready(index);
        }
    }

    /// Whether something that a process could not load is served by another.
    fn would_be_missed(&self, index: usize) -> bool {
        let is_served = |script: &Script| {
            let serves = |(other, member): (usize, &Member)| {
                other != index && self.serves(member) && !member.missing.contains(script)
            };
            self.members.iter().enumerate().any(serves)
        };
        self.members[index].missing.iter().any(is_served)
    }

    /// Whether a process takes requests, or will again.
    fn serves(&self, member: &Member) -> bool {
        let Some(slot) = self.board.slot(member.slot) else { return false };
        let is_stuck = member.why == Some(Reason::RequestTimeout) && slot.free() == 0;
        member.phase == Phase::Ready && !is_stuck && slot.state().is_serving()
    }

    /// A replacement could not load what its predecessor runs: that one stays.
    fn reject(&mut self, index: usize) {
        let pause = self.next_pause();
        let member = &mut self.members[index];
        let (pid, tried) = (member.pid, std::mem::take(&mut member.tried));
        let what = member.missing.first().map_or_else(String::new, |script| {
            let path = String::from_utf8_lossy(&script.path);
            let more = match member.missing.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(" '{path}'{more}")
        });
        self.log.error(&format!(
            "WSGI9104: daemon process {pid} cannot load{what}; the old processes serve on with \
             old code; trying again in {} s",
            pause.as_secs()
        ));
        self.drain(index, self.occasion);
        self.release(tried);
    }

    /// A process was told to stop by someone else.
    fn leaving(&mut self, index: usize) {
        let member = &mut self.members[index];
        let allowance = stop_allowance(&member.plan);
        member.phase = Phase::Leaving;
        member.why.get_or_insert(Reason::ShutdownSignal);
        // However often it says so.
        let deadline = allowance.map(|allowance| Instant::now() + allowance);
        member.deadline = [member.deadline, deadline].into_iter().flatten().min();
    }

    /// A process takes requests from now on, and one that it replaces no more.
    fn ready(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.phase != Phase::Starting {
            return;
        }
        member.phase = Phase::Ready;
        member.ready = Some(sys::monotonic_micros());
        if !self.plan.is_service() {
            self.failures = 0;
        }
        let (slot, generation) = (member.slot, member.generation);
        let threads = member.plan.threads;
        if let Some(slot) = self.board.slot(slot) {
            slot.open(generation, threads);
        }
        let member = &self.members[index];
        let scripts = member.known.difference(&member.missing).cloned().collect();
        self.encourage(index, &scripts);
        self.spread();
        // A request that came for new code is not to meet old code again.
        let at_once = self.changes.are_in_force() && !self.plan.rolling_reload;
        let age = self.members[index].age(self.epoch);
        let is_old = |member: &Member| member.epoch != self.epoch && member.phase == Phase::Ready;
        let mut old: Vec<usize> =
            (0..self.members.len()).filter(|index| is_old(&self.members[*index])).collect();
        // The oldest go first.
        old.sort_by_key(|index| self.members[*index].age(self.epoch));
        let is_new = |member: &&Member| member.epoch == self.epoch && member.phase == Phase::Ready;
        let new = self.members.iter().filter(is_new).count();
        // So many old ones stay as new ones are still wanting.
        let wanting = (self.plan.processes as usize).saturating_sub(new);
        for (rank, index) in old.into_iter().enumerate() {
            let is_outdated = at_once && self.members[index].age(self.epoch) > age;
            if rank >= wanting || is_outdated {
                self.drain(index, self.occasion);
            }
        }
    }

    /// Tells a process to finish and leave; `why` unless it has a reason already.
    fn drain(&mut self, index: usize, why: Reason) {
        let member = &mut self.members[index];
        if member.phase == Phase::Leaving {
            return;
        }
        if let Some(slot) = self.board.slot(member.slot) {
            slot.set_state(State::Draining);
        }
        let why = *member.why.get_or_insert(why);
        let plan = Rc::clone(&member.plan);
        let graceful = match (why, plan.limits.eviction) {
            // What runs is over its time already.
            (Reason::RequestTimeout, _) if plan.graceful_timeout.is_zero() => {
                self.stop_member(index, why);
                return;
            }
            (Reason::EvictionSignal, Some(eviction)) => eviction,
            _ if plan.is_service() => Duration::ZERO,
            _ => plan.graceful_timeout,
        };
        let told = member.tell(&ToDaemon::Drain { why, timeout: graceful }, &[]);
        if member.phase == Phase::Starting || told.is_err() {
            // Nothing was sent to it yet, and it does not listen.
            let _ = kill(member.pid, Signal::SIGKILL);
        }
        member.phase = Phase::Leaving;
        member.deadline = stop_allowance(&plan)
            .filter(|_| !graceful.is_zero() || plan.is_service())
            .map(|allowance| Instant::now() + graceful + allowance);
    }

    /// What a process that has ended said before: its end may be seen first.
    fn hear_last_words(&mut self, index: usize) {
        while let Some(control) = self.members[index].control.as_ref() {
            match control::receive_plain(control) {
                // Nothing else matters any more.
                Ok(Message::One(ToSupervisorFromDaemon::Leaving, _)) => self.leaving(index),
                Ok(Message::One(ToSupervisorFromDaemon::Failed { reason }, _)) => {
                    self.members[index].complaint = Some(reason);
                }
                Ok(Message::One(..)) => {}
                Ok(Message::None | Message::Closed) | Err(_) => return,
            }
        }
    }

    /// A process has ended; false if it was none of ours.
    pub fn ended(&mut self, pid: Pid, how: How) -> bool {
        let Some(index) = self.members.iter().position(|member| member.pid == pid) else {
            return false;
        };
        self.hear_last_words(index);
        let member = self.members.swap_remove(index);
        let gave_up = member.phase == Phase::Leaving && how == How::Code(OVERDUE);
        let how = if member.overdue || gave_up { How::Overdue } else { how };
        let exit = Exit { how, why: member.why };
        self.clear_slot(&member, exit);
        if member.phase == Phase::Starting {
            self.pause(&member, exit);
            self.release(member.tried);
        } else if member.phase == Phase::Leaving {
            self.log.info(&format!("Daemon process {pid} {exit}"));
            self.pause_service(&member);
        } else {
            // Its place is not to wait until a replacement that failed is tried again.
            self.not_before = None;
            let paused = self.pause_service(&member);
            // A service may return; whatever else ends of its own accord has failed.
            if !self.plan.is_service() || how != How::Code(0) {
                let text = format!("WSGI9101: daemon process {pid} {exit}; starting another");
                self.log.error(&text);
            } else if !paused {
                self.log.info("The service ended; it is started again");
            }
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

    /// Looks for what nobody tells: tickets of dead children, processes left by
    /// an earlier supervisor.
    pub fn tick(&mut self, now: Instant) {
        self.look_at_all(now);
        self.resume_forgotten();
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
    pub fn advance(
        &mut self,
        now: Instant,
        may_start: bool,
        next_generation: &mut u64,
    ) -> Option<Box<Seat>> {
        self.end_lingering(now);
        self.end_hold(now);
        self.kill_overdue(now);
        self.look_at_timers(now);
        if may_start { self.start_next(now, next_generation) } else { None }
    }
}

fn copy(fd: Option<&OwnedFd>) -> Option<OwnedFd> {
    fd.and_then(|fd| fd.try_clone().ok())
}

#[cfg(test)]
mod tests;
