//! Making Python objects out of Rust values, and running code.

use super::containers;
use super::object::{Builtin, Object, Raised};
use super::thread::Attached;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use pyo3_ffi as py;

impl<'p> Attached<'p> {
    /// Turns a status of 0 or -1 into a result.
    pub(super) fn check(self, status: c_int) -> Result<(), Raised> {
        if status == 0 { Ok(()) } else { Err(Raised::seen()) }
    }

    /// Whether an exception is set.
    pub fn has_raised(self) -> bool {
        // SAFETY: attached.
        !unsafe { py::PyErr_Occurred() }.is_null()
    }

    /// Sets an exception.
    pub fn raise(self, kind: Builtin, message: &str) -> Raised {
        match self.text(message) {
            Ok(text) => {
                // SAFETY: attached; class and text are alive.
                unsafe { py::PyErr_SetObject(kind.as_ptr(), text.as_ptr()) };
                Raised::seen()
            }
            Err(raised) => raised,
        }
    }

    /// Issues a DeprecationWarning, which may raise.
    pub fn warn_deprecated(self, message: &str) -> Result<(), Raised> {
        let warn = self.import(c"warnings")?.attr(c"warn")?;
        // SAFETY: set when Python was initialised, never changed.
        let kind = unsafe { py::PyExc_DeprecationWarning };
        // SAFETY: as above.
        let Some(kind) = (unsafe { Object::from_borrowed(self, kind) }) else { return Ok(()) };
        warn.call(&[&self.text(message)?, &kind]).map(drop)
    }

    /// `None`
    pub fn none(self) -> Object<'p> {
        // SAFETY: the address of an immortal object.
        let none = unsafe { py::Py_None() };
        // SAFETY: attached.
        unsafe { py::Py_INCREF(none) };
        // SAFETY: the reference just counted.
        unsafe { Object::from_owned(self, none) }.expect("a static has an address")
    }

    /// A `bool`.
    pub fn boolean(self, value: bool) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let value = unsafe { py::PyBool_FromLong(value.into()) };
        // SAFETY: a new reference.
        unsafe { Object::new(self, value) }
    }

    /// An `int`.
    pub fn int(self, value: i64) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let value = unsafe { py::PyLong_FromLongLong(value) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `float`.
    pub fn float(self, value: f64) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let value = unsafe { py::PyFloat_FromDouble(value) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `bytes`.
    pub fn bytes(self, value: &[u8]) -> Result<Object<'p>, Raised> {
        let (data, len) = parts(value);
        // SAFETY: attached; copies `len` bytes.
        let value = unsafe { py::PyBytes_FromStringAndSize(data, len) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `bytes` of `len` bytes, more than one, to be filled.
    pub fn blank(self, len: usize) -> Result<Blank<'p>, Raised> {
        // SAFETY: attached; no bytes to copy: they are to be written to it.
        let bytes =
            unsafe { py::PyBytes_FromStringAndSize(core::ptr::null(), len as py::Py_ssize_t) };
        // SAFETY: a new reference or null with an exception.
        let bytes = unsafe { Object::new(self, bytes) }?;
        // SAFETY: attached; a bytes object.
        let data = unsafe { py::PyBytes_AsString(bytes.as_ptr()) }.cast();
        Ok(Blank { bytes, filling: Filling { data, len, filled: 0 } })
    }

    /// A `str`.
    pub fn text(self, value: &str) -> Result<Object<'p>, Raised> {
        let (data, len) = parts(value.as_bytes());
        // SAFETY: attached; copies `len` bytes of UTF-8.
        let value = unsafe { py::PyUnicode_FromStringAndSize(data, len) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `str` that is interned, for keys and attribute names.
    pub fn name(self, value: &str) -> Result<Object<'p>, Raised> {
        let mut text = self.text(value)?.into_ptr();
        // SAFETY: attached; replaces our reference by one to the interned str.
        unsafe { py::PyUnicode_InternInPlace(&raw mut text) };
        // SAFETY: ours, see above.
        unsafe { Object::new(self, text) }
    }

    /// A `str` of latin-1 bytes, as PEP 3333 wants them.
    #[inline]
    pub fn latin1(self, value: &[u8]) -> Result<Object<'p>, Raised> {
        let (data, len) = parts(value);
        // SAFETY: attached; copies `len` bytes.
        let value = unsafe { py::PyUnicode_DecodeLatin1(data, len, core::ptr::null()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `str` of a file name's bytes.
    pub fn path(self, value: &[u8]) -> Result<Object<'p>, Raised> {
        let (data, len) = parts(value);
        // SAFETY: attached; copies `len` bytes.
        let value = unsafe { py::PyUnicode_DecodeFSDefaultAndSize(data, len) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, value) }
    }

    /// A `tuple` of `items`.
    pub fn tuple(self, items: &[&Object<'p>]) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let tuple = unsafe { py::PyTuple_New(items.len() as py::Py_ssize_t) };
        // SAFETY: a new reference or null with an exception.
        let tuple = unsafe { Object::new(self, tuple) }?;
        for (at, item) in items.iter().enumerate() {
            let item = (*item).clone().into_ptr();
            // SAFETY: attached; a new tuple with that many places; takes over `item`.
            unsafe { py::PyTuple_SetItem(tuple.as_ptr(), at as py::Py_ssize_t, item) };
        }
        Ok(tuple)
    }

    /// A new list.
    pub fn list(self) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let list = unsafe { py::PyList_New(0) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, list) }
    }

    /// A new dict.
    pub fn dict(self) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let dict = unsafe { py::PyDict_New() };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, dict) }
    }

    /// Imports a module.
    pub fn import(self, name: &CStr) -> Result<Object<'p>, Raised> {
        // SAFETY: attached; the name ends with NUL.
        let module = unsafe { py::PyImport_ImportModule(name.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, module) }
    }

    /// A new module that is not in `sys.modules`.
    pub fn new_module(self, name: &CStr) -> Result<Object<'p>, Raised> {
        // SAFETY: attached; the name ends with NUL.
        let module = unsafe { py::PyModule_New(name.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, module) }
    }

    /// The module `name` in `sys.modules`, made if it is not there.
    pub fn add_module(self, name: &Object<'p>) -> Result<Object<'p>, Raised> {
        containers::added_module(name)
    }

    /// `sys.modules`
    pub fn modules(self) -> Result<Object<'p>, Raised> {
        // SAFETY: attached.
        let modules = unsafe { py::PyImport_GetModuleDict() };
        // SAFETY: borrowed from the interpreter.
        unsafe { Object::from_borrowed(self, modules) }.ok_or(Raised::seen())
    }

    /// Executes `code` as the body of the module `name` in `sys.modules`; takes
    /// it out of there if that raises.
    pub fn run_module(
        self,
        name: &Object<'p>,
        code: &Object<'p>,
        path: &Object<'p>,
    ) -> Result<Object<'p>, Raised> {
        // SAFETY: attached; all three are alive; no cached path.
        let module = unsafe {
            py::PyImport_ExecCodeModuleObject(
                name.as_ptr(),
                code.as_ptr(),
                path.as_ptr(),
                null_mut(),
            )
        };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, module) }
    }

    /// Executes `code` with `globals`.
    pub fn run(self, code: &Object<'p>, globals: &Object<'p>) -> Result<Object<'p>, Raised> {
        // SAFETY: attached; a code object and a dict.
        let result =
            unsafe { py::PyEval_EvalCode(code.as_ptr(), globals.as_ptr(), globals.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(self, result) }
    }
}

