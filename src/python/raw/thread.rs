//! The right to run Python on a thread, and one kept thread state for each
//! thread and interpreter.
//!
//! The state of the main interpreter comes first on every thread: CPython gives
//! extension modules that call `PyGILState_Ensure` a thread's first one.  No state
//! needs the GIL to be made: a thread may want an interpreter while another one
//! keeps the GIL (see [`shares_lock_fairly`]).

use super::object::Object;
use super::{configuration, stacks, symbols};
use crate::options::Options;
use crate::tally;
use core::ffi::{c_long, c_ulong};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use pyo3_ffi as py;
use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{PoisonError, RwLock};

/// Proof that this thread may run Python.  It cannot leave its thread, nor enter
/// the closure of [`Attached::detached`].
#[derive(Clone, Copy)]
pub struct Attached<'p> {
    _lease: PhantomData<&'p ()>,
    _not_send: PhantomData<*mut ()>,
}

impl Attached<'_> {
    /// # Safety
    ///
    /// This thread is attached for as long as the lifetime the caller picks.
    pub(super) const unsafe fn assume() -> Self {
        Self { _lease: PhantomData, _not_send: PhantomData }
    }

    /// Lets other threads run Python while `wait` blocks on something else.
    pub fn detached<T>(self, wait: impl FnOnce() -> T + Send) -> T {
        /// Attaches again, also when `wait` panics.
        struct Back(*mut py::PyThreadState);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the state saved below, on the same thread.
                tally::wait(|| unsafe { py::PyEval_RestoreThread(self.0) });
            }
        }
        // SAFETY: `self` proves this thread is attached.
        let _back = Back(unsafe { py::PyEval_SaveThread() });
        wait()
    }
}

/// A thread, by its state in an interpreter and the number Python knows it by
/// (`threading.get_ident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Only ever compared.
    state: NonNull<py::PyThreadState>,
    ident: c_ulong,
}

// SAFETY: the pointer is compared, never followed.
unsafe impl Send for Thread {}

impl fmt::Display for Thread {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ident.fmt(to)
    }
}

/// What a stack is found by: a thread's state, only ever compared.
#[cfg(not(free_threaded))]
pub(super) type Mark = NonNull<py::PyThreadState>;

/// What a stack is found by: a thread's number.
#[cfg(free_threaded)]
pub(super) type Mark = i64;

impl Thread {
    /// Whether `mark` is its.
    #[cfg(not(free_threaded))]
    pub(super) fn is(self, mark: Mark) -> bool {
        self.state == mark
    }

    /// Whether `mark` is its.
    #[cfg(free_threaded)]
    pub(super) fn is(self, mark: Mark) -> bool {
        u64::try_from(mark) == Ok(self.ident)
    }
}

impl Attached<'_> {
    /// This thread.
    pub fn thread(self) -> Thread {
        // SAFETY: attached.
        let state = NonNull::new(unsafe { py::PyThreadState_Get() });
        // SAFETY: asks for a number.
        let ident = unsafe { py::PyThread_get_thread_ident() };
        Thread { state: state.expect("an attached thread has a state"), ident }
    }

    /// Waits until every thread state that is listed is whole: CPython lists a new one
    /// before that, all under the lock this takes.
    #[cfg(not(free_threaded))]
    pub(super) fn wait_for_states(self) {
        // No thread has this number (PYTHREAD_INVALID_THREAD_ID); 0 is that of a state
        // no thread has taken.
        let nobody = c_ulong::MAX;
        // SAFETY: attached; sets nothing on any thread.
        unsafe { py::PyThreadState_SetAsyncExc(nobody as c_long, null_mut()) };
    }

    /// Makes `thread` raise `class` as soon as it runs Python code in this
    /// interpreter; false if it has no state here.
    ///
    /// Takes no lock that is held while Python code runs.  Runs none, unless the
    /// application told the thread to raise something of its own, whose last reference
    /// this drops.
    pub fn raise_in(self, thread: Thread, class: &Object<'_>) -> bool {
        // SAFETY: attached; an exception class, to which Python takes a reference.
        unsafe { py::PyThreadState_SetAsyncExc(thread.ident as c_long, class.as_ptr()) != 0 }
    }

    /// Forgets what [`Self::raise_in`] told this thread to raise, if it has not yet.
    pub fn forget_raise(self) {
        let own = self.thread();
        // SAFETY: attached; null takes back what was set.
        unsafe { py::PyThreadState_SetAsyncExc(own.ident as c_long, null_mut()) };
    }
}

