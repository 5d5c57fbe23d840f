//! Behaviour through a real httpd, one file for each noun.
//!
//! `WSGI_UNDER_TEST=/path/to/mod_wsgi.so` runs the same tests against another module;
//! `WSGI_TEST_MPM=prefork` (or `worker`) under another MPM than event;
//! `WSGI_TEST_DIRECTIVES` with some more in every configuration, such as `WSGIPythonHome`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access_script;
mod application_group;
mod auth_scripts;
mod authorization;
mod broken;
mod clients;
mod config_errors;
mod configtest;
mod corpus;
mod crash;
mod daemon_options;
mod descriptors;
mod dispatch_script;
mod environ;
mod errors_log;
mod events;
mod exports;
mod express;
mod file_wrapper;
mod filters;
mod flushing;
mod free_threading;
mod handler_script;
mod harness;
mod identity;
mod input;
mod interpreter_options;
mod interpreters;
mod interrupt;
mod isolation;
mod learned;
mod lifecycle;
mod log_handler;
mod mapping;
mod metrics;
mod overrides;
mod ownership;
mod pep3333;
mod process_group;
mod python_module;
mod pythons;
mod recycling;
mod reload;
mod request_cost;
mod resolver;
mod resources;
mod response_head;
mod restart;
mod restrict;
mod script_alias;
mod services;
mod signals;
mod start_response;
mod streaming;
mod telemetry;
mod timers;
mod tls;
mod transport;
mod trusted_proxies;
mod upgrade;
