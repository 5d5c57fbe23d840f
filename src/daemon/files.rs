//! Descriptors: how many a configuration needs, and room for them.
//!
//! The parent holds four or more for each daemon process, so some 250 of these would use
//! up the 1,024 that a process may usually have.  That soft limit is raised where
//! it must be, for httpd and the supervisor only: a daemon process gets the limit
//! back that httpd was started with, because applications that call `select()` rely
//! on small numbers.  A server that runs already is not to end for a configuration
//! that has grown: then the hard limit is raised too, where that is allowed.
#![forbid(unsafe_code)]

use super::plan::Plan;
use crate::scoreboard::slots_of;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Both ends of its inbox.
const PER_SLOT: u64 = 2;
/// A scoreboard, an error log, and one on its way.
const PER_GROUP: u64 = 3;
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
    /// The hard limit before it was raised; 0: it was not.
    hard: u64,
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
        if needed <= hard { Ok(()) } else { Err(self.too_few(needed, hard)) }
    }

    const fn too_few(self, needed: u64, hard: u64) -> TooFew {
        TooFew { processes: self.processes, needed, hard }
    }

    /// Raises the soft limit of this process if it is too low; `last` is what this
    /// gave for the last configuration, if httpd was running then.
    pub fn make_room(self, ours: u64, last: Option<Raised>) -> Result<Raised, TooFew> {
        let is_running = last.is_some();
        let last = last.unwrap_or_default();
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(last) };
        let from = if soft == last.to { last.from } else { soft };
        let (needed, better) = self.descriptors(open().saturating_sub(ours));
        let most = better.next_multiple_of(STEP);
        if needed > hard {
            if !is_running || setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
                return Err(self.too_few(needed, hard));
            }
            let hard = if last.hard == 0 { hard } else { last.hard };
            return Ok(Raised { from, to: most, hard });
        }
        let to = most.min(hard);
        if soft >= better.min(hard) || setrlimit(Resource::RLIMIT_NOFILE, to, hard).is_err() {
            return Ok(Raised { from, to: soft, ..last });
        }
        Ok(Raised { from, to, ..last })
    }
}

impl Raised {
    /// Writes the limits that daemon processes and the supervisor get into the plan.
    pub fn tell(self, plan: &mut Plan) {
        plan.open_files = self.to;
        for group in &mut plan.groups {
            group.open_files = (self.from, self.hard);
        }
    }

    /// What the hard limit was and became, if it was raised after `last`.
    pub fn new_hard(self, last: Self) -> Option<(u64, u64)> {
        (self.hard != 0 && self.to != last.to).then_some((self.hard, self.to))
    }
}

/// How many descriptors this process has open.
fn open() -> u64 {
    // The listing has one of its own.
    std::fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64).saturating_sub(1)
}

/// Lets this process have as many descriptors as the system allows it, and at least
/// this many if it allows more.
pub fn allow_most(least: u64) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = hard.max(least);
        // It has what it was forked with otherwise.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Gives this process the soft limit httpd was started with, 0 is unknown, and the hard
/// one, 0 is as it is.
pub fn restore((soft, hard): (u64, u64)) -> Result<(), Errno> {
    let (_, is) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let hard = if hard == 0 { is } else { hard.min(is) };
    if soft == 0 { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_needs_its_inboxes() {
        let (least, better) = Need::of([2, 3].into_iter()).descriptors(10);
        let slots = u64::from(slots_of(2) + slots_of(3));
        assert_eq!(least, 10 + slots * 2 + 2 * 3 + 64);
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
    fn what_is_enough_is_left_as_it_is() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let last = Raised { from: 7, to: soft, hard: 0 };
        let raised = Need::of(std::iter::empty()).make_room(open(), Some(last));
        if soft >= SPARE {
            assert_eq!(raised, Ok(last));
        }
    }
}
