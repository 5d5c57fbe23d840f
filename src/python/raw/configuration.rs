//! Starting Python with the settings that must be there before it runs.
//!
//! What `Py_InitializeEx` reads are variables of libpython; only the seed of hashes
//! has none, and takes the structure `Py_InitializeEx` makes for itself.

use super::object::Raised;
use super::symbols;
use super::thread::Attached;
use crate::options::{HashSeed, Options};
use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use core::mem::MaybeUninit;
use pyo3_ffi as py;
use std::ffi::CString;

/// The first fields of `PyConfig`, the same from 3.10 to 3.15, and room for the rest:
/// 448 bytes in 3.13.
#[repr(C, align(16))]
struct Config {
    config_init: c_int,
    isolated: c_int,
    use_environment: c_int,
    dev_mode: c_int,
    install_signal_handlers: c_int,
    use_hash_seed: c_int,
    hash_seed: c_ulong,
    rest: [u8; 4096],
}

/// CPython's `PyStatus`.
#[repr(C)]
pub struct Status {
    kind: c_int,
    function: *const c_char,
    message: *const c_char,
    exit_code: c_int,
}

impl Status {
    /// What went wrong, if anything did.
    pub fn check(&self) -> Result<(), String> {
        if self.kind == 0 {
            return Ok(());
        }
        if self.message.is_null() {
            return Err("it asks the process to exit".to_owned());
        }
        // SAFETY: CPython's messages are static texts that end with NUL.
        Err(unsafe { CStr::from_ptr(self.message) }.to_string_lossy().into_owned())
    }
}

/// Sets what `options` say, ahead of [`initialize`]; gives the names of directives
/// that this libpython has no means for.
pub fn prepare(options: &Options) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if options.optimize > 0 && !set_number(c"Py_OptimizeFlag", options.optimize) {
        missing.push("WSGIPythonOptimize");
    }
    if options.dont_write_bytecode && !set_number(c"Py_DontWriteBytecodeFlag", 1) {
        missing.push("WSGIDontWriteBytecode");
    }
    if !options.warnings.iter().all(|filter| add(c"PySys_AddWarnOption", filter)) {
        missing.push("WSGIPythonWarnings");
    }
    if options.hash_seed.is_some() && !can_seed() {
        missing.push("WSGIPythonHashSeed");
    }
    // It would do without its lock by itself.
    if cfg!(free_threaded) && !options.wants_free_threading() && !add(c"PySys_AddXOption", b"gil=1")
    {
        missing.push("WSGIFreeThreading");
    }
    missing
}

/// Sets the `int` that libpython calls `name`; false if there is none.
fn set_number(name: &CStr, value: c_int) -> bool {
    let Some(variable) = symbols::find(name) else { return false };
    // SAFETY: CPython documents an int of this name, which nobody reads before Python
    // is initialised.
    unsafe { variable.cast::<c_int>().write(value) };
    true
}

/// Gives `text` to the function of libpython that adds one to the options Python starts
/// with; false if that cannot be done.
fn add(name: &CStr, text: &[u8]) -> bool {
    type Add = unsafe extern "C" fn(*const libc::wchar_t);
    let Ok(text) = CString::new(text) else { return false };
    let Some(add) = symbols::find(name) else { return false };
    let Ok(wide) = symbols::decode(&text) else { return false };
    // SAFETY: CPython documents this signature for the names this is called with.
    let add = unsafe { core::mem::transmute::<*mut c_void, Add>(add) };
    // SAFETY: a wide text, copied; allowed before Python is initialised.
    unsafe { add(wide) };
    true
}

/// Whether the structure is one whose first fields are known.
fn can_seed() -> bool {
    symbols::version().is_some_and(|version| ((3, 10)..=(3, 15)).contains(&version))
        && symbols::find(c"_PyConfig_InitCompatConfig").is_some()
        && symbols::find(c"Py_InitializeFromConfig").is_some()
}

/// Initialises Python on this thread, which is attached then; signals are left alone.
pub fn initialize(options: &Options) -> Result<(), String> {
    match options.hash_seed.filter(|_| can_seed()) {
        Some(seed) => initialize_seeded(seed),
        None => {
            // SAFETY: not initialised yet; 0 leaves the signals to the host.
            unsafe { py::Py_InitializeEx(0) };
            Ok(())
        }
    }
}

