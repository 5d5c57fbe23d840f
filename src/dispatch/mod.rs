//! Choosing where a request runs.
#![forbid(unsafe_code)]

mod question;
pub mod resolve;
