//! Owned references and what can be done with them.
#![cfg_attr(
    free_threaded,
    expect(deprecated, reason = "3.10 has nothing else, and one text serves both builds")
)]

use super::containers;
use super::thread::Attached;
use core::ffi::CStr;
use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null_mut};
use pyo3_ffi as py;
use std::fmt;
#[cfg(free_threaded)]
use std::sync::atomic::Ordering;

/// A Python exception is set on this thread.
///
/// Whoever gets this returns it to Python or takes it with [`Raised::take`].
#[derive(Debug)]
#[must_use]
pub struct Raised(());

impl Raised {
    /// What the caller, who saw an API report an exception, has.
    pub(super) const fn seen() -> Self {
        Self(())
    }

    /// Takes the exception off the thread.
    pub fn take(self, py: Attached<'_>) -> Exception<'_> {
        let (mut kind, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
        // SAFETY: attached; three places to fill.
        unsafe { py::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut trace) };
        if kind.is_null() {
            // An extension module said it raised, and did not.
            let silent = py.raise(Builtin::SystemError, "an error came without an exception");
            return silent.take(py);
        }
        // SAFETY: the three values just fetched.
        unsafe { py::PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut trace) };
        // SAFETY: owned by us since the fetch, null or alive.
        let value = unsafe { Object::from_owned(py, value) };
        // SAFETY: as above.
        let trace = unsafe { Object::from_owned(py, trace) };
        // SAFETY: as above.
        drop(unsafe { Object::from_owned(py, kind) });
        let value = value.unwrap_or_else(|| py.none());
        if let Some(trace) = trace {
            // SAFETY: attached; a normalised exception takes a traceback.
            unsafe { py::PyException_SetTraceback(value.as_ptr(), trace.as_ptr()) };
        }
        Exception { value }
    }

    /// Forgets the exception.
    pub fn clear(self, py: Attached<'_>) {
        drop(self.take(py));
    }
}

/// An exception taken off the thread.
pub struct Exception<'p> {
    value: Object<'p>,
}

impl<'p> Exception<'p> {
    /// The exception object.
    pub const fn value(&self) -> &Object<'p> {
        &self.value
    }

    /// Sets it again.
    pub fn raise(self) -> Raised {
        let value = self.value.into_ptr();
        // SAFETY: the object is alive, so is its type.
        let kind = unsafe { py::Py_TYPE(value) };
        // SAFETY: as above; the exception holds a reference to it.
        unsafe { py::Py_INCREF(kind.cast()) };
        // SAFETY: an exception, or null.
        let trace = unsafe { py::PyException_GetTraceback(value) };
        // SAFETY: attached; takes over the three references.
        unsafe { py::PyErr_Restore(kind.cast(), value, trace) };
        Raised(())
    }

    /// Whether it is a `kind`.
    pub fn is(&self, kind: Builtin) -> bool {
        // SAFETY: attached, as the object proves; both objects are alive.
        unsafe { py::PyErr_GivenExceptionMatches(self.value.as_ptr(), kind.as_ptr()) != 0 }
    }

    /// Whether it is an instance of `class`.
    pub fn is_a(&self, class: &Object<'p>) -> bool {
        // SAFETY: attached, as the object proves; both objects are alive.
        unsafe { py::PyErr_GivenExceptionMatches(self.value.as_ptr(), class.as_ptr()) != 0 }
    }
}

/// Exception classes of Python's own; they are the same in all interpreters.
#[derive(Debug, Clone, Copy)]
pub enum Builtin {
    /// `AttributeError`
    AttributeError,
    /// `OSError`
    OsError,
    /// `RuntimeError`
    RuntimeError,
    /// `MemoryError`
    MemoryError,
    /// `SystemError`
    SystemError,
    /// `SystemExit`
    SystemExit,
    /// `TypeError`
    TypeError,
    /// `ValueError`
    ValueError,
}

