//! The answer: `start_response`, `write` and what the application returns.
#![forbid(unsafe_code)]

use crate::exchange::{Exchange, over};
use crate::file_wrapper;
use crate::headers::Response;
use crate::interpreter::{Group, Place};
use crate::log::{Sink, single};
use crate::raw::{Args, Attached, Builtin, Class, Fault, Method, Object, Raised, This};
use crate::runtime::{self, Runtime};
use crate::tally::step;
use std::sync::Arc;
use wsgi_wire::vtable::{WRITE_NOW, level, write_flags};

/// Why a piece was not sent.
#[derive(Debug)]
pub enum Unsent {
    /// The request is over.
    Over,
    /// `start_response` was not called.
    NotStarted,
    /// The headers announce no possible length.
    Length(&'static str),
    /// The host failed.
    Fault(Fault),
}

impl Unsent {
    /// Raises it; the state is unlocked.
    fn raise(self, py: Attached<'_>) -> Raised {
        match self {
            Self::Over => over(py),
            Self::NotStarted => {
                py.raise(Builtin::RuntimeError, "start_response() has not been called")
            }
            Self::Length(message) => py.raise(Builtin::ValueError, message),
            Self::Fault(fault) => {
                py.raise(Builtin::OsError, &format!("cannot send the answer: {fault}"))
            }
        }
    }
}

/// What follows a piece of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Perhaps more.
    More,
    /// More, unless the announced length is reached.
    MoreUnlessFull,
    /// Nothing.
    Nothing,
}

/// A piece of the answer.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    /// Its bytes.
    data: &'a [u8],
    /// [`write_flags::FLUSH`] or nothing.
    flags: u32,
    /// What follows.
    then: Then,
    /// The length of the whole body, if this piece is all of it.
    whole: Option<u64>,
}

/// Hands the headers to the host, unless it has them; `whole` is the length of
/// the body, if it is known without an announcement.
fn commit(
    host: &mut crate::raw::HostRequest,
    answer: &mut crate::exchange::Answer,
    whole: Option<u64>,
) -> Result<(), Unsent> {
    if answer.committed {
        return Ok(());
    }
    let response = answer.response.as_ref().ok_or(Unsent::NotStarted)?;
    answer.length = response.content_length().map_err(Unsent::Length)?;
    let mut headers: Vec<_> = response.headers().collect();
    let text;
    if let (None, Some(whole)) = (answer.length, whole)
        && !response.is_bodiless()
        && !(answer.head_only && whole == 0)
    {
        answer.length = Some(whole);
        text = whole.to_string();
        headers.push((b"Content-Length", text.as_bytes()));
    }
    let taken = host.start_response(response.status_line(), &headers);
    answer.fault = taken.err();
    taken.map_err(Unsent::Fault)?;
    answer.committed = true;
    Ok(())
}

/// Whether the host does more than copy a piece of so many bytes that follows so many:
/// then other threads may run Python meanwhile.  In embedded mode the filters of httpd
/// are next, which wait for the client, or make a request that wants Python's lock.
fn may_block(before: u64, length: usize, flags: u32) -> bool {
    flags & write_flags::FLUSH != 0
        || before.saturating_add(length as u64) > WRITE_NOW as u64
        || runtime::running().is_none_or(Runtime::is_embedded)
}

/// Sends a piece, cut to what the headers announce.
fn send(py: Attached<'_>, exchange: &Exchange, piece: Piece<'_>) -> Result<(), Unsent> {
    let mut state = exchange.lock(py);
    let tally = state.tally.clone();
    let (host, answer, body) = state.parts().ok_or(Unsent::Over)?;
    commit(host, answer, piece.whole)?;
    if let Some(fault) = answer.fault {
        return Err(Unsent::Fault(fault));
    }
    if answer.finished {
        return Ok(());
    }
    let mut data = piece.data;
    let mut flags = piece.flags;
    let mut is_last = piece.then == Then::Nothing;
    if let Some(length) = answer.length {
        let room = usize::try_from(length - answer.sent).unwrap_or(usize::MAX);
        data = &data[..data.len().min(room)];
        // Too short a last piece is not the end: `finish` has a word to say.
        is_last = piece.then != Then::More && data.len() == room;
        // After the last piece nothing can be read; who sends what it reads looks
        // for the end of that once more, others answer first and read then.
        is_last &= piece.then == Then::Nothing || !body.may_be_read();
    }
    if is_last {
        flags |= write_flags::LAST;
    }
    if data.is_empty() && flags & write_flags::LAST == 0 {
        return Ok(());
    }
    let may_block = may_block(answer.sent, data.len(), flags);
    let write = || match may_block {
        true => py.detached(|| host.write(data, flags)),
        false => host.write(data, flags),
    };
    // Its whole length, as for the application: also of what is not sent.
    let result = step(tally, |tally| &tally.output, write, |_| piece.data.len());
    answer.sent += data.len() as u64;
    answer.finished = flags & write_flags::LAST != 0;
    answer.fault = result.err();
    result.map_err(Unsent::Fault)
}