/// A `bytes` that nobody else knows yet, being filled.
pub struct Blank<'p> {
    bytes: Object<'p>,
    filling: Filling,
}

impl<'p> Blank<'p> {
    /// What is to be filled.
    pub const fn filling(&mut self) -> &mut Filling {
        &mut self.filling
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes of a live object were written.
        unsafe { core::slice::from_raw_parts(self.filling.data, self.filling.filled) }
    }

    /// Whether all of it was written.
    pub const fn is_full(&self) -> bool {
        self.filling.filled == self.filling.len
    }

    /// The object, or a shorter one of what was written.
    pub fn finish(self) -> Result<Object<'p>, Raised> {
        if self.is_full() { Ok(self.bytes) } else { self.bytes.py().bytes(self.bytes()) }
    }
}

/// The memory of a [`Blank`], which lends it.
pub struct Filling {
    /// Where it lies.
    data: *mut u8,
    /// How much there is.
    len: usize,
    /// How much was written.
    filled: usize,
}

// SAFETY: plain memory that nobody else knows of, see `Blank`.
unsafe impl Send for Filling {}

impl Filling {
    /// Where the next bytes go, and how many there is room for.
    pub(super) const fn rest(&mut self) -> (*mut u8, usize) {
        (self.data.wrapping_add(self.filled), self.len - self.filled)
    }

    /// Notes that `count` bytes were written.
    pub(super) fn fill(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.len);
    }
}

/// A slice as CPython takes it.
fn parts(value: &[u8]) -> (*const c_char, py::Py_ssize_t) {
    (value.as_ptr().cast(), value.len() as py::Py_ssize_t)
}
