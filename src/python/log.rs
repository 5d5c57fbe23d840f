//! The streams that end in the host's log, and tracebacks.
#![forbid(unsafe_code)]

use crate::exchange::{self, Exchange};
use crate::hint;
use crate::interpreter::Place;
use crate::raw::{
    Args, Attached, Builtin, Class, Exception, Getter, HostLog, LONGEST_LINE, Method, Object,
    Raised, Source, This, system,
};
use crate::runtime;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wsgi_wire::vtable::level;

/// Where a line goes.
#[derive(Clone, Copy)]
pub enum Sink<'a> {
    /// The log of a request; the process' once that is over, or while it is out of reach.
    Request(&'a Exchange),
    /// The process' log.
    Process,
}

impl Sink<'_> {
    /// Writes one line.
    pub fn line(self, py: Attached<'_>, level: u32, message: &str) {
        // In a forked process another thread of the parent may hold the request's
        // lock for ever.
        if let Self::Request(exchange) = self
            && !system::is_forked()
            && exchange.log(py, level, message)
        {
            return;
        }
        if let Some(log) = process_log() {
            log.line(level, message);
        }
    }

    /// Writes one line that comes from somewhere.
    pub fn line_from(self, py: Attached<'_>, level: u32, message: &str, source: Source<'_>) {
        if let Self::Request(exchange) = self
            && !system::is_forked()
            && exchange.log_from(py, level, message, source)
        {
            return;
        }
        if let Some(log) = process_log() {
            log.line_from(level, message, source);
        }
    }

    /// Whether lines of this level are written.
    pub fn takes(self, py: Attached<'_>, level: u32) -> bool {
        if let Self::Request(exchange) = self
            && !system::is_forked()
            && let Some(takes) = exchange.would_log(py, level)
        {
            return takes;
        }
        process_log().is_some_and(|log| log.would_log(level))
    }

    /// Writes a header and then the traceback of `error`, one record a line.
    pub fn traceback(self, place: &Place, header: &str, error: &Exception<'_>) {
        let py = error.value().py();
        self.line(py, level::ERROR, header);
        let lines = traceback(place, error);
        for line in &lines {
            self.line(py, level::ERROR, line);
        }
        hint::refused_import(py, place, &lines, self);
    }
}

/// Lends the log of the request this thread handles, or else of the process.
pub fn current<T>(body: impl FnOnce(Sink<'_>) -> T) -> T {
    let request = exchange::current();
    body(request.as_deref().map_or(Sink::Process, Sink::Request))
}

/// The log of the process.
fn process_log() -> Option<HostLog> {
    runtime::log()
}

/// The lines of the traceback of `error`.
pub fn traceback(place: &Place, error: &Exception<'_>) -> Vec<String> {
    let py = error.value().py();
    let lines = || -> Result<Vec<String>, Raised> {
        let list = place.format_exception.lend(py).call(&[error.value()])?;
        let mut lines = Vec::new();
        while let Some(line) = list.list_item(lines.len()) {
            lines.push(line.to_text()?);
        }
        Ok(lines)
    };
    lines().unwrap_or_else(|raised| {
        raised.clear(py);
        vec![format!("{}: (its traceback cannot be shown)", error.value().type_name())]
    })
}

/// The last line of a traceback: kind and message.
pub fn summary(error: &Exception<'_>) -> String {
    let kind = error.value().type_name();
    match error.value().to_text() {
        Ok(text) if text.is_empty() => kind,
        Ok(text) => format!("{kind}: {text}"),
        Err(raised) => {
            raised.clear(error.value().py());
            kind
        }
    }
}

/// A line being collected.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// Of the stream that wrote `partial`.
    level: u32,
}

impl Lines {
    /// The line that `end` completes.
    fn complete<'l>(&mut self, end: &'l [u8]) -> Cow<'l, str> {
        if self.partial.is_empty() {
            return printable(end);
        }
        self.keep(end, self.level);
        Cow::Owned(self.take().map(|(_, line)| line).unwrap_or_default())
    }

    /// Takes what a stream of another level left of a line.
    fn take_other(&mut self, level: u32) -> Option<(u32, String)> {
        if self.level == level { None } else { self.take() }
    }

    /// Keeps the part of a line that fits.
    fn keep(&mut self, part: &[u8], level: u32) {
        self.level = level;
        let room = LONGEST_LINE.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Takes what there is of a line, and its level.
    fn take(&mut self) -> Option<(u32, String)> {
        if self.partial.is_empty() {
            return None;
        }
        let line = printable(&self.partial).into_owned();
        self.partial.clear();
        Some((self.level, line))
    }
}

/// A line as text: up to a NUL, cut to fit.
fn printable(line: &[u8]) -> Cow<'_, str> {
    let end = line.iter().position(|&byte| byte == 0).unwrap_or(line.len());
    String::from_utf8_lossy(&line[..end.min(LONGEST_LINE)])
}

/// Whose stream it is.
enum Owner {
    /// The process'; while a request runs on the writing thread, it writes to that
    /// request's log.
    Process,
    /// A request's; None once that is over.
    Request(Mutex<Option<Arc<Exchange>>>),
}

/// The binary stream under `wsgi.errors`, `sys.stderr` and `sys.stdout`.
pub struct Log {
    /// Where its lines go.
    owner: Owner,
    /// Whether any method was called.
    used: AtomicBool,
    /// What a stream of the process has of its next line.
    lines: Mutex<Lines>,
    level: u32,
    name: &'static str,
}

impl Log {
    /// The stream under `wsgi.errors`.
    pub fn of_request(exchange: Arc<Exchange>) -> Self {
        Self {
            owner: Owner::Request(Mutex::new(Some(exchange))),
            used: AtomicBool::new(false),
            lines: Mutex::default(),
            level: level::ERROR,
            name: "<wsgi.errors>",
        }
    }

