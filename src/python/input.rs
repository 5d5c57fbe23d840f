//! `wsgi.input`.
#![forbid(unsafe_code)]

use crate::exchange::{Exchange, State};
use crate::raw::{
    Args, Attached, Blank, Builtin, Class, Fault, Method, Next, Object, Raised, This,
};
use crate::tally::step;
use std::sync::Arc;
use wsgi_wire::buffer::Buffer;

/// How much is asked of the host at a time when a line or everything is wanted.
/// Smaller costs calls, bigger costs memory that stays unused for short bodies.
const BLOCK: usize = 64 * 1024;

/// What is asked for where no more was announced: mostly its end is what comes.
const SCRAP: usize = 1024;

/// As much at once is read straight into the object that the application gets: not more,
/// because a client announces what it likes.
const DIRECT: usize = 256 * 1024;

/// What is known of a request's body.
#[derive(Debug, Default)]
pub struct Body {
    /// Read from the host, not yet by the application.
    buffer: Buffer,
    /// Whether the host said it is complete.
    ended: bool,
    /// Whether the request comes with one.
    expected: bool,
    /// How much of it is still to come, if filters of httpd's do not change that.
    announced: usize,
    /// Whether the host was asked at all: that sends `100 Continue`.
    asked: bool,
    /// Why it will not be completed.
    pub fault: Option<Fault>,
}

impl Body {
    /// What is buffered.
    fn buffered(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// Takes the first `count` buffered bytes as an object.
    fn take<'p>(&mut self, py: Attached<'p>, count: usize) -> Result<Object<'p>, Raised> {
        let bytes = py.bytes(&self.buffer.bytes()[..count]);
        self.buffer.consume(count);
        bytes
    }

    /// The body of a request whose head says that it is so long.
    pub fn new(length: u64) -> Self {
        let announced = usize::try_from(length).unwrap_or(usize::MAX);
        Self { expected: length > 0, announced, ..Self::default() }
    }

    /// Whether the application may still want to read it.
    pub const fn may_be_read(&self) -> bool {
        (self.expected || self.asked) && !self.ended && self.fault.is_none()
    }

    /// Gives memory back that only a big read needed.
    fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.clear(2 * BLOCK);
        }
    }
}

/// The object.
pub struct Input(pub Arc<Exchange>);

impl Class for Input {
    const NAME: &'static core::ffi::CStr = c"mod_wsgi.Input";
    const METHODS: &'static [Method<Self>] = &[
        Method::new(c"read", read),
        Method::new(c"readline", readline),
        Method::new(c"readlines", readlines),
        Method::new(c"close", close),
        Method::END,
    ];
    const NEXT: Option<Next> = Some(Next::new(next));
}

/// The optional size: None for all.
fn size(args: Args<'_, '_>, method: &str) -> Result<Option<usize>, Raised> {
    match (args.len(), args.get(0)) {
        (0, _) => Ok(None),
        (1, Some(size)) if size.is_none() => Ok(None),
        (1, Some(size)) => Ok(usize::try_from(size.to_i64()?).ok()),
        (count, _) => {
            let message = format!("{method}() takes at most one argument ({count} given)");
            Err(args.py().raise(Builtin::TypeError, &message))
        }
    }
}

/// Why nothing could be read.
#[derive(Debug, Clone, Copy)]
enum Unread {
    /// The host failed just now.
    Fault(Fault),
    /// The host failed before.
    Again,
    /// The host was told that the answer is complete, and may be at the next
    /// request of the client already.
    Late,
    /// There is no room for it.
    NoMemory,
}

impl Unread {
    /// Raises it, once the state is unlocked.
    fn raise(self, py: Attached<'_>) -> Raised {
        let message = match self {
            Self::NoMemory => {
                return py.raise(Builtin::MemoryError, "no memory for the request body");
            }
            Self::Late => "cannot read the request body: the answer is complete".to_owned(),
            Self::Fault(fault) => format!("cannot read the request body: {fault}"),
            Self::Again => "the request body is already in error state".to_owned(),
        };
        py.raise(Builtin::OsError, &message)
    }
}

/// Appends up to `want` bytes from the host to the buffer; false at the end.
fn fill(py: Attached<'_>, state: &mut State, want: usize) -> Result<bool, Unread> {
    let tally = state.tally.clone();
    let Some((host, answer, body)) = state.parts() else { return Ok(false) };
    if body.fault.is_some() {
        return Err(Unread::Again);
    }
    if body.ended {
        return Ok(false);
    }
    if answer.finished {
        return if want == 0 { Ok(false) } else { Err(Unread::Late) };
    }
    body.asked = true;
    // Growing it otherwise ends the process when there is no memory.
    // No more room than is needed: of a form that is read in big pieces the rest would
    // be prepared in vain.
    let want = want.min(body.announced.max(SCRAP));
    let room = body.buffer.try_room(want).map_err(|_| Unread::NoMemory)?;
    let read = || py.detached(|| host.read_body(&mut room[..want]));
    let answer = step(tally, |tally| &tally.input, read, |read| *read.as_ref().unwrap_or(&0));
    let count = answer.unwrap_or(0);
    body.announced = body.announced.saturating_sub(count);
    body.buffer.fill(count);
    match answer {
        Ok(0) => {
            body.ended = want > 0;
            Ok(false)
        }
        Ok(_) => Ok(true),
        Err(fault) => {
            body.fault = Some(fault);
            Err(Unread::Fault(fault))
        }
    }
}

