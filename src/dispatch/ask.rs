//! Asking a script in this child process, before it is known where a request runs.
#![forbid(unsafe_code)]

use super::answer::{log_from, log_level};
use super::handler::{next_id, site};
use super::reduced;
use crate::config::provider::ProviderScript;
use crate::host::{Exchange, Gone, Headers, Question, Reply, Source};
use crate::httpd::Request;
use crate::httpd::log::Log;
use crate::startup::Site;
use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use wsgi_wire::frame::BodyFault;
use wsgi_wire::vtable::level;

pub use super::answer::log;

/// What a script answered.
#[derive(Debug)]
pub struct Answer {
    /// In a word.
    pub reply: Reply,
    /// In detail; the numbers are those of [`wsgi_wire::vtable::question`].
    pub told: Vec<(u32, Vec<u8>)>,
}

impl Answer {
    /// The first detail.
    pub fn into_first(self) -> Option<Vec<u8>> {
        self.told.into_iter().next().map(|(_, value)| value)
    }
}

/// Asks a script about access to what `request` is for.  A line that there is no
/// Python to ask in has the code `no_python`.
pub fn ask(
    request: &Request,
    script: &ProviderScript,
    question: Question<'_>,
    no_python: &'static str,
) -> Answer {
    let Some(site) = site(request) else {
        return Answer { reply: Reply::Unloaded, told: Vec::new() };
    };
    let mut head = Vec::with_capacity(2 * 1024);
    reduced::encode(request, script, next_id(), &mut head);
    put(request, site, &head, question, no_python)
}

/// Asks the script that an encoded head names.
pub fn put(
    request: &Request,
    site: &Site,
    head: &[u8],
    question: Question<'_>,
    no_python: &'static str,
) -> Answer {
    let mut asked = Asked { request, told: Vec::new() };
    let reply = match site.embedded.runtime() {
        Ok(runtime) => site.embedded.ask(runtime, &mut asked, head, question),
        Err(reason) => {
            let text = format!("{no_python}: no Python in this process to ask in: {reason}");
            log(request, level::ERROR, &text);
            Reply::Unloaded
        }
    };
    Answer { reply, told: asked.told }
}

/// A request that somebody is asked about: it is not answered here.
struct Asked<'r> {
    request: &'r Request,
    told: Vec<(u32, Vec<u8>)>,
}

impl Exchange for Asked<'_> {
    fn read_body(&mut self, _to: &mut [u8]) -> Result<usize, BodyFault> {
        Ok(0)
    }

    fn start_response(&mut self, _status_line: &[u8], _headers: Headers<'_>) {}

    fn write(&mut self, _data: &[u8], _flags: u32) -> Result<(), Gone> {
        Err(Gone)
    }

    fn send_file(&mut self, _: BorrowedFd<'_>, _offset: u64, _length: u64) -> Result<(), Gone> {
        Err(Gone)
    }

    fn log(&mut self, level: u32, message: &str) {
        log(self.request, level, message);
    }

    fn log_from(&mut self, level: u32, message: &str, source: Source<'_>) {
        log_from(self.request, level, message, source);
    }

    fn would_log(&self, level: u32) -> bool {
        self.request.wants(log_level(level))
    }

    fn tell(&mut self, place: u32, value: &[u8]) {
        self.told.push((place, value.to_vec()));
    }

    fn tls_variable(&mut self, name: &[u8]) -> Option<&[u8]> {
        self.request.tls_variable(name)
    }

    fn apache_request(&mut self) -> *mut c_void {
        self.request.address()
    }
}
