//! The fence around the Python half: loading it, calling it, being called by it.

use super::half::Names;
use super::{
    Exchange, Log, Outcome, Question, Reply, Source, Start, StartError, Telemetry, options,
};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW, Symbol};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::borrow::Cow;
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use wsgi_wire::frame::BodyFault;
use wsgi_wire::options as abi_options;
use wsgi_wire::vtable::{self as abi, Bytes, Header, HostRequest, RuntimeEntry, status};

/// What tells about httpd's scoreboard, where this process may see it.
static SERVER_METRICS: OnceLock<fn() -> Option<Vec<u8>>> = OnceLock::new();

/// Where lines that belong to no request go.
static PROCESS_LOG: OnceLock<Log> = OnceLock::new();

/// A Python half whose Python was started.
#[derive(Clone, Copy)]
pub struct Runtime {
    table: &'static abi::Runtime,
    /// Whether all threads share one lock, so that one at a time runs Python.
    pub has_one_lock: bool,
}

/// What `*mut HostRequest` points at: the caller's exchange.
struct Borrowed<'e>(&'e mut dyn Exchange);

/// Where the libraries of the Python half are; which of them is loaded depends on the
/// Python.
#[derive(Debug)]
pub struct Half {
    /// This module.
    module: PathBuf,
    /// Its directory, open: the path leads nowhere once the root directory is
    /// another one.
    directory: Option<OwnedFd>,
}

impl Half {
    /// Finds it beside this module.
    pub fn find() -> Self {
        Self { module: module_path(), directory: None }
    }

    /// Finds it, to be loaded after a change of the root directory.
    pub fn find_before_chroot() -> Result<Self, StartError> {
        let module = module_path();
        let parent = module.parent().unwrap_or(Path::new("/"));
        let directory = open_directory(parent).map_err(|cause| StartError::Library {
            path: parent.display().to_string(),
            reason: cause.to_string(),
        })?;
        Ok(Self { module, directory: Some(directory) })
    }

    /// The library for the Python of `libpython`, started as `program`: under the name it
    /// is installed with, or the one cargo gives it.
    pub fn path(&self, libpython: &Path, program: &Path) -> Result<PathBuf, StartError> {
        let names = Names::of(libpython);
        let is_there = |name: &&Cow<'static, str>| match &self.directory {
            Some(directory) => is_below(directory, name),
            None => self.module.with_file_name(name.as_ref()).exists(),
        };
        match names.all.iter().find(is_there) {
            Some(name) => Ok(self.module.with_file_name(name.as_ref())),
            None => Err(names.missing(&self.module, program)),
        }
    }

    /// Loads the library at `path`.
    fn load(self, path: &Path) -> Result<std::mem::ManuallyDrop<Library>, StartError> {
        let flags = RTLD_NOW | RTLD_LOCAL;
        let Some(directory) = self.directory else { return load(path, flags) };
        let away = |cause: Errno| StartError::Library {
            path: path.display().to_string(),
            reason: cause.to_string(),
        };
        // The linker looks for a relative path in the working directory, which may
        // lie above the root for as long as it is ours alone that is loaded.
        let back = open_directory(Path::new(".")).map_err(away)?;
        nix::unistd::fchdir(&directory).map_err(away)?;
        let name = Path::new(".").join(path.file_name().unwrap_or_default());
        let loaded = load(&name, flags);
        nix::unistd::fchdir(&back).map_err(away)?;
        loaded
    }
}

/// Whether there is something of this name in an open directory.
fn is_below(directory: &OwnedFd, name: &str) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    nix::fcntl::openat(directory, name, flags, Mode::empty()).is_ok()
}

/// Opens a directory for nothing but going there.
fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

