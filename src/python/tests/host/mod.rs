//! A host that plays httpd: loads a libpython and the Python half, records what
//! the runtime asks of it.
//!
//! There is one Python in a process, so each test runs in a process of its own,
//! once for each Python found.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test helper: a panic is a failed test")]

pub mod options;

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, c_int, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use wsgi_wire::head::{HeadWriter, RequestHead, UNKNOWN_LENGTH, Variables, flags};
use wsgi_wire::vtable::{
    self, ABI, Bytes, Header, Host, HostRequest, Question, Runtime, RuntimeEntry, Start, level,
    status,
};

/// Tells a process started by [`with_each_python`] which test it runs.
const CHILD: &str = "WSGI_TEST_CHILD";

/// Tells such a process which libpython to load.
const LIBRARY: &str = "WSGI_TEST_LIBPYTHON";

/// Tells such a process which interpreter binary that belongs to.
const PROGRAM: &str = "WSGI_TEST_PROGRAM";

/// How long one test may take under one Python.
const DEADLINE: Duration = Duration::from_secs(60);

/// A Python to test with.
#[derive(Debug, Clone)]
struct Python {
    program: PathBuf,
    library: PathBuf,
}

/// The Pythons to test with: `WSGI_TEST_PYTHON` or what is on PATH and in pyenv.
fn pythons() -> Vec<Python> {
    if let Some(program) = std::env::var_os("WSGI_TEST_PYTHON") {
        return python(Path::new(&program)).into_iter().collect();
    }
    let home = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = home.and_then(|home| std::fs::read_dir(home.join("versions")).ok());
    let pyenv: Vec<PathBuf> =
        versions.into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = pyenv.into_iter().chain(std::env::split_paths(&path)).collect();
    ["python3.10", "python3.11", "python3.12", "python3.13", "python3.14"]
        .iter()
        .filter_map(|name| {
            places.iter().map(|place| place.join(name)).find_map(|program| python(&program))
        })
        .collect()
}

/// The Python of an interpreter binary, if it has a shared library.
fn python(program: &Path) -> Option<Python> {
    let ask = "import sysconfig as s; \
               print(s.get_config_var('LIBDIR') + '/' + s.get_config_var('INSTSONAME'))";
    let answer = Command::new(program).args(["-c", ask]).output().ok()?;
    let library = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    let is_shared = library.is_file() && library.to_string_lossy().contains(".so");
    is_shared.then(|| Python { program: program.to_owned(), library })
}

/// Runs `body` in a new process for each Python; `name` is the test's own name.
pub fn with_each_python(name: &str, body: impl FnOnce(&Fixture)) {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        let fixture = Fixture::load();
        body(&fixture);
        return;
    }
    let pythons = pythons();
    assert!(
        !pythons.is_empty() || std::env::var_os("WSGI_TEST_PYTHON").is_none(),
        "WSGI_TEST_PYTHON has no shared library"
    );
    if pythons.is_empty() {
        eprintln!("SKIPPED {name}: no Python 3.10 to 3.14 with a shared library found");
    }
    for python in pythons {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, name)
            .env(LIBRARY, &python.library)
            .env(PROGRAM, &python.program)
            .env("USER", "somebody")
            .env_remove("LOGNAME")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = [collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap())];
        let begin = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begin.elapsed() > DEADLINE {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        };
        eprintln!("{name}: {} {ended:?}", python.program.display());
        let [stdout, stderr] = output.map(|reader| reader.join().unwrap());
        assert!(
            ended.is_some_and(|status| status.success()),
            "under {}: {ended:?}\n{stdout}\n{stderr}",
            python.program.display()
        );
    }
}

