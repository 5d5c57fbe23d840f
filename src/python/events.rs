//! Events: what subscribers of `mod_wsgi` hear of requests and of the process.
//!
//! A request that nobody wants to hear of costs a look at a list.
#![forbid(unsafe_code)]

use crate::exchange::Exchange;
use crate::interpreter::{Group, Place};
use crate::log::{self, Sink};
use crate::metrics::{Stopwatch, now};
use crate::raw::{Attached, Exception, Kept, Object, Raised, system};
use crate::runtime;
use crate::tally::Flow;
use crate::telemetry;
use crate::watch;
use core::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use wsgi_wire::head::RequestHead;

/// The part that is written in Python.
pub static SOURCE: &str = include_str!("events.py");

/// What tells the subscribers of one interpreter.
pub struct Events {
    /// The names of `mod_wsgi`.
    names: Kept,
    /// `event_callbacks`
    list: Kept,
    /// `mod_wsgi.request_id`
    id_key: Kept,
    /// `mod_wsgi.active_requests`
    active: Kept,
    /// The functions of `events.py`.
    tellers: [Kept; TELLERS.len()],
    /// Whether the last request was to be told of: the next one probably is.
    was_wanted: AtomicBool,
}

/// The functions of `events.py`, by [`Event`].
const TELLERS: [&CStr; 6] = [
    c"request_started",
    c"response_started",
    c"request_exception",
    c"request_finished",
    c"process_stopping",
    c"process_signal",
];

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// An application is about to be called.
    RequestStarted,
    /// It calls `start_response`.
    ResponseStarted,
    /// It raised.
    RequestException,
    /// Its answer is complete, or never will be.
    RequestFinished,
    /// The process is about to end.
    ProcessStopping,
    /// It got a signal.
    ProcessSignal,
}

/// A request as its events show it.
pub struct Told<'a> {
    /// What the host said of it.
    pub head: &'a RequestHead<'a>,
    /// What measures it.
    pub watch: &'a Stopwatch<'a>,
    /// When the daemon process took it; 0 in embedded mode.  µs since the epoch, as all.
    pub daemon: u64,
    /// When its application was called.
    pub application: u64,
}