/// `read([size])`
fn read<'p>(input: This<'_, 'p, Input>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let want = size(args, "read")?.unwrap_or(usize::MAX);
    let mut state = input.0.open(py)?;
    match read_directly(py, &mut state, want) {
        Ok(None) => {}
        Ok(Some(bytes)) => return Ok(bytes),
        Err(unread) => {
            drop(state);
            return Err(unread.raise(py));
        }
    }
    if let Err(unread) = fill_until(py, &mut state, want) {
        drop(state);
        return Err(unread.raise(py));
    }
    let count = state.body.buffered().len().min(want);
    let bytes = state.body.take(py, count);
    state.body.shrink();
    bytes
}

/// Reads `want` bytes, or as many as were announced, into the object that the
/// application gets: a copy less.  `None` where the buffer is to be used.
fn read_directly<'p>(
    py: Attached<'p>,
    state: &mut State,
    want: usize,
) -> Result<Option<Object<'p>>, Unread> {
    let tally = state.tally.clone();
    let Some((host, answer, body)) = state.parts() else { return Ok(None) };
    let length = want.min(body.announced);
    let is_known = (SCRAP..=DIRECT).contains(&length) && body.buffered().is_empty();
    if !is_known || !body.may_be_read() || answer.finished {
        return Ok(None);
    }
    body.asked = true;
    let mut blank = py.blank(length).map_err(|_| Unread::NoMemory)?;
    let read = || {
        let filling = blank.filling();
        (py.detached(|| host.read_body_into(filling)), blank)
    };
    let count = |(_, blank): &(_, Blank<'_>)| blank.bytes().len();
    let (read, blank) = step(tally, |tally| &tally.input, read, count);
    body.announced -= blank.bytes().len();
    if let Err(fault) = read {
        body.fault = Some(fault);
        return Err(Unread::Fault(fault));
    }
    body.ended = !blank.is_full();
    if !body.ended && want > length {
        // Its end is what comes, unless a filter of httpd's has made the body longer.
        fill_until(py, state, want - length)?;
    }
    let more = state.body.buffered().len().min(want - length);
    let bytes = if more > 0 {
        let bytes = py.bytes(&[blank.bytes(), &state.body.buffered()[..more]].concat());
        state.body.buffer.consume(more);
        bytes
    } else {
        blank.finish()
    };
    bytes.map(Some).map_err(|_| Unread::NoMemory)
}

/// Buffers `want` bytes, or all there are.
fn fill_until(py: Attached<'_>, state: &mut State, want: usize) -> Result<(), Unread> {
    if want == 0 && !state.body.asked {
        // As in the reference, even an empty first read sends `100 Continue`.
        fill(py, state, 0)?;
    }
    while state.body.buffered().len() < want {
        let missing = want - state.body.buffered().len();
        if !fill(py, state, missing.min(BLOCK))? {
            break;
        }
    }
    Ok(())
}

/// Buffers a line, up to `limit` bytes of it; gives its length.
fn fill_line(py: Attached<'_>, state: &mut State, limit: usize) -> Result<usize, Unread> {
    let mut searched = 0;
    loop {
        let buffered = state.body.buffered();
        let visible = &buffered[..buffered.len().min(limit)];
        if let Some(at) = visible[searched..].iter().position(|&byte| byte == b'\n') {
            return Ok(searched + at + 1);
        }
        searched = visible.len();
        if searched == limit || !fill(py, state, BLOCK)? {
            return Ok(searched);
        }
    }
}

/// The next line, up to `limit` bytes of it; empty at the end.
fn line<'p>(input: &Input, py: Attached<'p>, limit: usize) -> Result<Object<'p>, Raised> {
    let mut state = input.0.open(py)?;
    match fill_line(py, &mut state, limit) {
        Ok(count) => state.body.take(py, count),
        Err(unread) => {
            drop(state);
            Err(unread.raise(py))
        }
    }
}

/// `readline([size])`
fn readline<'p>(input: This<'_, 'p, Input>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let size = size(args, "readline")?;
    line(&input, args.py(), size.unwrap_or(usize::MAX))
}

/// `readlines([hint])`: lines until their length reaches the hint.
fn readlines<'p>(input: This<'_, 'p, Input>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    let py = args.py();
    let hint = size(args, "readlines")?.filter(|&hint| hint > 0).unwrap_or(usize::MAX);
    let lines = py.list()?;
    let mut total = 0;
    while total < hint {
        let next = line(&input, py, usize::MAX)?;
        match next.as_bytes() {
            Some(bytes) if !bytes.is_empty() => total += bytes.len(),
            _ => break,
        }
        lines.list_append(&next)?;
    }
    Ok(lines)
}

/// `close()`: the body belongs to the server.
fn close<'p>(input: This<'_, 'p, Input>, args: Args<'_, 'p>) -> Result<Object<'p>, Raised> {
    drop(input.0.open(args.py())?);
    Ok(args.py().none())
}

/// `__next__()`
fn next<'p>(input: &Input, py: Attached<'p>) -> Result<Option<Object<'p>>, Raised> {
    let line = line(input, py, usize::MAX)?;
    Ok(line.as_bytes().is_some_and(|line| !line.is_empty()).then_some(line))
}
