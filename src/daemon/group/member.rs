//! One daemon process, as far as the supervisor had a part in it.
#![forbid(unsafe_code)]

use super::changes::Versions;
use super::timers::TO_SHOW_STACKS;
use crate::daemon::changes::Change;
use crate::daemon::control::{self, ToDaemon};
use crate::daemon::plan::{GroupPlan, Script};
use crate::daemon::watch::Watch;
use crate::scoreboard::Reason;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a process gets on top of its own time to stop before it has been killed.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The epoch of a process that is being replaced: older than any other.
pub(super) const REPLACED: u64 = u64::MAX;

/// What a process is doing, as far as the supervisor had a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Loading Python and scripts.
    Starting,
    /// Taking requests.
    Ready,
    /// Told to finish and leave.
    Leaving,
}

/// One daemon process.
pub(super) struct Member {
    /// What it was started as: another configuration changes nothing about it.
    pub(super) plan: Rc<GroupPlan>,
    pub(super) pid: Pid,
    pub(super) slot: u32,
    pub(super) generation: u64,
    /// The configuration it was started for: `Group::epoch` at that time, or
    /// [`REPLACED`].
    pub(super) epoch: u64,
    pub(super) phase: Phase,
    /// When it was forked.
    pub(super) started: Instant,
    /// The versions of scripts it has tried to load, where it did not load them all.
    pub(super) tried: Versions,
    /// The scripts it was to load and could not.
    pub(super) missing: BTreeSet<Script>,
    /// The scripts it has loaded or was told to.
    pub(super) known: BTreeSet<Script>,
    /// When it became ready, in µs of the monotonic clock.
    pub(super) ready: Option<u64>,
    /// Why it is to end, once it is.
    pub(super) why: Option<Reason>,
    /// Why it could not set itself up, if it said so.
    pub(super) complaint: Option<String>,
    /// None once the process has closed its end.
    pub(super) control: Option<OwnedFd>,
    /// When it is killed.
    pub(super) deadline: Option<Instant>,
    pub(super) overdue: bool,
    /// Whether it was told to stop, whatever it runs.
    pub(super) is_stopping: bool,
    /// Whether it was told to show its stacks before it is killed.
    pub(super) has_shown_stacks: bool,
    pub(super) watch: Watch,
    /// When its timers have to be looked at again.
    pub(super) look: Option<Instant>,
}

impl Member {
    /// A process that was just forked, in this slot with this generation.
    pub(super) fn new(
        pid: Pid,
        (slot, generation): (u32, u64),
        plan: &Rc<GroupPlan>,
        control: OwnedFd,
    ) -> Self {
        Self {
            plan: Rc::clone(plan),
            pid,
            slot,
            generation,
            epoch: 0,
            tried: Versions::new(),
            missing: BTreeSet::new(),
            known: BTreeSet::new(),
            phase: Phase::Starting,
            started: Instant::now(),
            ready: None,
            why: None,
            complaint: None,
            control: Some(control),
            deadline: None,
            overdue: false,
            is_stopping: false,
            has_shown_stacks: false,
            watch: Watch::default(),
            look: None,
        }
    }

    /// Sends the process a message, if it can have one.
    pub(super) fn tell(&self, message: &ToDaemon, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let control = self.control.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        control::try_send(control.as_fd(), message, fds)
    }

    /// It has tried a script, one of so many at `most`.
    pub(super) fn tried(&mut self, change: &Change, loaded: bool, most: usize) {
        if self.tried.len() >= most {
            return;
        }
        self.tried.insert(change.script.clone(), change.changed);
        if !loaded {
            self.missing.insert(change.script.clone());
        }
    }

    /// How many occasions to replace it there have been since its start; those that are
    /// to be replaced for a reason of their own are older than any other.
    pub(super) fn age(&self, epoch: u64) -> u64 {
        if self.epoch == REPLACED { u64::MAX } else { epoch.saturating_sub(self.epoch) }
    }

    /// Whether it counts towards the processes of the current configuration.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        self.epoch == epoch && self.phase != Phase::Leaving
    }
}

/// How long a process may take to stop before it is killed; none: for ever.
pub(super) fn stop_allowance(plan: &GroupPlan) -> Option<Duration> {
    let grace = GRACE.saturating_sub(TO_SHOW_STACKS);
    (!plan.shutdown_timeout.is_zero()).then(|| plan.shutdown_timeout + grace)
}