/// Sends `length` bytes of the file `fd` from `offset` as the whole body, or as
/// much of them as there is.
pub fn send_file(
    py: Attached<'_>,
    exchange: &Exchange,
    fd: i32,
    (offset, size): (u64, u64),
) -> Result<(), Unsent> {
    let mut state = exchange.lock(py);
    let tally = state.tally.clone();
    let (host, answer, _) = state.parts().ok_or(Unsent::Over)?;
    let there = size.saturating_sub(offset);
    commit(host, answer, Some(there))?;
    let length = answer.length.map_or(there, |length| length.min(there));
    if length == 0 {
        return Ok(());
    }
    let send = || py.detached(|| host.send_file(fd, offset, length));
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let result = step(tally, |tally| &tally.output, send, |_| bytes);
    answer.sent += length;
    answer.fault = result.err();
    result.map_err(Unsent::Fault)
}

/// Tells the host that the answer is complete; sees to it that it is.
fn finish(py: Attached<'_>, exchange: &Exchange, flags: u32) -> Result<(), Unsent> {
    let mut state = exchange.lock(py);
    let (host, answer, _) = state.parts().ok_or(Unsent::Over)?;
    if answer.finished {
        return Ok(());
    }
    if let Some(fault) = answer.fault {
        return Err(Unsent::Fault(fault));
    }
    commit(host, answer, None)?;
    let bodiless = answer.head_only || answer.response.as_ref().is_some_and(Response::is_bodiless);
    if let Some(length) = answer.length
        && answer.sent < length
        && !bodiless
    {
        answer.short = true;
        let message = format!(
            "WSGI9401: the application announced {length} bytes and sent {}; \
             the connection is closed",
            answer.sent
        );
        host.log(level::ERROR, &message);
        return Ok(());
    }
    let flags = flags | write_flags::LAST;
    let result = match may_block(answer.sent, 0, flags) {
        true => py.detached(|| host.write(&[], flags)),
        false => host.write(&[], flags),
    };
    answer.finished = true;
    answer.fault = result.err();
    result.map_err(Unsent::Fault)
}

/// What `start_response` and `write` are methods of.
pub struct Responder {
    /// The request.
    pub exchange: Arc<Exchange>,
    /// Where it runs.
    pub group: Arc<Group>,
}

impl Class for Responder {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Response";
    const METHODS: &'static [Method<Self>] = &[Method::END];
}

/// `start_response(status, headers[, exc_info])`
pub static START_RESPONSE: Method<Responder> = Method::new(c"start_response", start_response);

/// `write(data)`
static WRITE: Method<Responder> = Method::new(c"write", write);

/// What is wrong with a call of `start_response` that comes too late.
const SENT: &str = "headers have already been sent";