impl Events {
    /// Gives `module` its lists and finds what tells who is in them: `helpers` has
    /// executed [`SOURCE`].
    pub fn new<'p>(
        py: Attached<'p>,
        module: &Object<'p>,
        helpers: &Object<'p>,
        (own, format_exception): (&Object<'p>, &Object<'p>),
    ) -> Result<Self, Raised> {
        helpers.attr(c"set_up")?.call(&[module, own, format_exception])?;
        let active = py.dict()?;
        module.set_attr(c"active_requests", &active)?;
        let [a, b, c, d, e, f] = TELLERS.map(|name| helpers.attr(name).map(Object::keep));
        Ok(Self {
            names: module.attr(c"__dict__")?.keep(),
            list: py.name("event_callbacks")?.keep(),
            id_key: py.name("mod_wsgi.request_id")?.keep(),
            active: active.keep(),
            tellers: [a?, b?, c?, d?, e?, f?],
            was_wanted: AtomicBool::new(false),
        })
    }

    /// Whether somebody wants to hear of requests.
    fn are_wanted(&self, py: Attached<'_>) -> bool {
        let list = self.names.lend(py).dict_get(&self.list.lend(py));
        list.is_some_and(|list| list.list_len().is_some_and(|count| count > 0))
    }

    /// Whether a request that begins will probably be told of.
    pub fn were_wanted(&self) -> bool {
        self.was_wanted.load(Ordering::Relaxed)
    }

    /// Puts a request into `mod_wsgi.active_requests`.
    pub fn enter(
        &self,
        py: Attached<'_>,
        exchange: &Exchange,
        environ: &Object<'_>,
    ) -> Result<(), Raised> {
        let Some(id) = environ.dict_get(&self.id_key.lend(py)) else { return Ok(()) };
        let active = self.active.lend(py);
        // A request within a request has the same id; the outer one is who has it.
        let is_inner = active.dict_len() != Some(0) && active.dict_get(&id).is_some();
        let data = exchange.enter(py, id.clone(), !is_inner)?;
        if is_inner { Ok(()) } else { active.dict_set(&id, &data) }
    }

    /// Ends a request, and takes it out again.
    pub fn leave(&self, py: Attached<'_>, exchange: &Exchange) {
        if let Some(key) = exchange.end(py) {
            self.active.lend(py).dict_remove(&key);
        }
        // Last: what was finalized above may log, and the outer request may be locked.
        exchange.step_back();
    }

    /// Calls a function of `events.py`; Err is the request's interruption.
    fn tell<'p>(
        &self,
        py: Attached<'p>,
        place: &Place,
        event: Event,
        values: &[&Object<'p>],
    ) -> Result<Option<Object<'p>>, Raised> {
        match self.tellers[event as usize].lend(py).call(values) {
            Ok(answer) => Ok(Some(answer)),
            Err(raised) => {
                let error = raised.take(py);
                if place.is_timeout(&error) {
                    return Err(error.raise());
                }
                let name = TELLERS[event as usize].to_string_lossy();
                let header = format!("WSGI9420: nobody is told of '{name}'");
                log::current(|sink| sink.traceback(place, &header, &error));
                Ok(None)
            }
        }
    }

    /// Tells that `application` is about to be called; gives the one that is to be.
    pub fn started<'p>(
        &self,
        place: &Place,
        exchange: &Exchange,
        told: &Told<'_>,
        (application, environ): (&Object<'p>, &Object<'p>),
    ) -> Result<Option<Object<'p>>, Raised> {
        let py = application.py();
        let is_wanted = self.are_wanted(py);
        if is_wanted != self.was_wanted.load(Ordering::Relaxed) {
            self.was_wanted.store(is_wanted, Ordering::Relaxed);
        }
        if !is_wanted {
            return Ok(None);
        }
        let head = told.head;
        let (id, data) = identity(py, exchange)?;
        let [request, queue, daemon] = told.times(py)?;
        let values = [
            &id,
            &py.int(told.watch.thread_number())?,
            &py.int(head.connects.into())?,
            &py.int(head.restarts.into())?,
            &py.int(head.server_pid.into())?,
            &request,
            &queue,
            &daemon,
            application,
            &py.latin1(head.callable)?,
            environ,
            &seconds(py, told.application)?,
            &data,
        ];
        let answer = self.tell(py, place, Event::RequestStarted, &values)?;
        let tally = told.watch.tally();
        exchange.lock(py).tally.get_or_insert(tally);
        Ok(answer)
    }

    /// Tells of a call of `start_response`.
    pub fn response_started<'p>(
        &self,
        place: &Place,
        exchange: &Exchange,
        [status, headers, exc_info]: [&Object<'p>; 3],
    ) -> Result<(), Raised> {
        let py = status.py();
        if system::is_forked() || !self.are_wanted(py) {
            return Ok(());
        }
        let (id, data) = identity(py, exchange)?;
        let values = [&id, status, headers, exc_info, &data];
        self.tell(py, place, Event::ResponseStarted, &values).map(drop)
    }

    /// Tells of an exception.
    pub fn raised(&self, place: &Place, exchange: &Exchange, error: &Exception<'_>) {
        let py = error.value().py();
        if system::is_forked() || !self.are_wanted(py) {
            return;
        }
        let told = identity(py, exchange).and_then(|(id, data)| {
            let values = [&id, error.value(), &data];
            self.tell(py, place, Event::RequestException, &values)
        });
        // The request is ending anyway.
        if let Err(raised) = told {
            raised.clear(py);
        }
    }

    /// Tells that a request is finished, with this outcome.
    pub fn finished(
        &self,
        py: Attached<'_>,
        place: &Place,
        exchange: &Exchange,
        (told, outcome, finish): (&Told<'_>, c_int, Option<u64>),
    ) {
        if system::is_forked() || !self.are_wanted(py) {
            return;
        }
        let finish = finish.unwrap_or_else(now);
        let values = told.finished(py, exchange, outcome, finish);
        let answer = values.and_then(|values| {
            let values: Vec<_> = values.iter().collect();
            self.tell(py, place, Event::RequestFinished, &values)
        });
        if let Err(raised) = answer {
            raised.clear(py);
        }
    }
}

