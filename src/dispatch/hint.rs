//! Hints for the log about what an application cannot know.
#![forbid(unsafe_code)]

use super::answer::log;
use crate::httpd::Request;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use wsgi_wire::vtable::level;

/// As many scripts are remembered: a rule that maps each URL to a file of its own
/// must not fill the memory of httpd.
const MOST_SCRIPTS: usize = 1000;

/// The scripts this child process has said something about.
static TOLD: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

/// Whether this is the first time for `script`.
fn is_first(told: &mut BTreeSet<Vec<u8>>, script: &[u8]) -> bool {
    told.len() < MOST_SCRIPTS && told.insert(script.to_vec())
}

/// The application asks for credentials: says so once for each script if it did not
/// get to see those the client sent.
pub fn about_authorization(request: &Request) {
    let withheld = request.headers_in().get(c"Authorization").is_some();
    if !withheld || request.passes_auth_to_cgi() {
        return;
    }
    let script = request.filename().unwrap_or_default();
    if is_first(&mut TOLD.lock().unwrap_or_else(PoisonError::into_inner), script) {
        let text = "WSGI9510: the application answered 401 to a request whose Authorization header \
                    it does not get to see: WSGIPassAuthorization is Off; this is said once";
        log(request, level::WARN, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_is_spoken_of_once() {
        let mut told = BTreeSet::new();
        assert!(is_first(&mut told, b"/a.wsgi"));
        assert!(is_first(&mut told, b"/b.wsgi"));
        assert!(!is_first(&mut told, b"/a.wsgi"));
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut told = BTreeSet::new();
        for script in 0..2 * MOST_SCRIPTS {
            is_first(&mut told, script.to_string().as_bytes());
        }
        assert_eq!(told.len(), MOST_SCRIPTS);
    }
}
