//! The host's table as safe calls.

use super::capsule::ApacheRequest;
use super::system;
use super::values::Filling;
use crate::options::Options;
use core::ffi::{c_int, c_void};
use core::ptr::{NonNull, null_mut};
use std::borrow::Cow;
use std::time::Duration;
use wsgi_wire::vtable::{self, Bytes, Host, status};

/// What a Python is started with; see [`vtable::Start`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// The interpreter binary, or empty.
    pub program: Vec<u8>,
    /// Directories for `sys.path`, separated by `:`.
    pub python_path: Vec<u8>,
    /// For `sys.path[0]`, or empty.
    pub home: Vec<u8>,
    /// Login name of the daemon process' user, or empty.
    pub user_name: Vec<u8>,
    /// Home directory of the daemon process' user, or empty.
    pub user_home: Vec<u8>,
    /// The process group; empty in embedded mode.
    pub process_group: Vec<u8>,
    /// `mod_wsgi.maximum_processes`.
    pub maximum_processes: u32,
    /// `mod_wsgi.threads_per_process`.
    pub threads_per_process: u32,
    /// `apache.version`.
    pub apache_version: [u16; 3],
    /// The rest of the Python module `apache`.
    pub apache: Apache,
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `wsgi.run_once`.
    pub run_once: bool,
    /// Whether a changed script is loaded again in this process.
    pub reload_in_place: bool,
    /// Whether the process serves no requests.
    pub service: bool,
    /// [`vtable::level`] of `sys.stdout`.
    pub stdout_level: u32,
    /// Level of `sys.stderr`.
    pub stderr_level: u32,
    /// `sys.setswitchinterval`, in seconds.
    pub switch_interval: Option<f64>,
    /// The signal that makes Python write its stacks.
    pub stacks_signal: Option<c_int>,
    /// What is to be reported of the process, if anything is.
    pub telemetry: Option<Telemetry>,
    /// What the directives about Python say.
    pub options: Options,
}

/// See [`vtable::Telemetry`].
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Path of a datagram socket.
    pub service: Vec<u8>,
    /// Time between two reports.
    pub interval: Duration,
    /// From when on a request is told of by itself.
    pub slow_requests: Option<Duration>,
    /// Whether the user agent is told of these.
    pub captures_user_agent: bool,
    /// httpd's parent process.
    pub parent: u32,
}

/// Shortest time between two reports: more of them and a process does little else.
const SHORTEST: Duration = Duration::from_millis(100);

impl Telemetry {
    /// What a host wishes; None if nothing is to be reported.
    pub(super) fn new(wanted: &vtable::Telemetry, service: Vec<u8>) -> Option<Self> {
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        (!service.is_empty()).then(|| Self {
            service,
            interval: seconds(wanted.interval).max(SHORTEST),
            slow_requests: Some(seconds(wanted.slow_requests)).filter(|limit| !limit.is_zero()),
            captures_user_agent: wanted.captures_user_agent != 0,
            parent: wanted.parent,
        })
    }
}

/// See [`vtable::Apache`].
#[derive(Debug, Clone)]
pub struct Apache {
    /// Most child processes.
    pub maximum_processes: u32,
    /// Most threads of each.
    pub threads_per_process: u32,
    /// The server's description.
    pub description: Vec<u8>,
    /// Name of the MPM.
    pub mpm_name: Vec<u8>,
    /// When httpd was built.
    pub build_date: Vec<u8>,
}

/// A line of a file of the application's.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file.
    pub file: &'a str,
    /// Its line.
    pub line: u32,
}

/// Why a host could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// See [`status::GONE`].
    #[error("the client closed the connection")]
    Gone,
    /// See [`status::TIMED_OUT`].
    #[error("the client sent nothing for too long")]
    TimedOut,
    /// See [`status::BAD_BODY`].
    #[error("the request body is malformed or incomplete")]
    BadBody,
    /// See [`status::FAILED`].
    #[error("the server could not pass it on")]
    Failed,
    /// This process was forked while the request ran.
    #[error("the request belongs to the process that forked this one")]
    Forked,
}

impl Fault {
    /// What a negative answer means.
    const fn from_number(number: isize) -> Self {
        const GONE: isize = status::GONE as isize;
        const TIMED_OUT: isize = status::TIMED_OUT as isize;
        const BAD_BODY: isize = status::BAD_BODY as isize;
        match number {
            GONE => Self::Gone,
            TIMED_OUT => Self::TimedOut,
            BAD_BODY => Self::BadBody,
            _ => Self::Failed,
        }
    }

