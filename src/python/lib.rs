//! The Python half: runs WSGI applications for a host it knows through a table.
//!
//! - [`raw`]: the fence around CPython and the host's table; the only `unsafe`
//! - [`runtime`]: the process: start, stop, the interpreters by name
//! - [`interpreter`]: what is set up once in each interpreter
//! - [`script`]: finding, loading and reloading script modules
//! - [`provider`]: asking scripts who may see a resource, and where requests run
//! - [`reload`]: asking a script whether it wants to be loaded again
//! - [`request`]: one request from its head to its outcome
//! - [`environ`]: the WSGI dict
//! - [`exchange`]: the answer's state, shared by the objects of one request
//! - [`headers`]: what `start_response` accepts
//! - [`answer`]: `start_response`, `write` and iteration
//! - [`file_wrapper`]: sending a file without reading it here
//! - [`fork`]: what becomes of processes an application forks
//! - [`hint`]: a word about modules that one interpreter only can have
//! - [`input`]: the object `wsgi.input`
//! - [`events`]: what subscribers hear of requests and of the process
//! - [`module`]: what the Python part of `mod_wsgi` calls
//! - [`md5`]: what a script is called in `sys.modules`
//! - [`log`]: streams and tracebacks into the host's log
//! - [`telemetry`]: a thread that reports what the process does; [`slow`] and
//!   [`collector`]: what it tells of single requests and of garbage collection
//! - [`metrics`]: what the process has done, for the application to ask
//! - [`sample`]: what `request_metrics()` and the like give, as Python objects
//! - [`tally`]: what one request costs, counted only where somebody asked
//! - [`options`]: what the directives about Python say, for each interpreter
//! - [`watch`]: what the host's watch thread asks for: a sign of life, the end of
//!   a request that takes too long, stacks

mod answer;
mod beginnings;
mod collector;
mod environ;
mod events;
mod exchange;
mod file_wrapper;
mod fork;
mod headers;
mod hint;
mod input;
mod interpreter;
mod log;
mod md5;
mod metrics;
mod module;
mod options;
mod provider;
mod raw;
mod reload;
mod request;
mod runtime;
mod sample;
mod script;
mod slow;
mod tally;
mod telemetry;
mod texts;
mod watch;