/// What `Py_InitializeEx(0)` does, with a seed.
fn initialize_seeded(seed: HashSeed) -> Result<(), String> {
    type Fill = unsafe extern "C" fn(*mut Config);
    type Initialize = unsafe extern "C" fn(*const Config) -> Status;
    let absent = || "libpython lacks what a hash seed needs".to_owned();
    let fill = symbols::find(c"_PyConfig_InitCompatConfig").ok_or_else(absent)?;
    let initialize = symbols::find(c"Py_InitializeFromConfig").ok_or_else(absent)?;
    let clear = symbols::find(c"PyConfig_Clear").ok_or_else(absent)?;
    // SAFETY: the signature of this name in 3.10 to 3.15, pycore_initconfig.h.
    let fill = unsafe { core::mem::transmute::<*mut c_void, Fill>(fill) };
    // SAFETY: CPython documents this signature for this name.
    let initialize = unsafe { core::mem::transmute::<*mut c_void, Initialize>(initialize) };
    // SAFETY: CPython documents this signature for this name.
    let clear = unsafe { core::mem::transmute::<*mut c_void, Fill>(clear) };
    // SAFETY: numbers and bytes, for which zero is a value.
    let mut config: Config = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: room enough, see `Config`.
    unsafe { fill(&raw mut config) };
    config.install_signal_handlers = 0;
    (config.use_hash_seed, config.hash_seed) = match seed {
        HashSeed::Random => (0, 0),
        HashSeed::Fixed(seed) => (1, seed.into()),
    };
    // SAFETY: filled above; Python is not initialised yet.
    let status = unsafe { initialize(&raw const config) };
    // SAFETY: filled above, and not used any more.
    unsafe { clear(&raw mut config) };
    status.check()
}

/// Whether this libpython is one this library is built for: with a lock or without one.
pub fn check_build() -> Result<(), &'static str> {
    let is_free_threaded = symbols::version_text().contains("free-threading");
    match (is_free_threaded, cfg!(free_threaded)) {
        (true, false) => Err("it is built to do without its lock, and our half of it is not"),
        (false, true) => Err("our half of it is built for one that can do without its lock"),
        _ => Ok(()),
    }
}

/// Whether threads wait for each other to run Python at this moment.
pub fn has_lock(py: Attached<'_>) -> Result<bool, Raised> {
    if !cfg!(free_threaded) {
        return Ok(true);
    }
    py.import(c"sys")?.attr(c"_is_gil_enabled")?.call(&[])?.is_true()
}

/// `PyInterpreterConfig`, the same from 3.12 to 3.15.
#[repr(C)]
struct InterpreterConfig {
    use_main_obmalloc: c_int,
    allow_fork: c_int,
    allow_exec: c_int,
    allow_threads: c_int,
    allow_daemon_threads: c_int,
    check_multi_interp_extensions: c_int,
    gil: c_int,
}

/// `PyInterpreterConfig_OWN_GIL`.
const OWN_GIL: c_int = 2;

/// Whether interpreters can have locks of their own: from 3.12 on.
pub fn can_own_gil() -> bool {
    symbols::find(c"Py_NewInterpreterFromConfig").is_some()
}

/// Whether an interpreter with a lock of its own can be ended: 3.12 has strings in it
/// that others know, and frees them with the wrong allocator.
pub fn can_end_own_gil() -> bool {
    symbols::version() >= Some((3, 13))
}

/// Makes a sub-interpreter with a lock of its own: its first thread state, which is
/// the current one then, or null with nothing changed.
///
/// # Safety
///
/// This thread is attached to the main interpreter.
pub unsafe fn new_interpreter() -> *mut py::PyThreadState {
    type New =
        unsafe extern "C" fn(*mut *mut py::PyThreadState, *const InterpreterConfig) -> Status;
    let Some(new) = symbols::find(c"Py_NewInterpreterFromConfig") else {
        return core::ptr::null_mut();
    };
    // SAFETY: CPython documents this signature for this name.
    let new = unsafe { core::mem::transmute::<*mut c_void, New>(new) };
    // As `Py_NewInterpreter`, but for what a lock of its own demands: extension modules
    // that say they can, and memory that is not shared.
    let config = InterpreterConfig {
        use_main_obmalloc: 0,
        allow_fork: 1,
        allow_exec: 1,
        allow_threads: 1,
        allow_daemon_threads: 1,
        check_multi_interp_extensions: 1,
        gil: OWN_GIL,
    };
    let mut state = core::ptr::null_mut();
    // SAFETY: attached to the main interpreter, by the caller's promise.
    let status = unsafe { new(&raw mut state, &raw const config) };
    if status.check().is_err() { core::ptr::null_mut() } else { state }
}
