//! Sending a file that `wsgi.file_wrapper` was given, without reading it here.
#![forbid(unsafe_code)]

use crate::answer;
use crate::answer::Unsent;
use crate::exchange::Exchange;
use crate::interpreter::Place;
use crate::raw::{Object, Raised, system};

/// Sends `result` if it is a file wrapper around a regular file of which nothing
/// was sent yet; None if it is to be iterated like anything else.
pub fn send(
    place: &Place,
    exchange: &Exchange,
    result: &Object<'_>,
) -> Result<Option<Result<(), Unsent>>, Raised> {
    let py = result.py();
    let is_plain = result.list_len().or_else(|| result.tuple_len()).is_some();
    if is_plain || !result.is_a(&place.file_wrapper.lend(py))? {
        return Ok(None);
    }
    if answer::has_begun(py, exchange) {
        return Ok(None);
    }
    let file = result.attr(c"filelike")?;
    let Some(fd) = number(place, &file, c"fileno")? else { return Ok(None) };
    let Some(offset) = number(place, &file, c"tell")? else { return Ok(None) };
    let (Ok(fd), Ok(offset)) = (i32::try_from(fd), u64::try_from(offset)) else {
        return Ok(None);
    };
    let Some(size) = system::regular_file_size(fd) else { return Ok(None) };
    let sent = answer::send_file(py, exchange, fd, (offset, size))
        .and_then(|()| answer::finish_file(py, exchange));
    Ok(Some(sent))
}

/// What `method` of `file` answers, if that is a number; Err is the request's
/// interruption.
fn number(
    place: &Place,
    file: &Object<'_>,
    method: &core::ffi::CStr,
) -> Result<Option<i64>, Raised> {
    let ask = || file.attr(method)?.call(&[])?.to_i64();
    match ask() {
        Ok(number) => Ok(Some(number)),
        Err(raised) => {
            let error = raised.take(file.py());
            if place.is_timeout(&error) {
                return Err(error.raise());
            }
            // Whatever else it raises, it has no such number: `io.UnsupportedOperation`,
            // `AttributeError`, or whatever a file-like object invents.
            Ok(None)
        }
    }
}