/// See [`START_RESPONSE`].
fn start_response<'p>(
    this: This<'_, 'p, Responder>,
    args: Args<'_, 'p>,
) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let committed = this.exchange.open(py)?.answer.committed;
    let (Some(status), Some(headers), 2..=3) = (args.get(0), args.get(1), args.len()) else {
        let message = format!("start_response() takes 2 or 3 arguments ({} given)", args.len());
        return Err(py.raise(Builtin::TypeError, &message));
    };
    if !headers.is_list() {
        let message = format!("headers must be a list, not {}", headers.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    }
    let exc_info = args.get(2).filter(|exc_info| !exc_info.is_none());
    if exc_info.as_ref().is_some_and(|exc_info| !exc_info.is_tuple()) {
        return Err(py.raise(Builtin::RuntimeError, "exc_info must be None or a tuple"));
    }
    let place = &this.group.place;
    let none = py.none();
    let told = [&status, &headers, exc_info.as_ref().unwrap_or(&none)];
    place.events.response_started(place, &this.exchange, told)?;
    match exc_info {
        Some(exc_info) if committed => return Err(raise_again(py, &exc_info)),
        None if committed => {
            return Err(py.raise(Builtin::RuntimeError, SENT));
        }
        _ => {}
    }
    let response = Response::new(py, &status, &headers)?;
    let mut state = this.exchange.open(py)?;
    if state.answer.committed {
        // By another thread, meanwhile.
        drop(state);
        return Err(py.raise(Builtin::RuntimeError, SENT));
    }
    state.answer.response = Some(response);
    drop(state);
    this.bind(&WRITE)
}

/// Raises the exception the application was reporting.
fn raise_again<'p>(py: Attached<'p>, exc_info: &Object<'p>) -> Raised {
    let item = |at| exc_info.tuple_item(at);
    match (item(0), item(1), item(2), item(3)) {
        (Some(class), Some(value), Some(trace), None) if class.is_exception_class() => {
            Object::raise_again(class, value, trace)
        }
        _ => py.raise(Builtin::TypeError, "exc_info must be what sys.exc_info() gives"),
    }
}

/// See [`WRITE`].
fn write<'p>(this: This<'_, 'p, Responder>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    drop(this.exchange.open(py)?);
    let data = single(args, "write")?;
    let Some(bytes) = data.as_bytes() else {
        let message = format!("write() takes bytes, not {}", data.type_name());
        return Err(py.raise(Builtin::TypeError, &message));
    };
    let flags = write_flags::FLUSH;
    let piece = Piece { data: bytes, flags, then: Then::More, whole: None };
    match send(py, &this.exchange, piece) {
        Ok(()) => Ok(py.none()),
        Err(unsent) => Err(unsent.raise(py)),
    }
}

/// What the application returned: its `close()` is called once, at the end.
pub struct Iterable<'a, 'p> {
    result: Object<'p>,
    /// None until it was looked up; then the method, if there is one.
    close: Option<Option<Object<'p>>>,
    place: &'a Place,
    exchange: &'a Exchange,
}

impl<'a, 'p> Iterable<'a, 'p> {
    /// What the application returned for the request of `exchange`.
    pub const fn new(result: Object<'p>, place: &'a Place, exchange: &'a Exchange) -> Self {
        Self { result, close: None, place, exchange }
    }

    /// Whether there is a `close`; a slow one must not keep the client waiting.  Err
    /// is the request's interruption, after which it may be asked again.
    fn find_close(&mut self) -> Result<bool, Raised> {
        if self.close.is_none() {
            let py = self.result.py();
            let is_plain = self.result.list_len().or_else(|| self.result.tuple_len()).is_some();
            let found = match is_plain {
                true => None,
                false => match self.result.attr_of(&self.place.names.close.lend(py)) {
                    Ok(close) => Some(close),
                    Err(raised) => {
                        self.lookup_failed(raised)?;
                        None
                    }
                },
            };
            self.close = Some(found);
        }
        Ok(matches!(self.close, Some(Some(_))))
    }

    /// Logs why `close` could not be looked up, unless it is just not there; Err is
    /// the request's interruption.
    fn lookup_failed(&self, raised: Raised) -> Result<(), Raised> {
        let error = raised.take(self.result.py());
        if self.place.is_timeout(&error) {
            return Err(error.raise());
        }
        if !error.is(Builtin::AttributeError) {
            let header = "WSGI0194: exception while looking up close() of what the application \
                          returned; it is not called";
            Sink::Request(self.exchange).traceback(self.place, header, &error);
        }
        Ok(())
    }

    /// Looks up `close` and calls it, if there is one.
    fn call_close(&mut self) -> Result<(), Raised> {
        self.find_close()?;
        match self.close.take() {
            Some(Some(close)) => close.call(&[]).map(drop),
            _ => Ok(()),
        }
    }

