//! Daemon mode: the processes that run applications, and the one that runs them.
//!
//! ```text
//! httpd parent      [`parent`]      keeps scoreboards and inboxes over restarts
//!  └ supervisor     [`supervisor`]  one `group` per process group
//!     └ process     [`process`]     `worker` threads, a `conversation` each
//! ```
//!
//! The module says in which kind of process its code runs: [`parent`] and `retained` in httpd's
//! parent only, [`supervisor`], `group`, `watch` and `memory` in the supervisor, `legacy` in both,
//! [`process`], `service`, `worker`, `gate`, `conversation`, `heartbeat`, `announcer` and
//! `identity` in a daemon process, `changes` in both, `secrets` in all.  None of them knows httpd.  Raw
//! system calls are in [`sys`].

mod announcer;
mod changes;
mod connections;
mod control;
mod conversation;
pub mod files;
mod gate;
mod group;
mod heartbeat;
mod identity;
mod legacy;
mod loading;
mod log;
mod memory;
pub mod parent;
pub mod plan;
mod process;
mod retained;
mod secrets;
mod service;
mod supervisor;
pub mod sys;
mod watch;
mod worker;
