//! httpd's tables of strings: headers, notes, variables.  Keys are compared
//! without regard to case.

use core::ffi::CStr;
use core::slice;

use super::pool::Pool;
use super::text;
use crate::ffi;

/// A borrowed table of a request; its strings live as long as the request.
#[derive(Clone, Copy)]
pub struct Table<'r> {
    table: *mut ffi::apr_table_t,
    pool: &'r Pool,
}

impl<'r> Table<'r> {
    /// # Safety
    ///
    /// `table` is a live table whose strings live as long as `pool`.
    pub(super) const unsafe fn borrow(table: *mut ffi::apr_table_t, pool: &'r Pool) -> Self {
        Self { table, pool }
    }

    /// The value of `key`, the first if there are several.
    pub fn get(&self, key: &CStr) -> Option<&'r [u8]> {
        // SAFETY: a borrowed table is live.
        let value = unsafe { ffi::apr_table_get(self.table, key.as_ptr()) };
        // SAFETY: null or a string of the pool, which never frees one string.
        unsafe { text::bytes(value) }
    }

    /// Replaces all values of `key` by `value`.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        // SAFETY: a borrowed table is live; both strings live in its pool.
        unsafe { ffi::apr_table_setn(self.table, self.pool.text(key), self.pool.text(value)) };
    }

    /// As [`set`](Self::set), for a key that is a constant.
    pub fn set_known(&self, key: &'static CStr, value: &[u8]) {
        // SAFETY: a borrowed table is live; the key lives as long as this module, and httpd
        // unloads that after the last request; the value lives in the table's pool.
        unsafe { ffi::apr_table_setn(self.table, key.as_ptr(), self.pool.text(value)) };
    }

    /// As [`set`](Self::set), for constants.
    pub fn set_constant(&self, key: &'static CStr, value: &'static CStr) {
        // SAFETY: a borrowed table is live; both strings live as long as this module, and
        // httpd unloads that after the last request.
        unsafe { ffi::apr_table_setn(self.table, key.as_ptr(), value.as_ptr()) };
    }

    /// Adds `value` beside those `key` has.
    pub fn add(&self, key: &[u8], value: &[u8]) {
        // SAFETY: a borrowed table is live; both strings live in its pool.
        unsafe { ffi::apr_table_addn(self.table, self.pool.text(key), self.pool.text(value)) };
    }

    /// Removes all values of `key`.
    pub fn unset(&self, key: &[u8]) {
        // SAFETY: a borrowed table is live; the string lives in its pool.
        unsafe { ffi::apr_table_unset(self.table, self.pool.text(key)) };
    }

    /// All keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'r [u8], &'r [u8])> + use<'r> {
        let table = self.table;
        (0..).map_while(move |at| entry(table, at)).filter_map(|entry| {
            // SAFETY: null or a string of the pool, which never frees one string.
            let key = unsafe { text::bytes(entry.key) }?;
            // SAFETY: likewise.
            let value = unsafe { text::bytes(entry.val) }?;
            Some((key, value))
        })
    }
}

/// The entry at `at`; `None` behind the last.  Asked anew each time: the table
/// may have changed.
fn entry(table: *mut ffi::apr_table_t, at: usize) -> Option<ffi::apr_table_entry_t> {
    // SAFETY: the table a `Table` borrowed is live.
    let array = unsafe { ffi::apr_table_elts(table) };
    // SAFETY: APR's own array.
    let array = unsafe { &*array };
    if array.elts.is_null() {
        return None;
    }
    let count = usize::try_from(array.nelts).unwrap_or(0);
    // SAFETY: APR keeps `nelts` entries there.
    unsafe { slice::from_raw_parts(array.elts.cast::<ffi::apr_table_entry_t>(), count) }
        .get(at)
        .copied()
}