/// False once Python is being ended: no thread may touch its states any more.
static ALIVE: RwLock<bool> = RwLock::new(false);

/// The main interpreter, once there is one.
static MAIN: AtomicPtr<py::PyInterpreterState> = AtomicPtr::new(null_mut());

/// This thread's states.
struct States {
    /// Whether this thread started Python: it ends with the process, whose last
    /// moments are not to be spent waiting for Python.
    is_starter: bool,
    /// The main interpreter's.
    main: Option<NonNull<py::PyThreadState>>,
    /// Those of sub-interpreters, by their number.
    others: Vec<(usize, NonNull<py::PyThreadState>)>,
}

thread_local! {
    static STATES: RefCell<States> =
        const { RefCell::new(States { is_starter: false, main: None, others: Vec::new() }) };
}

impl Drop for States {
    /// Gives the states back when the thread ends, or Python would count on a
    /// thread that is gone.
    fn drop(&mut self) {
        // It ends with the process, perhaps by a signal (prefork) that came while
        // it was attached: waiting for Python would be waiting for itself.
        if is_process_main_thread() {
            return;
        }
        let alive = ALIVE.read().unwrap_or_else(PoisonError::into_inner);
        if !*alive || self.is_starter {
            return;
        }
        for (_, state) in self.others.drain(..) {
            delete(state);
        }
        if let Some(main) = self.main {
            delete(main);
        }
    }
}

/// Whether this is the thread the process began with.
fn is_process_main_thread() -> bool {
    // SAFETY: asks for a number.
    let thread = unsafe { libc::gettid() };
    u32::try_from(thread) == Ok(std::process::id())
}

unsafe extern "C" {
    /// Deletes the current thread state and lets others run.
    #[link_name = "PyThreadState_DeleteCurrent"]
    fn delete_current();
}

/// An interpreter.
#[derive(Debug)]
pub struct Interpreter {
    state: NonNull<py::PyInterpreterState>,
    /// 0 is the main interpreter; never used twice in a process.
    number: usize,
    /// The state a sub-interpreter was made with, kept until its end: CPython
    /// 3.11 cannot make a state for an interpreter that has none left.
    reserve: Option<NonNull<py::PyThreadState>>,
    /// Whether its lock is its own; else it is the main interpreter's.
    owns_gil: bool,
}

// SAFETY: the pointer is only used to make thread states, which takes CPython's
// own lock.
unsafe impl Send for Interpreter {}
// SAFETY: as above.
unsafe impl Sync for Interpreter {}

/// This thread is attached to an interpreter until this is dropped.
///
/// At most one per thread: a second would wait for the first for ever.
pub struct Lease<'i> {
    _interpreter: PhantomData<&'i Interpreter>,
}

impl Lease<'_> {
    /// The proof.
    #[inline]
    pub const fn py(&self) -> Attached<'_> {
        // SAFETY: attached until `self` is dropped, which the lifetime prevents.
        unsafe { Attached::assume() }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // SAFETY: attached since this lease was made.
        unsafe { py::PyEval_SaveThread() };
    }
}