impl Builtin {
    /// The class.
    pub(super) fn as_ptr(self) -> *mut py::PyObject {
        let place = match self {
            Self::AttributeError => &raw const py::PyExc_AttributeError,
            Self::OsError => &raw const py::PyExc_OSError,
            Self::RuntimeError => &raw const py::PyExc_RuntimeError,
            Self::MemoryError => &raw const py::PyExc_MemoryError,
            Self::SystemError => &raw const py::PyExc_SystemError,
            Self::SystemExit => &raw const py::PyExc_SystemExit,
            Self::TypeError => &raw const py::PyExc_TypeError,
            Self::ValueError => &raw const py::PyExc_ValueError,
        };
        // SAFETY: set when Python was initialised, never changed.
        unsafe { *place }
    }
}

/// A reference we own, usable while attached.
pub struct Object<'p> {
    pointer: NonNull<py::PyObject>,
    py: Attached<'p>,
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Python's own repr would run the application's code.
        write!(to, "Object({:p})", self.pointer)
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        // SAFETY: attached for as long as 'p; the reference is ours.
        unsafe { py::Py_DECREF(self.pointer.as_ptr()) };
    }
}

impl Clone for Object<'_> {
    fn clone(&self) -> Self {
        // SAFETY: attached for as long as 'p; the object is alive.
        unsafe { py::Py_INCREF(self.pointer.as_ptr()) };
        Self { pointer: self.pointer, py: self.py }
    }
}

impl<'p> Object<'p> {
    /// # Safety
    ///
    /// `pointer` is null or a reference that becomes ours.
    pub(super) unsafe fn from_owned(py: Attached<'p>, pointer: *mut py::PyObject) -> Option<Self> {
        Some(Self { pointer: NonNull::new(pointer)?, py })
    }

    /// # Safety
    ///
    /// `pointer` is null, with an exception set, or a reference that becomes ours.
    pub(super) unsafe fn new(py: Attached<'p>, pointer: *mut py::PyObject) -> Result<Self, Raised> {
        // SAFETY: the caller's promise.
        unsafe { Self::from_owned(py, pointer) }.ok_or(Raised(()))
    }

    /// # Safety
    ///
    /// `pointer` is null or alive.
    pub(super) unsafe fn from_borrowed(
        py: Attached<'p>,
        pointer: *mut py::PyObject,
    ) -> Option<Self> {
        let pointer = NonNull::new(pointer)?;
        // SAFETY: attached; the caller promises it is alive.
        unsafe { py::Py_INCREF(pointer.as_ptr()) };
        Some(Self { pointer, py })
    }

    /// The pointer, for a call that borrows it.
    pub(super) const fn as_ptr(&self) -> *mut py::PyObject {
        self.pointer.as_ptr()
    }

    /// Gives the reference to a caller in C.
    pub(super) fn into_ptr(self) -> *mut py::PyObject {
        ManuallyDrop::new(self).pointer.as_ptr()
    }

