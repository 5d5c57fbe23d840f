//! Embedded mode: the application runs in this child process.
//!
//! Python is started when it is first needed.  A thread of its own starts and
//! ends it: the first request comes on a thread that may be gone at the end.
#![forbid(unsafe_code)]

use super::answer::{HttpdClient, log_level};
use super::client::{BodyRead, Client};
use crate::daemon::plan::{PythonPlan, Script};
use crate::host::{
    Exchange, Gone, Half, Headers, Log, Outcome, Question, Reply, Runtime, Source, Start,
};
use crate::httpd::log;
use std::ffi::c_void;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wsgi_wire::frame::{AnswerHead, BodyFault, put_answer_head};
use wsgi_wire::vtable::write_flags;

/// How long a child process that ends waits for its Python to end.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Small pieces are collected up to this before httpd's filters see them.
const COLLECT: usize = 32 * 1024;

/// The Python of a child process, or how to get one.
#[derive(Debug)]
pub struct Embedded {
    /// Which Python, or why there is none.
    pub python: Result<PythonPlan, String>,
    /// What it is started with.
    pub start: Start,
    /// What is loaded at once.
    pub scripts: Vec<Script>,
    /// Whether it is started when the child process starts.
    pub eager: bool,
    state: Mutex<Option<Result<Running, String>>>,
    requests: AtomicU32,
}

/// A started Python.
#[derive(Debug)]
struct Running {
    runtime: RuntimeHandle,
    stop: Sender<()>,
    stopped: Mutex<std::sync::mpsc::Receiver<()>>,
}

/// A [`Runtime`] that can be shown.
#[derive(Clone, Copy)]
struct RuntimeHandle(Runtime);

impl std::fmt::Debug for RuntimeHandle {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Runtime")
    }
}

impl Embedded {
    /// Not started yet.
    pub fn new(
        python: Result<PythonPlan, String>,
        start: Start,
        scripts: Vec<Script>,
        eager: bool,
    ) -> Self {
        let (state, requests) = (Mutex::default(), AtomicU32::new(0));
        Self { python, start, scripts, eager, state, requests }
    }

    /// The running Python, started if need be.
    pub fn runtime(&self) -> Result<Runtime, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = state.get_or_insert_with(|| self.launch());
        running.as_ref().map(|running| running.runtime.0).map_err(Clone::clone)
    }

    fn launch(&self) -> Result<Running, String> {
        let python = self.python.clone()?;
        let (start, scripts) = (self.start.clone(), self.scripts.clone());
        let (started, has_started) = channel();
        let (stop, is_to_stop) = channel::<()>();
        let (finished, stopped) = channel();
        let main = move || {
            let half = Half::find();
            let runtime = match Runtime::start(&python.libpython, half, &start, PROCESS_LOG) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error.to_string()));
                    return;
                }
            };
            for script in &scripts {
                runtime.load_script(&script.application_group, &script.path);
            }
            let _ = started.send(Ok(runtime));
            // An error means that nobody can ask any more: the process ends.
            if is_to_stop.recv().is_ok() {
                runtime.stopping("");
                runtime.stop();
                let _ = finished.send(());
            }
        };
        std::thread::Builder::new()
            .name("wsgi-python".to_owned())
            .spawn(main)
            .map_err(|cause| format!("cannot start a thread: {cause}"))?;
        let runtime =
            has_started.recv().unwrap_or_else(|_| Err("its thread ended early".to_owned()))?;
        Ok(Running { runtime: RuntimeHandle(runtime), stop, stopped: Mutex::new(stopped) })
    }

    /// Runs one request.
    pub fn handle(
        &self,
        runtime: Runtime,
        exchange: &mut HttpdExchange<'_, '_>,
        head: &[u8],
    ) -> Outcome {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let outcome = runtime.handle(exchange, head);
        self.requests.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    /// Asks a script about one request.
    pub fn ask(
        &self,
        runtime: Runtime,
        exchange: &mut dyn Exchange,
        head: &[u8],
        question: Question<'_>,
    ) -> Reply {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let reply = runtime.ask(exchange, head, question);
        self.requests.fetch_sub(1, Ordering::SeqCst);
        reply
    }

    /// The child process ends: so does its Python, if no request is in it
    /// (prefork may be told to leave in the middle of one).
    pub fn stop(&self) {
        if self.requests.load(Ordering::SeqCst) > 0 {
            return;
        }
        let Ok(mut state) = self.state.try_lock() else { return };
        if let Some(Ok(running)) = state.take() {
            let _ = running.stop.send(());
            let stopped = running.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = stopped.recv_timeout(LAST_WAIT);
        }
    }
}

