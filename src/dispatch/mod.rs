//! Where a request runs: the content handler, and the way to a daemon process.
//!
//! `resolve` says which application, `environ` what it is told, `proxies` what of
//! that to believe, `embedded` runs it here; `ownership` says whether a group may run its script, `group` finds it a
//! thread in a daemon process, `transfer` moves request and answer, `outflow` gives
//! the client what is due to it, `spool` keeps what it has not taken yet.
#![forbid(unsafe_code)]

mod alias;
mod answer;
pub mod child;
mod client;
pub mod embedded;
mod environ;
pub mod group;
mod handler;
mod hint;
mod outflow;
pub mod ownership;
mod prepared;
mod proxies;
mod question;
mod report;
pub mod resolve;
mod spool;
mod transfer;

pub use alias::Aliases;
pub use handler::Dispatch;
