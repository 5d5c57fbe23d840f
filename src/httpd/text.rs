//! C strings as bytes.

use core::ffi::{CStr, c_char};

/// The bytes of `text` without the final NUL; `None` if it is null.
///
/// # Safety
///
/// `text` is null or a C string that is neither freed nor written for `'a`.
pub unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// `bytes` up to the first NUL: what C would read of them.
pub fn before_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|&byte| byte == 0).map_or(bytes, |end| &bytes[..end])
}
