//! Behaviour through a real httpd, one file for each noun.
//!
//! `WSGI_UNDER_TEST=/path/to/mod_wsgi.so` runs the same tests against another module;
//! `WSGI_TEST_MPM=prefork` (or `worker`) under another MPM than event.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code)]

mod harness;
mod application_group;
mod environ;
mod process_group;
mod resolver;
mod restrict;
mod script_alias;
mod start_response;
