//! The C table through which a host and the Python half call each other.
//!
//! The *host* owns the request: it is a child process of httpd (embedded mode)
//! or a worker of a daemon process.  The *runtime* is the Python half.  They are
//! separate shared libraries that may come from separate builds, so everything
//! here is `repr(C)`, each table begins with its size and [`ABI`], and neither
//! side lets a panic cross.
//!
//! Threads: `start` and `stop` are called on one and the same thread, the one
//! Python calls its main thread.  `beat`, `interrupt` and `stacks` are called on
//! a thread of their own, one at a time, and that thread has ended before `stop`;
//! `signal` and `stopping` likewise on another, or `stopping` on the one of `stop`.
//! Every other entry may be called on any thread, by many at once; none of them
//! is called while the caller runs Python code.

use crate::options::Options;
use core::ffi::{c_int, c_void};

/// Version of everything in this crate: tables, request head and frames.
///
/// Raised with every change that two builds could misread.
pub const ABI: u32 = 3;

/// The symbol the Python half exports, a [`RuntimeEntry`].
pub const ENTRY: &[u8] = b"wsgi_python_runtime\0";

/// Gives the runtime's table; never null, valid for the life of the process.
pub type RuntimeEntry = unsafe extern "C" fn() -> *const Runtime;

/// Bytes borrowed for the duration of one call.
///
/// `data` may be null when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

impl Bytes {
    /// Lends `bytes` to a call.
    pub const fn new(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// The borrowed bytes.
    ///
    /// # Safety
    ///
    /// For a value received in a call, and not longer than that call.
    pub const unsafe fn as_slice<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller of the entry lends `len` bytes at `data` until it returns.
        unsafe { core::slice::from_raw_parts(self.data, self.len) }
    }
}

/// One response header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// Its name, not empty, already checked.
    pub name: Bytes,
    /// Its value, latin-1, without CR, LF and NUL.
    pub value: Bytes,
}

/// A request as its host knows it; opaque to the runtime.
#[repr(C)]
pub struct HostRequest {
    _opaque: [u8; 0],
}

/// What a host callback answers when it is not a count of bytes.
pub mod status {
    use core::ffi::c_int;

    /// Done.
    pub const OK: c_int = 0;
    /// The client (or the child process that speaks for it) is gone.
    pub const GONE: c_int = -1;
    /// The client sent nothing for too long.
    pub const TIMED_OUT: c_int = -2;
    /// The client's body is malformed, cut off or longer than allowed.
    pub const BAD_BODY: c_int = -3;
    /// Called out of order, or the host panicked.
    pub const FAILED: c_int = -4;
}

/// How a piece of the answer is to be sent.
pub mod write_flags {
    /// The client is to see everything written so far without delay.
    pub const FLUSH: u32 = 1;
    /// The application finished its answer: this was the last piece.
    pub const LAST: u32 = 2;
}

/// How loud a log record is: httpd's `APLOG_` numbers.
pub mod level {
    /// httpd's names; a name's place is its number (`APLOG_EMERG` is 0).
    pub const NAMES: [&str; 16] = [
        "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug", "trace1", "trace2",
        "trace3", "trace4", "trace5", "trace6", "trace7", "trace8",
    ];

    /// A process cannot go on.
    pub const ALERT: u32 = 1;
    /// A service is hurt.
    pub const CRIT: u32 = 2;
    /// One request failed.
    pub const ERROR: u32 = 3;
    /// Works, will hurt.
    pub const WARN: u32 = 4;
    /// Life events.
    pub const NOTICE: u32 = 5;
    /// Decisions an operator asks about.
    pub const INFO: u32 = 6;
    /// For the module's authors.
    pub const DEBUG: u32 = 7;
}

