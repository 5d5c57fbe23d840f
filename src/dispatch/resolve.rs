//! What the configuration says about one request: where it runs, and whether it may.
#![forbid(unsafe_code)]

use super::ownership::Untrusted;
use crate::config::alias::{
    HANDLER, NOTE_APPLICATION_GROUP, NOTE_CALLABLE, NOTE_FORCED_TYPE, NOTE_PASS_AUTHORIZATION,
    NOTE_PROCESS_GROUP, is_own_handler,
};
use crate::config::error::parse_switch;
use crate::config::group::{GroupName, Variables};
use crate::config::handler_script::{self, HandlerScript};
use crate::config::option::readable;
use crate::config::{DirConfig, ProcessGroup, ServerConfig};
use std::borrow::Cow;
use std::ffi::CStr;

/// What is at the file name of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Nothing, or nothing that may be looked at.
    Missing,
    /// A directory.
    Directory,
    /// A file, or anything else that can be opened.
    File,
}

/// What a request knows that decides how it is answered.
pub trait Question: Variables {
    /// What is at the request's file name.
    fn script(&self) -> Script;
    /// Whether `Options ExecCGI` is in force.
    fn may_exec(&self) -> bool;
    /// Whether there is path information.
    fn has_path_info(&self) -> bool;
    /// Whether `AcceptPathInfo Off` is in force.
    fn rejects_path_info(&self) -> bool;
    /// A header of the request.
    fn header(&self, name: &CStr) -> Option<&[u8]>;
    /// `LimitRequestBody`; `None` if there is no limit.
    fn body_limit(&self) -> Option<u64>;
}

/// Where and as what a request runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The process group; empty is embedded mode.
    pub process_group: Cow<'a, [u8]>,
    /// The application group; empty is the main interpreter.
    pub application_group: Cow<'a, [u8]>,
    /// The name of the application object.
    pub callable: Cow<'a, [u8]>,
    /// The script of `WSGIHandlerScript`; empty where the request's own file is run.
    pub handler_script: &'a [u8],
    /// Whether the application sees the credentials.
    pub pass_authorization: bool,
}

/// The body a request announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None.
    Empty,
    /// This many bytes.
    Length(u64),
    /// As many as come.
    Chunked,
}

/// Where a request runs, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this child process.
    Embedded,
    /// In a daemon process of the group at this index.
    Daemon(usize),
}

/// Why a request is refused before any Python runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `Options ExecCGI` is missing and no alias stands in for it.
    #[error("Options ExecCGI is off in this directory")]
    ExecCgiOff,
    /// There is no script.
    #[error("script not found or unable to stat")]
    NotFound,
    /// The script is a directory.
    #[error("attempt to invoke directory as WSGI application")]
    Directory,
    /// There is path information where none is accepted.
    #[error("AcceptPathInfo off disallows user's path")]
    PathInfo,
    /// A transfer encoding other than chunked.
    #[error("unexpected value '{0}' for Transfer-Encoding, wanted 'chunked'")]
    TransferEncoding(String),
    /// A request without a length.
    #[error("chunked request content not supported: WSGIChunkedRequest is Off")]
    Chunked,
    /// A length that is none.
    #[error("invalid Content-Length '{0}' on request")]
    ContentLength(String),
    /// A body above `LimitRequestBody`.
    #[error("Content-Length of {length} is larger than the LimitRequestBody of {limit}")]
    TooLarge {
        /// What the request announces.
        length: u64,
        /// What is allowed.
        limit: u64,
    },
    /// `WSGIRestrictProcess` leaves the group out.
    #[error("daemon process group '{0}' is restricted here by WSGIRestrictProcess")]
    Restricted(String),
    /// No group is defined at all.
    #[error("no daemon process groups are defined, wanted '{0}'")]
    NoGroups(String),
    /// No group of this name is defined.
    #[error("no daemon process group called '{0}'")]
    UnknownGroup(String),
    /// The group belongs to another virtual host.
    #[error("daemon process group '{0}' belongs to another virtual host")]
    InvisibleGroup(String),
    /// The group serves no requests.
    #[error(
        "daemon process group '{0}' is a service (threads=0) and takes no requests; \
         give it threads, or the URL another group"
    )]
    Service(String),
    /// The script belongs to somebody `script-user` or `script-group` does not name.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// `WSGIRestrictEmbedded On`.
    #[error("embedded mode of WSGI is restricted by WSGIRestrictEmbedded")]
    EmbeddedRestricted,
}

