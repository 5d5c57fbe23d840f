//! The log of the supervisor and of daemon processes outside requests: lines of
//! httpd's own default form, written to the group's error log without httpd.
#![forbid(unsafe_code)]

use super::sys;
use nix::poll::{PollFd, PollFlags};
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wsgi_wire::vtable::level;

/// A line above this is cut: one write of at most this many bytes is not torn
/// apart by other writers of a log that is a pipe (`PIPE_BUF`).
const LONGEST_LINE: usize = 4096;

/// Where the lines of one process go.
#[derive(Debug)]
pub struct ProcessLog {
    to: Mutex<Option<OwnedFd>>,
    level: AtomicU32,
    /// Ends every line: `[group 'blog']`.
    identity: String,
    /// Whether a line is left out rather than waited for: a piped log that is
    /// not read must not stop the supervisor.
    hurried: bool,
}

impl ProcessLog {
    /// A log into `to` (none: nowhere) of what is at least as grave as `level`.
    pub const fn new(to: Option<OwnedFd>, level: u32, identity: String) -> Self {
        Self { to: Mutex::new(to), level: AtomicU32::new(level), identity, hurried: false }
    }

    /// The same, but its lines are left out while there is no room for them.
    pub const fn hurried(mut self) -> Self {
        self.hurried = true;
        self
    }

    /// Lines go to `to` from here on.
    pub fn reopen(&self, to: Option<OwnedFd>, level: u32) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.level.store(level, Ordering::Relaxed);
    }

    /// Writes a line if the level asks for it.
    pub fn write(&self, level: u32, message: &str) {
        if level > self.level.load(Ordering::Relaxed) {
            return;
        }
        let mut line = format!(
            "[{}] [wsgi:{}] [pid {}:tid {}] ",
            sys::log_time(),
            name(level),
            std::process::id(),
            nix::unistd::gettid(),
        );
        escape_into(&mut line, message);
        line.push_str(&self.identity);
        truncate(&mut line, LONGEST_LINE - 1);
        line.push('\n');
        if let Some(to) = self.to.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
            if self.hurried && !sys::poll(&mut fds, Some(Duration::ZERO)).is_ok_and(|n| n > 0) {
                return;
            }
            // Nowhere to say that the log cannot be written.
            let _ = nix::unistd::write(to.as_fd(), line.as_bytes());
        }
    }

    /// Something a process or a service cannot do.
    pub fn error(&self, message: &str) {
        self.write(level::ERROR, message);
    }

    /// A life event.
    pub fn notice(&self, message: &str) {
        self.write(level::NOTICE, message);
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

/// httpd's word for a level.
const fn name(level: u32) -> &'static str {
    match level {
        level::ALERT => "alert",
        level::CRIT => "crit",
        level::ERROR => "error",
        level::WARN => "warn",
        level::NOTICE => "notice",
        level::INFO => "info",
        _ => "debug",
    }
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
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("[wsgi:error]"), "{text}");
        assert!(text.ends_with("one\\n[x] two\\x1b [group 'blog']\n"), "{text}");
    }

    #[test]
    fn a_log_nobody_reads_stops_nobody_in_a_hurry() {
        let (_read, write) = nix::unistd::pipe().unwrap();
        let log = ProcessLog::new(Some(write), level::INFO, String::new()).hurried();
        for _ in 0..1000 {
            log.error(&"x".repeat(1000));
        }
    }

    #[test]
    fn a_long_message_is_cut_not_torn() {
        let (read, write) = nix::unistd::pipe().unwrap();
        let log = ProcessLog::new(Some(write), level::INFO, String::new());
        log.error(&"ü".repeat(9000));
        log.reopen(None, level::INFO);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(text.len() <= LONGEST_LINE && text.ends_with("ü\n"));
    }
}