/// What the host offers.
///
/// Each entry but [`log`](Self::log) with a null request is called for a request
/// only while [`Runtime::handle`] or [`Runtime::ask`] runs for it, by one thread at a time: mostly the
/// one inside `handle`, but another where the application hands its input or
/// `write` to one.  The caller is *detached* from Python whenever it may block.
#[repr(C)]
pub struct Host {
    /// `size_of::<Host>()` of the host's build.
    pub size: u32,
    /// [`ABI`] of the host's build.
    pub abi: u32,
    /// Reads up to `len` bytes of the request body into `to`: the count, 0 at
    /// its end, or a negative [`status`].  Blocks.  The first call makes httpd
    /// send `100 Continue` if the client asked for it.
    pub read_body:
        unsafe extern "C" fn(request: *mut HostRequest, to: *mut u8, len: usize) -> isize,
    /// Takes the status line ("200 OK") and the headers; replaces those of an
    /// earlier call.  Nothing is sent before the first `write` or `send_file`.
    /// Never blocks.
    pub start_response: unsafe extern "C" fn(
        request: *mut HostRequest,
        status_line: Bytes,
        headers: *const Header,
        count: usize,
    ) -> c_int,
    /// Sends a piece of the answer, perhaps empty; see [`write_flags`].
    ///
    /// A daemon process, without [`write_flags::FLUSH`] and with at most
    /// [`WRITE_NOW`] bytes of the answer so far, only copies them and never blocks.
    /// Embedded, httpd's filters may block, or have this thread handle another request.
    pub write: unsafe extern "C" fn(request: *mut HostRequest, data: Bytes, flags: u32) -> c_int,
    /// Sends `length` bytes of the regular file `fd` from `offset`.  The host
    /// duplicates `fd`; its file offset is left alone.  Blocks.
    pub send_file: unsafe extern "C" fn(
        request: *mut HostRequest,
        fd: c_int,
        offset: u64,
        length: u64,
    ) -> c_int,
    /// Writes one line to the error log: the request's, or with a null request
    /// the process'.  `message` is UTF-8, one line, without its newline; the
    /// host escapes control characters.  Never blocks for long.
    pub log: unsafe extern "C" fn(request: *mut HostRequest, level: u32, message: Bytes),
    /// The thread is attached to Python: from here on code of the application may
    /// run for the request.  Never blocks.
    pub attached: unsafe extern "C" fn(request: *mut HostRequest),
    /// The request's script is loaded: its application is about to be called.
    /// Never blocks.
    pub loaded: unsafe extern "C" fn(request: *mut HostRequest),
    /// Gives `take` what httpd's scoreboard says, an encoded
    /// [`server_record`](crate::server_record), before it returns 1; 0 if this process may
    /// not see it, or there is none.  On any thread, by many at once.  Never blocks for
    /// long.
    pub server_metrics: unsafe extern "C" fn(take: Take, sink: *mut c_void) -> c_int,
    /// Whether [`log`](Self::log) would write a line of this level: 1, else 0.  For
    /// who would have to format it first.  With a null request: the process' log.
    /// Never blocks.
    pub would_log: unsafe extern "C" fn(request: *mut HostRequest, level: u32) -> c_int,
    /// [`log`](Self::log) for a line that comes from this line of a file.
    pub log_from: unsafe extern "C" fn(
        request: *mut HostRequest,
        level: u32,
        message: Bytes,
        file: Bytes,
        line: u32,
    ),
    /// Takes a part of the answer to a [`Question`].  Never blocks.
    pub tell: unsafe extern "C" fn(request: *mut HostRequest, place: u32, value: Bytes),
    /// What mod_ssl has for variable `name`: 1 and the value, which the caller copies
    /// at once; 0 where there is no mod_ssl.  Never blocks.
    pub tls_variable:
        unsafe extern "C" fn(request: *mut HostRequest, name: Bytes, value: *mut Bytes) -> c_int,
    /// httpd's own record of the request, in embedded mode; else null.  It is the
    /// application's to use, and gone when the request is over.  Never blocks.
    pub apache_request: unsafe extern "C" fn(request: *mut HostRequest) -> *mut c_void,
}

/// What scripts are asked about a request ([`Question::kind`]).
pub mod question {
    /// `check_password(environ, user, password)`: `None` is
    /// [`NOTHING`](super::reply::NOTHING), a name in place of `True` is told.
    pub const PASSWORD: u32 = 0;
    /// `get_realm_hash(environ, user, realm)`: the hash is told.
    pub const REALM_HASH: u32 = 1;
    /// `groups_for_user(environ, user)`: each group is told.
    pub const GROUPS: u32 = 2;
    /// `allow_access(environ, host)`
    pub const ACCESS: u32 = 3;
    /// The functions of [`DISPATCH_FUNCTIONS`](super::DISPATCH_FUNCTIONS), each with
    /// `(environ)`: each answer that is not `None` is told with the function's place.
    pub const DISPATCH: u32 = 4;
}

