//! The processes of one httpd, as `/proc` shows them.
#![forbid(unsafe_code)]

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, told from a later one with the same number by its start time.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    group: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
    /// `Z` for one that ended and was not waited for.
    state: char,
}

impl PartialEq for Process {
    /// Whether it is the same one, whatever it does and whoever has adopted it.
    fn eq(&self, other: &Self) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }
}

impl Eq for Process {}

impl Process {
    /// The process with this number, unless it has ended.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold blanks and brackets; the last one closes it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let found = Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        };
        (found.state != 'Z').then_some(found)
    }

    /// Whether it is still there.
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started)
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            match kill(Pid::from_raw(self.pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => panic!("cannot send {signal} to {}: {e}", self.pid),
            }
        }
    }

    /// What `ps` shows: the words of its command line.
    pub fn title(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        text.trim().to_owned()
    }

    /// The files it has mapped.
    pub fn maps(&self) -> String {
        fs::read_to_string(format!("/proc/{}/maps", self.pid)).expect("a process has maps")
    }

    /// The line `name:` of its status.
    pub fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Whether it was started with `NAME=value` in its environment.
    fn was_started_with(&self, variable: &str) -> bool {
        let environ = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    }
}

/// Every living process of the machine.
fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Process::find).collect()
}

/// The processes that descend from `root`, were started in its process group, or carry `mark`
/// in their environment: one that left the tree is found by one of the others.
pub fn family(root: i32, mark: &str) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    loop {
        let is_known = |pid: i32| pid == root || found.iter().any(|process| process.pid == pid);
        let more: Vec<Process> = all
            .iter()
            .filter(|process| !found.contains(process))
            .filter(|process| {
                process.pid == root
                    || is_known(process.parent)
                    || process.group == root
                    || process.was_started_with(mark)
            })
            .cloned()
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}