    /// A stream of the process; while a request runs on the writing thread, it
    /// writes to that request's log.
    pub fn of_process(name: &'static str, level: u32) -> Self {
        let (owner, used) = (Owner::Process, AtomicBool::new(false));
        Self { owner, used, lines: Mutex::default(), level, name }
    }

    /// The request `self` writes to now.
    fn request(&self) -> Option<Arc<Exchange>> {
        match &self.owner {
            Owner::Process => exchange::current(),
            Owner::Request(exchange) => lock(exchange).clone(),
        }
    }

    /// Begins to serve a request, as if new.
    pub fn begin(&self, exchange: Arc<Exchange>) {
        self.used.store(false, Ordering::Relaxed);
        if let Owner::Request(owner) = &self.owner {
            *lock(owner) = Some(exchange);
        }
    }

    /// Its request is over.
    pub fn end(&self) {
        if let Owner::Request(owner) = &self.owner {
            *lock(owner) = None;
        }
    }

    /// Notes that a method is called.
    fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether any method was called since [`Self::begin`].
    pub fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Writes `data`.
    fn feed(&self, py: Attached<'_>, data: &[u8]) {
        let request = self.request();
        let sink = request.as_deref().map_or(Sink::Process, Sink::Request);
        let lines = request.as_ref().map_or(&self.lines, |request| &request.lines);
        let other = if data.is_empty() { None } else { lock(lines).take_other(self.level) };
        if let Some((level, line)) = other {
            sink.line(py, level, &line);
        }
        let mut rest = data;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let line = lock(lines).complete(&rest[..at]);
            sink.line(py, self.level, &line);
            rest = &rest[at + 1..];
        }
        if !rest.is_empty() {
            lock(lines).keep(rest, self.level);
        }
    }

    /// Writes what there is of a line.
    fn flush_line(&self, py: Attached<'_>) {
        let request = self.request();
        let sink = request.as_deref().map_or(Sink::Process, Sink::Request);
        let line = lock(request.as_ref().map_or(&self.lines, |request| &request.lines)).take();
        if let Some((level, line)) = line {
            sink.line(py, level, &line);
        }
    }

    /// Raises if the request is over.
    fn check(&self, py: Attached<'_>) -> Result<(), Raised> {
        match (&self.owner, self.request()) {
            (Owner::Process, _) => Ok(()),
            (_, Some(exchange)) if !exchange.is_over(py) => Ok(()),
            _ => Err(exchange::over(py)),
        }
    }
}

/// Takes a lock nobody holds while running Python.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what `exchange` has of a line, at its end.
pub fn flush_request(py: Attached<'_>, exchange: &Exchange) {
    let line = lock(&exchange.lines).take();
    if let Some((level, line)) = line {
        exchange.log(py, level, &line);
    }
}

impl Class for Log {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Log";
    const METHODS: &'static [Method<Self>] = &[
        Method::new(c"write", write),
        Method::new(c"writelines", writelines),
        Method::new(c"flush", flush),
        Method::new(c"close", flush),
        Method::new(c"fileno", fileno),
        Method::new(c"isatty", no),
        Method::new(c"readable", no),
        Method::new(c"seekable", no),
        Method::new(c"writable", yes),
        Method::END,
    ];
    const GETTERS: &'static [Getter] = &[
        Getter::new(c"name", |log: &Self, py| py.text(log.name)),
        Getter::new(c"closed", |_: &Self, py| py.boolean(false)),
        Getter::new(c"encoding", |_: &Self, py| py.text("utf-8")),
        Getter::new(c"errors", |_: &Self, py| py.text("replace")),
        Getter::END,
    ];
}

/// The one argument a method takes.
pub fn single<'p>(args: Args<'_, 'p>, method: &str) -> Result<Object<'p>, Raised> {
    match (args.get(0), args.len()) {
        (Some(argument), 1) => Ok(argument),
        (_, count) => {
            let message = format!("{method}() takes exactly one argument ({count} given)");
            Err(args.py().raise(Builtin::TypeError, &message))
        }
    }
}

/// `write(data)`: the number of bytes or characters.
fn write<'p>(log: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    log.note_use();
    let data = single(args, "write")?;
    log.check(py)?;
    let length = if let Some(bytes) = data.as_bytes() {
        log.feed(py, bytes);
        bytes.len()
    } else if data.is_text() {
        runtime::warn_about_text(py)?;
        let text = data.to_text()?;
        log.feed(py, text.as_bytes());
        text.chars().count()
    } else {
        let bytes = data.copy_bytes()?;
        log.feed(py, &bytes);
        bytes.len()
    };
    py.int(length as i64)
}

/// `writelines(lines)`
fn writelines<'p>(log: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    log.note_use();
    let lines = single(args, "writelines")?.iterate()?;
    log.check(py)?;
    while let Some(line) = lines.next()? {
        match line.is_text() {
            true => log.feed(py, line.to_text()?.as_bytes()),
            false => log.feed(py, &line.copy_bytes()?),
        }
    }
    Ok(py.none())
}

/// `flush()` and `close()`: a text wrapper calls both when it is freed, so they
/// are silent after the request.
fn flush<'p>(log: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    log.note_use();
    log.flush_line(args.py());
    Ok(args.py().none())
}

/// `fileno()`: there is none.
fn fileno<'p>(_: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    Err(args.py().raise(Builtin::OsError, "a log stream has no file descriptor"))
}

/// `isatty()`, `readable()`, `seekable()`
fn no<'p>(log: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    log.note_use();
    args.py().boolean(false)
}

/// `writable()`
fn yes<'p>(log: This<'_, 'p, Log>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    log.note_use();
    args.py().boolean(true)
}