/// What a dispatch script may have, in the order they are called.
pub const DISPATCH_FUNCTIONS: [&str; 3] = ["process_group", "application_group", "callable_object"];

/// A question to a script.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Question {
    /// One of [`question`].
    pub kind: u32,
    /// The user; of [`question::ACCESS`] the host.
    pub who: Bytes,
    /// The password, or the realm.
    pub what: Bytes,
}

/// What a script answered to a [`Question`].
pub mod reply {
    use core::ffi::c_int;

    /// `None`.
    pub const NOTHING: c_int = 0;
    /// `True`, or what was told.
    pub const YES: c_int = 1;
    /// `False`.
    pub const NO: c_int = 2;
    /// Nothing of use; already logged.
    pub const FAILED: c_int = 3;
    /// There is no script to ask, or no Python; already logged.
    pub const UNLOADED: c_int = 4;
}

/// Takes bytes that are lent for the call; `sink` is its own caller's.
pub type Take = unsafe extern "C" fn(sink: *mut c_void, bytes: Bytes);

/// Up to this many bytes [`Host::write`] copies instead of sending.
pub const WRITE_NOW: usize = 32 * 1024;

/// What became of a request given to [`Runtime::handle`].
pub mod outcome {
    use core::ffi::c_int;

    /// The application finished its answer ([`super::write_flags::LAST`] was sent).
    pub const DONE: c_int = 0;
    /// The loaded script is older than its file, and this process must not load
    /// it again ([`super::Start::reload_in_place`] is 0).  Nothing was run.
    pub const STALE: c_int = 1;
    /// Nothing was sent; the client is owed a 500.  Already logged.
    pub const FAILED: c_int = 2;
    /// The answer was begun and will not be finished.  Already logged.
    pub const CUT: c_int = 3;
    /// Nothing was sent; the application was interrupted for time: 504.
    pub const TIMED_OUT: c_int = 4;
    /// Nothing was sent; reading the body failed and the application let that
    /// exception through: the client is owed a 400.
    pub const BAD_BODY: c_int = 5;
    /// As [`BAD_BODY`], because the client sent nothing for too long: 408.
    pub const BODY_TIMED_OUT: c_int = 6;
    /// The client is gone; nothing more can be sent to it.
    pub const GONE: c_int = 7;
    /// As [`FAILED`], because of a `MemoryError`: the process has reached its limit.
    pub const NO_MEMORY: c_int = 8;
    /// As [`CUT`], because of a `MemoryError`: the process has reached its limit.
    pub const CUT_NO_MEMORY: c_int = 9;
}

/// What a Python is started with.  All strings are borrowed for the call.
#[repr(C)]
pub struct Start {
    /// `size_of::<Start>()` of the host's build.
    pub size: u32,
    /// [`ABI`] of the host's build.
    pub abi: u32,
    /// The host's callbacks; valid for the life of the process.
    pub host: *const Host,
    /// The interpreter binary of the chosen home (`<home>/bin/python`): what
    /// `Py_SetProgramName` is told.  Empty: Python's own default.
    pub program: Bytes,
    /// `python-path` / `WSGIPythonPath`: directories separated by `:`.
    pub python_path: Bytes,
    /// `home=` of a daemon process group: goes to `sys.path[0]`.  May be empty.
    pub home: Bytes,
    /// Login name of the daemon process' user: corrects `USER`, `USERNAME` and
    /// `LOGNAME` in `os.environ` where they exist.  Empty in embedded mode.
    pub user_name: Bytes,
    /// That user's home directory: `HOME` in `os.environ`.  Empty: left alone.
    pub user_home: Bytes,
    /// The process group; empty in embedded mode.
    pub process_group: Bytes,
    /// `mod_wsgi.maximum_processes`.
    pub maximum_processes: u32,
    /// `mod_wsgi.threads_per_process`.
    pub threads_per_process: u32,
    /// Version of httpd, such as 2, 4, 68: `apache.version`.
    pub apache_version: [u16; 3],
    /// The rest of the Python module `apache`.
    pub apache: Apache,
    /// 1 where `wsgi.multithread` is true.
    pub multithread: u8,
    /// 1 where `wsgi.multiprocess` is true.
    pub multiprocess: u8,
    /// 1 where `wsgi.run_once` is true.
    pub run_once: u8,
    /// 1 where a changed script is loaded again in this process (embedded mode);
    /// 0 where the process is to be replaced (daemon mode).
    pub reload_in_place: u8,
    /// 1 in a process that serves no requests (`threads=0`): it runs its script on
    /// the main thread, where `SIGTERM` raises `SystemExit`, and may handle signals.
    pub service: u8,
    /// [`level`] of what the application writes to `sys.stdout`.
    pub stdout_level: u32,
    /// [`level`] of what it writes to `sys.stderr`; `wsgi.errors` is always
    /// [`level::ERROR`].
    pub stderr_level: u32,
    /// `sys.setswitchinterval` in seconds; 0 leaves Python's own.
    pub switch_interval: f64,
    /// The signal that makes Python write the stacks of its threads to standard
    /// error without waiting for its lock; 0: none.
    pub stacks_signal: c_int,
    /// What is to be reported of the process.
    pub telemetry: Telemetry,
    /// What the directives about Python say; lent for the call.
    pub options: *const Options,
}

