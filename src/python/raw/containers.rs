//! Looking into dicts and lists that other threads may change meanwhile.
//!
//! What they lend may be gone at once where no lock keeps other threads from running:
//! there a reference is counted before anybody else can drop the last one.

use super::object::{Object, Raised};
use pyo3_ffi as py;

/// The value of `key`; None where there is none, with or without an exception.
#[cfg(not(free_threaded))]
pub(super) fn dict_item<'p>(dict: &Object<'p>, key: &Object<'p>) -> Option<Object<'p>> {
    // SAFETY: attached, as the object proves; raises for anything but a dict.
    let value = unsafe { py::PyDict_GetItemWithError(dict.as_ptr(), key.as_ptr()) };
    // SAFETY: borrowed from the dict, alive while we are attached.
    unsafe { Object::from_borrowed(dict.py(), value) }
}

/// The value of `key`; None where there is none, with or without an exception.
#[cfg(free_threaded)]
pub(super) fn dict_item<'p>(dict: &Object<'p>, key: &Object<'p>) -> Option<Object<'p>> {
    let mut value = core::ptr::null_mut();
    // SAFETY: attached, as the object proves; raises for anything but a dict.
    unsafe { py::PyDict_GetItemRef(dict.as_ptr(), key.as_ptr(), &raw mut value) };
    // SAFETY: a new reference, or null.
    unsafe { Object::from_owned(dict.py(), value) }
}

/// The item `at` of a list; None where there is none, with an exception.
#[cfg(not(free_threaded))]
pub(super) fn list_item<'p>(list: &Object<'p>, at: usize) -> Option<Object<'p>> {
    // SAFETY: attached, as the object proves; a list; the call checks the place.
    let item = unsafe { py::PyList_GetItem(list.as_ptr(), at as py::Py_ssize_t) };
    // SAFETY: borrowed from the list, alive while we are attached.
    unsafe { Object::from_borrowed(list.py(), item) }
}

/// The item `at` of a list; None where there is none, with an exception.
#[cfg(free_threaded)]
pub(super) fn list_item<'p>(list: &Object<'p>, at: usize) -> Option<Object<'p>> {
    // SAFETY: attached, as the object proves; a list; the call checks the place.
    let item = unsafe { py::PyList_GetItemRef(list.as_ptr(), at as py::Py_ssize_t) };
    // SAFETY: a new reference, or null.
    unsafe { Object::from_owned(list.py(), item) }
}

/// The module `name` in `sys.modules`, made if it is not there.
#[cfg(not(free_threaded))]
pub(super) fn added_module<'p>(name: &Object<'p>) -> Result<Object<'p>, Raised> {
    // SAFETY: attached, as the object proves; a str.
    let module = unsafe { py::PyImport_AddModuleObject(name.as_ptr()) };
    // SAFETY: borrowed from `sys.modules`, alive while we are attached.
    unsafe { Object::from_borrowed(name.py(), module) }.ok_or(Raised::seen())
}

/// The module `name` in `sys.modules`, made if it is not there.
#[cfg(free_threaded)]
pub(super) fn added_module<'p>(name: &Object<'p>) -> Result<Object<'p>, Raised> {
    let py = name.py();
    let Ok(text) = std::ffi::CString::new(name.as_utf8()?) else {
        return Err(py.raise(super::Builtin::ValueError, "the name of a module holds a NUL"));
    };
    // SAFETY: attached, as the object proves; the text ends with NUL.
    let module = unsafe { py::PyImport_AddModuleRef(text.as_ptr()) };
    // SAFETY: a new reference or null with an exception.
    unsafe { Object::new(py, module) }
}