/// Reads a pipe to its end in a thread.
fn collect(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The interpreter binary this test runs under.
pub fn program() -> PathBuf {
    std::env::var_os(PROGRAM).unwrap().into()
}

/// Lines of the process' log.
static LOG: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// Whether `write` is waiting, and whether it may go on; see [`Request::hold_at`].
static GATE: Mutex<(bool, bool)> = Mutex::new((false, false));

/// Tells of changes of [`GATE`].
static GATE_MOVED: Condvar = Condvar::new();

/// A loaded Python half and a directory for scripts.
pub struct Fixture {
    runtime: &'static Runtime,
    directory: PathBuf,
}

/// How to start Python.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The interpreter binary; None is the one the test runs under.
    pub program: Option<PathBuf>,
    pub python_path: String,
    pub home: String,
    pub process_group: &'static str,
    pub reload_in_place: bool,
    pub user: (&'static str, &'static str),
    pub service: bool,
    /// Of `sys.stdout` and of `sys.stderr`.
    pub levels: (u32, u32),
    pub switch_interval: f64,
    pub stacks_signal: c_int,
    pub options: options::Plan,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            program: None,
            python_path: String::new(),
            home: String::new(),
            process_group: "",
            reload_in_place: true,
            user: ("", ""),
            service: false,
            levels: (level::ERROR, level::ERROR),
            switch_interval: 0.0,
            stacks_signal: 0,
            options: options::Plan::default(),
        }
    }
}

/// What a fake host answers when it is asked for a body.
#[derive(Debug, Clone)]
pub enum Input {
    Data(Vec<u8>),
    Fault(c_int),
}

/// A request as this host sees it.
#[derive(Default)]
pub struct Exchange {
    pub input: VecDeque<Input>,
    pub status: String,
    pub headers: Vec<(String, String)>,
    /// Each piece with its flags.
    pub writes: Vec<(Vec<u8>, u32)>,
    pub log: Vec<(u32, String)>,
    pub reads: usize,
    /// What `write` answers from the piece with this number on.
    pub gone_at: Option<usize>,
    /// See [`Request::hold_at`].
    pub hold_at: Option<usize>,
    /// What `start_response` answers.
    pub head_status: c_int,
    /// How often its application was about to be called.
    pub loaded: usize,
    /// See [`Request::log_level`].
    pub log_level: u32,
    /// What was told in answer to a question.
    pub told: Vec<(u32, Vec<u8>)>,
    /// A variable of mod_ssl, and its value.
    pub tls: Option<(&'static str, &'static str)>,
    /// How often two threads were here at once.
    pub busy: std::sync::atomic::AtomicU32,
}

/// What came of a request.
pub struct Answer {
    pub outcome: c_int,
    pub exchange: Exchange,
}

impl Answer {
    /// The whole body.
    pub fn body(&self) -> Vec<u8> {
        self.exchange.writes.iter().flat_map(|(data, _)| data.clone()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.exchange.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }

    /// The flags of each piece.
    pub fn flags(&self) -> Vec<u32> {
        self.exchange.writes.iter().map(|(_, flags)| *flags).collect()
    }

    /// The request's log as one text.
    pub fn log(&self) -> String {
        let lines: Vec<_> =
            self.exchange.log.iter().map(|(level, line)| format!("{level} {line}")).collect();
        lines.join("\n")
    }
}

/// A request to make.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: u64,
    pub script: PathBuf,
    pub group: &'static str,
    pub callable: &'static str,
    pub method: &'static str,
    pub flags: u8,
    /// The least grave level its log takes.
    pub log_level: u8,
    pub input: Vec<Input>,
    pub variables: Vec<(&'static str, Vec<u8>)>,
    /// Of the variables that are the same for many requests.
    pub script_name: String,
    /// The child process that it came to.
    pub server_pid: u32,
    /// When it came, and when the script was changed as far as the host has looked: µs
    /// since the epoch.
    pub looked: (u64, u64),
    pub gone_at: Option<usize>,
    /// The piece of the answer at which the host waits for [`Fixture::release`].
    pub hold_at: Option<usize>,
    /// What the host answers to the head.
    pub head_status: c_int,
}

impl Request {
    /// A GET for `script`.
    pub fn get(script: &Path) -> Self {
        Self {
            id: 1,
            script: script.to_owned(),
            group: "",
            callable: "application",
            method: "GET",
            flags: flags::RELOADING,
            log_level: level::DEBUG as u8,
            input: Vec::new(),
            variables: Vec::new(),
            script_name: String::new(),
            server_pid: 0,
            looked: (1_500_000, 0),
            gone_at: None,
            hold_at: None,
            head_status: status::OK,
        }
    }

