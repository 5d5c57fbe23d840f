//! httpd's request as the resolver asks it.
#![forbid(unsafe_code)]

use super::resolve::{Question, Script};
use crate::config::group::{Variables, script_url};
use crate::httpd::Request;
use crate::httpd::request::Target;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

impl Variables for Request {
    fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.notes().find(name.as_bytes()).map(<[u8]>::to_vec)
    }

    fn subprocess_env(&self, name: &str) -> Option<Vec<u8>> {
        self.variables().find(name.as_bytes()).map(<[u8]>::to_vec)
    }

    fn process_env(&self, name: &str) -> Option<Vec<u8>> {
        // The standard library takes a name with these for a mistake.
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        is_name
            .then(|| std::env::var_os(OsStr::from_bytes(name.as_bytes())))?
            .map(OsStringExt::into_vec)
    }

    fn server_name(&self) -> Vec<u8> {
        self.server().hostname().unwrap_or_default().to_vec()
    }

    fn host(&self) -> Option<Vec<u8>> {
        self.hostname().map(<[u8]>::to_vec)
    }

    fn port(&self) -> u16 {
        // httpd takes it from the Host header where it can: each number a client makes
        // up would name an interpreter of its own, until there is no memory left.
        let (named, local) = (self.server_port(), self.local_port());
        let known = [local, self.server().port(), 80, 443];
        if known.contains(&named) || local == 0 { named } else { local }
    }

    fn script_url(&self) -> Vec<u8> {
        let mut url = script_url(self.uri(), self.path_info());
        let config = self.server().config();
        if config.is_some_and(|config| !config.interpreters.is_case_sensitive()) {
            url.make_ascii_lowercase();
        }
        url
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

    fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.headers_in().find(name.as_bytes()).map(<[u8]>::to_vec)
    }

    fn body_limit(&self) -> Option<u64> {
        Self::body_limit(self)
    }
}
