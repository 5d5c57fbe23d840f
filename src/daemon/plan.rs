//! What the parent tells the supervisor about the process groups: plain data,
//! everything resolved, so that neither the supervisor nor a daemon process has
//! to ask httpd.
#![forbid(unsafe_code)]

use crate::config::interpreters;
use crate::config::process_group::PythonChoice;
use crate::config::python::{Python, PythonError, choose};
use crate::config::python_search::System;
use crate::host::{Apache, Telemetry};
use crate::scoreboard::Shape;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// All process groups of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What is least grave of what the supervisor logs: httpd's number.
    pub log_level: u32,
    /// One after the other, as they were defined.
    pub groups: Vec<GroupPlan>,
}

/// One process group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// Its name.
    pub name: String,
    /// Which scoreboard: the same number means the same memory.
    pub board: u64,
    /// How large that is: slots and tickets.
    pub shape: (u32, u32),
    /// How many processes.
    pub processes: u32,
    /// Threads of each.
    pub threads: u32,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `wsgi.run_once`.
    pub run_once: bool,
    /// What is least grave of what is logged: httpd's number.
    pub log_level: u32,
    /// What `ps` shows.
    pub title: String,
    /// Who the processes are.
    pub identity: Identity,
    /// Working directory, and first entry of `sys.path`.
    pub home: Option<PathBuf>,
    /// `umask`.
    pub umask: Option<u32>,
    /// The C library's locale.
    pub locale: Option<String>,
    /// Scheduling priority, `setpriority(2)`.
    pub cpu_priority: Option<i32>,
    /// Soft limit of CPU time in seconds, `RLIMIT_CPU`.
    pub cpu_limit: Option<u64>,
    /// `RLIMIT_DATA` in bytes.
    pub memory_limit: Option<u64>,
    /// `RLIMIT_AS` in bytes.
    pub virtual_memory_limit: Option<u64>,
    /// `RLIMIT_NOFILE`, soft: what httpd was started with.
    pub open_files: u64,
    /// Stack of a worker thread in bytes.
    pub stack_size: Option<usize>,
    /// The Python, or why there is none.
    pub python: Result<PythonPlan, String>,
    /// What Python is looked for once the root directory is another one, where what
    /// httpd sees is of no use.
    pub python_below: Option<PythonSearch>,
    /// Directories for `sys.path`, separated by `:`.
    pub python_path: String,
    /// What is said of Python and its interpreters.
    pub interpreters: interpreters::Plan,
    /// Whether next to nothing of httpd's environment is inherited.
    pub clear_environment: bool,
    /// A file of further variables: read by root whenever a process starts, so that
    /// what it holds is in no other group's memory, nor older than the process.
    pub env_file: Option<PathBuf>,
    /// Version of httpd, for the application.
    pub apache_version: [u16; 3],
    /// What else the Python module `apache` tells of httpd.
    pub apache: Apache,
    /// Scripts loaded before the process takes requests.
    pub preload: Vec<Script>,
    /// How long one read or write on a connection may take.
    pub socket_timeout: Duration,
    /// Whether a restart of httpd leaves the processes alone while nothing of this
    /// changed.
    pub keep: bool,
    /// How long a process that drains may take.
    pub graceful_timeout: Duration,
    /// How long a process that stops may take; zero: for ever.
    pub shutdown_timeout: Duration,
    /// When a process is replaced or interrupted.
    pub limits: Limits,
    /// Whether old code serves until its replacement is ready when a script changed.
    pub rolling_reload: bool,
    /// `sys.setswitchinterval`.
    pub switch_interval: Option<Duration>,
    /// httpd's numbers of the levels of `sys.stdout` and `sys.stderr`.
    pub stream_levels: (u32, u32),
    /// Whether its processes may see httpd's scoreboard.
    pub server_metrics: bool,
    /// What is reported of its processes, if anything is.
    pub telemetry: Option<Telemetry>,
}

/// What a process may use up before it is replaced or interrupted; `None` is "as
/// much as it likes".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests.
    pub requests: Option<u32>,
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Time since it was ready.
    pub age: Option<Duration>,
    /// Time of one request, before the number of threads is taken into account.
    pub request: Option<Duration>,
    /// Time of a request that was interrupted.
    pub interrupt: Option<Duration>,
    /// Time until its first script is loaded.
    pub startup: Option<Duration>,
    /// Time the interpreter lock is out of reach.
    pub deadlock: Option<Duration>,
    /// Time without any activity.
    pub inactivity: Option<Duration>,
    /// Time its requests have when `SIGUSR1` asked for the replacement.
    pub eviction: Option<Duration>,
}

impl GroupPlan {
    /// The Python; call when the root directory is the one of the group.
    pub fn find_python(&self) -> Result<PythonPlan, String> {
        let Some(PythonSearch { home, choice }) = &self.python_below else {
            return self.python.clone();
        };
        PythonPlan::new(choose(&System::default(), home.as_deref(), choice.as_ref()))
    }

    /// Whether its processes serve no requests (`threads=0`).
    pub const fn is_service(&self) -> bool {
        self.threads == 0
    }

    /// How large its scoreboard is.
    pub const fn shape(&self) -> Shape {
        Shape { slots: self.shape.0, tickets: self.shape.1 }
    }
}

/// Which Python a group runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonPlan {
    /// The interpreter binary of the chosen home; empty: Python's own default.
    pub program: PathBuf,
    /// Its shared library.
    pub libpython: PathBuf,
}

/// Where a Python is to be looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonSearch {
    /// `python-home=` or its fallback.
    pub home: Option<PathBuf>,
    /// `python=`.
    pub choice: Option<PythonChoice>,
}

impl PythonPlan {
    /// What was found, as the plan carries it.
    pub fn new(found: Result<Python, PythonError>) -> Result<Self, String> {
        found
            .map(|python| Self { program: python.program, libpython: python.libpython })
            .map_err(|error| error.to_string())
    }
}

/// Who the processes of a group are, if httpd was started by root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The user's login name; empty if it has none.
    pub user_name: String,
    /// The user's home directory.
    pub user_home: PathBuf,
    /// These and no others instead of the user's own supplementary groups.
    pub supplementary: Option<Vec<u32>>,
    /// New root directory.
    pub chroot: Option<PathBuf>,
    /// Whether the working directory is the user's home when `home` is not given:
    /// the case when it is another user than httpd's.
    pub go_home: bool,
}

/// A script and the interpreter it is loaded into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Script {
    /// The application group.
    pub application_group: Vec<u8>,
    /// Its path.
    pub path: Vec<u8>,
}
