//! The Apache half of `mod_wsgi_rs`: what httpd loads.
//!
//! `unsafe` lives in `httpd` and `ffi`.  Every other file forbids it, but for
//! the few that DESIGN.md names.
#![allow(dead_code, reason = "the callers of the fence arrive part by part")]

mod ffi;
#[macro_use]
mod httpd;
mod dispatch {
    pub mod environ;
}

/// The symbol `LoadModule wsgi_module …` asks for.
#[allow(non_upper_case_globals, reason = "the name is in everybody's configuration")]
#[unsafe(no_mangle)]
static wsgi_module: httpd::ModuleRecord = httpd::ModuleRecord::new::<Wsgi>();

/// The module.
struct Wsgi;

impl httpd::Module for Wsgi {
    /// `<IfModule mod_wsgi.c>` stands in configurations.
    const NAME: &core::ffi::CStr = c"mod_wsgi.c";
    const COMMANDS: &[httpd::Command] = &[httpd::Command::END];

    fn register_hooks() {}
}

/// What the fence needs of the configuration; `src/config` takes its place.
mod config {
    /// What holds for a server.
    #[derive(Debug)]
    pub struct ServerConfig;
    /// What holds for a section.
    #[derive(Debug)]
    pub struct DirConfig;
    /// Why a directive is refused.
    pub type DirectiveError = core::convert::Infallible;

    impl ServerConfig {
        /// Nothing set.
        pub fn new() -> Self {
            Self
        }
        /// What is set in `new`, else in `base`.
        pub fn merge(_base: &Self, _new: &Self) -> Self {
            Self
        }
    }

    impl DirConfig {
        /// Nothing set.
        pub fn new() -> Self {
            Self
        }
        /// What is set in `new`, else in `base`.
        pub fn merge(_base: &Self, _new: &Self) -> Self {
            Self
        }
    }
}
