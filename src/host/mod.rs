//! The host side of the Python half: what a request looks like to it.
//!
//! Embedded mode and daemon mode are two [`Exchange`]s of one runtime, so an
//! application behaves alike in both.  [`vtable`] is the fence.

mod half;
mod options;
mod vtable;

use crate::config::interpreters::Plan;
use serde::{Deserialize, Serialize};
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use wsgi_wire::frame::BodyFault;
use wsgi_wire::vtable::{outcome, reply};

pub use vtable::{Half, Runtime};

/// The client, or the child process that speaks for it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// The headers of an answer, names and values.
pub type Headers<'h> = &'h mut dyn ExactSizeIterator<Item = (&'h [u8], &'h [u8])>;

/// A line of a file, where a log record comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file.
    pub file: &'a [u8],
    /// Its line.
    pub line: u32,
}

/// Where lines go that belong to no request.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// Writes a line of a level.
    pub write: fn(u32, &str, Option<Source<'_>>),
    /// Whether lines of a level are written at all.
    pub wants: fn(u32) -> bool,
}

/// One request and its answer, as the runtime drives them.
///
/// The contract of each method is that of its namesake in
/// [`wsgi_wire::vtable::Host`].
pub trait Exchange {
    /// Reads a part of the body; 0 is its end.
    fn read_body(&mut self, to: &mut [u8]) -> Result<usize, BodyFault>;
    /// Takes status line and headers.
    fn start_response(&mut self, status_line: &[u8], headers: Headers<'_>);
    /// Sends a piece of the answer; the flags are [`wsgi_wire::vtable::write_flags`].
    fn write(&mut self, data: &[u8], flags: u32) -> Result<(), Gone>;
    /// Sends a piece of a file.
    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Gone>;
    /// Writes a line to the request's log.
    fn log(&mut self, level: u32, message: &str);
    /// Writes a line that comes from somewhere to the request's log.
    fn log_from(&mut self, level: u32, message: &str, source: Source<'_>);
    /// Whether the request's log takes lines of this level.
    fn would_log(&self, level: u32) -> bool;
    /// Hears that code of the application may run from here on.
    fn attached(&mut self) {}
    /// Hears that the script is loaded and its application about to be called.
    fn loaded(&mut self) {}
    /// Takes a part of the answer to a question.
    fn tell(&mut self, _place: u32, _value: &[u8]) {}
    /// What mod_ssl has for a variable; `None` where there is no mod_ssl.
    fn tls_variable(&mut self, _name: &[u8]) -> Option<&[u8]> {
        None
    }
    /// httpd's own record of the request; null where there is none to pass on.
    fn apache_request(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The application finished its answer.
    Done,
    /// The script changed and this process must not load it again.
    Stale,
    /// Nothing was sent; the client is owed this status.
    Failed(u16),
    /// Nothing was sent, for want of memory; the client is owed a 500.
    NoMemory,
    /// The answer was begun and will not be finished.
    Cut,
    /// As [`Outcome::Cut`], for want of memory.
    CutNoMemory,
    /// The client is gone.
    Gone,
}

impl Outcome {
    /// Reads the number [`wsgi_wire::vtable::Runtime::handle`] answered with.
    const fn from_number(number: i32) -> Self {
        match number {
            outcome::DONE => Self::Done,
            outcome::STALE => Self::Stale,
            outcome::CUT => Self::Cut,
            outcome::TIMED_OUT => Self::Failed(504),
            outcome::BAD_BODY => Self::Failed(400),
            outcome::BODY_TIMED_OUT => Self::Failed(408),
            outcome::GONE => Self::Gone,
            outcome::NO_MEMORY => Self::NoMemory,
            outcome::CUT_NO_MEMORY => Self::CutNoMemory,
            // FAILED, and whatever a newer runtime may say.
            _ => Self::Failed(500),
        }
    }
}

/// A question to a script; its fields are those of [`wsgi_wire::vtable::Question`].
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// One of [`wsgi_wire::vtable::question`].
    pub kind: u32,
    /// The user, or the host.
    pub who: &'a [u8],
    /// The password, or the realm.
    pub what: &'a [u8],
}

/// What a script answered to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `None`.
    Nothing,
    /// `True`, or what was told.
    Yes,
    /// `False`.
    No,
    /// Nothing of use.
    Failed,
    /// There is no script to ask.
    Unloaded,
}

impl Reply {
    /// Reads the number [`wsgi_wire::vtable::Runtime::ask`] answered with.
    const fn from_number(number: i32) -> Self {
        match number {
            reply::NOTHING => Self::Nothing,
            reply::YES => Self::Yes,
            reply::NO => Self::No,
            reply::UNLOADED => Self::Unloaded,
            // FAILED, and whatever a newer runtime may say.
            _ => Self::Failed,
        }
    }
}

/// What a Python is started with.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The interpreter binary of the chosen home.
    pub program: PathBuf,
    /// Directories for `sys.path`, separated by `:`.
    pub python_path: String,
    /// `home=` of the group.
    pub home: String,
    /// Login name of a daemon process' user.
    pub user_name: String,
    /// Home directory of a daemon process' user.
    pub user_home: String,
    /// The process group; empty in embedded mode.
    pub process_group: String,
    /// `mod_wsgi.maximum_processes`.
    pub maximum_processes: u32,
    /// `mod_wsgi.threads_per_process`.
    pub threads_per_process: u32,
    /// Version of httpd: `apache.version`.
    pub apache_version: [u16; 3],
    /// The rest of the Python module `apache`.
    pub apache: Apache,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `wsgi.run_once`.
    pub run_once: bool,
    /// Whether changed scripts are loaded again in this process.
    pub reload_in_place: bool,
    /// Whether the process serves no requests: its script runs on the main thread.
    pub service: bool,
    /// [Level](wsgi_wire::vtable::level) of `sys.stdout`.
    pub stdout_level: u32,
    /// Level of `sys.stderr`.
    pub stderr_level: u32,
    /// `sys.setswitchinterval`.
    pub switch_interval: Option<std::time::Duration>,
    /// The signal that makes Python write its stacks to standard error.
    pub stacks_signal: Option<i32>,
    /// What the directives about Python say.
    pub interpreters: Plan,
    /// What tells about httpd's scoreboard, where the process may see it: an encoded
    /// [record](wsgi_wire::server_record).
    pub server_metrics: Option<fn() -> Option<Vec<u8>>>,
    /// What is to be reported of the process, if anything is.
    pub telemetry: Option<Telemetry>,
}