impl Told<'_> {
    /// When the request began, waited and came to the daemon process.
    fn times<'p>(&self, py: Attached<'p>) -> Result<[Object<'p>; 3], Raised> {
        let RequestHead { request_start, queue_start, .. } = *self.head;
        Ok([seconds(py, request_start)?, seconds(py, queue_start)?, seconds(py, self.daemon)?])
    }

    /// The values of `request_finished`, in the order of `events.py`.
    fn finished<'p>(
        &self,
        py: Attached<'p>,
        exchange: &Exchange,
        outcome: c_int,
        finish: u64,
    ) -> Result<Vec<Object<'p>>, Raised> {
        let (tally, status) = {
            let state = exchange.lock(py);
            (state.tally.clone().unwrap_or_default(), state.answer.status(outcome))
        };
        let [input, output, waits] = [&tally.input, &tally.output, &tally.waits].map(Flow::read);
        let cpu = tally.processor().map(|(user, system)| [user, system, user + system]);
        let count = |count: u64| py.int(i64::try_from(count).unwrap_or(i64::MAX));
        let time = |micros| seconds(py, micros);
        let (id, data) = identity(py, exchange)?;
        let mut values =
            vec![id, py.int(self.watch.thread_number())?, py.int(self.head.server_pid.into())?];
        values.extend(self.times(py)?);
        values.extend([count(input.steps)?, count(input.bytes)?, time(input.micros)?]);
        values.extend([count(output.bytes)?, count(output.steps)?, time(output.micros)?]);
        for at in 0..3 {
            values.push(cpu.map_or_else(|| Ok(py.none()), |cpu| time(cpu[at]))?);
        }
        values.extend([time(finish)?, time(finish.saturating_sub(self.application))?]);
        values.extend([py.int(status.into())?, time(waits.micros)?, count(waits.steps)?]);
        values.push(data);
        Ok(values)
    }
}

/// µs as Python has times.
fn seconds(py: Attached<'_>, micros: u64) -> Result<Object<'_>, Raised> {
    py.float(micros as f64 / 1e6)
}

/// The id of a request, or None, and its data.
fn identity<'p>(py: Attached<'p>, exchange: &Exchange) -> Result<(Object<'p>, Object<'p>), Raised> {
    let data = exchange.data(py)?;
    let (_, id) = exchange.lock(py).identity(py);
    Ok((id.unwrap_or_else(|| py.none()), data))
}

/// Tells subscribers in every interpreter, the main one last.
fn tell_all(
    event: Event,
    value: impl for<'p> Fn(Attached<'p>) -> Result<Object<'p>, Raised>,
    code: &str,
) {
    let Some(runtime) = runtime::running() else { return };
    let _inside = runtime.enter();
    let tell = |py: Attached<'_>, group: &Group| {
        let place = &group.place;
        let told = value(py).and_then(|value| place.events.tell(py, place, event, &[&value]));
        if let Err(raised) = told {
            let error = raised.take(py);
            let name = TELLERS[event as usize].to_string_lossy();
            let header = format!("{code}: not all subscribers are told of '{name}'");
            Sink::Process.traceback(place, &header, &error);
        }
    };
    for group in runtime.groups_main_last() {
        watch::attached(runtime, &group, |py| tell(py, &group));
    }
}

/// Tells of the end of the process.
pub fn stopping(reason: &[u8]) {
    telemetry::stopping(reason);
    tell_all(Event::ProcessStopping, |py| py.latin1(reason), "WSGI0104");
}

/// Tells of a signal to the process.
pub fn signal(number: c_int) {
    tell_all(Event::ProcessSignal, |py| py.int(number.into()), "WSGI0209");
}
