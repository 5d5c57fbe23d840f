//! The timers of a group's processes, and what follows when one has run out.
#![forbid(unsafe_code)]

use super::Group;
use super::member::{Member, Phase, REPLACED, stop_allowance};
use crate::daemon::control::ToDaemon;
use crate::daemon::memory::Memory;
use crate::daemon::sys;
use crate::daemon::watch::{Sight, Verdict, is_busy};
use crate::scoreboard::{Reason, State};
use nix::sys::signal::{Signal, kill};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Between the signal that makes Python show its stacks and the one that kills:
/// writing them takes a few milliseconds, with hundreds of threads some more.
pub(super) const TO_SHOW_STACKS: Duration = Duration::from_millis(300);

/// The shortest pause between two looks at a process.
const PAUSE: Duration = Duration::from_millis(50);

/// A process that is replaced for its memory at a lesser age may have begun with as
/// much: its successor has to be older, and that one's twice as old.
const YOUNG: Duration = Duration::from_secs(10);
const FIRST_MEMORY_AGE: Duration = Duration::from_secs(2);
const LONGEST_MEMORY_AGE: Duration = Duration::from_secs(60);

impl Group {
    /// Kills what has had its time, not without having seen what it was doing.
    pub(super) fn kill_overdue(&mut self, now: Instant) {
        for member in &mut self.members {
            if member.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            if !member.has_shown_stacks {
                member.has_shown_stacks = true;
                member.deadline = Some(now + TO_SHOW_STACKS);
                sys::ask_for_stacks(member.pid);
                continue;
            }
            member.deadline = None;
            member.overdue = true;
            let _ = kill(member.pid, Signal::SIGKILL);
        }
    }

