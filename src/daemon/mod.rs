//! Daemon mode: the processes that run applications, and the one that runs them.
//!
//! ```text
//! httpd parent      [`parent`]      keeps scoreboards and inboxes over restarts
//!  └ supervisor     [`supervisor`]  one `group` per process group
//!     └ process     [`process`]     `worker` threads, a `conversation` each
//! ```
//!
//! The module says in which kind of process its code runs: [`parent`] in httpd's
//! parent only, [`supervisor`] and `group` in the supervisor, [`process`],
//! `worker`, `conversation` and `identity` in a daemon process.  None of them
//! knows httpd.  Raw system calls are in [`sys`].

mod control;
mod conversation;
pub mod files;
mod group;
mod identity;
mod log;
pub mod parent;
pub mod plan;
mod process;
mod supervisor;
pub mod sys;
mod worker;