    /// In another application group.
    pub fn group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// With another method.
    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// With a body.
    pub fn body(self, pieces: &[&[u8]]) -> Self {
        let input: Vec<_> = pieces.iter().map(|piece| Input::Data(piece.to_vec())).collect();
        Self { input, method: "POST", ..self }
    }

    /// Below this name.
    pub fn below(self, script_name: impl Into<String>) -> Self {
        Self { script_name: script_name.into(), ..self }
    }

    /// Come to this child process.
    pub fn server_pid(self, server_pid: u32) -> Self {
        Self { server_pid, ..self }
    }

    /// With a variable.
    pub fn variable(mut self, key: &'static str, value: &[u8]) -> Self {
        self.variables.push((key, value.to_vec()));
        self
    }

    /// How long the body is said to be.
    fn body_length(&self) -> u64 {
        let is_chunked = self.variables.iter().any(|(key, _)| *key == "HTTP_TRANSFER_ENCODING");
        let length = self.variables.iter().find(|(key, _)| *key == "CONTENT_LENGTH");
        match length {
            _ if is_chunked => UNKNOWN_LENGTH,
            Some((_, value)) => str::from_utf8(value).unwrap().parse().unwrap(),
            None => 0,
        }
    }

    /// As the host encodes it.
    fn encode(&self) -> Vec<u8> {
        let head = RequestHead {
            id: self.id,
            flags: if self.method == "HEAD" { self.flags | flags::HEAD_ONLY } else { self.flags },
            log_level: self.log_level,
            connects: 1,
            restarts: 2,
            request_start: self.looked.0,
            queue_start: 0,
            script_mtime: self.looked.1,
            body_length: self.body_length(),
            server_pid: self.server_pid,
            script: self.script.as_os_str().as_bytes(),
            application_group: self.group.as_bytes(),
            callable: self.callable.as_bytes(),
            process_group: b"",
            common: Variables::default(),
            variables: Variables::default(),
        };
        let mut bytes = Vec::new();
        let mut writer = HeadWriter::new(&mut bytes, &head);
        let script = self.script.as_os_str().as_bytes();
        writer.variable(b"SCRIPT_NAME", self.script_name.as_bytes());
        writer.end_common();
        for (key, value) in [
            ("REQUEST_METHOD", self.method.as_bytes()),
            ("PATH_INFO", b"/"),
            ("QUERY_STRING", b""),
            ("SERVER_NAME", b"localhost"),
            ("SERVER_PORT", b"80"),
            ("SERVER_PROTOCOL", b"HTTP/1.1"),
            ("SCRIPT_FILENAME", script),
        ] {
            writer.variable(key.as_bytes(), value);
        }
        for (key, value) in &self.variables {
            writer.variable(key.as_bytes(), value);
        }
        writer.finish();
        bytes
    }
}

impl Fixture {
    /// Loads both libraries.
    fn load() -> Self {
        let python = std::env::var_os(LIBRARY).unwrap();
        open(&python, libc::RTLD_NOW | libc::RTLD_GLOBAL);
        let beside = std::env::current_exe().unwrap();
        // The copy above `deps` is not refreshed by `cargo test`.
        let half = beside.parent().unwrap().join("libwsgi_python.so");
        let half = open(half.as_os_str(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        // SAFETY: a library just loaded and a name that ends with NUL.
        let entry = unsafe { libc::dlsym(half, vtable::ENTRY.as_ptr().cast()) };
        assert!(!entry.is_null());
        // SAFETY: the type `vtable::ENTRY` is documented to have.
        let entry: RuntimeEntry = unsafe { std::mem::transmute(entry) };
        // SAFETY: the Python half's promise: never null, valid for ever.
        let runtime = unsafe { entry() };
        // SAFETY: as above.
        let runtime = unsafe { &*runtime };
        assert_eq!((runtime.size as usize, runtime.abi), (size_of::<Runtime>(), ABI));
        let directory = std::env::temp_dir().join(format!("wsgi-python-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { runtime, directory }
    }

    /// Starts Python as for embedded mode.
    pub fn start(&self) {
        self.start_with(&Setup::default());
    }

    /// Starts Python.
    pub fn start_with(&self, setup: &Setup) {
        let program = setup.program.clone().unwrap_or_else(program);
        let program = program.as_os_str();
        let layers = setup.options.layers();
        let warnings = setup.options.warnings();
        let options = setup.options.lend(&layers, &warnings);
        let start = Start {
            size: size_of::<Start>() as u32,
            abi: ABI,
            host: &raw const HOST,
            program: Bytes::new(program.as_bytes()),
            python_path: Bytes::new(setup.python_path.as_bytes()),
            home: Bytes::new(setup.home.as_bytes()),
            user_name: Bytes::new(setup.user.0.as_bytes()),
            user_home: Bytes::new(setup.user.1.as_bytes()),
            process_group: Bytes::new(setup.process_group.as_bytes()),
            maximum_processes: 3,
            threads_per_process: 15,
            apache_version: [2, 4, 99],
            telemetry: vtable::Telemetry {
                service: Bytes::new(b""),
                interval: 0.0,
                slow_requests: 0.0,
                captures_user_agent: 0,
                parent: 0,
            },
            apache: vtable::Apache {
                maximum_processes: 7,
                threads_per_process: 8,
                description: Bytes::new(b"Apache/2.4.99 (Test)"),
                mpm_name: Bytes::new(b"fake"),
                build_date: Bytes::new(b"2026-01-02T03:04:05"),
            },
            multithread: 1,
            multiprocess: 1,
            run_once: 0,
            reload_in_place: setup.reload_in_place.into(),
            service: setup.service.into(),
            stdout_level: setup.levels.0,
            stderr_level: setup.levels.1,
            switch_interval: setup.switch_interval,
            stacks_signal: setup.stacks_signal,
            options: &raw const options,
        };
        // SAFETY: a whole table that lives during the call.
        let started = unsafe { (self.runtime.start)(&raw const start) };
        assert_eq!(started, 0, "{:?}", self.process_log());
    }

    /// Ends Python.
    pub fn stop(&self) {
        // SAFETY: the thread that started it; nothing follows.
        unsafe { (self.runtime.stop)() };
    }

    /// Waits for the main interpreter's lock.
    pub fn beat(&self) {
        // SAFETY: Python runs, and `stop` follows only afterwards.
        unsafe { (self.runtime.beat)() };
    }

    /// Interrupts a request; whether it runs.
    pub fn interrupt(&self, id: u64) -> bool {
        // SAFETY: as for `beat`.
        unsafe { (self.runtime.interrupt)(id) == 0 }
    }

    /// Logs all stacks.
    pub fn stacks(&self) {
        // SAFETY: as for `beat`.
        unsafe { (self.runtime.stacks)() };
    }

    /// Tells of a signal.
    pub fn signal(&self, number: c_int) {
        // SAFETY: as for `beat`.
        unsafe { (self.runtime.signal)(number) };
    }

    /// Tells of the end of the process.
    pub fn stopping(&self, reason: &str) {
        // SAFETY: as for `beat`; the reason is borrowed during the call.
        unsafe { (self.runtime.stopping)(Bytes::new(reason.as_bytes())) };
    }

    /// Loads a script without a request.
    pub fn load_script(&self, group: &str, script: &Path) -> c_int {
        let script = Bytes::new(script.as_os_str().as_bytes());
        // SAFETY: both are borrowed during the call.
        unsafe { (self.runtime.load_script)(Bytes::new(group.as_bytes()), script) }
    }

    /// Writes a script.
    pub fn script(&self, name: &str, source: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, source).unwrap();
        path
    }

    /// Runs a request.
    pub fn run(&self, request: &Request) -> Answer {
        let mut exchange = Exchange {
            input: request.input.clone().into(),
            gone_at: request.gone_at,
            hold_at: request.hold_at,
            head_status: request.head_status,
            log_level: request.log_level.into(),
            ..Exchange::default()
        };
        let head = request.encode();
        let pointer: *mut HostRequest = (&raw mut exchange).cast();
        // SAFETY: the request lives during the call.
        let outcome = unsafe { (self.runtime.handle)(pointer, Bytes::new(&head)) };
        Answer { outcome, exchange }
    }

    /// Asks the script of `request` something.
    pub fn ask(&self, request: &Request, (kind, who, what): (u32, &[u8], &[u8])) -> Answer {
        let mut exchange = Exchange { tls: Some(("NAME", "value")), ..Exchange::default() };
        let head = request.encode();
        let pointer: *mut HostRequest = (&raw mut exchange).cast();
        let question = Question { kind, who: Bytes::new(who), what: Bytes::new(what) };
        // SAFETY: request and question live during the call.
        let outcome =
            unsafe { (self.runtime.ask)(pointer, Bytes::new(&head), &raw const question) };
        Answer { outcome, exchange }
    }

    /// Waits until a request is at its [`Request::hold_at`].
    pub fn wait_until_held(&self) {
        let mut gate = GATE.lock().unwrap();
        while !gate.0 {
            gate = GATE_MOVED.wait(gate).unwrap();
        }
    }

    /// Lets that request go on.
    pub fn release(&self) {
        GATE.lock().unwrap().1 = true;
        GATE_MOVED.notify_all();
    }

    /// Waits until `is_true`; [`DEADLINE`] ends the test otherwise.
    pub fn wait_until(&self, mut is_true: impl FnMut() -> bool) {
        while !is_true() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// The process' log as one text.
    pub fn process_text(&self) -> String {
        let lines: Vec<_> =
            self.process_log().iter().map(|(level, line)| format!("{level} {line}")).collect();
        lines.join("\n")
    }

    /// Whether Python is initialised, that is, was not ended.
    pub fn is_python_there(&self) -> bool {
        // SAFETY: a name that ends with NUL, in a library loaded for all to see.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"Py_IsInitialized".as_ptr()) };
        assert!(!found.is_null());
        // SAFETY: CPython documents this signature for this name.
        let ask: extern "C" fn() -> c_int = unsafe { std::mem::transmute(found) };
        ask() != 0
    }

    /// Runs a GET of a script with this source.
    pub fn get(&self, source: &str) -> Answer {
        self.run(&Request::get(&self.script("script.wsgi", source)))
    }

    /// Lines of the process' log so far.
    pub fn process_log(&self) -> MutexGuard<'static, Vec<(u32, String)>> {
        LOG.lock().unwrap()
    }

    /// Where scripts are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Loads a library.
fn open(path: &OsStr, mode: c_int) -> *mut c_void {
    let path = CString::new(path.as_bytes()).unwrap();
    // SAFETY: a path that ends with NUL.
    let library = unsafe { libc::dlopen(path.as_ptr(), mode) };
    assert!(!library.is_null(), "cannot load {path:?}");
    library
}

/// The host's table.
static HOST: Host = Host {
    size: size_of::<Host>() as u32,
    abi: ABI,
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

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn would_log(request: *mut HostRequest, level: u32) -> c_int {
    if request.is_null() {
        return (level <= level::DEBUG).into();
    }
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    let wanted = exchange.log_level;
    leave(exchange);
    (level <= wanted).into()
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
    let [message, file] = [message, file].map(|text| {
        // SAFETY: borrowed for this call.
        String::from_utf8(unsafe { text.as_slice() }.to_vec()).unwrap()
    });
    let name = file.rsplit('/').next().unwrap_or_default();
    let text = format!("{name}:{line}: {message}");
    // SAFETY: as this function's own contract.
    unsafe { log(request, level, Bytes::new(text.as_bytes())) };
}

/// The request behind a pointer; fails if two threads are in at once.
///
/// # Safety
///
/// For the callbacks of [`HOST`].
unsafe fn exchange<'a>(request: *mut HostRequest) -> &'a mut Exchange {
    // SAFETY: the pointer `Fixture::run` passed in.
    let exchange = unsafe { &mut *request.cast::<Exchange>() };
    let before = exchange.busy.swap(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(before, 0, "two threads in one request");
    exchange
}

/// Ends what [`exchange`] began.
fn leave(exchange: &Exchange) {
    exchange.busy.store(0, std::sync::atomic::Ordering::SeqCst);
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn read_body(request: *mut HostRequest, to: *mut u8, len: usize) -> isize {
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    exchange.reads += 1;
    let count = match exchange.input.pop_front() {
        None => 0,
        Some(Input::Fault(fault)) => {
            leave(exchange);
            return fault as isize;
        }
        Some(Input::Data(mut data)) => {
            let count = data.len().min(len);
            // SAFETY: the runtime lends `len` bytes.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, count) };
            let rest = data.split_off(count);
            if !rest.is_empty() {
                exchange.input.push_front(Input::Data(rest));
            }
            count
        }
    };
    std::thread::yield_now();
    leave(exchange);
    count as isize
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
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    // SAFETY: borrowed for this call.
    let text = |bytes: Bytes| unsafe { bytes.as_slice() }.iter().map(|&b| b as char).collect();
    exchange.status = text(status_line);
    // SAFETY: the runtime lends `count` headers.
    let headers = unsafe { std::slice::from_raw_parts(headers, count) };
    exchange.headers = headers.iter().map(|h| (text(h.name), text(h.value))).collect();
    leave(exchange);
    exchange.head_status
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn write(request: *mut HostRequest, data: Bytes, flags: u32) -> c_int {
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    // SAFETY: borrowed for this call.
    let data = unsafe { data.as_slice() }.to_vec();
    if exchange.hold_at == Some(exchange.writes.len()) {
        let mut gate = GATE.lock().unwrap();
        gate.0 = true;
        GATE_MOVED.notify_all();
        while !gate.1 {
            gate = GATE_MOVED.wait(gate).unwrap();
        }
        *gate = (false, false);
    }
    let gone = exchange.gone_at.is_some_and(|at| exchange.writes.len() >= at);
    if !gone {
        exchange.writes.push((data, flags));
    }
    std::thread::yield_now();
    leave(exchange);
    if gone { status::GONE } else { status::OK }
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
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    let mut data = vec![0; length as usize];
    // SAFETY: fills our own buffer.
    let count =
        unsafe { libc::pread(fd, data.as_mut_ptr().cast(), data.len(), offset as libc::off_t) };
    assert_eq!(count, length as isize);
    exchange.writes.push((data, u32::MAX));
    leave(exchange);
    status::OK
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn log(request: *mut HostRequest, level: u32, message: Bytes) {
    // SAFETY: borrowed for this call.
    let line = std::str::from_utf8(unsafe { message.as_slice() }).unwrap().to_owned();
    assert!(!line.contains('\n'), "{line:?}");
    if request.is_null() {
        LOG.lock().unwrap().push((level, line));
        return;
    }
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    exchange.log.push((level, line));
    leave(exchange);
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn attached(_request: *mut HostRequest) {}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn server_metrics(_: vtable::Take, _: *mut c_void) -> c_int {
    0
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn loaded(request: *mut HostRequest) {
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    exchange.loaded += 1;
    leave(exchange);
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn tell(request: *mut HostRequest, place: u32, value: Bytes) {
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    // SAFETY: lent for the call.
    exchange.told.push((place, unsafe { value.as_slice() }.to_vec()));
    leave(exchange);
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn tls_variable(
    request: *mut HostRequest,
    name: Bytes,
    value: *mut Bytes,
) -> c_int {
    // SAFETY: called with our own pointer.
    let exchange = unsafe { exchange(request) };
    // SAFETY: lent for the call.
    let name = unsafe { name.as_slice() };
    let found = exchange.tls.as_ref().filter(|(known, _)| known.as_bytes() == name);
    if let Some((_, text)) = found {
        // SAFETY: the runtime's place; the text is alive until the question is answered.
        unsafe { value.write(Bytes::new(text.as_bytes())) };
    }
    let answer = found.is_some().into();
    leave(exchange);
    answer
}

/// # Safety
///
/// For the runtime, through [`HOST`].
unsafe extern "C" fn apache_request(request: *mut HostRequest) -> *mut c_void {
    request.cast()
}

/// Runs `body` for each Python, started as for embedded mode, and stops it.
pub fn with_python(name: &str, body: impl FnOnce(&Fixture)) {
    with_each_python(name, |python| {
        python.start();
        body(python);
        python.stop();
    });
}

/// An application that says hello.
pub const HELLO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'Hello']
";

/// An application whose body of indented lines gives the list `out`.
pub fn app(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "def application(environ, start_response):\n{body}\n    \
         start_response('200 OK', [])\n    \
         return ['\\n'.join(str(item) for item in out).encode()]\n"
    )
}