/// This thread's state of the main interpreter, made on first use.
fn main_state() -> Option<NonNull<py::PyThreadState>> {
    STATES.with_borrow_mut(|states| {
        if states.main.is_none() {
            let main = NonNull::new(MAIN.load(Ordering::Acquire))?;
            // SAFETY: the main interpreter, which lives as long as Python; needs no GIL.
            states.main = NonNull::new(unsafe { py::PyThreadState_New(main.as_ptr()) });
        }
        states.main
    })
}

/// Whether a thread that waits for the GIL gets it although a thread of another
/// interpreter computes: up to 3.12 CPython asks the interpreter of the waiting
/// thread to let go, not that of the thread that has it.
pub fn shares_lock_fairly() -> bool {
    symbols::version() >= Some((3, 13))
}

impl Interpreter {
    /// Attaches this thread; waits until no other is.
    #[inline]
    pub fn attach(&self) -> Option<Lease<'_>> {
        let state = self.state_of_this_thread()?;
        // SAFETY: this thread's state, and it has no other lease.
        unsafe { py::PyEval_RestoreThread(state.as_ptr()) };
        Some(Lease { _interpreter: PhantomData })
    }

    /// This thread's state for this interpreter, made on first use.
    fn state_of_this_thread(&self) -> Option<NonNull<py::PyThreadState>> {
        let main = main_state()?;
        if self.number == 0 {
            return Some(main);
        }
        STATES.with_borrow_mut(|states| {
            let known = states.others.iter().find(|(number, _)| *number == self.number);
            if let Some((_, state)) = known {
                return Some(*state);
            }
            // SAFETY: the interpreter is alive; needs no GIL.
            let state = NonNull::new(unsafe { py::PyThreadState_New(self.state.as_ptr()) })?;
            states.others.push((self.number, state));
            Some(state)
        })
    }

    /// Waits for the GIL as a thread of this interpreter, and gives it up: a thread
    /// that computes in this interpreter lets go of it.  For a thread that does
    /// nothing else: it is left without a state.
    pub fn nudge(&self) {
        // SAFETY: the interpreter is alive; needs no GIL.
        let state = unsafe { py::PyThreadState_New(self.state.as_ptr()) };
        if let Some(state) = NonNull::new(state) {
            delete(state);
        }
    }

    /// Whether its lock is its own.
    pub const fn owns_gil(&self) -> bool {
        self.owns_gil
    }

    /// Makes a sub-interpreter, if so wanted with a lock of its own.
    pub fn create(main: &Self, number: usize, owns_gil: bool) -> Option<Self> {
        let lease = main.attach()?;
        let state = if owns_gil {
            // SAFETY: attached to the main interpreter.
            unsafe { configuration::new_interpreter() }
        } else {
            // SAFETY: attached to the main interpreter.
            unsafe { py::Py_NewInterpreter() }
        };
        // With null the thread is still attached to the main interpreter.
        let state = NonNull::new(state)?;
        // From here on attached to the new one.
        core::mem::forget(lease);
        // SAFETY: the current state.
        let interpreter = unsafe { py::PyThreadState_GetInterpreter(state.as_ptr()) };
        // SAFETY: attached.
        unsafe { py::PyEval_SaveThread() };
        stacks::add(interpreter);
        Some(Self { state: NonNull::new(interpreter)?, number, reserve: Some(state), owns_gil })
    }

    /// Ends a sub-interpreter if no thread has a state in it but the caller's:
    /// CPython aborts the process otherwise.  Says whether it is gone.
    ///
    /// For the thread that ends Python.
    pub fn end(&self) -> bool {
        let Some(reserve) = self.reserve else { return false };
        if self.owns_gil && !configuration::can_end_own_gil() {
            return false;
        }
        let own = STATES.with_borrow_mut(|states| {
            let at = states.others.iter().position(|(number, _)| *number == self.number)?;
            Some(states.others.swap_remove(at).1)
        });
        if let Some(own) = own {
            delete(own);
        }
        let Some(main) = main_state() else { return false };
        // SAFETY: kept since the interpreter was made, and used here only.
        unsafe { py::PyEval_RestoreThread(reserve.as_ptr()) };
        if !has_one_state(self.state) {
            // SAFETY: attached two lines above.
            unsafe { py::PyEval_SaveThread() };
            return false;
        }
        stacks::remove(self.state.as_ptr());
        // SAFETY: the current state, and the interpreter's only one.
        unsafe { py::Py_EndInterpreter(reserve.as_ptr()) };
        // SAFETY: this thread's state; after the end of an interpreter none is current.
        unsafe { py::PyThreadState_Swap(main.as_ptr()) };
        // SAFETY: attached by the line above.
        unsafe { py::PyEval_SaveThread() };
        true
    }
}