/// Where lines go that belong to no request.
const PROCESS_LOG: Log = Log { write: process_log, wants: process_wants };

/// A line that belongs to no request.
fn process_log(level: u32, message: &str, source: Option<Source<'_>>) {
    let (level, line) = (log_level(level), message.as_bytes());
    match source {
        None => log::Process.log_line(level, line),
        Some(Source { file, line: number }) => {
            log::Process.log_line_from(level, line, (file, number));
        }
    }
}

/// Whether the process' log takes lines of this level.
fn process_wants(level: u32) -> bool {
    log::Log::wants(&log::Process, log_level(level))
}

/// A request of this child process.
pub struct HttpdExchange<'c, 'r> {
    client: &'c mut HttpdClient<'r>,
    /// The head of the answer, encoded, until the first piece.
    head: Vec<u8>,
    started: bool,
    /// Pieces too small to bother httpd's filters with.
    collected: Vec<u8>,
    /// A file that waits for what follows it, with its offset and length.
    file: Option<(OwnedFd, u64, u64)>,
    /// Whether something left this process.
    pub committed: bool,
}

impl<'c, 'r> HttpdExchange<'c, 'r> {
    /// The request behind `client`.
    pub fn new(client: &'c mut HttpdClient<'r>) -> Self {
        Self {
            client,
            head: Vec::new(),
            started: false,
            collected: Vec::new(),
            file: None,
            committed: false,
        }
    }

    fn start(&mut self) -> Result<(), Gone> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        let head = AnswerHead::decode(&self.head).map_err(|_| Gone)?;
        self.client.start(&head).map(drop).map_err(|_| Gone)
    }

    fn pass(&mut self, data: &[u8], flush: bool, last: bool) -> Result<(), Gone> {
        self.start()?;
        self.committed = true;
        if !self.collected.is_empty() {
            let collected = std::mem::take(&mut self.collected);
            let alone = data.is_empty() && self.file.is_none();
            self.client.pass(&collected, alone && flush, alone && last)?;
            if alone {
                return Ok(());
            }
        }
        if let Some((file, offset, length)) = self.file.take() {
            self.client.pass_file(file, offset, length, false)?;
        }
        self.client.pass(data, flush, last)
    }
}

impl Exchange for HttpdExchange<'_, '_> {
    fn read_body(&mut self, to: &mut [u8]) -> Result<usize, BodyFault> {
        match self.client.read_body(to, true) {
            BodyRead::Data(count) => Ok(count),
            BodyRead::End => Ok(0),
            BodyRead::Fault(fault) => Err(fault),
            BodyRead::WouldBlock => Err(BodyFault::TimedOut),
        }
    }

    fn start_response(&mut self, status_line: &[u8], headers: Headers<'_>) {
        self.head.clear();
        put_answer_head(&mut self.head, status_line, headers);
    }

    fn write(&mut self, data: &[u8], flags: u32) -> Result<(), Gone> {
        let (flush, last) = (flags & write_flags::FLUSH != 0, flags & write_flags::LAST != 0);
        if !flush && !last && self.file.is_none() && self.collected.len() + data.len() <= COLLECT {
            self.collected.extend_from_slice(data);
            return Ok(());
        }
        self.pass(data, flush, last)
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Gone> {
        if self.file.is_some() {
            self.pass(&[], false, false)?;
        }
        self.file = Some((file.try_clone_to_owned().map_err(|_| Gone)?, offset, length));
        Ok(())
    }

    fn log(&mut self, level: u32, message: &str) {
        self.client.log(level, message);
    }

    fn log_from(&mut self, level: u32, message: &str, source: Source<'_>) {
        self.client.log_from(level, message, source);
    }

    fn would_log(&self, level: u32) -> bool {
        self.client.would_log(level)
    }

    fn apache_request(&mut self) -> *mut c_void {
        self.client.request().address()
    }
}
