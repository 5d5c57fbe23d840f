//! Scripts as modules: found, loaded, loaded again.
#![forbid(unsafe_code)]

use crate::interpreter::Place;
use crate::log::{self, Sink};
use crate::raw::{Attached, Builtin, Exception, Kept, Object, Raised};
use crate::runtime::Runtime;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wsgi_wire::vtable::level;

/// What is known of the scripts of an interpreter.
#[derive(Debug, Default)]
pub struct Scripts {
    /// By path.
    known: Mutex<HashMap<Vec<u8>, Known>>,
    /// Callables' names, interned.
    callables: Mutex<HashMap<Vec<u8>, Kept>>,
}

/// A script seen before.
#[derive(Debug)]
struct Known {
    /// Its name in `sys.modules`.
    name: Kept,
    /// Whether it is loaded: while it is being loaded, its half of a module
    /// stands in `sys.modules` as well.
    is_loaded: bool,
    /// Its last failure to load.
    failure: Option<Failure>,
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
}

/// How a script is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// With reloading on: when the file was changed, if that can be told.
    pub check: Option<Option<i64>>,
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
        sink.traceback(place, "WSGI0105: cannot look for the script; answering 500", &error);
        Unusable::Failed
    };
    let (name, is_loaded) = name(py, place, wanted.path).map_err(fail)?;
    if is_loaded
        && let Found::Current(module) = find(py, place, &name, wanted.check).map_err(fail)?
    {
        return Ok(module);
    }
    // Loading one script may import what another is importing, so one at a time;
    // detached, because the one that holds the lock wants to run Python.
    let _loading = py.detached(|| lock(&runtime.loading));
    let again = match find(py, place, &name, wanted.check).map_err(fail)? {
        Found::Current(module) => return Ok(module),
        Found::Changed if !runtime.settings.reload_in_place => return Err(Unusable::Stale),
        Found::Changed => {
            py.modules().map_err(fail)?.dict_remove(&name);
            "Reloading"
        }
        Found::Absent => "Loading",
    };
    let path = String::from_utf8_lossy(wanted.path);
    sink.line(py, level::INFO, &format!("{again} WSGI script '{path}'."));
    let set_loaded = |is_loaded| {
        if let Some(known) = lock(&place.scripts.known).get_mut(wanted.path) {
            known.is_loaded = is_loaded;
            if is_loaded {
                known.failure = None;
            }
        }
    };
    set_loaded(false);
    match load(py, place, &name, wanted) {
        Ok(module) => {
            set_loaded(true);
            Ok(module)
        }
        Err((phase, raised)) => {
            report(place, wanted.path, phase, &raised.take(py), sink);
            Err(Unusable::Failed)
        }
    }
}

/// The name of a script in `sys.modules`, and whether it is loaded.
fn name<'p>(py: Attached<'p>, place: &Place, path: &[u8]) -> Result<(Object<'p>, bool), Raised> {
    if let Some(known) = lock(&place.scripts.known).get(path) {
        return Ok((known.name.get(py), known.is_loaded));
    }
    let name = place.module_name.lend(py).call(&[&py.bytes(path)?])?;
    let name = py.name(name.as_utf8()?)?;
    let mut known = lock(&place.scripts.known);
    // Another thread may have come first while Python ran.
    let entry = known.entry(path.to_vec()).or_insert_with(|| Known {
        name: name.clone().keep(),
        is_loaded: false,
        failure: None,
    });
    Ok((name, entry.is_loaded))
}

/// Looks for a script in `sys.modules`.
fn find<'p>(
    py: Attached<'p>,
    place: &Place,
    name: &Object<'p>,
    check: Option<Option<i64>>,
) -> Result<Found<'p>, Raised> {
    let Some(module) = py.modules()?.dict_get(name) else { return Ok(Found::Absent) };
    let Some(mtime) = check else { return Ok(Found::Current(module)) };
    let loaded = match module.attr_of(&place.names.mtime.lend(py)).and_then(|time| time.to_i64()) {
        Ok(time) => Some(time),
        Err(raised) => {
            raised.clear(py);
            None
        }
    };
    Ok(match (loaded, mtime) {
        (Some(loaded), Some(mtime)) if loaded == mtime => Found::Current(module),
        _ => Found::Changed,
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

/// Reads, compiles and executes a script.
fn load<'p>(
    py: Attached<'p>,
    place: &Place,
    name: &Object<'p>,
    wanted: Wanted<'_>,
) -> Result<Object<'p>, (Phase, Raised)> {
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
        py.run_module(name, &code, &path)
    };
    execute().map_err(|raised| (Phase::Execute, raised))
}

/// Logs why a script was not loaded: with a traceback the first time, in one
/// line when the next request meets the same.
fn report(place: &Place, path: &[u8], phase: Phase, error: &Exception<'_>, sink: Sink<'_>) {
    let py = error.value().py();
    let (code, what) = match phase {
        Phase::Compile => ("WSGI0105", "cannot be read or compiled"),
        Phase::Execute if error.is(Builtin::SystemExit) => ("WSGI0107", "called exit"),
        Phase::Execute => ("WSGI0109", "raised an exception"),
    };
    let lines = log::traceback(place, error);
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    let hash = hasher.finish();
    let mut count = 1;
    if let Some(known) = lock(&place.scripts.known).get_mut(path) {
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
    for line in lines {
        sink.line(py, level::ERROR, &line);
    }
}

/// The application object `callable` of `module`; logs if there is none.
pub fn application<'p>(
    place: &Place,
    module: &Object<'p>,
    callable: &[u8],
    path: &[u8],
    sink: Sink<'_>,
) -> Option<Object<'p>> {
    let py = module.py();
    let known = lock(&place.scripts.callables).get(callable).map(|name| name.get(py));
    let name = match known {
        Some(name) => Ok(name),
        None => intern(py, place, callable),
    };
    let found = name.and_then(|name| module.attr_of(&name));
    found
        .map_err(|raised| {
            raised.clear(py);
            let (path, callable) =
                (String::from_utf8_lossy(path), String::from_utf8_lossy(callable));
            let message = format!("WSGI0089: script '{path}' has no '{callable}'; answering 500");
            sink.line(py, level::ERROR, &message);
        })
        .ok()
}

/// Interns the name of a callable.
fn intern<'p>(py: Attached<'p>, place: &Place, callable: &[u8]) -> Result<Object<'p>, Raised> {
    let text = py.latin1(callable)?;
    let name = py.name(text.as_utf8()?)?;
    lock(&place.scripts.callables).entry(callable.to_vec()).or_insert_with(|| name.clone().keep());
    Ok(name)
}