impl Runtime {
    /// Loads `libpython`, then the Python half beside this module, and starts Python.
    ///
    /// Once per process, on the thread Python is to call its main thread.
    /// `log` takes the lines that belong to no request.
    pub fn start(
        libpython: &Path,
        half: Half,
        start: &Start,
        log: Log,
    ) -> Result<Self, StartError> {
        let _ = PROCESS_LOG.set(log);
        if let Some(server_metrics) = start.server_metrics {
            let _ = SERVER_METRICS.set(server_metrics);
        }
        let path = half.path(libpython, &start.program)?;
        // Global: extension modules find Python's symbols there.
        load(libpython, RTLD_NOW | RTLD_GLOBAL)?;
        let half = half.load(&path)?;
        // SAFETY: the Python half's contract gives this symbol this type.
        let entry: Result<Symbol<RuntimeEntry>, _> = unsafe { half.get(abi::ENTRY) };
        let entry = entry.map_err(|error| library_error(&path, &error))?;
        // SAFETY: the entry may be called at any time and gives a static table.
        let table = unsafe { entry() };
        // SAFETY: as promised by [`RuntimeEntry`], never null and never freed;
        // the library is never unloaded (see `load`).
        let table: &'static abi::Runtime = unsafe { &*table };
        if table.abi != abi::ABI || (table.size as usize) < size_of::<abi::Runtime>() {
            return Err(StartError::Version {
                path: path.display().to_string(),
                found: table.abi,
                wanted: abi::ABI,
            });
        }
        let is_free_threaded = Names::of(libpython).is_special;
        let has_one_lock = !is_free_threaded && !start.interpreters.may_have_own_locks();
        let runtime = Self { table, has_one_lock };
        runtime.start_python(start)?;
        Ok(runtime)
    }

    fn start_python(&self, start: &Start) -> Result<(), StartError> {
        options::lend(&start.interpreters, |options| self.start_with(start, options))
    }

    fn start_with(&self, start: &Start, options: &abi_options::Options) -> Result<(), StartError> {
        let text = |text: &'_ str| Bytes::new(text.as_bytes());
        let settings = abi::Start {
            size: size_of::<abi::Start>() as u32,
            abi: abi::ABI,
            host: &HOST,
            program: Bytes::new(start.program.as_os_str().as_bytes()),
            python_path: text(&start.python_path),
            home: text(&start.home),
            user_name: text(&start.user_name),
            user_home: text(&start.user_home),
            process_group: text(&start.process_group),
            maximum_processes: start.maximum_processes,
            threads_per_process: start.threads_per_process,
            apache_version: start.apache_version,
            apache: abi::Apache {
                maximum_processes: start.apache.maximum_processes,
                threads_per_process: start.apache.threads_per_process,
                description: text(&start.apache.description),
                mpm_name: text(&start.apache.mpm_name),
                build_date: text(&start.apache.build_date),
            },
            multithread: start.multithread.into(),
            multiprocess: start.multiprocess.into(),
            run_once: start.run_once.into(),
            reload_in_place: start.reload_in_place.into(),
            service: start.service.into(),
            stdout_level: start.stdout_level,
            stderr_level: start.stderr_level,
            switch_interval: start.switch_interval.map_or(0.0, |time| time.as_secs_f64()),
            stacks_signal: start.stacks_signal.unwrap_or(0),
            telemetry: telemetry(start.telemetry.as_ref()),
            options,
        };
        // SAFETY: everything in `settings` outlives the call, and this is the
        // first call into the table.
        match unsafe { (self.table.start)(&settings) } {
            0 => Ok(()),
            _ => Err(StartError::Python),
        }
    }

    /// Loads a script ahead of its first request; whether that worked.
    pub fn load_script(&self, application_group: &[u8], script: &[u8]) -> bool {
        // SAFETY: both strings outlive the call.
        unsafe { (self.table.load_script)(Bytes::new(application_group), Bytes::new(script)) == 0 }
    }

