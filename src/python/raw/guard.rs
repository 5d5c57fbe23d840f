//! The wall that no panic passes.

use std::panic::{self, AssertUnwindSafe};

/// Runs `body`; if it panics, returns `otherwise` instead of unwinding into C.
pub fn guard<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    // What `body` borrowed belongs to one request, and that ends with
    // `otherwise`; locks poisoned by a panic are taken over by their next user.
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}
