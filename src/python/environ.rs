//! The WSGI dict of a request: PEP 3333, "environ Variables".
#![forbid(unsafe_code)]

use crate::exchange::Exchange;
use crate::interpreter::Place;
use crate::raw::{Attached, Capsule, Object, Raised};
use wsgi_wire::cursor::FrameError;
use wsgi_wire::head::{Key, RequestHead, Variables, flags};
use wsgi_wire::keys::known;

/// The place of `key` among the well-known keys.
pub const fn place(key: &str) -> usize {
    known(key) as usize - 1
}

/// Values that are file names.
const FILE_NAMES: [usize; 2] = [place("DOCUMENT_ROOT"), place("SCRIPT_FILENAME")];

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

/// The environ of a request, without the objects that belong to it.
pub fn make<'p>(
    py: Attached<'p>,
    place: &Place,
    head: &RequestHead<'_>,
    thread: i64,
) -> Result<Object<'p>, Unmade> {
    let environ = begin(py, place, head)?;
    fill(&environ, place, head.variables)?;
    fill_server_pid(&environ, place, head)?;
    let names = &place.names;
    if head.flags & flags::HTTPS != 0 {
        environ.dict_set(&names.url_scheme.lend(py), &names.https.lend(py))?;
    }
    environ.dict_set(&names.thread_id.lend(py), &py.int(thread)?)?;
    Ok(environ)
}

/// The environ that all requests with the same common variables begin with.
fn begin<'p>(
    py: Attached<'p>,
    place: &Place,
    head: &RequestHead<'_>,
) -> Result<Object<'p>, Unmade> {
    if let Some(begun) = place.beginnings.find(py, head.common.encoded()) {
        return Ok(begun.dict_copy()?);
    }
    let environ = place.template.lend(py).dict_copy()?;
    fill(&environ, place, head.common)?;
    place.beginnings.keep(head.common.encoded(), environ.dict_copy()?);
    Ok(environ)
}

/// Sets what the host says about a request.
pub fn fill_variables<'p>(
    environ: &Object<'p>,
    place: &Place,
    head: &RequestHead<'_>,
) -> Result<(), Unmade> {
    fill(environ, place, head.common)?;
    fill(environ, place, head.variables)?;
    fill_server_pid(environ, place, head)
}

/// Sets the number of the child process that the request came to, if it is told.
fn fill_server_pid<'p>(
    environ: &Object<'p>,
    place: &Place,
    head: &RequestHead<'_>,
) -> Result<(), Unmade> {
    let py = environ.py();
    if head.server_pid != 0 {
        let text = place.texts.get(py, head.server_pid.to_string().as_bytes())?;
        environ.dict_set(&place.keys[SERVER_PID].lend(py), &text)?;
    }
    Ok(())
}

/// Sets these variables.
fn fill<'p>(environ: &Object<'p>, place: &Place, variables: Variables<'_>) -> Result<(), Unmade> {
    let py = environ.py();
    for variable in variables {
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
            Key::Other(name) => {
                environ.dict_set(&place.texts.get(py, name)?, &py.latin1(value)?)?
            }
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