    /// Runs one request.
    pub fn handle(&self, exchange: &mut dyn Exchange, head: &[u8]) -> Outcome {
        let mut borrowed = Borrowed(exchange);
        let request = std::ptr::from_mut(&mut borrowed).cast::<HostRequest>();
        // SAFETY: `request` is given back to the callbacks below until the call
        // returns, on this thread only, and is not used by us meanwhile.
        Outcome::from_number(unsafe { (self.table.handle)(request, Bytes::new(head)) })
    }

    /// Asks a script about a request.
    pub fn ask(&self, exchange: &mut dyn Exchange, head: &[u8], question: Question<'_>) -> Reply {
        let mut borrowed = Borrowed(exchange);
        let request = std::ptr::from_mut(&mut borrowed).cast::<HostRequest>();
        let question = abi::Question {
            kind: question.kind,
            who: Bytes::new(question.who),
            what: Bytes::new(question.what),
        };
        // SAFETY: as in [`Self::handle`]; the question outlives the call.
        Reply::from_number(unsafe { (self.table.ask)(request, Bytes::new(head), &question) })
    }

    /// Returns when it had the main interpreter's lock: late, or never, where
    /// something keeps that.  For the thread that also calls the next two.
    pub fn beat(&self) {
        // SAFETY: Python was started and, per the contract of [`Self::stop`], runs.
        unsafe { (self.table.beat)() };
    }

    /// Raises `mod_wsgi.RequestTimeout` in the thread that runs `request`; false if
    /// none does.
    pub fn interrupt(&self, request: u64) -> bool {
        // SAFETY: as in [`Self::beat`].
        unsafe { (self.table.interrupt)(request) == 0 }
    }

    /// Logs the stacks of all Python threads.
    pub fn stacks(&self) {
        // SAFETY: as in [`Self::beat`].
        unsafe { (self.table.stacks)() };
    }

    /// Tells subscribers of a signal; on one thread, joined before [`Self::stop`].
    pub fn signal(&self, number: i32) {
        // SAFETY: as in [`Self::beat`].
        unsafe { (self.table.signal)(number) };
    }

    /// Tells subscribers that the process is about to end: once, on the thread of
    /// [`Self::signal`] or on the one of [`Self::stop`].
    pub fn stopping(&self, reason: &str) {
        // SAFETY: as in [`Self::beat`]; the reason outlives the call.
        unsafe { (self.table.stopping)(Bytes::new(reason.as_bytes())) };
    }

    /// Tells whoever is reported to that the process ends now, whatever it still runs.
    pub fn abandon(&self) {
        // SAFETY: as in [`Self::beat`].
        unsafe { (self.table.abandon)() };
    }

    /// Ends Python, on the thread that started it, when no other thread of ours is
    /// inside one of the calls above.
    pub fn stop(self) {
        // SAFETY: the contract of [`Self::start`] makes this the same thread; the
        // caller has no request running.
        unsafe { (self.table.stop)() };
    }
}

/// What is to be reported, as the table has it.
fn telemetry(wanted: Option<&Telemetry>) -> abi::Telemetry {
    let seconds = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64());
    abi::Telemetry {
        service: Bytes::new(wanted.map_or(&[], |wanted| &wanted.service)),
        interval: seconds(wanted.map(|wanted| wanted.interval)),
        slow_requests: seconds(wanted.and_then(|wanted| wanted.slow_requests)),
        captures_user_agent: wanted.is_some_and(|wanted| wanted.captures_user_agent).into(),
        parent: wanted.map_or(0, |wanted| wanted.parent),
    }
}

fn library_error(path: &Path, error: &libloading::Error) -> StartError {
    // libloading's own text is only "dlopen failed"; the linker's is the cause.
    let reason =
        std::error::Error::source(error).map_or_else(|| error.to_string(), |it| it.to_string());
    StartError::Library { path: path.display().to_string(), reason }
}