/// What is reported of a process, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Path of a datagram socket.
    pub service: Vec<u8>,
    /// Time between two reports.
    pub interval: std::time::Duration,
    /// From when on a request is told of by itself.
    pub slow_requests: Option<std::time::Duration>,
    /// Whether the user agent is told of these.
    pub captures_user_agent: bool,
    /// httpd's parent process.
    pub parent: u32,
}

/// What the Python module `apache` tells of httpd beside its version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apache {
    /// Most child processes.
    pub maximum_processes: u32,
    /// Most threads of each.
    pub threads_per_process: u32,
    /// The server's description, whatever `ServerTokens` says.
    pub description: String,
    /// Name of the MPM.
    pub mpm_name: String,
    /// When httpd was built.
    pub build_date: String,
}

/// Why a Python could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A library could not be loaded.
    #[error("cannot load '{path}': {reason}")]
    Library {
        /// The library.
        path: String,
        /// What the dynamic linker said.
        reason: String,
    },
    /// The Python half is of another build.
    #[error(
        "'{path}' speaks version {found} of the runtime interface, wanted {wanted}: reinstall both halves"
    )]
    Version {
        /// The Python half.
        path: String,
        /// What it speaks.
        found: u32,
        /// What this build speaks.
        wanted: u32,
    },
    /// The Python half is nowhere to be found.
    #[error("no '{name}' beside '{module}'")]
    Missing {
        /// What it is called.
        name: String,
        /// This module.
        module: String,
    },
    /// Nobody has built the Python half for this Python.
    #[error(
        "no '{name}' beside '{module}': this Python can do without its lock, and what runs \
         applications in it has to be built for it: `make PYTHON={program}`, then `make install`"
    )]
    NotBuilt {
        /// What it is called.
        name: String,
        /// This module.
        module: String,
        /// The interpreter.
        program: String,
    },
    /// Python would not start; the log says why.
    #[error("Python did not start")]
    Python,
}
