//! What threads run, as text: nothing here runs Python code, lets go of the GIL or
//! leaves a reference to a frame behind.
//!
//! Whoever drops the last reference to a frame ends what its variables hold, and
//! that is the application's code.  As long as the GIL is kept no frame that runs
//! can end, so a reference dropped before the GIL never is the last.

use super::object::{Object, Raised};
use super::stack::{Extent, Stack};
use super::symbols;
use super::thread::{Attached, Thread};
use core::ptr::{NonNull, null_mut};
use pyo3_ffi as py;

impl Attached<'_> {
    /// What the threads of this interpreter run, as far as it is Python code, and how
    /// many threads do.
    ///
    /// Not by `sys._current_frames`: that makes objects of this interpreter for the
    /// frames of all others, and those may end before them.
    pub fn stacks(self, extent: Extent) -> (Result<Vec<Stack>, Raised>, usize) {
        let mut count = 0;
        let found = self.stacks_where(extent.calls, |_| {
            count += 1;
            count <= extent.threads
        });
        (found, count)
    }

    /// What `thread` runs in this interpreter, if it is Python code.
    pub fn stack_of(self, thread: Thread, most: usize) -> Result<Option<Stack>, Raised> {
        let is_it = |state| thread.is(state);
        self.stacks_where(most, is_it).map(|mut found| found.pop())
    }

    /// The stacks of the threads that run Python code and are `wanted`.
    fn stacks_where(
        self,
        most: usize,
        mut wanted: impl FnMut(NonNull<py::PyThreadState>) -> bool,
    ) -> Result<Vec<Stack>, Raised> {
        // A collection would run finalizers, and those let other threads run: with
        // none, no state and no frame can go away.
        // SAFETY: attached.
        let was_collecting = unsafe { py::PyGC_Disable() };
        // SAFETY: attached.
        let interpreter = unsafe { py::PyInterpreterState_Get() };
        let states = symbols::thread_states(self, interpreter).unwrap_or_default();
        let mut found = Vec::new();
        let mut result = Ok(());
        for state in states {
            // SAFETY: a whole state, and not gone: that takes the GIL, which we have
            // had ever since it was listed.
            let frame = unsafe { py::PyThreadState_GetFrame(state.as_ptr()) };
            // SAFETY: a new reference or null.
            let frame = unsafe { Object::from_owned(self, frame.cast()) };
            let Some(frame) = frame.filter(|_| wanted(state)) else { continue };
            match stack(state, frame, most) {
                Ok(stack) => found.push(stack),
                Err(raised) => {
                    result = Err(raised);
                    break;
                }
            }
        }
        if was_collecting != 0 {
            // SAFETY: attached.
            unsafe { py::PyGC_Enable() };
        }
        result.map(|()| found)
    }
}

/// The stack whose innermost call is `frame`.
fn stack(
    state: NonNull<py::PyThreadState>,
    mut frame: Object<'_>,
    most: usize,
) -> Result<Stack, Raised> {
    let (mut lines, mut depth) = (Vec::new(), 0_usize);
    loop {
        depth += 1;
        let code = code(&frame)?;
        if depth <= most {
            lines.push(line(&frame, &code)?);
        }
        let outer = frame.attr(c"f_back")?;
        if outer.is_none() {
            let name = if is_bootstrap(&code)? { name(&frame)? } else { None };
            lines.reverse();
            return Ok(Stack { mark: state, name, lines, earlier: depth.saturating_sub(most) });
        }
        frame = outer;
    }
}

/// The code of `frame`; its attribute `f_code` would tell audit hooks, which are
/// the application's code.
fn code<'p>(frame: &Object<'p>) -> Result<Object<'p>, Raised> {
    // SAFETY: attached, as the object proves; a frame.
    let code = unsafe { py::PyFrame_GetCode(frame.as_ptr().cast()) };
    // SAFETY: a new reference.
    unsafe { Object::new(frame.py(), code.cast()) }
}

/// Whether it is the code `threading` starts a thread with: not asked for there, where
/// the application may have put anything, and which it may never have imported.
fn is_bootstrap(code: &Object<'_>) -> Result<bool, Raised> {
    Ok(code.attr(c"co_name")?.encoded()? == "_bootstrap"
        && code.attr(c"co_filename")?.encoded()?.ends_with("/threading.py"))
}

/// The line of a traceback for `frame`.
fn line(frame: &Object<'_>, code: &Object<'_>) -> Result<String, Raised> {
    // SAFETY: attached, as the object proves; a frame.
    let number = unsafe { py::PyFrame_GetLineNumber(frame.as_ptr().cast()) };
    let file = code.attr(c"co_filename")?.encoded()?;
    let name = code.attr(c"co_name")?.encoded()?;
    Ok(format!("  File \"{file}\", line {number}, in {name}"))
}

/// What `threading` calls the thread that began with `frame`: the list of threads it
/// keeps has a lock, which a thread that hangs may hold.
fn name(frame: &Object<'_>) -> Result<Option<(i64, String)>, Raised> {
    let py = frame.py();
    let locals = frame.attr(c"f_locals")?;
    // A dict, or what looks like one in C: 3.13.
    let key = py.name("self")?;
    // SAFETY: attached, as the object proves; both are alive.
    let thread = unsafe { py::PyObject_GetItem(locals.as_ptr(), key.as_ptr()) };
    // SAFETY: a new reference or null with an exception.
    let thread = match unsafe { Object::new(py, thread) } {
        Ok(thread) => thread,
        Err(raised) => {
            raised.clear(py);
            return Ok(None);
        }
    };
    // Its attributes may be computed by a subclass of the application's.
    // SAFETY: attached, as the object proves; an object.
    let own = unsafe { py::PyObject_GenericGetDict(thread.as_ptr(), null_mut()) };
    // SAFETY: a new reference or null with an exception.
    let own = unsafe { Object::new(py, own) }?;
    let number = own.dict_get(&py.name("_ident")?).and_then(|number| number.exact_i64());
    let name = own.dict_get(&py.name("_name")?).filter(Object::is_text);
    match (number, name) {
        (Some(number), Some(name)) => Ok(Some((number, name.encoded()?))),
        _ => Ok(None),
    }
}