/// Loads a library for the rest of the process' life.
fn load(path: &Path, flags: c_int) -> Result<std::mem::ManuallyDrop<Library>, StartError> {
    // SAFETY: the initialisers that run are those of libpython and of the Python
    // half, which start nothing by themselves.
    match unsafe { Library::open(Some(path), flags) } {
        // Python cannot be unloaded, so neither may be what uses it.
        Ok(library) => Ok(std::mem::ManuallyDrop::new(library)),
        Err(error) => Err(library_error(path, &error)),
    }
}

/// The file this module was loaded from.
fn module_path() -> PathBuf {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here = module_path as fn() -> PathBuf as *const c_void;
    // SAFETY: `dladdr` only looks the address up and fills the record.
    let found = unsafe { libc::dladdr(here, info.as_mut_ptr()) };
    // SAFETY: zeroed, and a record of pointers: initialised either way.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return PathBuf::new();
    }
    // SAFETY: the linker's own string, valid while the module is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Our side of the table.
static HOST: abi::Host = abi::Host {
    size: size_of::<abi::Host>() as u32,
    abi: abi::ABI,
    read_body,
    start_response,
    write,
    send_file,
    log,
    attached,
    loaded,
    server_metrics,
    would_log,
    log_from,
    tell,
    tls_variable,
    apache_request,
};

