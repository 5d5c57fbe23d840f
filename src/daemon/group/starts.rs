//! Starting the processes of a group: when, how often, and with what.
#![forbid(unsafe_code)]

use super::member::{Member, Phase};
use super::{Group, copy};
use crate::daemon::plan::{GroupPlan, Script};
use crate::daemon::process::Seat;
use crate::daemon::sys::{self, Fork};
use crate::scoreboard::{Exit, MEMORY_NAME, Scoreboard, Slot, State};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wsgi_wire::vtable::level;

/// First and longest pause between failed starts: a broken configuration must
/// not keep the machine busy, and a mended one not wait long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So many starts beyond the first of each process may follow one another at
/// once; then one every [`PACE`].  Processes that end, or ask to be replaced, as
/// soon as they are ready must not keep the machine busy.
const BURST: u32 = 16;
pub(super) const PACE: Duration = Duration::from_millis(250);

/// A service that ends sooner than this after its start is not started again at
/// once: one whose script only fails must not keep the machine busy.
const BRIEF: Duration = Duration::from_secs(10);

impl Group {
    /// How long the next start waits after one that failed.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        pause
    }

    /// A start failed: the next one waits, longer each time.
    pub(super) fn pause(&mut self, member: &Member, exit: Exit) {
        let pause = self.next_pause();
        let others = self.members.iter().any(|member| member.phase == Phase::Ready);
        let meanwhile = if others { ", the old processes serve on" } else { "" };
        let next = format!("trying again in {} s{meanwhile}", pause.as_secs());
        match &member.complaint {
            Some(reason) => self.log.write(level::ALERT, &format!("{reason}; {next}")),
            None => self.log.error(&format!(
                "WSGI9102: daemon process {} {exit} before it was ready; {next}",
                member.pid
            )),
        }
    }

    /// A service ended: soon after its start, the next waits, longer each time.
    /// Whether it does.
    pub(super) fn pause_service(&mut self, member: &Member) -> bool {
        if !self.plan.is_service() || member.why.is_some() {
            return false;
        }
        if member.started.elapsed() >= BRIEF {
            self.failures = 0;
            return false;
        }
        let pause = self.next_pause();
        let seconds = pause.as_secs();
        self.log.info(&format!("The service ended; it is started again in {seconds} s"));
        true
    }

    /// Starts the next process that is wanting; in that process, returns its seat.
    pub(super) fn start_next(
        &mut self,
        now: Instant,
        next_generation: &mut u64,
    ) -> Option<Box<Seat>> {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
        // One at a time: what the processes say is heard between two forks, so the
        // first of many serves before the last is started.
        if !self.wants_another(now) {
            return None;
        }
        let slot = self.free_slot()?;
        if !self.may_start(now) {
            self.not_before = Some(now + PACE);
            return None;
        }
        *next_generation += 1;
        match self.start(slot, *next_generation) {
            Ok(seat) => {
                self.not_before = Some(now);
                seat
            }
            Err(cause) => {
                self.log.error(&format!(
                    "WSGI0024: cannot start a daemon process: {cause}; trying again in {} s",
                    FIRST_PAUSE.as_secs()
                ));
                self.not_before = Some(now + FIRST_PAUSE);
                self.release(self.changes.asked());
                None
            }
        }
    }

    /// Whether the next start is not too soon; counts it.
    pub(super) fn may_start(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.paced).as_millis() / PACE.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.starts = self.starts.saturating_add(earned).min(most_starts(&self.plan));
            self.paced = now;
        }
        let may = self.starts > 0;
        self.starts = self.starts.saturating_sub(1);
        may
    }

    fn wants_another(&mut self, now: Instant) -> bool {
        if self.retired || self.not_before.is_some_and(|at| at > now) {
            return false;
        }
        let current = self.members.iter().filter(|m| m.is_current(self.epoch)).count();
        let starting = self.members.iter().any(|m| m.phase == Phase::Starting);
        // While starts fail, one try at a time; and the first of a new version is a
        // try, where there is an old one to fall back on.
        if starting && (self.failures > 0 || self.is_trying()) {
            return false;
        }
        let count =
            if self.plan.is_service() { self.members.len() + self.others() } else { current };
        count < self.plan.processes as usize
    }

    /// Whether only processes of an earlier configuration serve.
    fn is_trying(&self) -> bool {
        let serves = |member: &&Member| member.phase == Phase::Ready;
        let mut serving = self.members.iter().filter(serves).peekable();
        serving.peek().is_some() && serving.all(|member| member.epoch != self.epoch)
    }

    /// How many processes of an earlier supervisor have not ended.
    pub(super) fn others(&self) -> usize {
        let is_ours = |number| self.members.iter().any(|member| member.slot == number);
        let is_other = |(number, slot): &(u32, Slot<'_>)| {
            slot.state() != State::Empty && !is_ours(*number) && sys::is_alive(slot.pid())
        };
        (0..).zip(self.board.slots()).filter(is_other).count()
    }

    /// A slot with nobody in it, neither ours nor an earlier supervisor's.
    ///
    /// The one that has been empty longest: a child that hears late of a process'
    /// end still finds there what it ran.
    pub(super) fn free_slot(&self) -> Option<u32> {
        let is_free = |number: &u32| {
            self.board.slot(*number).is_some_and(|slot| {
                slot.state() == State::Empty && self.members.iter().all(|m| m.slot != *number)
            })
        };
        (0..self.inboxes.len() as u32)
            .filter(is_free)
            .min_by_key(|number| self.board.slot(*number).map(|slot| slot.generation()))
    }

    fn start(&mut self, slot: u32, generation: u64) -> io::Result<Option<Box<Seat>>> {
        let (ours, theirs) = sys::message_pair()?;
        let record = self.board.slot(slot).ok_or(io::ErrorKind::InvalidInput)?;
        record.prepare(generation);
        let forked = sys::fork_apart(Some(MEMORY_NAME)).inspect_err(|_| {
            record.set_state(State::Empty);
        })?;
        match forked {
            Fork::Parent(pid) => {
                record.set_pid(pid.as_raw() as u32);
                let mut member = Member::new(pid, (slot, generation), &self.plan, ours);
                member.epoch = self.epoch;
                member.tried = self.changes.asked();
                member.known = self.scripts().into_iter().collect();
                self.members.push(member);
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
    /// says, then what its predecessors had to load.
    pub(super) fn scripts(&self) -> Vec<Script> {
        let mut scripts = self.plan.preload.clone();
        let learned = self.learned.iter().filter(|script| !self.plan.preload.contains(script));
        scripts.extend(learned.cloned());
        scripts
    }

    /// In the new process: what it needs of its group.
    fn take_seat(&self, slot: u32, generation: u64, control: OwnedFd) -> io::Result<Seat> {
        let inbox = self.inboxes.get(slot as usize).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Seat {
            board: Arc::new(Scoreboard::open(&self.memory, self.plan.shape())?),
            slot,
            generation,
            inbox: inbox.try_clone()?,
            control,
            log: copy(self.log_fd.as_ref()),
            snapshot: copy(self.snapshot.as_ref()).filter(|_| self.plan.server_metrics),
            // Without it the application would not be what it is.
            environment: self.environment.as_ref().map(OwnedFd::try_clone).transpose()?,
            scripts: self.scripts(),
            known_failure: self.known_failure,
            plan: GroupPlan::clone(&self.plan),
        })
    }
}

/// How many starts may follow one another at once.
pub(super) const fn most_starts(plan: &GroupPlan) -> u32 {
    plan.processes.saturating_mul(2).saturating_add(BURST)
}
