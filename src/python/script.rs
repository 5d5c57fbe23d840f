//! Scripts as modules: found, loaded, loaded again.
#![forbid(unsafe_code)]

use crate::hint;
use crate::interpreter::Place;
use crate::log::{self, Sink};
use crate::md5;
use crate::metrics::now;
use crate::raw::{Attached, Builtin, Exception, Kept, Object, Raised};
use crate::reload;
use crate::runtime::Runtime;
use core::ffi::c_int;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wsgi_wire::head::RequestHead;
use wsgi_wire::vtable::{level, outcome};

/// What is known of the scripts of an interpreter.
#[derive(Debug)]
pub struct Scripts {
    /// By path.
    known: Mutex<HashMap<Vec<u8>, Known>>,
    /// Callables' names, interned.
    callables: Mutex<HashMap<Vec<u8>, Kept>>,
    /// Whether paths that differ in case only are one script's.
    ignores_case: bool,
}

impl Scripts {
    /// None are known yet.
    pub fn new(ignores_case: bool) -> Self {
        Self { known: Mutex::default(), callables: Mutex::default(), ignores_case }
    }

    /// What the script at `path` is known by.
    fn key<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        match self.ignores_case {
            true => path.to_ascii_lowercase().into(),
            false => path.into(),
        }
    }
}

/// A script seen before.
#[derive(Debug)]
struct Known {
    /// Its name in `sys.modules`.
    name: Kept,
    /// What it was loaded from; None while it is not loaded.  Not read from the
    /// module: while that is being loaded, half of it stands in `sys.modules`
    /// already, and it may put another object there in its place.
    loaded: Option<Version>,
    /// Its last failure to load.
    failure: Option<Failure>,
}

/// What a module was loaded from.
#[derive(Debug, Clone, Copy)]
struct Version {
    /// When the file was changed.
    mtime: i64,
    /// When it was loaded: µs since the epoch.
    at: u64,
}

/// A failure that is not to fill the log.
#[derive(Debug)]
struct Failure {
    /// Of the traceback.
    hash: u64,
    /// How often it came.
    count: u64,
}

/// Takes a lock nobody holds while running Python.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When the file was changed, in µs since the epoch; None if it cannot be told.
pub fn mtime(path: &[u8]) -> Option<i64> {
    let metadata = fs::metadata(OsStr::from_bytes(path)).ok()?;
    Some(metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1000)
}

/// Why a script cannot be used.
pub enum Unusable {
    /// It changed, and this process must not load it again.
    Stale,
    /// It could not be loaded; logged.
    Failed,
    /// As [`Self::Failed`], for want of memory.
    NoMemory,
    /// As [`Self::Failed`], because the request was interrupted for time.
    TimedOut,
    /// It is a service's, and done.
    Exited,
}

impl Unusable {
    /// What a request meets that met `error` in place of a script.
    pub fn of(place: &Place, error: &Exception<'_>) -> Self {
        if place.is_timeout(error) {
            Self::TimedOut
        } else if error.is(Builtin::MemoryError) {
            Self::NoMemory
        } else {
            Self::Failed
        }
    }

    /// What becomes of a request whose script this is.
    pub const fn outcome(&self) -> c_int {
        match self {
            Self::Stale => outcome::STALE,
            Self::Failed | Self::Exited => outcome::FAILED,
            Self::NoMemory => outcome::NO_MEMORY,
            Self::TimedOut => outcome::TIMED_OUT,
        }
    }
}

/// How a script is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// With reloading on: when the file was changed, if that can be told.
    pub check: Option<Option<i64>>,
    /// The request it is to answer; none for a script that is not asked whether it
    /// wants to be loaded again.
    pub request: Option<&'a RequestHead<'a>>,
}

/// Which state a module is in.
enum Found<'p> {
    /// Loaded and current.
    Current(Object<'p>),
    /// Loaded, but the file is another.
    Changed,
    /// Not loaded.
    Absent,
}

