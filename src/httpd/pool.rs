//! httpd's memory pools, and values of ours that live as long as one.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_void};
use core::ptr;

use super::guard::guard;
use super::text;
use crate::ffi;

/// A borrowed pool.
#[repr(transparent)]
pub struct Pool(UnsafeCell<ffi::apr_pool_t>);

impl Pool {
    /// # Safety
    ///
    /// `pool` is a live pool that only this thread uses for `'a`.
    pub(super) unsafe fn borrow<'a>(pool: *mut ffi::apr_pool_t) -> &'a Self {
        // SAFETY: the caller's promise; the wrapper is transparent.
        unsafe { &*pool.cast::<Self>() }
    }

    /// For calls into httpd.
    pub(super) const fn as_ptr(&self) -> *mut ffi::apr_pool_t {
        self.0.get()
    }

    /// Lets the pool own `value`: it is dropped when the pool is cleared, in
    /// reverse order of arrival.
    pub fn own<T: 'static>(&self, value: T) -> &T {
        let owned: *mut T = self.own_raw(value).cast();
        // SAFETY: boxed by `own_raw`; dropped with the pool, not earlier.
        unsafe { &*owned }
    }

    /// As [`own`](Self::own), for records httpd keeps a pointer to and for those
    /// that are still written.
    pub(super) fn own_raw<T: 'static>(&self, value: T) -> *mut c_void {
        let owned = Box::into_raw(Box::new(value));
        // SAFETY: the pool is live, and the cleanup fits the pointer's type.
        unsafe {
            ffi::apr_pool_cleanup_register(
                self.as_ptr(),
                owned.cast(),
                Some(drop_owned::<T>),
                Some(ffi::apr_pool_cleanup_null),
            );
        }
        owned.cast()
    }

    /// Runs `last` when the pool is cleared.
    pub fn at_end(&self, last: impl FnOnce() + 'static) {
        self.own(AtEnd(Some(last)));
    }

    /// A copy of `bytes` as a C string of the pool; a NUL ends it early.
    pub(super) fn text(&self, bytes: &[u8]) -> *const c_char {
        // SAFETY: the pool is live, and the length is the slice's.
        unsafe { ffi::apr_pstrmemdup(self.as_ptr(), bytes.as_ptr().cast(), bytes.len()) }
    }

    /// A copy of `first` and `second` as one C string of the pool.
    pub(super) fn text_of(&self, first: &[u8], second: &[u8]) -> *const c_char {
        if second.is_empty() {
            return self.text(first);
        }
        let length = first.len() + second.len();
        // SAFETY: the pool is live.
        let text: *mut u8 = unsafe { ffi::apr_palloc(self.as_ptr(), length + 1) }.cast();
        // SAFETY: fresh memory of at least this length.
        unsafe { ptr::copy_nonoverlapping(first.as_ptr(), text, first.len()) };
        // SAFETY: within the fresh memory.
        let behind = unsafe { text.add(first.len()) };
        // SAFETY: as much is left of it, and one byte.
        unsafe { ptr::copy_nonoverlapping(second.as_ptr(), behind, second.len()) };
        // SAFETY: within the fresh memory.
        let end = unsafe { text.add(length) };
        // SAFETY: its last byte.
        unsafe { end.write(0) };
        text.cast()
    }

    /// `path` below `ServerRoot` unless it is absolute; `None` if it is no path.
    pub fn root_relative(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = self.text(path);
        // SAFETY: pool and string are live.
        let whole = unsafe { ffi::ap_server_root_relative(self.as_ptr(), path) };
        // SAFETY: null or a string of the pool.
        unsafe { text::bytes(whole) }.map(<[u8]>::to_vec)
    }
}

/// A closure that runs when it is dropped.
struct AtEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

/// # Safety
///
/// For APR only, once, through a cleanup [`Pool::own_raw`] registered.
unsafe extern "C" fn drop_owned<T>(owned: *mut c_void) -> ffi::apr_status_t {
    guard(0, || {
        // SAFETY: from `Box::into_raw` in `own_raw`, and APR runs a cleanup once.
        drop(unsafe { Box::from_raw(owned.cast::<T>()) });
        0
    })
}