impl Refusal {
    /// The HTTP status the client gets.
    pub const fn status(&self) -> u16 {
        match self {
            Self::ContentLength(_) => 400,
            Self::ExecCgiOff | Self::Directory | Self::Untrusted(_) => 403,
            Self::NotFound | Self::PathInfo => 404,
            Self::Chunked => 411,
            Self::TooLarge { .. } => 413,
            Self::TransferEncoding(_) => 501,
            Self::Restricted(_)
            | Self::NoGroups(_)
            | Self::UnknownGroup(_)
            | Self::InvisibleGroup(_)
            | Self::Service(_)
            | Self::EmbeddedRestricted => 500,
        }
    }

    /// The code of the log record; httpd itself reports a body that is too large.
    pub const fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::ExecCgiOff => "WSGI0134",
            Self::NotFound => "WSGI0135",
            Self::Directory => "WSGI0136",
            Self::PathInfo => "WSGI0137",
            Self::TransferEncoding(_) => "WSGI0138",
            Self::Chunked => "WSGI0139",
            Self::ContentLength(_) => "WSGI0141",
            Self::EmbeddedRestricted => "WSGI0143",
            Self::Restricted(_) => "WSGI0149",
            Self::NoGroups(_) => "WSGI0150",
            Self::UnknownGroup(_) => "WSGI0151",
            Self::InvisibleGroup(_) => "WSGI0152",
            Self::Untrusted(untrusted) => untrusted.code(),
            Self::Service(_) => "WSGI9502",
            Self::TooLarge { .. } => return None,
        })
    }
}

/// Whose requests a handler's are.
#[derive(Debug, Clone, Copy)]
pub enum Handled<'a> {
    /// The script's that they were mapped to.
    Mapped,
    /// A script's of `WSGIHandlerScript`.
    Script(&'a HandlerScript),
}

/// Whose the requests of this handler are, if they are ours.
pub fn handled<'a>(handler: &[u8], dir: &'a DirConfig) -> Option<Handled<'a>> {
    if is_own_handler(handler) {
        return Some(Handled::Mapped);
    }
    dir.handler(handler).map(Handled::Script)
}

/// Whether an alias, ours or one with the same note, mapped the request.
fn is_aliased(request: &impl Variables) -> bool {
    request.note(NOTE_FORCED_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case(HANDLER.to_bytes()))
}

/// Whether the request may reach its script, and with what body; the checks are
/// in the order of the module we replace, which decides the status.
pub fn admit(
    request: &impl Question,
    dir: &DirConfig,
    handled: Handled<'_>,
) -> Result<Body, Refusal> {
    if matches!(handled, Handled::Mapped) {
        if !is_aliased(request) && !request.may_exec() {
            return Err(Refusal::ExecCgiOff);
        }
        match request.script() {
            Script::Missing => return Err(Refusal::NotFound),
            Script::Directory => return Err(Refusal::Directory),
            Script::File => {}
        }
    }
    if request.rejects_path_info() && request.has_path_info() {
        return Err(Refusal::PathInfo);
    }
    body(request, dir)
}

/// The body the request announces.
fn body(request: &impl Question, dir: &DirConfig) -> Result<Body, Refusal> {
    if let Some(encoding) = request.header(c"Transfer-Encoding") {
        if !encoding.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::TransferEncoding(readable(encoding)));
        }
        // httpd has dropped a length beside it by now (RFC 9112, 6.3).
        return if dir.chunked_request() { Ok(Body::Chunked) } else { Err(Refusal::Chunked) };
    }
    let Some(text) = request.header(c"Content-Length") else {
        return Ok(Body::Empty);
    };
    let length = str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|&length| length <= i64::MAX.unsigned_abs())
        .ok_or_else(|| Refusal::ContentLength(readable(text)))?;
    match request.body_limit() {
        Some(limit) if length > limit => Err(Refusal::TooLarge { length, limit }),
        _ => Ok(Body::Length(length)),
    }
}

/// What the configuration says about the request: that of its directory, and
/// over it what the alias that mapped it, or its handler's line, says.
pub fn resolve<'a>(
    request: &'a impl Variables,
    dir: &'a DirConfig,
    handled: Handled<'a>,
) -> Target<'a> {
    match handled {
        Handled::Mapped => mapped(request, dir),
        Handled::Script(script) => {
            let group = script.process_group(request);
            let application = script.application_group(request);
            Target {
                process_group: group.unwrap_or_else(|| dir.process_group().resolve(request)),
                application_group: application
                    .unwrap_or_else(|| dir.application_group().resolve(request)),
                callable: handler_script::CALLABLE.into(),
                handler_script: &script.path,
                pass_authorization: script
                    .pass_authorization
                    .unwrap_or_else(|| dir.pass_authorization()),
            }
        }
    }
}

