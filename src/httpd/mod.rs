//! The fence around httpd: everything that touches its memory or is called by it.
//!
//! - Raw pointers live for one function; what leaves this folder is borrowed
//!   wrappers, slices, vectors and enums.
//! - The wrappers are transparent over httpd's records, neither `Send` nor
//!   `Sync`: a request belongs to the thread that serves it, a pool likewise.
//! - Every function httpd calls runs in [`guard`](guard::guard).
//! - What is given to httpd is owned by a pool ([`Pool::own`](pool::Pool::own)).
//! - Bytes are bytes: nothing here promises UTF-8.

#[macro_use]
pub mod log;
pub mod answer;
pub mod auth;
pub mod board;
pub mod body;
pub mod command;
mod connection;
pub mod guard;
pub mod hook;
pub mod module;
pub mod other_child;
pub mod pool;
pub mod process;
pub mod regex;
pub mod request;
pub mod retained;
pub mod server;
pub mod shield;
pub mod table;
mod text;
pub mod wake;

#[allow(unused_imports, reason = "the callers arrive part by part")]
pub use self::{pool::Pool, request::Request, server::Server};
pub use command::Command;
pub use module::{Module, ModuleRecord};
