//! Regular expressions as the rest of httpd's configuration has them.

use core::ops::Range;
use std::ffi::CString;

use crate::config::alias::Pattern;
use crate::ffi;

/// A compiled expression.
pub struct Regex(Box<ffi::ap_regex_t>);

// SAFETY: a compiled expression is only read, by httpd's promise from any thread.
unsafe impl Send for Regex {}
// SAFETY: as above.
unsafe impl Sync for Regex {}

/// How many captures a target may name.
const CAPTURES: usize = ffi::AP_MAX_REG_MATCH as usize;

impl Regex {
    /// Compiles `pattern`; `None` if it is none.
    pub fn new(pattern: &[u8]) -> Option<Self> {
        let pattern = CString::new(pattern).ok()?;
        let mut regex = Box::new(ffi::ap_regex_t {
            re_pcre: core::ptr::null_mut(),
            re_nsub: 0,
            re_erroffset: 0,
        });
        let flags = ffi::AP_REG_EXTENDED;
        // SAFETY: httpd writes our record and copies what it needs.
        let error = unsafe { ffi::ap_regcomp(&raw mut *regex, pattern.as_ptr(), flags) };
        (error == 0).then_some(Self(regex))
    }

    /// Where the first match in `text` and its captures are.
    fn find(&self, text: &[u8]) -> Option<[ffi::ap_regmatch_t; CAPTURES]> {
        let mut places = [ffi::ap_regmatch_t { rm_so: -1, rm_eo: -1 }; CAPTURES];
        // SAFETY: compiled in `new`; text and places have the lengths given.
        let missed = unsafe {
            ffi::ap_regexec_len(
                &raw const *self.0,
                text.as_ptr().cast(),
                text.len(),
                CAPTURES as ffi::apr_size_t,
                places.as_mut_ptr(),
                0,
            )
        };
        (missed == 0).then_some(places)
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled in `new`, freed once.
        unsafe { ffi::ap_regfree(&raw mut *self.0) };
    }
}

impl core::fmt::Debug for Regex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Regex")
    }
}

impl Pattern for Regex {
    fn captures(&self, uri: &[u8]) -> Option<Vec<Option<Range<usize>>>> {
        let range = |place: &ffi::ap_regmatch_t| {
            Some(usize::try_from(place.rm_so).ok()?..usize::try_from(place.rm_eo).ok()?)
        };
        self.find(uri).map(|places| places.iter().map(range).collect())
    }
}