    /// The fault an answer tells of, if any.
    fn check(number: c_int) -> Result<(), Self> {
        match number {
            status::OK => Ok(()),
            other => Err(Self::from_number(other as isize)),
        }
    }
}

/// Longer lines are cut: httpd's own log line holds no more.
pub const LONGEST_LINE: usize = 8192;

/// `message` as the host takes it: one line, cut to fit.
fn one_line(message: &str) -> Cow<'_, str> {
    let mut end = message.len().min(LONGEST_LINE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let message = &message[..end];
    if message.contains('\n') { message.replace('\n', "\\n").into() } else { message.into() }
}

/// The host's process log.
#[derive(Clone, Copy)]
pub struct HostLog {
    host: &'static Host,
}

impl HostLog {
    /// # Safety
    ///
    /// For the `host` of [`vtable::Start`], whose table stays valid for ever.
    pub(super) const unsafe fn borrow(host: &'static Host) -> Self {
        Self { host }
    }

    /// Writes one line to the process' log.
    pub fn line(self, level: u32, message: &str) {
        let message = one_line(message);
        // SAFETY: a null request is the process' log, allowed on any thread.
        unsafe { (self.host.log)(null_mut(), level, Bytes::new(message.as_bytes())) };
    }

    /// Writes one line that comes from somewhere to the process' log.
    pub fn line_from(self, level: u32, message: &str, source: Source<'_>) {
        let (message, file) = (one_line(message), Bytes::new(source.file.as_bytes()));
        let message = Bytes::new(message.as_bytes());
        // SAFETY: a null request is the process' log, allowed on any thread.
        unsafe { (self.host.log_from)(null_mut(), level, message, file, source.line) };
    }

    /// Whether the process' log takes lines of this level.
    pub fn would_log(self, level: u32) -> bool {
        // SAFETY: a null request is the process' log, allowed on any thread.
        unsafe { (self.host.would_log)(null_mut(), level) != 0 }
    }
}

impl HostLog {
    /// What httpd's scoreboard says, if this process may see it.
    pub fn server_metrics(self) -> Option<Vec<u8>> {
        /// Copies into the `Vec` behind `sink`.
        ///
        /// # Safety
        ///
        /// For the host, during the call below.
        unsafe extern "C" fn take(sink: *mut c_void, bytes: Bytes) {
            // SAFETY: the `Vec` below, which nobody else uses meanwhile.
            let copy = unsafe { &mut *sink.cast::<Vec<u8>>() };
            // SAFETY: lent for this call.
            copy.extend_from_slice(unsafe { bytes.as_slice() });
        }
        let mut copy = Vec::new();
        let sink = (&raw mut copy).cast::<c_void>();
        // SAFETY: allowed on any thread; `take` is called before it returns, or never.
        let given = unsafe { (self.host.server_metrics)(take, sink) };
        (given == 1).then_some(copy)
    }
}

/// The request a host lends to [`vtable::Runtime::handle`].
///
/// Its owner must give it up before `handle` returns, and uses it from one
/// thread at a time: every call takes `&mut self`.
pub struct HostRequest {
    host: &'static Host,
    request: NonNull<vtable::HostRequest>,
}

// SAFETY: the host promises in `vtable::Host` that any thread may call for a
// request that is being handled, one at a time.
unsafe impl Send for HostRequest {}

impl HostRequest {
    /// # Safety
    ///
    /// For the request of a call of [`vtable::Runtime::handle`] or
    /// [`vtable::Runtime::ask`]; the value is
    /// dropped before that call returns.
    pub(super) unsafe fn borrow(log: HostLog, request: *mut vtable::HostRequest) -> Option<Self> {
        Some(Self { host: log.host, request: NonNull::new(request)? })
    }

    /// Fails in a process the application forked: the client is its parent's.
    fn check_process() -> Result<(), Fault> {
        if system::is_forked() { Err(Fault::Forked) } else { Ok(()) }
    }

    /// Reads body bytes; 0 at the end.  Blocks.
    pub fn read_body(&mut self, to: &mut [u8]) -> Result<usize, Fault> {
        Self::check_process()?;
        // SAFETY: the request is being handled; `to` is ours to fill.
        let count =
            unsafe { (self.host.read_body)(self.request.as_ptr(), to.as_mut_ptr(), to.len()) };
        usize::try_from(count)
            .map(|count| count.min(to.len()))
            .map_err(|_| Fault::from_number(count))
    }

