//! Bytes that survive the unloading of this module between configurations.

use core::ffi::{CStr, c_void};
use core::{ptr, slice};

use crate::ffi;

/// What httpd keeps under a name.  Another build of this module may read it,
/// so the layout stays.
#[repr(C)]
struct Kept {
    /// From `malloc`, or null.
    bytes: *mut c_void,
    /// How many.
    length: usize,
}

/// What httpd keeps under `name`, made if `create` says so.
fn kept(name: &CStr, create: bool) -> Option<*mut Kept> {
    // SAFETY: httpd's own table, used by its only thread while configurations
    // are read.
    let found: *mut Kept = unsafe { ffi::ap_retained_data_get(name.as_ptr()) }.cast();
    if !found.is_null() {
        return Some(found);
    }
    // SAFETY: as above; httpd zeroes what it allocates.
    create.then(|| unsafe { ffi::ap_retained_data_create(name.as_ptr(), size_of::<Kept>()) }.cast())
}

/// A copy of what was kept under `name`.
pub fn load(name: &CStr) -> Option<Vec<u8>> {
    let kept = kept(name, false)?;
    // SAFETY: made by `store` of this or another build.
    let kept = unsafe { &*kept };
    if kept.bytes.is_null() {
        return None;
    }
    // SAFETY: `store` wrote that many bytes there.
    Some(unsafe { slice::from_raw_parts(kept.bytes.cast::<u8>(), kept.length) }.to_vec())
}

/// Keeps a copy of `bytes` under `name`, instead of what was there.
///
/// For the main process while it reads its configuration.
pub fn store(name: &CStr, bytes: &[u8]) {
    let Some(kept) = kept(name, true) else { return };
    // SAFETY: any length.
    let copy = unsafe { libc::malloc(bytes.len().max(1)) };
    if copy.is_null() {
        return;
    }
    // SAFETY: `malloc` gave that many bytes of its own.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast::<u8>(), bytes.len()) };
    let new = Kept { bytes: copy, length: bytes.len() };
    // SAFETY: made by httpd for us, and no reference to it is held.
    let old = unsafe { kept.replace(new) };
    // SAFETY: from `malloc`, or null.
    unsafe { libc::free(old.bytes) };
}