/// What is reported of a process, and where.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Telemetry {
    /// Path of a datagram socket; empty: nothing is reported.
    pub service: Bytes,
    /// Seconds between two reports.
    pub interval: f64,
    /// From how many seconds on a request is told of by itself; 0: none is.
    pub slow_requests: f64,
    /// 1 if the user agent is told of these.
    pub captures_user_agent: u8,
    /// httpd's parent process.
    pub parent: u32,
}

/// What the Python module `apache` tells of httpd beside its version.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Apache {
    /// Most child processes.
    pub maximum_processes: u32,
    /// Most threads of each.
    pub threads_per_process: u32,
    /// The server's description, whatever `ServerTokens` says.
    pub description: Bytes,
    /// Name of the MPM.
    pub mpm_name: Bytes,
    /// When httpd was built.
    pub build_date: Bytes,
}

/// What the Python half offers.
#[repr(C)]
pub struct Runtime {
    /// `size_of::<Runtime>()` of the runtime's build.
    pub size: u32,
    /// [`ABI`] of the runtime's build.
    pub abi: u32,
    /// Starts Python; 0, or -1 after logging why.  Returns detached from Python.
    pub start: unsafe extern "C" fn(start: *const Start) -> c_int,
    /// Loads `script` into `application_group` unless it is loaded already; 0,
    /// or -1 after logging why.
    pub load_script: unsafe extern "C" fn(application_group: Bytes, script: Bytes) -> c_int,
    /// Runs one request; `head` is an encoded [`RequestHead`](crate::head::RequestHead).
    /// Answers with an [`outcome`].  `close()` has been called when it returns.
    pub handle: unsafe extern "C" fn(request: *mut HostRequest, head: Bytes) -> c_int,
    /// Asks a script about a request that [`handle`](Self::handle) may never see;
    /// `head` names script and application group, and has the environ of the
    /// function.  Answers with a [`reply`].
    pub ask: unsafe extern "C" fn(
        request: *mut HostRequest,
        head: Bytes,
        question: *const Question,
    ) -> c_int,
    /// Ends Python: waits for its non-daemon threads, runs atexit callbacks.
    /// Nothing is called afterwards.
    pub stop: unsafe extern "C" fn(),
    /// Takes the main interpreter's lock and gives it up again: returns late, or
    /// never, where something keeps it.
    pub beat: unsafe extern "C" fn(),
    /// Logs the stack of the thread that runs `request` (the
    /// [`id`](crate::head::RequestHead::id) in its head) and raises
    /// `mod_wsgi.RequestTimeout` there; 0, or -1 if it is not running any more.
    pub interrupt: unsafe extern "C" fn(request: u64) -> c_int,
    /// Logs the stacks of all threads of all interpreters, a line a frame.  May
    /// wait for their locks.
    pub stacks: unsafe extern "C" fn(),
    /// Tells subscribers in every interpreter of a signal to this process.
    pub signal: unsafe extern "C" fn(number: c_int),
    /// Tells subscribers in every interpreter that the process is about to end, and
    /// for which reason (`mod_wsgi`'s word for it; empty in embedded mode).  Requests
    /// may be running.  At most once, before `stop`.
    pub stopping: unsafe extern "C" fn(reason: Bytes),
    /// Tells whoever is reported to that the process ends now, whatever it still runs.
    /// Waits for nothing, and least of all for Python; for any thread, also while
    /// `stop` runs.
    pub abandon: unsafe extern "C" fn(),
}