/// Lends the exchange behind `request` to `body`; a panic ends here.
///
/// # Safety
///
/// `request` is what [`Runtime::handle`] gave to the runtime, during that call.
unsafe fn with<T>(
    request: *mut HostRequest,
    otherwise: T,
    body: impl FnOnce(&mut dyn Exchange) -> T,
) -> T {
    // SAFETY: per this function's contract it points at a live `Borrowed` that
    // nobody else uses.
    let borrowed = unsafe { &mut *request.cast::<Borrowed<'_>>() };
    catch_unwind(AssertUnwindSafe(|| body(borrowed.0))).unwrap_or(otherwise)
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn read_body(request: *mut HostRequest, to: *mut u8, len: usize) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the runtime lends `len` writable bytes for the call.
    let to = unsafe { std::slice::from_raw_parts_mut(to, len) };
    // SAFETY: the runtime hands back what `handle` gave it.
    let read = unsafe { with(request, Err(BodyFault::Malformed), |e| e.read_body(to)) };
    match read {
        Ok(count) => count as isize,
        Err(BodyFault::Gone) => status::GONE as isize,
        Err(BodyFault::TimedOut) => status::TIMED_OUT as isize,
        Err(BodyFault::Malformed) => status::BAD_BODY as isize,
    }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn start_response(
    request: *mut HostRequest,
    status_line: Bytes,
    headers: *const Header,
    count: usize,
) -> c_int {
    let headers = if count == 0 {
        &[]
    } else {
        // SAFETY: the runtime lends `count` headers for the call.
        unsafe { std::slice::from_raw_parts(headers, count) }
    };
    let mut pairs = headers.iter().map(|header| {
        // SAFETY: lent for the call, like the array.
        let name = unsafe { header.name.as_slice() };
        // SAFETY: as above.
        let value = unsafe { header.value.as_slice() };
        (name, value)
    });
    // SAFETY: lent for the call.
    let line = unsafe { status_line.as_slice() };
    // SAFETY: the runtime hands back what `handle` gave it.
    unsafe {
        with(request, status::FAILED, |exchange| {
            exchange.start_response(line, &mut pairs);
            status::OK
        })
    }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn write(request: *mut HostRequest, data: Bytes, flags: u32) -> c_int {
    // SAFETY: lent for the call.
    let data = unsafe { data.as_slice() };
    // SAFETY: the runtime hands back what `handle` gave it.
    unsafe { with(request, status::FAILED, |exchange| sent(exchange.write(data, flags))) }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn send_file(
    request: *mut HostRequest,
    fd: c_int,
    offset: u64,
    length: u64,
) -> c_int {
    if fd < 0 {
        return status::FAILED;
    }
    // SAFETY: the runtime keeps the file open for the call.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    // SAFETY: the runtime hands back what `handle` gave it.
    unsafe {
        with(request, status::FAILED, |exchange| sent(exchange.send_file(file, offset, length)))
    }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn log(request: *mut HostRequest, level: u32, message: Bytes) {
    // SAFETY: lent for the call.
    let message: Cow<'_, str> = String::from_utf8_lossy(unsafe { message.as_slice() });
    if request.is_null() {
        write_process_line(level, &message, None);
        return;
    }
    // SAFETY: not null, so the runtime hands back what `handle` gave it.
    unsafe { with(request, (), |exchange| exchange.log(level, &message)) }
}

/// Writes a line that belongs to no request; a panic ends here.
fn write_process_line(level: u32, message: &str, source: Option<Source<'_>>) {
    if let Some(log) = PROCESS_LOG.get() {
        let _ = catch_unwind(|| (log.write)(level, message, source));
    }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn log_from(
    request: *mut HostRequest,
    level: u32,
    message: Bytes,
    file: Bytes,
    line: u32,
) {
    // SAFETY: lent for the call.
    let message: Cow<'_, str> = String::from_utf8_lossy(unsafe { message.as_slice() });
    // SAFETY: lent for the call.
    let source = Source { file: unsafe { file.as_slice() }, line };
    if request.is_null() {
        write_process_line(level, &message, Some(source));
        return;
    }
    // SAFETY: not null, so the runtime hands back what `handle` gave it.
    unsafe { with(request, (), |exchange| exchange.log_from(level, &message, source)) }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn would_log(request: *mut HostRequest, level: u32) -> c_int {
    if request.is_null() {
        let wants = |log: &Log| catch_unwind(|| (log.wants)(level)).unwrap_or(true);
        return PROCESS_LOG.get().is_some_and(wants).into();
    }
    // SAFETY: not null, so the runtime hands back what `handle` gave it.
    unsafe { with(request, true, |exchange| exchange.would_log(level)) }.into()
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn attached(request: *mut HostRequest) {
    // SAFETY: the runtime hands back what `handle` gave it.
    unsafe { with(request, (), |exchange| exchange.attached()) }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn loaded(request: *mut HostRequest) {
    // SAFETY: the runtime hands back what `handle` gave it.
    unsafe { with(request, (), |exchange| exchange.loaded()) }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn server_metrics(take: abi::Take, sink: *mut c_void) -> c_int {
    let Some(read) = SERVER_METRICS.get() else { return 0 };
    let Some(record) = catch_unwind(read).unwrap_or(None) else { return 0 };
    // SAFETY: the runtime's own function and what it wants back; the bytes outlive it.
    unsafe { take(sink, Bytes::new(&record)) };
    1
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn tell(request: *mut HostRequest, place: u32, value: Bytes) {
    // SAFETY: lent for the call.
    let value = unsafe { value.as_slice() };
    // SAFETY: the runtime hands back what `ask` gave it.
    unsafe { with(request, (), |exchange| exchange.tell(place, value)) }
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn tls_variable(
    request: *mut HostRequest,
    name: Bytes,
    value: *mut Bytes,
) -> c_int {
    // SAFETY: lent for the call.
    let name = unsafe { name.as_slice() };
    // SAFETY: the runtime hands back what `handle` or `ask` gave it.
    let found =
        unsafe { with(request, None, |exchange| exchange.tls_variable(name).map(Bytes::new)) };
    let Some(found) = found else { return 0 };
    // SAFETY: the runtime's own place, which it reads before its next call.
    unsafe { value.write(found) };
    1
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn apache_request(request: *mut HostRequest) -> *mut c_void {
    // SAFETY: the runtime hands back what `handle` or `ask` gave it.
    unsafe { with(request, std::ptr::null_mut(), |exchange| exchange.apache_request()) }
}

const fn sent(result: Result<(), super::Gone>) -> c_int {
    match result {
        Ok(()) => status::OK,
        Err(super::Gone) => status::GONE,
    }
}
