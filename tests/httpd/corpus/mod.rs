//! Hostile requests and hostile applications, kept as data in `tests/corpus`.
#![forbid(unsafe_code)]

mod answers;
mod applications;
mod format;
mod requests;
