//! Where a request runs: the content handler, and the way to a daemon process.
//!
//! `resolve` says which application, `environ` what it is told, `proxies` what of
//! that to believe, `embedded` runs it here; `ownership` says whether a group may run its script, `group` finds it a
//! thread in a daemon process, `transfer` moves the answer and `pump` the request, `outflow`
//! gives the client what is due to it, `spool` keeps what it has not taken yet.
//! `ask` asks a script something before that: `dispatch_script` where a request is to
//! run, and `crate::auth` who may see a resource, in the terms of `reduced`.
#![forbid(unsafe_code)]

mod alias;
mod answer;
pub mod ask;
pub mod child;
mod client;
mod dispatch_script;
pub mod embedded;
mod environ;
pub mod group;
mod handler;
mod hint;
mod outflow;
pub mod ownership;
mod prepared;
mod proxies;
mod pump;
mod question;
mod reduced;
mod report;
pub mod resolve;
mod room;
mod spool;
mod transfer;
mod upload;

pub use alias::Aliases;
pub use handler::Dispatch;
