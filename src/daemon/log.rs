//! The log of the supervisor and of daemon processes outside requests: lines of
//! httpd's own default form, written to the group's error log without httpd.
//!
//! Nothing here is locked: a process that an application forks may write, and would
//! wait for ever for a lock that a thread held which it does not have.
#![forbid(unsafe_code)]

use super::sys;
use crate::host::Source;
use nix::poll::{PollFd, PollFlags};
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use wsgi_wire::vtable::level;

/// A line above this is cut: one write of at most this many bytes is not torn
/// apart by other writers of a log that is a pipe (`PIPE_BUF`).
const LONGEST_LINE: usize = 4096;

/// How long a line waits for the program that reads a piped log.  A program that
/// is stuck must not stop the supervisor, which serves other groups as well.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the lines of one process go.
#[derive(Debug)]
pub struct ProcessLog {
    /// The same descriptor from the first log on: another takes its place there.
    to: OnceLock<OwnedFd>,
    is_open: AtomicBool,
    /// A program that reads the log has stopped to.
    is_stuck: AtomicBool,
    level: AtomicU32,
    /// Ends every line: `[group 'blog']`.
    identity: String,
}

impl ProcessLog {
    /// A log into `to` (none: nowhere) of what is at least as grave as `level`.
    pub fn new(to: Option<OwnedFd>, level: u32, identity: String) -> Self {
        let log = Self {
            to: OnceLock::new(),
            is_open: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            level: AtomicU32::new(level),
            identity,
        };
        log.reopen(to, level);
        log
    }

    /// Lines go to `to` from here on.
    pub fn reopen(&self, to: Option<OwnedFd>, level: u32) {
        let is_open = to.is_some_and(|to| match self.to.get() {
            Some(known) => sys::replace(known, &to).is_ok(),
            None => self.to.set(to).is_ok(),
        });
        self.is_open.store(is_open, Ordering::Relaxed);
        self.level.store(level, Ordering::Relaxed);
    }

    /// Whether lines of this level are written.
    pub fn wants(&self, level: u32) -> bool {
        level <= self.level.load(Ordering::Relaxed)
    }

    /// Writes a line if the level asks for it.
    pub fn write(&self, level: u32, message: &str) {
        self.write_from(level, message, None);
    }

    /// Writes a line, which may come from somewhere, if the level asks for it.
    pub fn write_from(&self, level: u32, message: &str, source: Option<Source<'_>>) {
        if !self.wants(level) {
            return;
        }
        let mut line = format!(
            "[{}] [wsgi:{}] [pid {}:tid {}] ",
            sys::log_time(),
            level::NAMES.get(level as usize).unwrap_or(&"debug"),
            std::process::id(),
            nix::unistd::gettid(),
        );
        // As httpd does: the file without its directory, and only for debugging.
        if let Some(Source { file, line: number }) = source.filter(|_| level >= level::DEBUG) {
            let name = file.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            escape_into(&mut line, &format!("{}({number}): ", String::from_utf8_lossy(name)));
        }
        escape_into(&mut line, message);
        line.push_str(&self.identity);
        truncate(&mut line, LONGEST_LINE - 1);
        line.push('\n');
        let to = self.to.get().filter(|_| self.is_open.load(Ordering::Relaxed));
        // Nowhere to say that the log cannot be written.
        if let Some(to) = to
            && self.takes_a_line(to)
        {
            let _ = nix::unistd::write(to.as_fd(), line.as_bytes());
        }
    }

    /// Whether `to` has room; a log that had none is not waited for again until
    /// it has.
    fn takes_a_line(&self, to: &OwnedFd) -> bool {
        let patience =
            if self.is_stuck.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
        let has_room = sys::poll(&mut fds, Some(patience)).is_ok_and(|count| count > 0);
        self.is_stuck.store(!has_room, Ordering::Relaxed);
        has_room
    }

    /// Something a process or a service cannot do.
    pub fn error(&self, message: &str) {
        self.write(level::ERROR, message);
    }

    /// A decision an operator asks about.
    pub fn info(&self, message: &str) {
        self.write(level::INFO, message);
    }
}

fn truncate(line: &mut String, limit: usize) {
    let mut end = line.len().min(limit);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
}

/// Appends `message` with its control characters escaped: one record, one line.
fn escape_into(line: &mut String, message: &str) {
    for character in message.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let log = ProcessLog::new(Some(write), level::INFO, " [group 'blog']".to_owned());
        log.error("one\n[x] two\u{1b}");
        log.write(level::DEBUG, "not this");
        log.reopen(None, level::INFO);
        log.error("nor this");
        drop(log);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("[wsgi:error]"), "{text}");
        assert!(text.ends_with("one\\n[x] two\\x1b [group 'blog']\n"), "{text}");
    }

    #[test]
    fn lines_go_to_the_log_that_was_given_last() {
        let pipes = [(); 3].map(|()| nix::unistd::pipe().unwrap());
        let log = ProcessLog::new(None, level::INFO, String::new());
        log.error("nowhere");
        let reads = pipes.map(|(read, write)| {
            log.reopen(Some(write), level::INFO);
            log.error("once");
            read
        });
        drop(log);
        for read in reads {
            let mut text = String::new();
            std::fs::File::from(read).read_to_string(&mut text).unwrap();
            assert_eq!(text.matches("once").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_log_that_nobody_reads_is_not_waited_for() {
        let (_read, write) = nix::unistd::pipe().unwrap();
        let log = ProcessLog::new(Some(write), level::INFO, String::new());
        let start = std::time::Instant::now();
        for _ in 0..100 {
            log.error(&"x".repeat(4000));
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_long_message_is_cut_not_torn() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let log = ProcessLog::new(Some(write), level::INFO, String::new());
        log.error(&"ü".repeat(9000));
        drop(log);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(text.len() <= LONGEST_LINE && text.ends_with("ü\n"));
    }
}