    /// Looks at the processes whose timers may have run out.
    pub(super) fn look_at_timers(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            if self.members[index].look.is_some_and(|look| look <= now) {
                self.look_at(index, now);
            }
        }
    }

    /// Looks at all processes; once a second.
    pub(super) fn look_at_all(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            self.look_at(index, now);
            self.look_at_memory(index);
        }
    }

    fn look_at(&mut self, index: usize, now: Instant) {
        let Some(sight) = self.sight(index) else { return };
        let member = &mut self.members[index];
        let plan = Rc::clone(&member.plan);
        let (limits, threads) = (&plan.limits, plan.threads);
        let verdicts = member.watch.judge(&sight, limits, threads);
        // Not for ever anew, whatever an application writes into the scoreboard.
        member.look = member.watch.next().map(|left| now + Duration::from_micros(left).max(PAUSE));
        for verdict in verdicts {
            match verdict {
                Verdict::Interrupt(request) => {
                    let _ = self.members[index].tell(&ToDaemon::Interrupt { request }, &[]);
                }
                // What comes over all of them at the same age comes one at a time.
                Verdict::Replace(Reason::RestartInterval) if self.is_replacing() => {}
                Verdict::Replace(why) => self.replace(index, why),
                Verdict::Stop(why) => self.give_up(index, why),
            }
        }
        let member = &self.members[index];
        // Nobody waits for requests that have had their time.
        let is_done = member.phase == Phase::Leaving
            && !member.is_stopping
            && limits.request.is_some()
            && !sight.running.is_empty()
            && !is_busy(&sight, limits, threads);
        if is_done {
            self.stop_member(index, Reason::RequestTimeout);
        }
    }

    /// What is known of a process.
    fn sight(&self, index: usize) -> Option<Sight> {
        let member = self.members.get(index)?;
        let slot = self.board.slot(member.slot)?;
        let now = sys::monotonic_micros();
        let is_loading = member.phase == Phase::Starting && !self.scripts().is_empty();
        let started = now.saturating_sub(member.started.elapsed().as_micros() as u64);
        Some(Sight {
            now,
            ready: member.ready,
            beat: slot.beat(),
            active: slot.active(),
            loading: if is_loading { Some(started) } else { slot.loading_since() },
            running: slot.all_running().collect(),
        })
    }

    /// Replaces a process whose memory has grown beyond what the group allows.
    fn look_at_memory(&mut self, index: usize) {
        let member = &self.members[index];
        let plan = Rc::clone(&member.plan);
        let has_limit = plan.memory_limit.or(plan.virtual_memory_limit).is_some();
        let resident = plan.limits.resident;
        if member.phase != Phase::Ready || (resident.is_none() && !has_limit) {
            return;
        }
        let Some(memory) = Memory::of(member.pid.as_raw() as u32) else { return };
        let why = if resident.is_some_and(|limit| memory.resident > limit) {
            Reason::MaximumResident
        } else if memory.is_spent(&plan) {
            Reason::MemoryLimit
        } else {
            return;
        };
        let age = sys::monotonic_micros().saturating_sub(member.ready.unwrap_or(0));
        let age = Duration::from_micros(age);
        // Siblings that have grown alike go one at a time; and where each is as large
        // from the start, they are not replaced all the time.
        if age < self.memory_age || self.is_replacing() {
            return;
        }
        self.memory_age = if age < YOUNG {
            (self.memory_age * 2).clamp(FIRST_MEMORY_AGE, LONGEST_MEMORY_AGE)
        } else {
            Duration::ZERO
        };
        self.replace(index, why);
    }

    /// Has a process replaced: it serves until its replacement is ready.
    pub(super) fn replace(&mut self, index: usize, why: Reason) {
        let member = &self.members[index];
        // One that serves a single request has closed its slot itself; two of one
        // service never run at once.
        let is_closed = member.plan.run_once && why == Reason::MaximumRequests;
        let is_first = is_closed || member.plan.is_service();
        if member.phase == Phase::Ready && member.epoch == REPLACED && is_first {
            self.drain(index, why);
        }
        let member = &mut self.members[index];
        if member.phase != Phase::Ready || member.epoch == REPLACED {
            return;
        }
        member.why = Some(why);
        member.epoch = REPLACED;
        let pid = member.pid;
        if why == Reason::RequestTimeout {
            let _ = member.tell(&ToDaemon::Stacks, &[]);
            self.log.error(&format!(
                "WSGI9115: daemon process {pid} runs a request that has passed its \
                 request-timeout; replacing it, its stacks follow"
            ));
        } else {
            self.log.info(&format!("Replacing daemon process {pid}: {why}"));
        }
        if is_first {
            self.drain(index, why);
        }
    }

    /// Whether a process is being replaced or another one is starting.
    fn is_replacing(&self) -> bool {
        let is_moving = |member: &Member| {
            member.phase == Phase::Starting
                || (member.phase == Phase::Ready && member.epoch == REPLACED)
        };
        self.members.iter().any(is_moving)
    }

    /// Stops a process that is of no more use; another starts at once.
    fn give_up(&mut self, index: usize, why: Reason) {
        let member = &mut self.members[index];
        // A stop is on its way already, or the kill of one that does not listen.
        if member.is_stopping || member.has_shown_stacks {
            return;
        }
        let (pid, phase) = (member.pid, member.phase);
        let what = match why {
            Reason::DeadlockTimeout => "WSGI9116: Python's lock has not been to be had",
            _ => "WSGI9117: no script has been loaded",
        };
        self.log.error(&format!(
            "{what} in daemon process {pid} ({why}); ending it and starting another, its stacks \
             follow"
        ));
        sys::ask_for_stacks(pid);
        member.has_shown_stacks = true;
        if phase == Phase::Starting {
            // It does not listen; its end is that of a start that failed.
            member.why = Some(why);
            member.deadline = Some(Instant::now() + TO_SHOW_STACKS);
            return;
        }
        self.stop_member(index, why);
        if why == Reason::DeadlockTimeout {
            // What it runs cannot go on, and what waits for the lock can be run
            // elsewhere, but not before this process is gone.
            self.members[index].deadline = Some(Instant::now() + TO_SHOW_STACKS);
        }
    }

    /// Tells a process to stop: what it runs has the shutdown-timeout.
    pub(super) fn stop_member(&mut self, index: usize, why: Reason) {
        let member = &mut self.members[index];
        let allowance = stop_allowance(&member.plan);
        if let Some(slot) = self.board.slot(member.slot) {
            slot.set_state(State::Draining);
        }
        let why = *member.why.get_or_insert(why);
        if member.tell(&ToDaemon::Stop { why }, &[]).is_err() {
            let _ = kill(member.pid, Signal::SIGKILL);
        }
        member.phase = Phase::Leaving;
        member.is_stopping = true;
        let deadline = allowance.map(|allowance| Instant::now() + allowance);
        member.deadline = [member.deadline, deadline].into_iter().flatten().min();
    }
}
