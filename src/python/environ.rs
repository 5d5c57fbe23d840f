//! The WSGI dict of a request: PEP 3333, "environ Variables".
#![forbid(unsafe_code)]

use crate::exchange::Exchange;
use crate::interpreter::Place;
use crate::raw::{Attached, Capsule, Object, Raised};
use wsgi_wire::cursor::FrameError;
use wsgi_wire::head::{Key, RequestHead, flags};
use wsgi_wire::keys::KEYS;

/// The place of `key` among the well-known keys.
pub const fn place(key: &str) -> usize {
    let mut at = 0;
    while at < KEYS.len() {
        if is_same(KEYS[at].as_bytes(), key.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("not a well-known key")
}

/// Whether two texts are the same, at compile time.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Values that are file names.
const FILE_NAMES: [usize; 2] = [place("DOCUMENT_ROOT"), place("SCRIPT_FILENAME")];

/// Where the request's method is.
const METHOD: usize = place("REQUEST_METHOD");

/// Where the length of the request body is, if it was told.
const LENGTH: usize = place("CONTENT_LENGTH");

/// What a request with a body of unknown length has.
const CODING: &str = "HTTP_TRANSFER_ENCODING";

/// Where the number of the child process is that the request came to.
const SERVER_PID: usize = place("mod_wsgi.server_pid");

/// The keys [`fill_times`] sets, interned.
pub static TIMES: [&str; 4] = [
    "mod_wsgi.request_start",
    "mod_wsgi.queue_start",
    "mod_wsgi.daemon_start",
    "mod_wsgi.application_start",
];

/// Why there is no environ.
pub enum Unmade {
    /// The head is damaged.
    Head(FrameError),
    /// Python raised.
    Raised(Raised),
}

impl From<FrameError> for Unmade {
    fn from(error: FrameError) -> Self {
        Self::Head(error)
    }
}

impl From<Raised> for Unmade {
    fn from(raised: Raised) -> Self {
        Self::Raised(raised)
    }
}

/// Whether the request is a `HEAD` that the application sees as such.
pub fn is_head_only(head: &RequestHead<'_>) -> bool {
    head.variables
        .flatten()
        .find(|(key, _)| *key == Key::Known(METHOD))
        .is_some_and(|(_, value)| value == b"HEAD")
}

/// How long the body is said to be that the request comes with; none if there is
/// none, and the most there can be where nothing is said of it.
pub fn body_length(head: &RequestHead<'_>) -> Option<usize> {
    head.variables.flatten().find_map(|(key, value)| match key {
        Key::Known(at) if at == LENGTH => {
            let length = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            (!matches!(value, b"" | b"0")).then_some(length.unwrap_or(usize::MAX))
        }
        Key::Known(at) => (KEYS[at] == CODING).then_some(usize::MAX),
        Key::Other(name) => (name == CODING.as_bytes()).then_some(usize::MAX),
    })
}

/// The number of the child process that the request came to; 0 if it is not told.
pub fn server_pid(head: &RequestHead<'_>) -> i64 {
    let is_it = |(key, _): &(Key<'_>, &[u8])| *key == Key::Known(SERVER_PID);
    let found = head.variables.flatten().find(is_it);
    let text = found.and_then(|(_, value)| str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The environ of a request, without the objects that belong to it.
pub fn make<'p>(
    py: Attached<'p>,
    place: &Place,
    head: &RequestHead<'_>,
    thread: i64,
) -> Result<Object<'p>, Unmade> {
    let environ = place.template.lend(py).dict_copy()?;
    fill_variables(&environ, place, head)?;
    let names = &place.names;
    if head.flags & flags::HTTPS != 0 {
        environ.dict_set(&names.url_scheme.lend(py), &names.https.lend(py))?;
    }
    environ.dict_set(&names.thread_id.lend(py), &py.int(thread)?)?;
    Ok(environ)
}

/// Sets what the host says about a request.
pub fn fill_variables<'p>(
    environ: &Object<'p>,
    place: &Place,
    head: &RequestHead<'_>,
) -> Result<(), Unmade> {
    let py = environ.py();
    for variable in head.variables {
        let (key, value) = variable?;
        match key {
            Key::Known(at) => {
                let value = if FILE_NAMES.contains(&at) {
                    py.path(value).or_else(|raised| {
                        raised.clear(py);
                        py.latin1(value)
                    })?
                } else {
                    py.latin1(value)?
                };
                environ.dict_set(&place.keys[at].lend(py), &value)?;
            }
            Key::Other(name) => environ.dict_set(&py.latin1(name)?, &py.latin1(value)?)?,
        }
    }
    Ok(())
}

/// Sets httpd's own record of the request where the application is to have it; it is
/// of use until what this gives is dropped.
pub fn set_apache_request<'p>(
    environ: &Object<'p>,
    head: &RequestHead<'_>,
    exchange: &Exchange,
) -> Result<Option<Capsule<'p>>, Raised> {
    if head.flags & flags::APACHE_REQUEST == 0 {
        return Ok(None);
    }
    let py = environ.py();
    let capsule = exchange.capsule(py)?;
    if let Some(capsule) = &capsule {
        environ.dict_set(&py.name("apache.request_rec")?, capsule.object())?;
    }
    Ok(capsule)
}

/// Sets the times of a request, in seconds; `daemon` is when its process took
/// it, 0 in embedded mode.
pub fn fill_times<'p>(
    environ: &Object<'p>,
    place: &Place,
    head: &RequestHead<'_>,
    (daemon, application): (u64, u64),
) -> Result<(), Raised> {
    let py = environ.py();
    let times = [head.request_start, head.queue_start, daemon, application];
    for (key, time) in place.names.times.iter().zip(times) {
        environ.dict_set(&key.lend(py), &py.float(time as f64 / 1e6)?)?;
    }
    Ok(())
}
