//! One request, from its head to its outcome.
#![forbid(unsafe_code)]

use crate::answer::{Iterable, Responder, START_RESPONSE};
use crate::environ::{self, Unmade};
use crate::events::Told;
use crate::exchange::Exchange;
use crate::headers::Response;
use crate::input::Input;
use crate::interpreter::{Group, Place};
use crate::log::{self, Sink};
use crate::metrics::{Stopwatch, now};
use crate::raw::{Attached, Builtin, Exception, Fault, HostRequest, Object, Raised, system};
use crate::runtime::{self, Runtime};
use crate::script::{self, Unusable, Wanted};
use core::ffi::c_int;
use std::cell::Cell;
use std::sync::Arc;
use wsgi_wire::head::{RequestHead, flags};
use wsgi_wire::vtable::{level, outcome};

/// Loads `path` into application group `name`; false after logging why not.
pub fn load(name: &[u8], path: &[u8]) -> bool {
    let Some(runtime) = runtime::running() else { return false };
    let _inside = runtime.enter();
    let Some(group) = runtime.group(name) else { return false };
    let Some(lease) = group.interpreter.attach() else { return false };
    let wanted = Wanted { path, check: None, request: None };
    let _seat = runtime.requests.begin(lease.py(), None, &group);
    let loaded = match script::module(lease.py(), runtime, &group.place, wanted, Sink::Process) {
        Ok(_) | Err(Unusable::Exited) => true,
        Err(_) => false,
    };
    if system::is_forked() {
        leave(!loaded);
    }
    loaded
}

/// Ends a process an application forked, when it comes back to us.
///
/// It is a copy of a worker: left alone it would wait for requests beside its
/// parent and answer on its parent's connections.
pub fn leave(failed: impl Into<c_int>) -> ! {
    let status = failed.into();
    if let Some(log) = runtime::log() {
        let pid = std::process::id();
        let message = format!("a process forked by the application ends: pid {pid}, {status}");
        log.line(level::INFO, &message);
    }
    system::leave(status)
}

/// httpd's own look at the script is taken for ours if it is not older than so many µs.
const FRESH: u64 = 50_000;

/// When the script was changed, if that can be told.
fn look(head: &RequestHead<'_>, arrival: u64) -> Option<i64> {
    // A request from the future is one during which the clock was set back: nothing tells
    // how old that look is.
    let age = arrival.checked_sub(head.request_start);
    let is_fresh = age.is_some_and(|age| age <= FRESH);
    match i64::try_from(head.script_mtime) {
        Ok(mtime) if mtime > 0 && is_fresh => Some(mtime),
        _ => script::mtime(head.script),
    }
}

/// Runs a request; gives its [`outcome`].
pub fn handle(runtime: &Runtime, mut host: HostRequest, head: &[u8]) -> c_int {
    let arrival = now();
    let _inside = runtime.enter();
    let head = match RequestHead::decode(head) {
        Ok(head) => head,
        Err(error) => {
            host.log(level::ERROR, &format!("WSGI9402: unreadable request head: {error}"));
            return outcome::FAILED;
        }
    };
    let mut watch = runtime.metrics.begin(arrival, &head);
    let check = (head.flags & flags::RELOADING != 0).then(|| look(&head, arrival));
    let Some(group) = runtime.group(head.application_group) else {
        host.log(level::ERROR, "WSGI0087: no interpreter for the request; answering 500");
        return outcome::FAILED;
    };
    if group.place.events.were_wanted() {
        watch.expect();
    }
    let Some(lease) = group.interpreter.attach() else {
        host.log(level::ERROR, "WSGI0191: no thread state for the request; answering 500");
        return outcome::FAILED;
    };
    let py = lease.py();
    watch.attached();
    host.attached();
    let is_head_only = head.flags & flags::HEAD_ONLY != 0;
    let exchange = Exchange::begin(host, is_head_only, head.body_length);
    let wanted = Wanted { path: head.script, check, request: Some(&head) };
    let _seat = runtime.requests.begin(py, Some(head.id), &group);
    let _end = End { py, exchange: &exchange, place: &group.place };
    let (group, exchange, watch) = (&group, &exchange, &watch);
    let run = Run { py, runtime, group, exchange, head, watch, start: Cell::default() };
    let outcome = run.run(wanted);
    if system::is_forked() {
        leave(1);
    }
    watch.end(outcome, || exchange.lock(py).answer.response.as_ref().map_or(0, Response::status));
    outcome
}