/// The module of a script, loaded if need be.
pub fn module<'p>(
    py: Attached<'p>,
    runtime: &Runtime,
    place: &Place,
    wanted: Wanted<'_>,
    sink: Sink<'_>,
) -> Result<Object<'p>, Unusable> {
    let fail = |raised: Raised| {
        let error = raised.take(py);
        if is_end(runtime, &error) {
            return Unusable::Exited;
        }
        sink.traceback(place, "WSGI0105: cannot look for the script; it is not run", &error);
        Unusable::of(place, &error)
    };
    let (name, loaded) = name(py, place, wanted.path).map_err(fail)?;
    let mut is_old = false;
    if let Found::Current(module) = find(py, &name, loaded, wanted.check).map_err(fail)? {
        is_old =
            reload::is_required(place, &module, loaded.map(|version| version.at), wanted, sink)?;
        if !is_old {
            return Ok(module);
        }
    }
    // Loading one script may import what another is importing, so one at a time;
    // detached, because the one that holds the lock wants to run Python.  The file
    // may have been changed, and loaded by another thread, in the meantime.
    let (_loading, check) =
        py.detached(|| (lock(&runtime.loading), wanted.check.map(|_| mtime(wanted.path))));
    let before = loaded.map(|version| version.at);
    let key = place.scripts.key(wanted.path);
    let loaded = lock(&place.scripts.known).get(&*key).and_then(|known| known.loaded);
    is_old &= loaded.map(|version| version.at) == before;
    let again = match find(py, &name, loaded, check).map_err(fail)? {
        Found::Current(module) if !is_old => return Ok(module),
        Found::Current(_) | Found::Changed if !runtime.settings.reload_in_place => {
            return Err(Unusable::Stale);
        }
        Found::Current(_) | Found::Changed => {
            py.modules().map_err(fail)?.dict_remove(&name);
            "Reloading"
        }
        Found::Absent => "Loading",
    };
    let path = String::from_utf8_lossy(wanted.path);
    sink.line(py, level::INFO, &format!("{again} WSGI script '{path}'."));
    set_loaded(place, &key, None);
    let (module, mtime) = load(py, place, &name, wanted).map_err(|(phase, raised)| {
        let error = raised.take(py);
        not_loaded(runtime, place, wanted.path, (phase, &error), sink)
    })?;
    set_loaded(place, &key, Some(Version { mtime, at: now() }));
    Ok(module)
}

/// Whether it is the exception by which a service is told to end, wherever it is.
fn is_end(runtime: &Runtime, error: &Exception<'_>) -> bool {
    runtime.settings.service && error.is(Builtin::SystemExit)
}

/// What a request meets whose script was not loaded for this error; logs that.
fn not_loaded(
    runtime: &Runtime,
    place: &Place,
    path: &[u8],
    (phase, error): (Phase, &Exception<'_>),
    sink: Sink<'_>,
) -> Unusable {
    if is_end(runtime, error) {
        return Unusable::Exited;
    }
    report(place, path, phase, error, sink);
    match Unusable::of(place, error) {
        // The parser says so of too deep an expression.
        Unusable::NoMemory if phase == Phase::Compile => Unusable::Failed,
        unusable => unusable,
    }
}

/// Notes from what a script was loaded, or that it is not.
fn set_loaded(place: &Place, key: &[u8], loaded: Option<Version>) {
    if let Some(known) = lock(&place.scripts.known).get_mut(key) {
        known.loaded = loaded;
        if loaded.is_some() {
            known.failure = None;
        }
    }
}

/// The name of a script in `sys.modules`, and from which version of its file it
/// is loaded, if it is.
fn name<'p>(
    py: Attached<'p>,
    place: &Place,
    path: &[u8],
) -> Result<(Object<'p>, Option<Version>), Raised> {
    let key = place.scripts.key(path);
    if let Some(known) = lock(&place.scripts.known).get(&*key) {
        return Ok((known.name.get(py), known.loaded));
    }
    let name = py.name(&format!("_mod_wsgi_{}", md5::hex(&key)))?;
    let mut known = lock(&place.scripts.known);
    // Another thread may have come first while Python ran.
    let entry = known.entry(key.into_owned()).or_insert_with(|| Known {
        name: name.clone().keep(),
        loaded: None,
        failure: None,
    });
    Ok((name, entry.loaded))
}

/// Looks for a script in `sys.modules` that was `loaded` from that version of its
/// file.
fn find<'p>(
    py: Attached<'p>,
    name: &Object<'p>,
    loaded: Option<Version>,
    check: Option<Option<i64>>,
) -> Result<Found<'p>, Raised> {
    let Some(loaded) = loaded else { return Ok(Found::Absent) };
    let Some(module) = py.modules()?.dict_get(name) else { return Ok(Found::Absent) };
    Ok(match check.flatten() {
        Some(mtime) if mtime != loaded.mtime => Found::Changed,
        // Also if the file is gone: while it is being replaced, the one that is
        // loaded serves better than none.
        _ => Found::Current(module),
    })
}

/// Where loading failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Reading or compiling it.
    Compile,
    /// Executing it.
    Execute,
}

