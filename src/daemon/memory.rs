//! How much memory a process has, and whether the kernel killed one for it.
#![forbid(unsafe_code)]

use super::plan::GroupPlan;
use std::path::{Path, PathBuf};

/// What proc(5) says about the memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub resident: u64,
    /// Private and writable: what `RLIMIT_DATA` bounds, and a little more.
    pub data: u64,
    /// All of the address space: what `RLIMIT_AS` bounds.
    pub address_space: u64,
}

/// When a process counts as having reached a limit of its memory: with less than a
/// sixteenth left, allocations fail that the application needs to work at all.
pub const fn nearly(limit: u64) -> u64 {
    limit - limit / 16
}

impl Memory {
    /// Whether it has next to nothing left of what `plan` allows.
    pub fn is_spent(&self, plan: &GroupPlan) -> bool {
        let exceeds = |used: u64, limit: Option<u64>| limit.map(nearly).is_some_and(|it| used > it);
        exceeds(self.data, plan.memory_limit)
            || exceeds(self.address_space, plan.virtual_memory_limit)
    }

    /// That of a living process.
    pub fn of(pid: u32) -> Option<Self> {
        let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        Self::parse(&text, u64::try_from(pages).ok()?)
    }

    /// Reads the numbers of `/proc/PID/statm`: size, resident, shared, text, lib, data.
    fn parse(text: &str, page: u64) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let mut next = |skip| numbers.nth(skip)?.map(|pages| pages.saturating_mul(page));
        Some(Self { address_space: next(0)?, resident: next(0)?, data: next(3)? })
    }
}

/// The kernel's out-of-memory killer, as far as it can be seen from here.
#[derive(Debug)]
pub struct Killer {
    /// Where it is counted: this control group's, or else the whole system's.
    counter: Option<PathBuf>,
    /// How often it had struck at the last look.
    strikes: Option<u64>,
    /// And at the one before: a death is heard of a little after its cause.
    before: Option<u64>,
}

impl Killer {
    /// Looks for the first time.
    pub fn new() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let candidates = own.lines().filter_map(counter_of);
        let everywhere = PathBuf::from("/proc/vmstat");
        let counter = candidates.chain([everywhere]).find(|path| count(path).is_some());
        let strikes = counter.as_deref().and_then(count);
        Self { counter, strikes, before: strikes }
    }

    /// Forgets what happened before the last look.
    pub fn look(&mut self) {
        self.before = self.strikes;
        self.strikes = self.counter.as_deref().and_then(count);
    }

    /// Whether it has struck since the look before the last.
    pub fn has_struck(&self) -> bool {
        let now = self.counter.as_deref().and_then(count);
        matches!((self.before, now), (Some(before), Some(now)) if now > before)
    }
}

/// Where the strikes of a control group may be counted: `line` is one of
/// `/proc/self/cgroup`, of version 2 of the interface or of version 1.
fn counter_of(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.events"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        }
        _ => return None,
    };
    Some(Path::new(root).join(path.trim_matches('/')).join(file))
}

/// The `oom_kill` in a file of names and numbers.
fn count(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_statm_are_pages() {
        let memory = Memory::parse("100 20 5 1 0 30 0\n", 4096).unwrap();
        let expected = Memory { address_space: 409_600, resident: 81_920, data: 122_880 };
        assert_eq!(memory, expected);
        assert_eq!(Memory::parse("100 20", 4096), None);
        assert!(Memory::of(std::process::id()).unwrap().resident > 0);
    }

    #[test]
    fn a_control_group_counts_in_either_version_of_the_interface() {
        let counter = |line| counter_of(line).map(|path| path.display().to_string());
        let second = "/sys/fs/cgroup/web/httpd/memory.events";
        assert_eq!(counter("0::/web/httpd").as_deref(), Some(second));
        let first = "/sys/fs/cgroup/memory/web/memory.oom_control";
        assert_eq!(counter("4:hugetlb,memory:/web").as_deref(), Some(first));
        assert_eq!(counter("3:cpu,cpuacct:/web"), None);
    }

    #[test]
    fn a_strike_is_a_greater_number_than_before() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("oom 3\noom_kill 1\noom_group_kill 0\n");
        let mut killer = Killer { counter: Some(file.path().into()), strikes: None, before: None };
        killer.look();
        killer.look();
        assert!(!killer.has_struck());
        write("oom 3\noom_kill 2\n");
        assert!(killer.has_struck());
        killer.look();
        assert!(killer.has_struck(), "it may be heard of a moment later");
        killer.look();
        assert!(!killer.has_struck());
    }
}
