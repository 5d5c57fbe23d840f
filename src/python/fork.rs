//! Tells when Python forks, and whether the child could run.
//!
//! In the child CPython (to 3.13 at least) deletes all interpreters but the main
//! one, and with a second one waits for ever or aborts.
#![forbid(unsafe_code)]

use crate::raw::{Args, Class, Method, Object, Raised, This, system};
use crate::runtime;

/// What each interpreter registers with `os.register_at_fork`.
pub struct Forks;

impl Class for Forks {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Forks";
    const METHODS: &'static [Method<Self>] =
        &[Method::new(c"begin", begin), Method::new(c"end", end), Method::END];
}

/// `begin()`: Python is about to fork; it holds the GIL until `end()`.
fn begin<'p>(_: This<'_, 'p, Forks>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    system::bar_forks(runtime::running().is_some_and(runtime::Runtime::has_several_interpreters));
    Ok(args.py().none())
}

/// `end()`: in the parent.
fn end<'p>(_: This<'_, 'p, Forks>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    system::bar_forks(false);
    Ok(args.py().none())
}
