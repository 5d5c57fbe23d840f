//! Asking a script, by its function `reload_required`, whether it wants to be loaded
//! again: for what it serves has changed, although its own file has not.
#![forbid(unsafe_code)]

use crate::interpreter::Place;
use crate::log::Sink;
use crate::raw::{Builtin, Object, Raised};
use crate::script::{Unusable, Wanted};
use wsgi_wire::head::{Key, RequestHead};
use wsgi_wire::keys;

/// The variable that names what a handler script is to serve.
const TARGET: &str = "SCRIPT_FILENAME";

/// Whether `module`, loaded at `loaded`, wants to be loaded again for the request.
///
/// A script that was loaded after the request came in is as new as it can be: it is
/// not asked, so that one which always says yes still serves.
pub fn is_required(
    place: &Place,
    module: &Object<'_>,
    loaded: Option<u64>,
    wanted: Wanted<'_>,
    sink: Sink<'_>,
) -> Result<bool, Unusable> {
    let py = module.py();
    let (Some(head), Some(_)) = (wanted.request, wanted.check) else { return Ok(false) };
    let Some(function) = module.defined(&place.names.reload_required.lend(py)) else {
        return Ok(false);
    };
    if loaded.is_none_or(|loaded| loaded >= head.request_start) {
        return Ok(false);
    }
    let ask = || -> Result<bool, Raised> { function.call(&[&py.path(target(head))?])?.is_true() };
    ask().or_else(|raised| {
        let error = raised.take(py);
        if place.is_timeout(&error) {
            sink.traceback(place, "WSGI9410: interrupted for time in reload_required()", &error);
            return Err(Unusable::of(place, &error));
        }
        let (code, what) = match error.is(Builtin::SystemExit) {
            true => ("WSGI0175", "called exit"),
            false => ("WSGI0174", "raised an exception"),
        };
        let path = String::from_utf8_lossy(wanted.path);
        let header =
            format!("{code}: reload_required() of '{path}' {what}; it is not loaded again");
        sink.traceback(place, &header, &error);
        Ok(false)
    })
}

/// The file the request is for.
fn target<'a>(head: &RequestHead<'a>) -> &'a [u8] {
    let is_target = |key: &Key<'_>| match key {
        Key::Known(at) => keys::KEYS[*at] == TARGET,
        Key::Other(name) => *name == TARGET.as_bytes(),
    };
    // What comes later counts, as in the environ.
    let found = head.environ().flatten().filter(|(key, _)| is_target(key)).last();
    found.map_or(head.script, |(_, value)| value)
}
