//! httpd's own record of a request, as applications pass it to C code of theirs.

use super::object::{Object, Raised};
use super::thread::Attached;
use core::ffi::{CStr, c_void};
use core::ptr::{NonNull, null};
use pyo3_ffi as py;

/// What a capsule is called whose request is over.  While it is not, it has no name:
/// that is what `PyCapsule_GetPointer` is to be told.
const OVER: &CStr = c"mod_wsgi.request_is_over";

/// The address of httpd's record.
#[derive(Debug, Clone, Copy)]
pub struct ApacheRequest(pub(super) NonNull<c_void>);

/// `apache.request_rec` of a request; of no use to anybody once this is dropped.
pub struct Capsule<'p>(Object<'p>);

impl<'p> Capsule<'p> {
    /// A capsule around `request`.
    pub fn new(py: Attached<'p>, request: ApacheRequest) -> Result<Self, Raised> {
        // SAFETY: attached; not null, no name, nothing to do at its end.
        let capsule = unsafe { py::PyCapsule_New(request.0.as_ptr(), null(), None) };
        // SAFETY: a new reference or null with an exception.
        unsafe { Object::new(py, capsule) }.map(Self)
    }

    /// The object.
    pub const fn object(&self) -> &Object<'p> {
        &self.0
    }
}

impl Drop for Capsule<'_> {
    fn drop(&mut self) {
        // SAFETY: attached, as the object proves; the name is static.
        if unsafe { py::PyCapsule_SetName(self.0.as_ptr(), OVER.as_ptr()) } != 0 {
            // SAFETY: attached.  Somebody took the pointer out: so it is of no use.
            unsafe { py::PyErr_Clear() };
        }
    }
}