/// What it says about a request for the script that it was mapped to.
fn mapped<'a>(request: &'a impl Variables, dir: &'a DirConfig) -> Target<'a> {
    let is_aliased = is_aliased(request);
    let note = |name| if is_aliased { request.note(name) } else { None };
    let group = |name, setting: &'a GroupName| match note(name) {
        Some(text) => GroupName::resolve_text(text, request),
        None => setting.resolve(request),
    };
    Target {
        process_group: group(NOTE_PROCESS_GROUP, dir.process_group()),
        application_group: group(NOTE_APPLICATION_GROUP, dir.application_group()),
        // The note is a name, never a `%{ENV:…}`.
        callable: note(NOTE_CALLABLE)
            .map_or_else(|| dir.callable().resolve(request), Cow::Borrowed),
        handler_script: b"",
        pass_authorization: note(NOTE_PASS_AUTHORIZATION)
            .map_or_else(|| dir.pass_authorization(), is_on),
    }
}

/// Reads the switch of a note: ours say `1`, those of a rewrite rule may say `On`.
fn is_on(text: &[u8]) -> bool {
    text == b"1" || parse_switch(text) == Some(true)
}

/// Where a request for the process group runs, if it may.
///
/// `server` and its name are the virtual host of the request; `groups` are all
/// there are.
pub fn place(
    group: &[u8],
    dir: &DirConfig,
    (server, server_name): (&ServerConfig, Option<&[u8]>),
    groups: &[ProcessGroup],
) -> Result<Place, Refusal> {
    let name = || readable(group);
    if !dir.allows(group) {
        return Err(Refusal::Restricted(name()));
    }
    if group.is_empty() {
        let is_restricted = server.restrict_embedded();
        return if is_restricted { Err(Refusal::EmbeddedRestricted) } else { Ok(Place::Embedded) };
    }
    if groups.is_empty() {
        return Err(Refusal::NoGroups(name()));
    }
    let found = groups.iter().enumerate().find(|(_, defined)| defined.name == group);
    let (index, defined) = found.ok_or_else(|| Refusal::UnknownGroup(name()))?;
    if !defined.is_visible_in(server, server_name) {
        return Err(Refusal::InvisibleGroup(name()));
    }
    if defined.threads() == 0 { Err(Refusal::Service(name())) } else { Ok(Place::Daemon(index)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dir::RestrictProcess;
    use crate::config::group::CallableName;
    use crate::config::group::fake::FakeVariables;
    use crate::config::handler_script::HandlerLine;
    use crate::config::process_group::DeclaringServer;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A request that is refused nothing.
    #[derive(Debug, Clone)]
    struct Fake {
        variables: FakeVariables,
        script: Script,
        may_exec: bool,
        path_info: bool,
        rejects_path_info: bool,
        headers: Vec<(&'static str, String)>,
        limit: Option<u64>,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self {
                variables: FakeVariables { port: 80, ..FakeVariables::default() },
                script: Script::File,
                may_exec: true,
                path_info: false,
                rejects_path_info: false,
                headers: Vec::new(),
                limit: None,
            }
        }
    }

    impl Variables for Fake {
        fn note(&self, name: &CStr) -> Option<&[u8]> {
            self.variables.note(name)
        }
        fn subprocess_env(&self, name: &CStr) -> Option<&[u8]> {
            self.variables.subprocess_env(name)
        }
        fn process_env(&self, name: &CStr) -> Option<Vec<u8>> {
            self.variables.process_env(name)
        }
        fn server_name(&self) -> &[u8] {
            self.variables.server_name()
        }
        fn host(&self) -> Option<&[u8]> {
            self.variables.host()
        }
        fn port(&self) -> u16 {
            self.variables.port()
        }
        fn push_script_url(&self, to: &mut Vec<u8>) {
            self.variables.push_script_url(to);
        }
    }

    impl Question for Fake {
        fn script(&self) -> Script {
            self.script
        }
        fn may_exec(&self) -> bool {
            self.may_exec
        }
        fn has_path_info(&self) -> bool {
            self.path_info
        }
        fn rejects_path_info(&self) -> bool {
            self.rejects_path_info
        }
        fn header(&self, name: &CStr) -> Option<&[u8]> {
            let found = self.headers.iter().find(|(key, _)| key.as_bytes() == name.to_bytes());
            found.map(|(_, value)| value.as_bytes())
        }
        fn body_limit(&self) -> Option<u64> {
            self.limit
        }
    }

    fn with_header(name: &'static str, value: &str) -> Fake {
        Fake { headers: vec![(name, value.to_owned())], ..Fake::default() }
    }

    fn with_notes(notes: &[(&'static CStr, &'static str)]) -> Fake {
        let variables = FakeVariables { notes: notes.to_vec(), ..Fake::default().variables };
        Fake { variables, ..Fake::default() }
    }

    fn refused(request: &Fake) -> (u16, Option<&'static str>) {
        let refusal = admit(request, &DirConfig::default(), Handled::Mapped).unwrap_err();
        (refusal.status(), refusal.code())
    }

    fn admitted(request: &Fake) -> Result<Body, Refusal> {
        admit(request, &DirConfig::default(), Handled::Mapped)
    }

    #[test]
    fn a_plain_request_is_admitted_without_a_body() {
        assert_eq!(admitted(&Fake::default()), Ok(Body::Empty));
    }

    #[test]
    fn without_exec_cgi_only_aliases_run() {
        let closed = Fake { may_exec: false, ..Fake::default() };
        assert_eq!(refused(&closed), (403, Some("WSGI0134")));
        let aliased = with_notes(&[(NOTE_FORCED_TYPE, "WSGI-Script")]);
        assert_eq!(admitted(&Fake { may_exec: false, ..aliased }), Ok(Body::Empty));
        let other = with_notes(&[(NOTE_FORCED_TYPE, "cgi-script")]);
        assert_eq!(refused(&Fake { may_exec: false, ..other }).0, 403);
    }

    #[test]
    fn a_missing_script_is_not_found() {
        let request = Fake { script: Script::Missing, ..Fake::default() };
        assert_eq!(refused(&request), (404, Some("WSGI0135")));
    }

    #[test]
    fn a_directory_is_no_script() {
        let request = Fake { script: Script::Directory, ..Fake::default() };
        assert_eq!(refused(&request), (403, Some("WSGI0136")));
    }

    #[test]
    fn path_info_is_refused_where_it_is_not_accepted() {
        let request = Fake { path_info: true, rejects_path_info: true, ..Fake::default() };
        assert_eq!(refused(&request), (404, Some("WSGI0137")));
        assert_eq!(admitted(&Fake { path_info: false, ..request.clone() }), Ok(Body::Empty));
        assert_eq!(admitted(&Fake { rejects_path_info: false, ..request }), Ok(Body::Empty));
    }

    #[test]
    fn only_chunked_is_known_as_a_transfer_encoding() {
        assert_eq!(refused(&with_header("Transfer-Encoding", "gzip")), (501, Some("WSGI0138")));
        assert_eq!(refused(&with_header("Transfer-Encoding", "")), (501, Some("WSGI0138")));
    }

    #[test]
    fn a_body_without_a_length_must_be_allowed() {
        let request = with_header("Transfer-Encoding", "Chunked");
        assert_eq!(refused(&request), (411, Some("WSGI0139")));
        let dir = DirConfig { chunked_request: Some(true), ..DirConfig::default() };
        assert_eq!(admit(&request, &dir, Handled::Mapped), Ok(Body::Chunked));
    }

    #[test]
    fn a_length_is_a_number() {
        assert_eq!(admitted(&with_header("Content-Length", "12")), Ok(Body::Length(12)));
        for junk in ["", "-1", "+1", "1x", "0x1", "9223372036854775808", "1 "] {
            let request = with_header("Content-Length", junk);
            assert_eq!(refused(&request), (400, Some("WSGI0141")), "{junk}");
        }
    }

    #[test]
    fn a_body_above_the_limit_is_too_large() {
        let request = Fake { limit: Some(11), ..with_header("Content-Length", "12") };
        assert_eq!(refused(&request), (413, None));
        assert_eq!(admitted(&Fake { limit: Some(12), ..request }), Ok(Body::Length(12)));
    }

    #[test]
    fn settings_of_the_directory_are_expanded() {
        let mut request = Fake::default();
        request.variables.subprocess_env = vec![(c"G", "blog"), (c"C", "app")];
        request.variables.server_name = "example.org";
        request.variables.script_url = "/x";
        let dir = DirConfig {
            process_group: Some(GroupName::parse(b"%{ENV:G}")),
            callable: Some(CallableName::parse(b"%{ENV:C}")),
            ..DirConfig::default()
        };
        let wanted = Target {
            process_group: b"blog"[..].into(),
            application_group: b"example.org|/x"[..].into(),
            callable: b"app"[..].into(),
            handler_script: b"",
            pass_authorization: false,
        };
        assert_eq!(resolve(&request, &dir, Handled::Mapped), wanted);
    }

    #[test]
    fn an_alias_overrides_the_directory() {
        let request = with_notes(&[
            (NOTE_FORCED_TYPE, "wsgi-script"),
            (NOTE_PROCESS_GROUP, "%{ENV:G}"),
            (NOTE_APPLICATION_GROUP, ""),
            (NOTE_CALLABLE, "%{ENV:G}"),
            (NOTE_PASS_AUTHORIZATION, "1"),
            (c"G", "shop"),
        ]);
        let dir =
            DirConfig { process_group: Some(GroupName::parse(b"blog")), ..DirConfig::default() };
        let wanted = Target {
            process_group: b"shop"[..].into(),
            application_group: b""[..].into(),
            callable: b"%{ENV:G}"[..].into(),
            handler_script: b"",
            pass_authorization: true,
        };
        assert_eq!(resolve(&request, &dir, Handled::Mapped), wanted);
    }

    #[test]
    fn notes_count_only_beside_the_note_of_an_alias() {
        let request = with_notes(&[(NOTE_PROCESS_GROUP, "shop")]);
        let dir = DirConfig::default();
        assert_eq!(*resolve(&request, &dir, Handled::Mapped).process_group, *b"");
    }

    #[test]
    fn an_alias_may_withhold_the_credentials() {
        let request =
            with_notes(&[(NOTE_FORCED_TYPE, "wsgi-script"), (NOTE_PASS_AUTHORIZATION, "0")]);
        let dir = DirConfig { pass_authorization: Some(true), ..DirConfig::default() };
        assert!(!resolve(&request, &dir, Handled::Mapped).pass_authorization);
    }

    fn group(name: &str, server: Option<&str>, is_virtual: bool) -> ProcessGroup {
        let name = name.as_bytes().to_vec();
        let server = server.map(|server| server.as_bytes().to_vec());
        let declared_in = DeclaringServer { name: server, is_virtual };
        ProcessGroup { name, declared_in, ..ProcessGroup::default() }
    }

    fn placed(name: &str, groups: &[ProcessGroup]) -> Result<Place, Refusal> {
        let server = (&ServerConfig::default(), Some(b"a.org".as_slice()));
        place(name.as_bytes(), &DirConfig::default(), server, groups)
    }

    #[test]
    fn a_group_of_the_main_server_is_for_all() {
        let groups = [group("x", None, false), group("blog", Some("m.org"), false)];
        assert_eq!(placed("blog", &groups), Ok(Place::Daemon(1)));
        assert_eq!(placed("", &groups), Ok(Place::Embedded));
    }

    #[test]
    fn a_service_takes_no_requests() {
        let service = ProcessGroup { threads: Some(0), ..group("mail", None, false) };
        let refusal = placed("mail", &[service]).unwrap_err();
        assert_eq!((refusal.status(), refusal.code()), (500, Some("WSGI9502")));
        assert!(refusal.to_string().starts_with("daemon process group 'mail' is a service"));
    }

    #[test]
    fn a_group_must_be_defined() {
        let unknown = placed("blog", &[group("Blog", None, false)]).unwrap_err();
        assert_eq!((unknown.status(), unknown.code()), (500, Some("WSGI0151")));
        assert_eq!(unknown.to_string(), "no daemon process group called 'blog'");
        let none = placed("blog", &[]).unwrap_err();
        assert_eq!((none.status(), none.code()), (500, Some("WSGI0150")));
    }

    #[test]
    fn a_group_of_a_virtual_host_is_for_hosts_of_its_name() {
        assert_eq!(placed("blog", &[group("blog", Some("a.org"), true)]), Ok(Place::Daemon(0)));
        let hidden = placed("blog", &[group("blog", Some("b.org"), true)]).unwrap_err();
        assert_eq!((hidden.status(), hidden.code()), (500, Some("WSGI0152")));
    }

    #[test]
    fn a_virtual_host_without_a_name_sees_its_own_groups() {
        let groups = [group("blog", None, true)];
        let place =
            |server: &ServerConfig| place(b"blog", &DirConfig::default(), (server, None), &groups);
        let mut own = ServerConfig::new();
        own.groups = groups.to_vec();
        assert_eq!(place(&own), Ok(Place::Daemon(0)));
        assert_eq!(place(&ServerConfig::default()).unwrap_err().code(), Some("WSGI0152"));
    }

    #[test]
    fn a_restriction_names_the_groups_that_may_be_used() {
        let dir = DirConfig {
            restrict_process: Some(RestrictProcess::read([b"blog".to_vec()])),
            ..DirConfig::default()
        };
        let server = (&ServerConfig::default(), None);
        for name in ["", "shop"] {
            let refusal = place(name.as_bytes(), &dir, server, &[]).unwrap_err();
            assert_eq!((refusal.status(), refusal.code()), (500, Some("WSGI0149")));
        }
        let groups = [group("blog", None, false)];
        assert_eq!(place(b"blog", &dir, server, &groups), Ok(Place::Daemon(0)));
    }

    #[test]
    fn embedded_mode_can_be_restricted() {
        let mut server = ServerConfig::new();
        server.restrict_embedded = Some(true);
        let refusal = place(b"", &DirConfig::default(), (&server, None), &[]).unwrap_err();
        assert_eq!((refusal.status(), refusal.code()), (500, Some("WSGI0143")));
    }

    #[test]
    fn both_names_of_the_handler_are_ours() {
        let dir = DirConfig::default();
        let is_ours = |name: &[u8]| matches!(handled(name, &dir), Some(Handled::Mapped));
        assert!(is_ours(b"wsgi-script") && is_ours(b"application/x-httpd-wsgi"));
        assert!(!is_ours(b"cgi-script") && !is_ours(b"") && !is_ours(b"WSGI-Script"));
    }

    /// A section with one handler script.
    fn with_handler(line: &str) -> DirConfig {
        let line = HandlerLine::read(line.as_bytes()).unwrap();
        let script = Arc::new(line.script());
        let handlers = Some(Arc::new([(line.name, script)].into()));
        DirConfig { handlers, ..DirConfig::default() }
    }

    #[test]
    fn a_handler_scripts_line_overrides_the_directory() {
        let request = with_notes(&[(c"G", "shop"), (NOTE_PROCESS_GROUP, "ignored")]);
        let dir = DirConfig {
            process_group: Some(GroupName::parse(b"blog")),
            callable: Some(CallableName::parse(b"app")),
            pass_authorization: Some(true),
            ..with_handler("x /h.py process-group=%{ENV:G} application-group=%{GLOBAL}")
        };
        let target = resolve(&request, &dir, handled(b"x", &dir).unwrap());
        assert_eq!(*target.process_group, *b"shop");
        assert_eq!(*target.application_group, *b"");
        assert_eq!(*target.callable, *b"handle_request");
        assert_eq!(target.handler_script, b"/h.py");
        assert!(target.pass_authorization);
        assert!(handled(b"X", &dir).is_none());
        let bare = with_handler("x /h.py pass-authorization=Off");
        let target = resolve(&request, &bare, handled(b"x", &bare).unwrap());
        assert_eq!((&*target.process_group, target.pass_authorization), (&b""[..], false));
    }

    #[test]
    fn a_handler_script_serves_whatever_it_is_given() {
        let dir = with_handler("x /h.py");
        let admitted = |request: &Fake| admit(request, &dir, handled(b"x", &dir).unwrap());
        for script in [Script::Missing, Script::Directory, Script::File] {
            let request = Fake { script, may_exec: false, ..Fake::default() };
            assert_eq!(admitted(&request), Ok(Body::Empty));
        }
        let request = Fake { path_info: true, rejects_path_info: true, ..Fake::default() };
        assert_eq!(admitted(&request), Err(Refusal::PathInfo));
    }

    #[test]
    fn the_modules_own_handlers_come_before_scripts() {
        let dir = with_handler("wsgi-script /h.py");
        assert!(matches!(handled(b"wsgi-script", &dir), Some(Handled::Mapped)));
    }

    proptest! {
        #[test]
        fn any_headers_are_a_body_or_a_refusal(
            encoding in proptest::option::of(".*"), length in proptest::option::of("[ 0-9a-z+-]*"),
        ) {
            let headers = [("Transfer-Encoding", encoding), ("Content-Length", length)];
            let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
            let request = Fake { headers: headers.collect(), ..Fake::default() };
            if let Err(refusal) = admitted(&request) {
                prop_assert!(matches!(refusal.status(), 400 | 411 | 501));
            }
        }
    }
}
