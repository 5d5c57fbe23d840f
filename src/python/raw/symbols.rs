//! Functions of libpython outside the stable ABI, found at run time.

use super::stacks::{Dump, HiddenDump, PublicDump};
use super::thread::Attached;
use core::ffi::{CStr, c_int, c_void};
#[cfg(not(free_threaded))]
use core::ptr::NonNull;
use pyo3_ffi as py;
use std::ffi::CString;

/// The address of `name` in the libpython loaded before us.
pub(super) fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` ends with NUL; the search does not run anything.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A text as Python takes it before it starts; it lives for ever.
pub(super) fn decode(text: &CStr) -> Result<*mut libc::wchar_t, &'static str> {
    type Decode = unsafe extern "C" fn(*const libc::c_char, *mut usize) -> *mut libc::wchar_t;
    let decode = find(c"Py_DecodeLocale").ok_or("libpython has no Py_DecodeLocale")?;
    // SAFETY: CPython documents this signature for this name.
    let decode = unsafe { core::mem::transmute::<*mut c_void, Decode>(decode) };
    // SAFETY: a text that ends with NUL; a null size is allowed.
    let wide = unsafe { decode(text.as_ptr(), core::ptr::null_mut()) };
    if wide.is_null() { Err("its name cannot be decoded") } else { Ok(wide) }
}

/// Tells Python which binary it is, before it starts; the text must live for
/// ever, because CPython up to 3.10 keeps the pointer.
pub fn set_program_name(program: &[u8]) -> Result<(), &'static str> {
    type Set = unsafe extern "C" fn(*const libc::wchar_t);
    let program = CString::new(program).map_err(|_| "its name holds a NUL")?;
    let wide = decode(&program)?;
    let set = find(c"Py_SetProgramName").ok_or("libpython has no Py_SetProgramName")?;
    // SAFETY: CPython documents this signature for this name.
    let set = unsafe { core::mem::transmute::<*mut c_void, Set>(set) };
    // SAFETY: a wide text that is never freed, before Python is initialised.
    unsafe { set(wide) };
    Ok(())
}

/// `PyInterpreterState_ThreadHead`
type Head = unsafe extern "C" fn(*mut py::PyInterpreterState) -> *mut py::PyThreadState;

/// `PyThreadState_Next`
type Next = unsafe extern "C" fn(*mut py::PyThreadState) -> *mut py::PyThreadState;

/// What goes through the thread states of an interpreter, if this libpython has it.
fn list_functions() -> Option<(Head, Next)> {
    let head = find(c"PyInterpreterState_ThreadHead")?;
    let next = find(c"PyThreadState_Next")?;
    // SAFETY: CPython documents this signature for this name.
    let head = unsafe { core::mem::transmute::<*mut c_void, Head>(head) };
    // SAFETY: CPython documents this signature for this name.
    let next = unsafe { core::mem::transmute::<*mut c_void, Next>(next) };
    Some((head, next))
}

/// The thread states of `interpreter`, to which the caller is attached; None if
/// this libpython does not tell.
#[cfg(not(free_threaded))]
pub fn thread_states(
    py: Attached<'_>,
    interpreter: *mut py::PyInterpreterState,
) -> Option<Vec<NonNull<py::PyThreadState>>> {
    let (head, next) = list_functions()?;
    let mut states = Vec::new();
    // SAFETY: the caller's interpreter is alive, and the caller holds its GIL.
    let mut state = unsafe { head(interpreter) };
    // A thread makes its state without the GIL.  CPython 3.11 puts it at the head of
    // the list before it knows what follows it.
    py.wait_for_states();
    while let Some(found) = NonNull::new(state) {
        states.push(found);
        // SAFETY: a whole state, see above, and one that stays: new ones go in front of
        // the head, and none is deleted while the GIL is held.
        state = unsafe { next(found.as_ptr()) };
    }
    Some(states)
}

/// How many thread states `interpreter` has, to which the caller is attached; None if
/// this libpython does not tell.
#[cfg(not(free_threaded))]
pub fn count_states(py: Attached<'_>, interpreter: *mut py::PyInterpreterState) -> Option<usize> {
    thread_states(py, interpreter).map(|states| states.len())
}

/// How many thread states `interpreter` has, to which the caller is attached; None if
/// this libpython does not tell.
///
/// Threads make and delete their states at any time, but not while a garbage collector
/// has stopped them: so it is asked to look at an object, and this is done instead.
#[cfg(free_threaded)]
pub fn count_states(_: Attached<'_>, interpreter: *mut py::PyInterpreterState) -> Option<usize> {
    /// What [`look`] is to do.
    struct Order {
        interpreter: *mut py::PyInterpreterState,
        functions: (Head, Next),
        count: usize,
    }
    /// Counts, and wants to be shown no other object.
    ///
    /// # Safety
    ///
    /// For `PyUnstable_GC_VisitObjects`, with an [`Order`].
    unsafe extern "C" fn look(_: *mut py::PyObject, order: *mut c_void) -> c_int {
        // SAFETY: the order below, which nobody else uses meanwhile.
        let order = unsafe { &mut *order.cast::<Order>() };
        let (head, next) = order.functions;
        // SAFETY: an interpreter that is alive, under the lock of its list.
        let mut state = unsafe { head(order.interpreter) };
        while !state.is_null() {
            order.count += 1;
            // SAFETY: a state of the list, whose lock the collector holds.
            state = unsafe { next(state) };
        }
        0
    }
    type Look = unsafe extern "C" fn(*mut py::PyObject, *mut c_void) -> c_int;
    type Visit = unsafe extern "C" fn(Look, *mut c_void);
    let visit = find(c"PyUnstable_GC_VisitObjects")?;
    // SAFETY: CPython documents this signature for this name.
    let visit = unsafe { core::mem::transmute::<*mut c_void, Visit>(visit) };
    let mut order = Order { interpreter, functions: list_functions()?, count: 0 };
    // SAFETY: attached; `look` makes and ends no object and takes no lock.
    unsafe { visit(look, (&raw mut order).cast()) };
    Some(order.count)
}

/// What `faulthandler` shows the threads of an interpreter by, where this libpython
/// exports it and is one whose signature of it is known.
pub fn dump_threads() -> Option<Dump> {
    if let Some(dump) = find(c"PyUnstable_DumpTracebackThreads") {
        // SAFETY: the signature of this name in 3.15, cpython/traceback.h.
        return Some(Dump::Public(unsafe {
            core::mem::transmute::<*mut c_void, PublicDump>(dump)
        }));
    }
    if version()? > (3, 13) {
        return None;
    }
    let dump = find(c"_Py_DumpTracebackThreads")?;
    // SAFETY: the signature of this name in 3.10 to 3.13, pycore_traceback.h.
    Some(Dump::Hidden(unsafe { core::mem::transmute::<*mut c_void, HiddenDump>(dump) }))
}

/// The version of this libpython, such as `3.11.2`.
pub fn version_number() -> &'static str {
    version_text().split(' ').next().unwrap_or_default()
}

/// What this libpython says of its version and build.
pub fn version_text() -> &'static str {
    // SAFETY: may be called at any time.
    let text = unsafe { py::Py_GetVersion() };
    // SAFETY: a static text that ends with NUL.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default()
}

/// The version of this libpython: major and minor number.
pub fn version() -> Option<(u32, u32)> {
    let text = version_text();
    let mut numbers = text.split(['.', ' ', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether Python is initialised.
pub fn is_running() -> bool {
    // SAFETY: may be called at any time.
    let answer: c_int = unsafe { py::Py_IsInitialized() };
    answer != 0
}
