//! httpd's request as the resolver asks it.
#![forbid(unsafe_code)]

use super::resolve::{Question, Script};
use crate::config::group::{Variables, push_script_url};
use crate::httpd::Request;
use crate::httpd::request::Target;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

impl Variables for Request {
    fn note(&self, name: &CStr) -> Option<&[u8]> {
        self.notes().get(name)
    }

    fn subprocess_env(&self, name: &CStr) -> Option<&[u8]> {
        self.variables().get(name)
    }

    fn process_env(&self, name: &CStr) -> Option<Vec<u8>> {
        let name = name.to_bytes();
        // The standard library takes a name with these for a mistake.
        let is_name = !name.is_empty() && !name.contains(&b'=');
        is_name.then(|| std::env::var_os(OsStr::from_bytes(name)))?.map(OsStringExt::into_vec)
    }

    fn server_name(&self) -> &[u8] {
        self.server().hostname().unwrap_or_default()
    }

    fn host(&self) -> Option<&[u8]> {
        self.hostname()
    }

    fn port(&self) -> u16 {
        // httpd takes it from the Host header where it can: each number a client makes
        // up would name an interpreter of its own, until there is no memory left.
        let (named, local) = (self.server_port(), self.local_port());
        let known = [local, self.server().port(), 80, 443];
        if known.contains(&named) || local == 0 { named } else { local }
    }

    fn push_script_url(&self, to: &mut Vec<u8>) {
        let begin = to.len();
        push_script_url(self.uri(), self.path_info(), to);
        let config = self.server().config();
        if config.is_some_and(|config| !config.interpreters.is_case_sensitive()) {
            to[begin..].make_ascii_lowercase();
        }
    }
}

impl Question for Request {
    fn script(&self) -> Script {
        match self.file().target {
            Target::Missing => Script::Missing,
            Target::Directory => Script::Directory,
            Target::File | Target::Other => Script::File,
        }
    }

    fn may_exec(&self) -> bool {
        Self::may_exec(self)
    }

    fn has_path_info(&self) -> bool {
        !self.path_info().is_empty()
    }

    fn rejects_path_info(&self) -> bool {
        Self::rejects_path_info(self)
    }

    fn header(&self, name: &CStr) -> Option<&[u8]> {
        self.headers_in().get(name)
    }

    fn body_limit(&self) -> Option<u64> {
        Self::body_limit(self)
    }
}
