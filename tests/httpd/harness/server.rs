//! A running httpd.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::{Connection, Cut, Request, Response};
use super::log::ErrorLog;
use super::process::{self, Process};
use super::site::Site;
use super::{DEADLINE, poll, wait_until, wait_within};

/// What httpd logs when a start or a restart is done.
const READY: &str = "resuming normal operations";

/// How long processes may outlive their parent before they count as left over.
const GRACE: Duration = Duration::from_secs(3);

/// How much later than the test has done its part an announced error may be logged.
const LATE: Duration = Duration::from_secs(5);

/// A running httpd, stopped and examined when it is dropped.
pub struct Httpd {
    /// Its ServerRoot and port.
    site: Site,
    /// The parent process.
    child: Child,
    /// Its error log.
    log: ErrorLog,
    /// Whether the test ended it itself.
    is_over: bool,
}

impl Httpd {
    /// Starts httpd; gives the site back if its port was taken.
    #[track_caller]
    pub(super) fn start(site: Site) -> Result<Self, Box<Site>> {
        let said = site.root().join("stderr.log");
        let mut command = site.command();
        // A process group of its own: what leaves the tree is still found by it.
        command.args(site.start_words()).process_group(0);
        command.stdin(Stdio::null());
        command.stdout(File::create(&said).unwrap());
        command.stderr(File::options().append(true).open(&said).unwrap());
        let mut child = command.spawn().expect("httpd can be started");
        let log = ErrorLog::new(&site.root().join("error.log"));
        let ended = wait_until("httpd to start", || {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Some(status));
            }
            let is_ready = site.is_one_process() || log.text().contains(READY);
            (is_ready && connect(site.port()).is_ok()).then_some(None)
        });
        let Some(status) = ended else {
            return Ok(Self { site, child, log, is_over: false });
        };
        let said = fs::read_to_string(said).unwrap_or_default();
        if said.contains("Address already in use") {
            return Err(Box::new(site));
        }
        panic!("httpd did not start ({status}):\n{said}\n{}", log.text());
    }

    /// Its parent process.
    pub fn parent(&self) -> Process {
        Process::find(self.child.id().cast_signed()).expect("httpd runs")
    }

    /// Every process of it, the parent included.
    pub fn processes(&self) -> Vec<Process> {
        process::family(self.child.id().cast_signed(), &self.mark())
    }

    /// The variable by which its processes are known.
    fn mark(&self) -> String {
        format!("WSGI_TEST_ROOT={}", self.root().display())
    }

    /// The process that started the daemon process `pid`, unless that is httpd's parent.
    pub fn supervisor_of(&self, pid: i32) -> Option<Process> {
        let parent = Process::find(Process::find(pid)?.parent)?;
        (parent.pid != self.child.id().cast_signed()).then_some(parent)
    }

    /// Replaces the directives of the test, for the next restart.
    pub fn reconfigure(&mut self, lines: &str) {
        self.site.reconfigure(lines);
    }

    /// Its ServerRoot.
    pub fn root(&self) -> &Path {
        self.site.root()
    }

    /// A file below its ServerRoot.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file below its ServerRoot in one step, so that no reader sees half of it,
    /// and with another time than before: the kernel's clock for files has ticks.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, contents).unwrap();
        let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let before = time(&self.path(name));
        if let Some(before) = before.filter(|before| time(&new) <= Some(*before)) {
            let file = fs::File::options().write(true).open(&new).unwrap();
            file.set_modified(before + Duration::from_millis(1)).unwrap();
        }
        fs::rename(new, self.path(name)).unwrap();
    }

    /// A file below its ServerRoot; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.site.port()
    }

    /// The second port of a generated tree.
    pub fn other_port(&self) -> u16 {
        self.site.other_port()
    }

    /// Opens a connection.
    pub fn connect(&self) -> Connection {
        Connection::new(connect(self.port()).expect("httpd accepts connections"))
    }

    /// Sends `request` on a connection of its own; an answer that is cut fails the test.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        self.try_send(request).unwrap_or_else(|cut| {
            panic!("{request:?}: {}: {:?}; log:\n{}", cut.cause, cut.partial, self.log.text())
        })
    }

    /// Sends `request` on a connection of its own.
    pub fn try_send(&self, request: &Request) -> Result<Response, Cut> {
        Connection::new(connect(self.port()).map_err(Cut::connecting)?).exchange(request)
    }

    /// The answer to `GET target`.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// The error log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until `text` is in the error log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(format!("the log to say {text}"), || self.log().contains(text).then_some(()));
    }

    /// Waits until a file below the ServerRoot holds `text`.
    #[track_caller]
    pub fn wait_for_file(&self, name: &str, text: &str) {
        wait_until(format!("{name} to say {text}"), || {
            self.read(name).contains(text).then_some(())
        });
    }

    /// Announces that an error-level line of the log will hold `text`; httpd is not stopped
    /// before, unless that takes too long.
    pub fn expect_error(&mut self, text: &str) {
        self.log.expect(text);
    }

    /// Announces that error-level lines of the log may hold `text`.
    pub fn allow_error(&mut self, text: &str) {
        self.log.allow(text);
    }

    /// Announces that a process may log the stacks of its threads, as one does that
    /// is ended before its time.
    pub fn allow_stacks(&mut self) {
        self.log.allow("WSGI9409");
        self.log.allow("] Thread ");
    }

    /// Restarts gracefully and waits until httpd says it is done.
    #[track_caller]
    pub fn graceful(&self) {
        self.signal_and_wait(Signal::SIGUSR1);
    }

    /// Restarts and waits until httpd says it is done.
    #[track_caller]
    pub fn restart(&self) {
        self.log.note_stop();
        self.signal_and_wait(Signal::SIGHUP);
    }

    /// Signals the parent and waits for the next report that it is ready.
    #[track_caller]
    fn signal_and_wait(&self, signal: Signal) {
        let before = self.log().matches(READY).count();
        self.parent().signal(signal);
        wait_until("httpd to have restarted", || {
            (self.log().matches(READY).count() > before).then_some(())
        });
    }

    /// Sends the parent a signal that ends it, and waits until it has ended.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) {
        self.log.note_stop();
        self.parent().signal(signal);
        wait_until("httpd to end", || self.child.try_wait().unwrap());
        self.is_over = true;
    }

    /// Waits for the announced errors: a process of httpd may log one later than another
    /// answers.
    fn await_expected(&self) {
        let is_there = || self.log.has_expected().then_some(());
        if !thread::panicking() && poll(LATE, is_there).is_none() {
            // What is still missing after the stop is a complaint.
            eprintln!("waited {LATE:?} in vain for announced errors");
        }
    }

    /// Stops httpd; gives the processes that outlive it.
    fn stop(&mut self) -> Vec<Process> {
        let family = self.processes();
        if !self.is_over {
            self.await_expected();
            self.log.note_stop();
            Process::find(self.child.id().cast_signed()).inspect(|it| it.signal(Signal::SIGTERM));
            poll(DEADLINE, || self.child.try_wait().unwrap());
        }
        let leftovers = || -> Vec<Process> {
            let mut alive = self.processes();
            alive.extend(family.iter().filter(|it| it.is_alive()).cloned());
            alive
        };
        poll(GRACE, || leftovers().is_empty().then_some(()));
        leftovers()
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        let leftovers = self.stop();
        let mut complaints = self.log.complaints();
        for process in &leftovers {
            complaints.push(format!("left over: {} {}", process.pid, process.title()));
            process.signal(Signal::SIGKILL);
        }
        for socket in sockets_below(self.root()) {
            complaints.push(format!("left over: {}", socket.display()));
        }
        if thread::panicking() {
            eprintln!("error log:\n{}", self.log.text());
        } else if !complaints.is_empty() {
            let said = self.read("stderr.log");
            panic!("{}\nerror log:\n{}{said}", complaints.join("\n"), self.log.text());
        }
    }
}

/// A connection to the loopback port.
fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", port))
}

/// The sockets in the file system below `directory`.
fn sockets_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(sockets_below(&entry.path()));
        } else if kind.is_socket() {
            found.push(entry.path());
        }
    }
    found
}

/// Waits until none of `processes` is left, and fails the test if one is after `limit`.
#[track_caller]
pub fn wait_for_end(limit: Duration, processes: &[Process]) {
    wait_within(limit, format!("the end of {processes:?}"), || {
        (!processes.iter().any(Process::is_alive)).then_some(())
    });
}
