//! Choosing where a request runs.
#![forbid(unsafe_code)]

pub mod resolve;
