//! What the configuration says: directives, options, groups, and how they merge.
//!
//! Rules of the folder: a value is parsed once, when its directive is read, and
//! a setter only checks and stores.  `None` means "not set here", so that
//! merging is `inner.or(outer)`; the default of a setting lives in its accessor
//! and nowhere else.  Nothing in here knows httpd.
#![forbid(unsafe_code)]

pub mod alias;
pub mod check;
pub mod daemon_options;
pub mod dir;
pub mod directives;
pub mod environment;
pub mod error;
pub mod group;
pub mod handler_script;
pub mod identity;
pub mod interpreter_directives;
pub mod interpreters;
pub mod option;
pub mod process_group;
pub mod provider;
pub mod proxies;
pub mod python;
pub mod python_search;
pub mod root;
pub mod server;
pub mod telemetry;

pub use dir::DirConfig;
pub use directives::COMMANDS;
pub use error::{DirectiveError, OptionError};
pub use process_group::ProcessGroup;
pub use server::ServerConfig;

/// A place in the configuration: what an operator opens to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Location {
    /// The file, as httpd names it.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
