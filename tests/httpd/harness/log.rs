//! An error log, and what a test has announced about it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::installation::{Installation, mpm};

/// What httpd itself logs as an error though nothing is wrong.
///
/// AH03092: it was stopped while a connection lingered. AH00161: all the children it may have
/// are busy, which is what a test with one child wants. AH03093: a child was stopped while it
/// put a connection aside; httpd without this module says so at nine stops in ten under load.
const NOISE: [&str; 3] = ["AH03092", "AH00161", "AH03093"];

/// The error log of one httpd.
pub struct ErrorLog {
    /// The file.
    path: PathBuf,
    /// Texts of which each must occur in a line of level error or worse.
    expected: Vec<String>,
    /// Texts that such a line may hold.
    allowed: Vec<String>,
    /// How long the log was when httpd was first told to stop its children at once.
    stopped_at: Cell<usize>,
}

impl ErrorLog {
    /// The log at `path`, of which nothing bad is expected.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            expected: Vec::new(),
            allowed: Vec::new(),
            stopped_at: Cell::new(usize::MAX),
        }
    }

    /// Everything in it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// Notes that httpd is being told to stop.
    pub fn note_stop(&self) {
        self.stopped_at.set(self.stopped_at.get().min(self.text().len()));
    }

    /// Announces that `text` will occur in an error-level line.
    pub fn expect(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// Announces that `text` may occur in error-level lines.
    pub fn allow(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// Whether everything announced is in it.
    pub fn has_expected(&self) -> bool {
        // Most tests expect nothing: the log is not read for them.
        let text = if self.expected.is_empty() { String::new() } else { self.text() };
        let is_there =
            |wanted: &String| text.lines().any(|line| line.contains(wanted) && is_bad(line));
        self.expected.iter().all(is_there)
    }

    /// What is wrong with it: a bad line nobody announced, an announced one that is missing.
    pub fn complaints(&self) -> Vec<String> {
        let text = self.text();
        let bad = text.lines().filter(|line| is_bad(line) && !self.is_httpds_own(&text, line));
        let bad: Vec<&str> = bad.collect();
        let mut complaints = Vec::new();
        for line in &bad {
            let announced = self.expected.iter().chain(&self.allowed).map(String::as_str);
            let mut announced = announced.chain(NOISE).filter(|text| line.contains(text));
            // A traceback is one record a line; only its last line has a text of its own.
            let is_traceback = !self.expected.is_empty() && is_part_of_traceback(line);
            if announced.next().is_none() && !is_traceback {
                complaints.push(format!("unannounced: {line}"));
            }
        }
        for text in &self.expected {
            if !bad.iter().any(|line| line.contains(text.as_str())) {
                complaints.push(format!("missing from the log: {text}"));
            }
        }
        complaints
    }
}

impl ErrorLog {
    /// Whether `line`, a part of `text`, tells of a crash that is httpd's own, by its core.
    ///
    /// Told to stop, a child with threads closes the sockets of its workers while these free
    /// them (`close_worker_sockets` in the event and worker MPMs); one of prefork destroys its
    /// pools in the handler of the signal, whatever was being done to them (`just_die`).
    fn is_httpds_own(&self, text: &str, line: &str) -> bool {
        let offset = line.as_ptr().addr() - text.as_ptr().addr();
        offset >= self.stopped_at.get()
            && line.contains("AH0005")
            && line.contains("exit signal Segmentation fault")
            && self.cores().iter().all(|core| is_of_the_mpm(core))
    }

    /// What the children that crashed have left; nothing if the system keeps no cores here,
    /// which proves nothing either.
    fn cores(&self) -> Vec<PathBuf> {
        let directory = self.path.with_file_name(CORES);
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// Where children leave their cores, below the ServerRoot.
pub const CORES: &str = "cores";

/// Whether the child's main thread is at the sockets of its workers, or prefork's at its
/// pools in a handler, and none of our code is below.
///
/// httpd's own handler sends the signal again, to the whole process: the thread that it
/// ends in need not be the one that crashed.
fn is_of_the_mpm(core: &Path) -> bool {
    let program = &Installation::get().program;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "thread apply all bt"]).arg(program).arg(core);
    let Ok(output) = gdb.output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    // The proof, for whoever wonders what was let pass.
    eprintln!("{}:\n{text}", core.display());
    if mpm() == "prefork" {
        return text.split("\nThread ").any(is_in_handler);
    }
    text.split("\nThread ").any(|thread| {
        let has = |name: &str| thread.contains(name);
        // `apr_socket_close` leaves its frame to `apr_pool_cleanup_run`.
        let at = ["apr_os_sock_get", "apr_socket_", "apr_pool_cleanup_run"];
        let is_at_socket = at.iter().any(|name| has(name));
        has("ap_run_mpm") && has("mod_mpm_") && is_at_socket && !has("wsgi")
    })
}

/// Whether a thread, as gdb shows it, destroys pools of httpd's in a handler of a signal.
fn is_in_handler(thread: &str) -> bool {
    // What was interrupted may be anything.
    let Some((handlers, interrupted)) = thread.rsplit_once("<signal handler called>") else {
        return false;
    };
    handlers.contains("apr_pool_")
        && !handlers.contains("wsgi")
        && interrupted.contains("ap_run_mpm")
}

/// What a process that crashed leaves in the log, at whatever level.
const CRASHES: [&str; 6] = [
    "Fatal Python error",
    "panicked at",
    "exit signal",
    "ended by SIGABRT",
    "ended by SIGSEGV",
    "ended by SIGBUS",
];

/// Whether `line` tells of a crash, or httpd wrote it with level error or worse.
fn is_bad(line: &str) -> bool {
    if CRASHES.iter().any(|text| line.contains(text)) {
        return true;
    }
    // "[time] [module:level] …": the level is in the second pair of brackets.
    let level = line.split("] [").nth(1).and_then(|second| second.split(':').nth(1));
    level.is_some_and(|level| {
        let level = level.split(']').next().unwrap_or(level);
        ["error", "crit", "alert", "emerg"].contains(&level)
    })
}

/// Whether `line` is one that Python prints around the last line of a traceback.
fn is_part_of_traceback(line: &str) -> bool {
    let message = message(line);
    message.is_empty()
        || message.starts_with(' ')
        || message.starts_with("Traceback (most recent call last)")
        || message.starts_with("During handling of the above exception")
        || message.starts_with("The above exception was the direct cause")
}

/// The message of `line`, without what httpd and the module put before it.
fn message(line: &str) -> &str {
    let mut rest = line;
    while let Some((first, after)) = rest.split_once(']') {
        if !first.starts_with('[') {
            break;
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}