    /// Sends it all.
    ///
    /// Err is an exception the application sees the end of its request by.
    pub fn send(&mut self) -> Result<(), Raised> {
        let py = self.result.py();
        let sent = if let Some(sent) = file_wrapper::send(self.place, self.exchange, &self.result)?
        {
            sent
        } else if let Some(count) = self.result.list_len() {
            let items = (0..count).filter_map(|at| self.result.list_item(at)).collect();
            self.send_items(items)?
        } else if let Some(count) = self.result.tuple_len() {
            let items = (0..count).filter_map(|at| self.result.tuple_item(at)).collect();
            self.send_items(items)?
        } else {
            self.send_iterator()?
        };
        sent.or_else(|unsent| match unsent {
            // Nobody is left to send to: not the application's fault.
            Unsent::Fault(_) => Ok(()),
            other => Err(other.raise(py)),
        })
    }

    /// Sends the items of a list or tuple: no Python runs in between, so the
    /// client waits for nothing and no item needs a flush of its own.
    fn send_items(&mut self, items: Vec<Object<'p>>) -> Result<Result<(), Unsent>, Raised> {
        let py = self.result.py();
        for item in &items {
            check_item(item)?;
        }
        let bytes = |item: &'_ Object<'p>| item.as_bytes().map_or(0, <[u8]>::len);
        let last = items.iter().rposition(|item| bytes(item) > 0);
        let whole = (items.len() == 1).then(|| bytes(&items[0]) as u64);
        for (at, item) in items.iter().enumerate() {
            let data = item.as_bytes().unwrap_or_default();
            if data.is_empty() && whole.is_none() {
                continue;
            }
            let then = if last.is_none_or(|last| at >= last) { Then::Nothing } else { Then::More };
            let piece = Piece { data, flags: 0, then, whole };
            if let Err(unsent) = send(py, self.exchange, piece) {
                return Ok(Err(unsent));
            }
        }
        Ok(finish(py, self.exchange, 0))
    }

    /// Sends what any other iterable gives, each piece at once: PEP 3333,
    /// "Buffering and Streaming".
    fn send_iterator(&mut self) -> Result<Result<(), Unsent>, Raised> {
        let py = self.result.py();
        let iterator = self.result.iterate()?;
        while let Some(item) = iterator.next()? {
            check_item(&item)?;
            let data = item.as_bytes().unwrap_or_default();
            if data.is_empty() {
                continue;
            }
            let flags = write_flags::FLUSH;
            let piece = Piece { data, flags, then: Then::MoreUnlessFull, whole: None };
            if let Err(unsent) = send(py, self.exchange, piece) {
                return Ok(Err(unsent));
            }
        }
        let flags = if self.find_close()? { write_flags::FLUSH } else { 0 };
        Ok(finish(py, self.exchange, flags))
    }
}

impl Drop for Iterable<'_, '_> {
    fn drop(&mut self) {
        if let Err(raised) = self.call_close() {
            let error = raised.take(self.result.py());
            let header = match self.place.is_timeout(&error) {
                true => {
                    "WSGI9410: close() of what the application returned was interrupted for \
                         time; the answer is not affected"
                }
                false => {
                    "WSGI0174: exception in close() of what the application returned; \
                          the answer is not affected"
                }
            };
            Sink::Request(self.exchange).traceback(self.place, header, &error);
            self.place.events.raised(self.place, self.exchange, &error);
        }
    }
}

/// Raises unless `item` is `bytes`.
fn check_item(item: &Object<'_>) -> Result<(), Raised> {
    if item.as_bytes().is_some() {
        return Ok(());
    }
    let message = format!("the application must yield bytes, not {}", item.type_name());
    Err(item.py().raise(Builtin::TypeError, &message))
}

/// Tells the host that an answer sent from a file is complete.
pub fn finish_file(py: Attached<'_>, exchange: &Exchange) -> Result<(), Unsent> {
    finish(py, exchange, write_flags::FLUSH)
}

/// Whether anything of the answer's body went out.
pub fn has_begun(py: Attached<'_>, exchange: &Exchange) -> bool {
    exchange.lock(py).answer.sent > 0
}