/// Takes the host's request away from all objects that know it, also when a
/// panic ends the call.
pub struct End<'r, 'p> {
    /// The proof.
    pub py: Attached<'p>,
    /// The request.
    pub exchange: &'r Exchange,
    /// What is in its interpreter.
    pub place: &'r Place,
}

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        log::flush_request(self.py, self.exchange);
        self.place.events.leave(self.py, self.exchange);
    }
}

/// A request being run.
struct Run<'r, 'p> {
    py: Attached<'p>,
    runtime: &'r Runtime,
    group: &'r Arc<Group>,
    exchange: &'r Arc<Exchange>,
    head: RequestHead<'r>,
    watch: &'r Stopwatch<'r>,
    /// When the application was called: µs since the epoch; 0 before that.
    start: Cell<u64>,
}

impl<'p> Run<'_, 'p> {
    /// What belongs to the interpreter.
    fn place(&self) -> &Place {
        &self.group.place
    }

    /// Finds the application and calls it.
    fn run(&self, wanted: Wanted<'_>) -> c_int {
        let sink = Sink::Request(self.exchange);
        let module = match script::module(self.py, self.runtime, self.place(), wanted, sink) {
            Ok(module) => module,
            Err(unusable) => return unusable.outcome(),
        };
        if system::is_forked() {
            leave(0);
        }
        let callable = self.head.callable;
        let application = script::application(self.place(), &module, callable, wanted.path, sink);
        let application = match application {
            Ok(application) => application,
            Err(unusable) => return unusable.outcome(),
        };
        let called = self.call(&application);
        // Nothing of the application's runs any more; what it is owed to raise must
        // not meet our own Python code, which says what it did.
        self.runtime.requests.end(self.py, Some(self.head.id));
        let finish = self.place().events.were_wanted().then(now);
        let outcome = self.conclude(called, sink);
        if self.start.get() > 0 {
            let (place, told) = (self.place(), self.told());
            place.events.finished(self.py, place, self.exchange, (&told, outcome, finish));
        }
        outcome
    }

    /// The request as its events show it.
    fn told(&self) -> Told<'_> {
        Told {
            head: &self.head,
            watch: self.watch,
            daemon: self.daemon_start(),
            application: self.start.get(),
        }
    }

    /// When the daemon process took the request; 0 in embedded mode.
    fn daemon_start(&self) -> u64 {
        if self.runtime.is_embedded() { 0 } else { self.watch.arrival() }
    }

    /// What becomes of a request whose application was called.
    fn conclude(&self, called: Result<(), Unmade>, sink: Sink<'_>) -> c_int {
        match called {
            Ok(()) if system::is_forked() => {
                log::flush_request(self.py, self.exchange);
                leave(0)
            }
            Ok(()) => self.outcome(),
            Err(Unmade::Head(error)) => {
                let message = format!("WSGI9402: unreadable request head: {error}");
                sink.line(self.py, level::ERROR, &message);
                outcome::FAILED
            }
            Err(Unmade::Raised(raised)) => self.failure(&raised.take(self.py)),
        }
    }

    /// Calls the application and sends what it returns.
    fn call(&self, application: &Object<'p>) -> Result<(), Unmade> {
        let (py, place) = (self.py, self.place());
        // Dropped last, when nothing of the request refers to it any more.
        let errors = place.errors(py, self.exchange)?;
        let environ = environ::make(py, place, &self.head, self.watch.thread_number())?;
        let _record = environ::set_apache_request(&environ, &self.head, self.exchange)?;
        let input = place.input.instance(py, Input(Arc::clone(self.exchange)))?;
        environ.dict_set(&place.names.input.lend(py), &input.into_object())?;
        if let Some(errors) = errors.object() {
            environ.dict_set(&place.names.errors.lend(py), errors)?;
        }
        let (exchange, group) = (Arc::clone(self.exchange), Arc::clone(self.group));
        let responder = place.responder.instance(py, Responder { exchange, group })?;
        let start_response = place.responder.bind(&responder, &START_RESPONSE)?;
        self.exchange.loaded(py);
        self.start.set(now());
        self.exchange.lock(py).tally = self.watch.call(self.start.get());
        let times = (self.daemon_start(), self.start.get());
        environ::fill_times(&environ, place, &self.head, times)?;
        place.events.enter(py, self.exchange, &environ)?;
        let told = (application, &environ);
        let other = place.events.started(place, self.exchange, &self.told(), told)?;
        let application = other.as_ref().unwrap_or(application);
        let result = match application.call(&[&environ, &start_response]) {
            Ok(result) => result,
            Err(raised) => return Err(self.raised(raised.take(py)).into()),
        };
        let mut iterable = Iterable::new(result, place, self.exchange);
        let sent = iterable.send();
        // What came too late to end the sending must not end `close()`.
        self.runtime.requests.spare(py, self.head.id);
        // The exception is taken before `close()` runs and could meet it.
        match sent {
            Ok(()) => Ok(()),
            Err(raised) => {
                let error = raised.take(py);
                drop(iterable);
                Err(self.raised(error).into())
            }
        }
    }

    /// Tells of an exception of the application's.
    fn raised(&self, error: Exception<'p>) -> Raised {
        self.place().events.raised(self.place(), self.exchange, &error);
        error.raise()
    }

    /// What became of a request whose application ended in order.
    fn outcome(&self) -> c_int {
        let (fault, short, committed) = {
            let state = self.exchange.lock(self.py);
            (state.answer.fault, state.answer.short, state.answer.committed)
        };
        match (fault, short) {
            (Some(Fault::Gone | Fault::TimedOut), _) => outcome::GONE,
            (Some(fault), _) => {
                let message = format!("WSGI9407: the answer is not passed on: {fault}");
                Sink::Request(self.exchange).line(self.py, level::ERROR, &message);
                if committed { outcome::CUT } else { outcome::FAILED }
            }
            (None, true) => outcome::CUT,
            (None, false) => outcome::DONE,
        }
    }

    /// Ends a forked process that raised `error`, with the status `sys.exit` gave.
    fn fail_forked(&self, error: &Exception<'p>) -> ! {
        log::flush_request(self.py, self.exchange);
        if error.is(Builtin::SystemExit) {
            let code = error.value().attr(c"code");
            let status = match code {
                Ok(code) if code.is_none() => Some(0),
                Ok(code) => code.to_i64().ok().and_then(|code| c_int::try_from(code).ok()),
                Err(_) => None,
            };
            leave(status.unwrap_or(1));
        }
        let header = "WSGI0174: exception in a process forked by the application; it ends";
        Sink::Request(self.exchange).traceback(self.place(), header, error);
        leave(1)
    }

    /// What becomes of a request whose application raised `error`.
    fn failure(&self, error: &Exception<'p>) -> c_int {
        let sink = Sink::Request(self.exchange);
        if system::is_forked() {
            self.fail_forked(error);
        }
        let (committed, finished, sent_fault, body_fault) = {
            let state = self.exchange.lock(self.py);
            let answer = &state.answer;
            (answer.committed, answer.finished, answer.fault, state.body.fault)
        };
        let is_io = error.is(Builtin::OsError);
        let (otherwise, next) = match (finished, committed) {
            (true, _) => (outcome::DONE, "the answer was complete"),
            (false, true) => (outcome::CUT, "the answer is cut off"),
            (false, false) => (outcome::FAILED, "answering 500"),
        };
        if let (Some(fault), true) = (sent_fault, is_io) {
            if fault == Fault::Failed {
                let message = format!("WSGI9407: the answer is not passed on: {fault}");
                sink.line(self.py, level::ERROR, &message);
                return otherwise;
            }
            let message = format!("the application gave up its answer: {fault}");
            sink.line(self.py, level::INFO, &message);
            return outcome::GONE;
        }
        if let (Some(fault), true) = (body_fault, is_io) {
            sink.line(self.py, level::INFO, &format!("the request was given up: {fault}"));
            return match (fault, committed) {
                (Fault::Gone, true) => outcome::GONE,
                (_, true) => outcome::CUT,
                (Fault::TimedOut, false) => outcome::BODY_TIMED_OUT,
                // Who closed only its sending side still waits for an answer.
                (Fault::Gone | Fault::BadBody, false) => outcome::BAD_BODY,
                (Fault::Failed | Fault::Forked, false) => outcome::FAILED,
            };
        }
        if self.place().is_timeout(error) {
            let next = if committed { next } else { "answering 504" };
            let header = format!("WSGI9410: the application was interrupted for time; {next}");
            sink.traceback(self.place(), &header, error);
            return if committed { otherwise } else { outcome::TIMED_OUT };
        }
        let header = match error.is(Builtin::SystemExit) {
            true => format!("WSGI0175: the application called exit; {next}"),
            false => format!("WSGI0174: exception in the application; {next}"),
        };
        sink.traceback(self.place(), &header, error);
        match otherwise {
            outcome::FAILED if error.is(Builtin::MemoryError) => outcome::NO_MEMORY,
            outcome::CUT if error.is(Builtin::MemoryError) => outcome::CUT_NO_MEMORY,
            _ => otherwise,
        }
    }
}