/// Reads, compiles and executes a script; says from which version of its file.
fn load<'p>(
    py: Attached<'p>,
    place: &Place,
    name: &Object<'p>,
    wanted: Wanted<'_>,
) -> Result<(Object<'p>, i64), (Phase, Raised)> {
    let compile = || -> Result<(Object<'p>, Object<'p>, i64), Raised> {
        let path = wanted.path;
        let read = py.detached(|| {
            // The time first: a change while we read is found by the next request.
            let mtime = mtime(path).unwrap_or(0);
            fs::read(OsStr::from_bytes(path)).map(|source| (mtime, source))
        });
        let (mtime, source) = read.map_err(|error| {
            let path = String::from_utf8_lossy(path);
            py.raise(Builtin::OsError, &format!("cannot read '{path}': {error}"))
        })?;
        let path = py.path(path)?;
        let mode = py.text("exec")?;
        let (flags, alone) = (py.int(0)?, py.boolean(true)?);
        let source = py.bytes(&source)?;
        let code = place.compile.lend(py).call(&[&source, &path, &mode, &flags, &alone])?;
        Ok((code, path, mtime))
    };
    let (code, path, mtime) = compile().map_err(|raised| (Phase::Compile, raised))?;
    let execute = || {
        let module = py.add_module(name)?;
        module.set_attr(c"__file__", &path)?;
        module.set_attr(c"__mtime__", &py.int(mtime)?)?;
        py.run_module(name, &code, &path).map(|module| (module, mtime))
    };
    execute().map_err(|raised| (Phase::Execute, raised))
}

/// Logs why a script was not loaded: with a traceback the first time, in one
/// line when the next request meets the same.
fn report(place: &Place, path: &[u8], phase: Phase, error: &Exception<'_>, sink: Sink<'_>) {
    let py = error.value().py();
    let (code, what) = match phase {
        _ if place.is_timeout(error) => ("WSGI9410", "was interrupted for time"),
        Phase::Compile => ("WSGI0105", "cannot be read or compiled"),
        Phase::Execute if error.is(Builtin::SystemExit) => ("WSGI0107", "called exit"),
        Phase::Execute => ("WSGI0109", "raised an exception"),
    };
    let lines = log::traceback(place, error);
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    let hash = hasher.finish();
    let mut count = 1;
    let key = place.scripts.key(path);
    if let Some(known) = lock(&place.scripts.known).get_mut(&*key) {
        if let Some(failure) = known.failure.as_ref().filter(|failure| failure.hash == hash) {
            count = failure.count + 1;
        }
        known.failure = Some(Failure { hash, count });
    }
    let path = String::from_utf8_lossy(path);
    let header = format!("{code}: script '{path}' {what} and was not loaded");
    if count > 1 {
        let summary = log::summary(error);
        let message = format!("{header}: {summary} (the same as before, {count} times by now)");
        sink.line(py, level::ERROR, &message);
        return;
    }
    sink.line(py, level::ERROR, &format!("{header}; the next request tries again"));
    for line in &lines {
        sink.line(py, level::ERROR, line);
    }
    hint::refused_import(py, place, &lines, sink);
}

/// The application object `callable` of `module`; logs if there is none.
pub fn application<'p>(
    place: &Place,
    module: &Object<'p>,
    callable: &[u8],
    path: &[u8],
    sink: Sink<'_>,
) -> Result<Object<'p>, Unusable> {
    let py = module.py();
    let known = lock(&place.scripts.callables).get(callable).map(|name| name.get(py));
    let name = match known {
        Some(name) => Ok(name),
        None => intern(py, place, callable),
    };
    name.and_then(|name| module.attr_of(&name)).map_err(|raised| {
        let error = raised.take(py);
        let (path, callable) = (String::from_utf8_lossy(path), String::from_utf8_lossy(callable));
        let message = format!("WSGI0089: script '{path}' has no '{callable}'");
        if error.is(Builtin::AttributeError) {
            sink.line(py, level::ERROR, &format!("{message}; answering 500"));
        } else {
            // A module's `__getattr__` may raise anything.
            sink.traceback(place, &message, &error);
        }
        Unusable::of(place, &error)
    })
}

/// Interns the name of a callable.
fn intern<'p>(py: Attached<'p>, place: &Place, callable: &[u8]) -> Result<Object<'p>, Raised> {
    let text = py.latin1(callable)?;
    let name = py.name(text.as_utf8()?)?;
    lock(&place.scripts.callables).entry(callable.to_vec()).or_insert_with(|| name.clone().keep());
    Ok(name)
}