/// Whether an interpreter, to which the caller is attached, has but one state.
fn has_one_state(interpreter: NonNull<py::PyInterpreterState>) -> bool {
    // SAFETY: the caller is attached.
    let py = unsafe { Attached::assume() };
    symbols::count_states(py, interpreter.as_ptr()) == Some(1)
}

/// Deletes a state that is not in use.
fn delete(state: NonNull<py::PyThreadState>) {
    // SAFETY: a state of this thread, not in use: no lease outlives its call.
    unsafe { py::PyEval_RestoreThread(state.as_ptr()) };
    // SAFETY: the current state; runs the finalizers of its thread locals.
    unsafe { py::PyThreadState_Clear(state.as_ptr()) };
    // SAFETY: cleared just above; deletes it and detaches.
    unsafe { delete_current() };
}

/// Starts Python on this thread, its main thread; leaves it detached.
pub fn initialize(program: &[u8], options: &Options) -> Result<Interpreter, String> {
    if symbols::is_running() {
        return Err("it is running already".to_owned());
    }
    configuration::check_build()?;
    if !program.is_empty() {
        symbols::set_program_name(program)?;
    }
    configuration::initialize(options)?;
    // SAFETY: attached by the line above.
    let interpreter = unsafe { py::PyInterpreterState_Get() };
    // SAFETY: attached.
    let state = unsafe { py::PyEval_SaveThread() };
    STATES.with_borrow_mut(|states| {
        states.is_starter = true;
        states.main = NonNull::new(state);
    });
    MAIN.store(interpreter, Ordering::Release);
    stacks::add(interpreter);
    *ALIVE.write().unwrap_or_else(PoisonError::into_inner) = true;
    Ok(Interpreter {
        state: NonNull::new(interpreter).ok_or("it has no main interpreter")?,
        number: 0,
        reserve: None,
        owns_gil: false,
    })
}

/// From here on no ending thread gives back its states.
pub fn stop_threads() {
    *ALIVE.write().unwrap_or_else(PoisonError::into_inner) = false;
}

/// Ends Python, unless another thread has a state in it.
///
/// A daemon thread is ended by unwinding its stack as soon as it wants to run
/// Python again; with a frame of ours on it, that aborts the process.
///
/// For the thread that called [`initialize`], when no sub-interpreter is left
/// and no other thread is inside one of our calls.
pub fn finalize(main: &Interpreter) {
    let Some(lease) = main.attach() else { return };
    if !has_one_state(main.state) {
        return;
    }
    core::mem::forget(lease);
    stacks::remove(main.state.as_ptr());
    // SAFETY: attached to the main interpreter on its main thread.
    unsafe { py::Py_FinalizeEx() };
}

/// What a callback from Python, which runs attached, may raise after a panic.
pub(super) fn raise_panic() -> *mut py::PyObject {
    // SAFETY: set when Python was initialised, never changed.
    let class = unsafe { py::PyExc_SystemError };
    // SAFETY: callbacks run attached; the text ends with NUL.
    unsafe { py::PyErr_SetString(class, c"internal error of mod_wsgi_rs".as_ptr()) };
    core::ptr::null_mut()
}
