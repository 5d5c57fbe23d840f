//! Descriptors: how many a configuration needs, and room for them.
//!
//! The parent holds four or more for each daemon process, so some 250 of these would use
//! up the 1,024 that a process may usually have.  That soft limit is raised where
//! it must be, for httpd and the supervisor only: a daemon process gets the limit
//! back that httpd was started with, because applications that call `select()` rely
//! on small numbers.
#![forbid(unsafe_code)]

use super::plan::Plan;
use crate::scoreboard::slots_of;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Both ends of its inbox.
const PER_SLOT: u64 = 2;
/// A scoreboard, an error log, an environment, and one on its way.
const PER_GROUP: u64 = 4;
/// What httpd needs beside ours: listeners, logs, certificates, other modules.
/// Less, and the parent fails at something else; more, and a limit that would do
/// is refused.
const LEAST_SPARE: u64 = 64;
/// Room for the connections of a child process: one kept to each slot, and as
/// many as the usual limit leaves it.
const SPARE_PER_SLOT: u64 = 1;
/// As above.
const SPARE: u64 = 512;

/// The limit is raised in steps, so that a restart with a descriptor more leaves it.
const STEP: u64 = 1024;

/// The soft limit this process was started with, and what it became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Raised {
    /// Before.
    from: u64,
    /// After.
    to: u64,
}

impl From<(u64, u64)> for Raised {
    fn from((from, to): (u64, u64)) -> Self {
        Self { from, to }
    }
}

impl From<Raised> for (u64, u64) {
    fn from(raised: Raised) -> Self {
        (raised.from, raised.to)
    }
}

/// Too few descriptors for a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{processes} daemon processes need {needed} descriptors in httpd's parent, and the hard \
     limit is {hard}: raise it (LimitNOFILE= of the service, ulimit -Hn), or lower processes="
)]
pub struct TooFew {
    /// How many processes there are to be.
    processes: u64,
    /// How many descriptors that takes.
    needed: u64,
    /// How many there may be.
    hard: u64,
}

/// Lowers the greatest of `processes` until the hard limit is enough for all, if it can
/// be; `ours` as for [`Need::check`].
pub fn fit(processes: &mut [u32], ours: u64) {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    fit_below(processes, open().saturating_sub(ours), hard);
}

/// The same beside `others` and below `hard`.
fn fit_below(processes: &mut [u32], others: u64, hard: u64) {
    while Need::of(processes.iter().copied()).descriptors(others).0 > hard {
        let Some(most) = processes.iter_mut().max().filter(|most| **most > 1) else { return };
        *most -= (*most / 16).max(1);
    }
}

/// What groups of so many processes need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Need {
    processes: u64,
    slots: u64,
    groups: u64,
}

impl Need {
    /// The need of groups with these numbers of processes.
    pub fn of(groups: impl Iterator<Item = u32>) -> Self {
        groups.fold(Self::default(), |need, processes| Self {
            processes: need.processes + u64::from(processes),
            slots: need.slots + u64::from(slots_of(processes)),
            groups: need.groups + 1,
        })
    }

    /// Descriptors beside `others`: the least that will do, and what is better.
    fn descriptors(self, others: u64) -> (u64, u64) {
        let ours = self.slots * PER_SLOT + self.groups * PER_GROUP;
        (others + ours + LEAST_SPARE, others + ours + self.slots * SPARE_PER_SLOT + SPARE)
    }

    /// Whether the hard limit is too low; `ours` of the open descriptors are
    /// those of an earlier configuration.
    pub fn check(self, ours: u64) -> Result<(), TooFew> {
        let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
        let (needed, _) = self.descriptors(open().saturating_sub(ours));
        if needed <= hard {
            return Ok(());
        }
        Err(TooFew { processes: self.processes, needed, hard })
    }

    /// Raises the soft limit of this process if it is too low; `last` is what this
    /// gave for the last configuration.
    pub fn make_room(self, ours: u64, last: Raised) -> Result<Raised, TooFew> {
        self.check(ours)?;
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(last) };
        let from = if soft == last.to { last.from } else { soft };
        let (_, better) = self.descriptors(open().saturating_sub(ours));
        let to = better.next_multiple_of(STEP).min(hard);
        if soft >= better.min(hard) || setrlimit(Resource::RLIMIT_NOFILE, to, hard).is_err() {
            return Ok(Raised { from, to: soft });
        }
        Ok(Raised { from, to })
    }
}

impl Raised {
    /// Writes the limit that daemon processes get into the plan.
    pub fn tell(self, plan: &mut Plan) {
        for group in &mut plan.groups {
            group.open_files = self.from;
        }
    }
}

/// How many descriptors this process has open.
fn open() -> u64 {
    // The listing has one of its own.
    std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64).saturating_sub(1)
}

/// Lets this process have as many descriptors as the system allows it.
pub fn allow_most() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // It has what it was forked with otherwise.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Gives this process the soft limit httpd was started with; 0 is unknown.
pub fn restore(soft: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft == 0 { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_needs_its_inboxes() {
        let (least, better) = Need::of([2, 3].into_iter()).descriptors(10);
        let slots = u64::from(slots_of(2) + slots_of(3));
        assert_eq!(least, 10 + slots * 2 + 2 * 4 + 64);
        assert!(better > least);
    }

    #[test]
    fn a_limit_that_cannot_be_enough_is_named() {
        let too_few = Need::of([u32::MAX; 9].into_iter()).check(0).unwrap_err();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let text = too_few.to_string();
        assert!(text.starts_with("38654705655 daemon processes need 77309411"), "{text}");
        assert!(text.contains(&format!("the hard limit is {hard}")), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_made_to_at_the_largest_groups() {
        let mut processes = [40, 2, 25, 1];
        fit_below(&mut processes, 10, 400);
        let (needed, _) = Need::of(processes.into_iter()).descriptors(10);
        assert!((350..=400).contains(&needed), "{processes:?}");
        assert_eq!((processes[1], processes[3]), (2, 1));
        assert!(processes[0].abs_diff(processes[2]) <= 1, "{processes:?}");
        fit_below(&mut processes, 10, 100);
        assert_eq!(processes, [1; 4], "no fewer than that");
    }

    #[test]
    fn what_is_enough_is_left_as_it_is() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let last = Raised { from: 7, to: soft };
        let raised = Need::of(std::iter::empty()).make_room(open(), last);
        if soft >= SPARE {
            assert_eq!(raised, Ok(last));
        }
    }
}