    /// As [`read_body`](Self::read_body), into an object that nobody else knows yet;
    /// until it is full or the body complete.
    pub fn read_body_into(&mut self, to: &mut Filling) -> Result<(), Fault> {
        Self::check_process()?;
        while let (data, len @ 1..) = to.rest() {
            // SAFETY: the request is being handled; `len` bytes from there on are ours to
            // fill, and nobody reads them before.
            let count = unsafe { (self.host.read_body)(self.request.as_ptr(), data, len) };
            match usize::try_from(count).map_err(|_| Fault::from_number(count))? {
                0 => break,
                count => to.fill(count),
            }
        }
        Ok(())
    }

    /// Hands over status line and headers.
    pub fn start_response(
        &mut self,
        status_line: &[u8],
        headers: &[(&[u8], &[u8])],
    ) -> Result<(), Fault> {
        Self::check_process()?;
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| vtable::Header {
                name: Bytes::new(name),
                value: Bytes::new(value),
            })
            .collect();
        // SAFETY: the request is being handled; all bytes outlive the call.
        Fault::check(unsafe {
            (self.host.start_response)(
                self.request.as_ptr(),
                Bytes::new(status_line),
                headers.as_ptr(),
                headers.len(),
            )
        })
    }

    /// Sends a piece of the answer; may block, see [`Host::write`].
    pub fn write(&mut self, data: &[u8], flags: u32) -> Result<(), Fault> {
        Self::check_process()?;
        // SAFETY: the request is being handled; the bytes outlive the call.
        Fault::check(unsafe { (self.host.write)(self.request.as_ptr(), Bytes::new(data), flags) })
    }

    /// Sends a piece of a regular file.  Blocks.
    pub fn send_file(&mut self, fd: c_int, offset: u64, length: u64) -> Result<(), Fault> {
        Self::check_process()?;
        // SAFETY: the request is being handled; the host checks `fd` itself.
        Fault::check(unsafe { (self.host.send_file)(self.request.as_ptr(), fd, offset, length) })
    }

    /// Tells that code of the application may run from here on.
    pub fn attached(&mut self) {
        // SAFETY: the request is being handled.
        unsafe { (self.host.attached)(self.request.as_ptr()) };
    }

    /// Tells that the application is about to be called.
    pub fn loaded(&mut self) {
        if system::is_forked() {
            return;
        }
        // SAFETY: the request is being handled.
        unsafe { (self.host.loaded)(self.request.as_ptr()) };
    }

    /// Passes on a part of the answer to a question.
    pub fn tell(&mut self, place: u32, value: &[u8]) {
        // SAFETY: the request is being asked about; the bytes outlive the call.
        unsafe { (self.host.tell)(self.request.as_ptr(), place, Bytes::new(value)) };
    }

    /// What mod_ssl has for a variable; None without mod_ssl.
    pub fn tls_variable(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let mut value = Bytes::new(b"");
        // SAFETY: the request is not over; the bytes outlive the call, `value` is ours.
        let found = unsafe {
            (self.host.tls_variable)(self.request.as_ptr(), Bytes::new(name), &raw mut value)
        };
        // SAFETY: filled by the host, whose value is good until our next call.
        (found == 1).then(|| unsafe { value.as_slice() }.to_vec())
    }

    /// httpd's own record of the request, if there is one to pass on.
    pub fn apache_request(&mut self) -> Option<ApacheRequest> {
        // SAFETY: the request is not over.
        let record = unsafe { (self.host.apache_request)(self.request.as_ptr()) };
        NonNull::new(record).map(ApacheRequest)
    }

    /// Writes one line to the request's log.
    pub fn log(&mut self, level: u32, message: &str) {
        if system::is_forked() {
            // The request's log goes the way of its answer: that is the parent's.
            HostLog { host: self.host }.line(level, message);
            return;
        }
        let message = one_line(message);
        // SAFETY: the request is being handled; the bytes outlive the call.
        unsafe {
            (self.host.log)(self.request.as_ptr(), level, Bytes::new(message.as_bytes()));
        };
    }

    /// Writes one line that comes from somewhere to the request's log.
    pub fn log_from(&mut self, level: u32, message: &str, source: Source<'_>) {
        if system::is_forked() {
            HostLog { host: self.host }.line_from(level, message, source);
            return;
        }
        let (message, file) = (one_line(message), Bytes::new(source.file.as_bytes()));
        let message = Bytes::new(message.as_bytes());
        // SAFETY: the request is being handled; the bytes outlive the call.
        unsafe { (self.host.log_from)(self.request.as_ptr(), level, message, file, source.line) };
    }

    /// Whether the request's log takes lines of this level.
    pub fn would_log(&self, level: u32) -> bool {
        // SAFETY: the request is being handled.
        unsafe { (self.host.would_log)(self.request.as_ptr(), level) != 0 }
    }
}