    /// The proof this reference lives by.
    pub const fn py(&self) -> Attached<'p> {
        self.py
    }

    /// Keeps the reference beyond this attachment.
    pub fn keep(self) -> Kept {
        Kept(ManuallyDrop::new(self).pointer)
    }

    /// The attribute `name`.
    pub fn attr(&self, name: &CStr) -> Result<Self, Raised> {
        // SAFETY: attached; object and name are alive.
        let found = unsafe { py::PyObject_GetAttrString(self.as_ptr(), name.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, found) }
    }

    /// The attribute `name`, an interned str.
    pub fn attr_of(&self, name: &Object<'p>) -> Result<Self, Raised> {
        // SAFETY: attached; object and name are alive.
        let found = unsafe { py::PyObject_GetAttr(self.as_ptr(), name.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, found) }
    }

    /// What a module defines as `name`, without running code of it; None also for
    /// what is no module.
    pub fn defined(&self, name: &Object<'p>) -> Option<Self> {
        // SAFETY: attached; the object is alive.
        if unsafe { py::PyModule_Check(self.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: attached; a module, which keeps its dict.
        let dict = unsafe { py::PyModule_GetDict(self.as_ptr()) };
        // SAFETY: borrowed from the module.
        unsafe { Self::from_borrowed(self.py, dict) }?.dict_get(name)
    }

    /// Which `bool` it is, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        // SAFETY: the address of an immortal object.
        if self.as_ptr() == unsafe { py::Py_True() } {
            return Some(true);
        }
        // SAFETY: as above.
        (self.as_ptr() == unsafe { py::Py_False() }).then_some(false)
    }

    /// Whether Python takes it for true.
    pub fn is_true(&self) -> Result<bool, Raised> {
        // SAFETY: attached; the object is alive.
        match unsafe { py::PyObject_IsTrue(self.as_ptr()) } {
            -1 => Err(Raised(())),
            answer => Ok(answer != 0),
        }
    }

    /// Sets the attribute `name`.
    pub fn set_attr(&self, name: &CStr, value: &Object<'p>) -> Result<(), Raised> {
        // SAFETY: attached; all three are alive.
        self.py.check(unsafe {
            py::PyObject_SetAttrString(self.as_ptr(), name.as_ptr(), value.as_ptr())
        })
    }

    /// Calls it with positional arguments.
    pub fn call(&self, args: &[&Object<'p>]) -> Result<Self, Raised> {
        if args.is_empty() {
            // SAFETY: attached; the object is alive.
            let result = unsafe { py::PyObject_CallNoArgs(self.as_ptr()) };
            // SAFETY: a new reference or null with an exception.
            return unsafe { Self::new(self.py, result) };
        }
        let args = self.py.tuple(args)?;
        // SAFETY: attached; callable and tuple are alive, no keywords.
        let result = unsafe { py::PyObject_Call(self.as_ptr(), args.as_ptr(), null_mut()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, result) }
    }

    /// Its iterator.
    pub fn iterate(&self) -> Result<Self, Raised> {
        // SAFETY: attached; the object is alive.
        let iterator = unsafe { py::PyObject_GetIter(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, iterator) }
    }

    /// The next item of an iterator; None at its end.
    pub fn next(&self) -> Result<Option<Self>, Raised> {
        // SAFETY: attached; only called on what `iterate` gave.
        let item = unsafe { py::PyIter_Next(self.as_ptr()) };
        // SAFETY: a new reference or null.
        match unsafe { Self::from_owned(self.py, item) } {
            Some(item) => Ok(Some(item)),
            None if self.py.has_raised() => Err(Raised(())),
            None => Ok(None),
        }
    }

    /// Whether it is `None`.
    pub fn is_none(&self) -> bool {
        // SAFETY: the address of an immortal object.
        self.as_ptr() == unsafe { py::Py_None() }
    }

    /// Whether it is an instance of `class`.
    pub fn is_a(&self, class: &Object<'p>) -> Result<bool, Raised> {
        // SAFETY: attached; both are alive.
        match unsafe { py::PyObject_IsInstance(self.as_ptr(), class.as_ptr()) } {
            -1 => Err(Raised(())),
            answer => Ok(answer != 0),
        }
    }

    /// Whether its type is exactly `class`.
    pub fn is_exactly_a(&self, class: &Object<'p>) -> bool {
        self.is_exactly(class.as_ptr().cast())
    }

    /// Whether there are so many references to it; from 3.14 on it may claim more.
    #[cfg(not(free_threaded))]
    pub fn has_count(&self, count: isize) -> bool {
        // SAFETY: attached; the object is alive.
        unsafe { py::Py_REFCNT(self.as_ptr()) == count }
    }

    /// Whether there are so many references to it, none of them counted by another
    /// thread; for the thread that made it.
    #[cfg(free_threaded)]
    pub fn has_count(&self, count: isize) -> bool {
        let object = self.as_ptr();
        // SAFETY: the object is alive; who has a reference may read what counts others'.
        let others = unsafe { &(*object).ob_ref_shared }.load(Ordering::Relaxed);
        // SAFETY: as above; this part only the thread changes that made the object.
        let own = unsafe { &(*object).ob_ref_local }.load(Ordering::Relaxed);
        // The lower bits of the first tell of weak references and of another owner.
        others == 0 && isize::try_from(own) == Ok(count)
    }

    /// How many entries a dict has; None for what is none.
    pub fn dict_len(&self) -> Option<usize> {
        if !self.is_exactly(&raw mut py::PyDict_Type) {
            return None;
        }
        // SAFETY: attached; a dict.
        usize::try_from(unsafe { py::PyDict_Size(self.as_ptr()) }).ok()
    }

    /// Whether its type is exactly `kind`.
    fn is_exactly(&self, kind: *mut py::PyTypeObject) -> bool {
        // SAFETY: the object is alive, so is its type.
        unsafe { py::Py_TYPE(self.as_ptr()) == kind }
    }

    /// The length of an exact `list`.
    pub fn list_len(&self) -> Option<usize> {
        if !self.is_exactly(&raw mut py::PyList_Type) {
            return None;
        }
        // SAFETY: attached; an exact list.
        usize::try_from(unsafe { py::PyList_Size(self.as_ptr()) }).ok()
    }

    /// The length of an exact `tuple`.
    pub fn tuple_len(&self) -> Option<usize> {
        if !self.is_exactly(&raw mut py::PyTuple_Type) {
            return None;
        }
        // SAFETY: attached; an exact tuple.
        usize::try_from(unsafe { py::PyTuple_Size(self.as_ptr()) }).ok()
    }

    /// The item `at` of a list (or of a subclass).
    pub fn list_item(&self, at: usize) -> Option<Self> {
        if !self.is_list() {
            return None;
        }
        let item = containers::list_item(self, at);
        if item.is_none() {
            // SAFETY: attached.
            unsafe { py::PyErr_Clear() };
        }
        item
    }

    /// The item `at` of a tuple (or of a subclass).
    pub fn tuple_item(&self, at: usize) -> Option<Self> {
        if !self.is_tuple() {
            return None;
        }
        // SAFETY: attached; a tuple; the call checks the place.
        let item = unsafe { py::PyTuple_GetItem(self.as_ptr(), at as py::Py_ssize_t) };
        // SAFETY: borrowed from the tuple, alive while we are attached.
        let item = unsafe { Self::from_borrowed(self.py, item) };
        if item.is_none() {
            // SAFETY: attached.
            unsafe { py::PyErr_Clear() };
        }
        item
    }

    /// Appends to a list.
    pub fn list_append(&self, item: &Object<'p>) -> Result<(), Raised> {
        // SAFETY: attached; raises for anything but a list.
        self.py.check(unsafe { py::PyList_Append(self.as_ptr(), item.as_ptr()) })
    }

    /// Whether it is a `list`.
    pub fn is_list(&self) -> bool {
        // SAFETY: attached; the object is alive.
        unsafe { py::PyList_Check(self.as_ptr()) != 0 }
    }

    /// Whether it is a `tuple`.
    pub fn is_tuple(&self) -> bool {
        // SAFETY: attached; the object is alive.
        unsafe { py::PyTuple_Check(self.as_ptr()) != 0 }
    }

    /// Whether it is a `str`.
    pub fn is_text(&self) -> bool {
        // SAFETY: attached; the object is alive.
        unsafe { py::PyUnicode_Check(self.as_ptr()) != 0 }
    }

    /// Whether it is an exception class.
    pub fn is_exception_class(&self) -> bool {
        // SAFETY: attached; the object is alive.
        unsafe { py::PyExceptionClass_Check(self.as_ptr()) != 0 }
    }

    /// The name of its type.
    pub fn type_name(&self) -> String {
        // SAFETY: the object is alive, so is its type.
        let kind = unsafe { py::Py_TYPE(self.as_ptr()) };
        // SAFETY: attached; the type is alive.
        let kind = unsafe { Object::from_borrowed(self.py, kind.cast()) };
        let name = kind.map(|kind| kind.attr(c"__name__").and_then(|name| name.to_text()));
        match name {
            Some(Ok(name)) => name,
            Some(Err(raised)) => {
                raised.clear(self.py);
                "object".to_owned()
            }
            None => "object".to_owned(),
        }
    }

    /// The bytes of a `bytes` (or of a subclass).
    pub fn as_bytes(&self) -> Option<&[u8]> {
        // SAFETY: attached; the object is alive.
        if unsafe { py::PyBytes_Check(self.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: attached; a bytes object.
        let data = unsafe { py::PyBytes_AsString(self.as_ptr()) };
        // SAFETY: attached; a bytes object.
        let len = unsafe { py::PyBytes_Size(self.as_ptr()) };
        // SAFETY: bytes never change and live as long as the reference.
        Some(unsafe { core::slice::from_raw_parts(data.cast(), usize::try_from(len).ok()?) })
    }

    /// A copy of what it shows through the buffer interface, such as a
    /// `memoryview` or a `bytearray`.
    pub fn copy_bytes(&self) -> Result<Vec<u8>, Raised> {
        // SAFETY: attached; the object is alive.
        let bytes = unsafe { py::PyBytes_FromObject(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        let bytes = unsafe { Self::new(self.py, bytes) }?;
        Ok(bytes.as_bytes().unwrap_or_default().to_vec())
    }

    /// The UTF-8 form of a `str` that has one.
    pub fn as_utf8(&self) -> Result<&str, Raised> {
        let mut len = 0;
        // SAFETY: attached; raises TypeError for another type.
        let data = unsafe { py::PyUnicode_AsUTF8AndSize(self.as_ptr(), &raw mut len) };
        if data.is_null() {
            return Err(Raised(()));
        }
        // SAFETY: CPython keeps the UTF-8 form as long as the str.
        let bytes = unsafe {
            core::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(len).unwrap_or(0))
        };
        // SAFETY: CPython promises UTF-8.
        Ok(unsafe { core::str::from_utf8_unchecked(bytes) })
    }

    /// `str(self)` as text; what has no UTF-8 form is replaced.
    pub fn to_text(&self) -> Result<String, Raised> {
        // SAFETY: attached; the object is alive.
        let text = unsafe { py::PyObject_Str(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, text) }?.encoded()
    }

    /// A `str` as text, without running Python code; what has no UTF-8 form is
    /// replaced.
    pub fn encoded(&self) -> Result<String, Raised> {
        match self.as_utf8() {
            Ok(text) => return Ok(text.to_owned()),
            Err(raised) => raised.clear(self.py),
        }
        // SAFETY: attached; raises for other types; both names end with NUL.
        let bytes = unsafe {
            py::PyUnicode_AsEncodedString(
                self.as_ptr(),
                c"utf-8".as_ptr(),
                c"backslashreplace".as_ptr(),
            )
        };
        // SAFETY: a new reference or null with an exception.
        let bytes = unsafe { Self::new(self.py, bytes) }?;
        Ok(String::from_utf8_lossy(bytes.as_bytes().unwrap_or_default()).into_owned())
    }

    /// Appends the latin-1 form of a `str`; raises if there is none.
    pub fn append_latin1(&self, to: &mut Vec<u8>) -> Result<(), Raised> {
        match self.as_utf8() {
            // The usual case costs no object.
            Ok(text) if text.is_ascii() => {
                to.extend_from_slice(text.as_bytes());
                return Ok(());
            }
            Ok(_) => {}
            Err(raised) => raised.clear(self.py),
        }
        // SAFETY: attached; raises for other types and other characters.
        let bytes = unsafe { py::PyUnicode_AsLatin1String(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        let bytes = unsafe { Self::new(self.py, bytes) }?;
        to.extend_from_slice(bytes.as_bytes().unwrap_or_default());
        Ok(())
    }

    /// The number of an `int` (or of what has `__index__`).
    pub fn to_i64(&self) -> Result<i64, Raised> {
        // SAFETY: attached; the object is alive.
        let number = unsafe { py::PyNumber_Index(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        let number = unsafe { Self::new(self.py, number) }?;
        // SAFETY: attached; an int.
        let value = unsafe { py::PyLong_AsLongLong(number.as_ptr()) };
        if value == -1 && self.py.has_raised() { Err(Raised(())) } else { Ok(value) }
    }

    /// The value of a number.
    pub fn to_f64(&self) -> Result<f64, Raised> {
        // SAFETY: attached; the object is alive.
        let value = unsafe { py::PyFloat_AsDouble(self.as_ptr()) };
        if value == -1.0 && self.py.has_raised() { Err(Raised(())) } else { Ok(value) }
    }

    /// The number of an exact `int`, if it is not too large.
    pub fn exact_i64(&self) -> Option<i64> {
        if !self.is_exactly(&raw mut py::PyLong_Type) {
            return None;
        }
        match self.to_i64() {
            Ok(number) => Some(number),
            Err(raised) => {
                raised.clear(self.py);
                None
            }
        }
    }

    /// The value of `key` in a dict; None also for what cannot be a key.
    pub fn dict_get(&self, key: &Object<'p>) -> Option<Self> {
        let value = containers::dict_item(self, key);
        if value.is_none() && self.py.has_raised() {
            // SAFETY: attached.
            unsafe { py::PyErr_Clear() };
        }
        value
    }

    /// Sets `key` in a dict.
    pub fn dict_set(&self, key: &Object<'p>, value: &Object<'p>) -> Result<(), Raised> {
        // SAFETY: attached; raises for anything but a dict.
        self.py.check(unsafe { py::PyDict_SetItem(self.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// Removes `key` from a dict, if it is there.
    pub fn dict_remove(&self, key: &Object<'p>) {
        // SAFETY: attached; raises for anything but a dict.
        if unsafe { py::PyDict_DelItem(self.as_ptr(), key.as_ptr()) } != 0 {
            // SAFETY: attached.
            unsafe { py::PyErr_Clear() };
        }
    }

    /// A copy of a dict.
    pub fn dict_copy(&self) -> Result<Self, Raised> {
        // SAFETY: attached; raises for anything but a dict.
        let copy = unsafe { py::PyDict_Copy(self.as_ptr()) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Self::new(self.py, copy) }
    }

    /// Raises the exception (`class`, `value`, `trace`) that `exc_info` carried.
    pub fn raise_again(class: Self, value: Self, trace: Self) -> Raised {
        let trace = if trace.is_none() { null_mut() } else { trace.into_ptr() };
        // SAFETY: attached, as the objects prove; takes over three references.
        unsafe { py::PyErr_Restore(class.into_ptr(), value.into_ptr(), trace) };
        Raised(())
    }
}

/// A reference kept beyond an attachment, such as in an interpreter's state.
///
/// Dropping it leaks the reference: it is for what lives as long as its
/// interpreter.
#[derive(Debug)]
pub struct Kept(NonNull<py::PyObject>);

// SAFETY: nothing but comparing and freeing is done with it, and both only by
// who is attached.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl Kept {
    /// The object, for who is attached to its interpreter.
    #[inline]
    pub fn get<'p>(&self, py: Attached<'p>) -> Object<'p> {
        // SAFETY: attached; our reference keeps it alive.
        unsafe { py::Py_INCREF(self.0.as_ptr()) };
        Object { pointer: self.0, py }
    }

    /// Gives the reference back, to who is attached to its interpreter.
    pub fn take(self, py: Attached<'_>) -> Object<'_> {
        Object { pointer: self.0, py }
    }

    /// The object without counting a reference.
    #[inline]
    pub fn lend<'k, 'p>(&'k self, py: Attached<'p>) -> Lent<'k, 'p> {
        Lent {
            object: ManuallyDrop::new(Object { pointer: self.0, py }),
            _kept: core::marker::PhantomData,
        }
    }
}

/// An object whose reference somebody else holds meanwhile.
pub struct Lent<'k, 'p> {
    object: ManuallyDrop<Object<'p>>,
    _kept: core::marker::PhantomData<&'k Kept>,
}

impl<'p> core::ops::Deref for Lent<'_, 'p> {
    type Target = Object<'p>;

    fn deref(&self) -> &Object<'p> {
        &self.object
    }
}
