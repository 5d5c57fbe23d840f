//! What the configuration says about one request: where it runs, and whether it may.
#![forbid(unsafe_code)]

use crate::config::alias::{
    HANDLER, NOTE_APPLICATION_GROUP, NOTE_CALLABLE, NOTE_FORCED_TYPE, NOTE_PASS_AUTHORIZATION,
    NOTE_PROCESS_GROUP,
};
use crate::config::error::parse_switch;
use crate::config::group::{GroupName, Variables};
use crate::config::option::readable;
use crate::config::{DirConfig, ProcessGroup, ServerConfig};

/// The content type that is as good as the handler: what `AddType` was used for.
const CONTENT_TYPE: &[u8] = b"application/x-httpd-wsgi";

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
    /// The handler httpd chose.
    fn handler(&self) -> &[u8];
    /// What is at the request's file name.
    fn script(&self) -> Script;
    /// Whether `Options ExecCGI` is in force.
    fn may_exec(&self) -> bool;
    /// Whether there is path information.
    fn has_path_info(&self) -> bool;
    /// Whether `AcceptPathInfo Off` is in force.
    fn rejects_path_info(&self) -> bool;
    /// A header of the request.
    fn header(&self, name: &str) -> Option<Vec<u8>>;
    /// `LimitRequestBody`; `None` if there is no limit.
    fn body_limit(&self) -> Option<u64>;
}

/// Where and as what a request runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The process group; empty is embedded mode.
    pub process_group: Vec<u8>,
    /// The application group; empty is the main interpreter.
    pub application_group: Vec<u8>,
    /// The name of the application object.
    pub callable: Vec<u8>,
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
    /// `WSGIRestrictEmbedded On`.
    #[error("embedded mode of WSGI is restricted by WSGIRestrictEmbedded")]
    EmbeddedRestricted,
}

impl Refusal {
    /// The HTTP status the client gets.
    pub const fn status(&self) -> u16 {
        match self {
            Self::ContentLength(_) => 400,
            Self::ExecCgiOff | Self::Directory => 403,
            Self::NotFound | Self::PathInfo => 404,
            Self::Chunked => 411,
            Self::TooLarge { .. } => 413,
            Self::TransferEncoding(_) => 501,
            Self::Restricted(_)
            | Self::NoGroups(_)
            | Self::UnknownGroup(_)
            | Self::InvisibleGroup(_)
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
            Self::TooLarge { .. } => return None,
        })
    }
}

/// Whether requests of this handler are ours.
pub fn is_ours(handler: &[u8]) -> bool {
    handler == HANDLER.as_bytes() || handler == CONTENT_TYPE
}

/// Whether an alias, ours or one with the same note, mapped the request.
fn is_aliased(request: &impl Variables) -> bool {
    request.note(NOTE_FORCED_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case(HANDLER.as_bytes()))
}

/// Whether the request may reach its script, and with what body; the checks are
/// in the order of the module we replace, which decides the status.
pub fn admit(request: &impl Question, dir: &DirConfig) -> Result<Body, Refusal> {
    if !is_aliased(request) && !request.may_exec() {
        return Err(Refusal::ExecCgiOff);
    }
    match request.script() {
        Script::Missing => return Err(Refusal::NotFound),
        Script::Directory => return Err(Refusal::Directory),
        Script::File => {}
    }
    if request.rejects_path_info() && request.has_path_info() {
        return Err(Refusal::PathInfo);
    }
    body(request, dir)
}

/// The body the request announces.
fn body(request: &impl Question, dir: &DirConfig) -> Result<Body, Refusal> {
    if let Some(encoding) = request.header("Transfer-Encoding") {
        if !encoding.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::TransferEncoding(readable(&encoding)));
        }
        // httpd has dropped a length beside it by now (RFC 9112, 6.3).
        return if dir.chunked_request() { Ok(Body::Chunked) } else { Err(Refusal::Chunked) };
    }
    let Some(text) = request.header("Content-Length") else {
        return Ok(Body::Empty);
    };
    let length = str::from_utf8(&text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|&length| length <= i64::MAX.unsigned_abs())
        .ok_or_else(|| Refusal::ContentLength(readable(&text)))?;
    match request.body_limit() {
        Some(limit) if length > limit => Err(Refusal::TooLarge { length, limit }),
        _ => Ok(Body::Length(length)),
    }
}

/// What the configuration says about the request: that of its directory, and
/// over it what the alias that mapped it says.
pub fn resolve(request: &impl Variables, dir: &DirConfig) -> Target {
    let note = |name| if is_aliased(request) { request.note(name) } else { None };
    let group = |name, setting: &GroupName| match note(name) {
        Some(text) => GroupName::parse(&text).resolve(request),
        None => setting.resolve(request),
    };
    Target {
        process_group: group(NOTE_PROCESS_GROUP, dir.process_group()),
        application_group: group(NOTE_APPLICATION_GROUP, dir.application_group()),
        // The note is a name, never a `%{ENV:…}`.
        callable: note(NOTE_CALLABLE).unwrap_or_else(|| dir.callable().resolve(request)),
        pass_authorization: note(NOTE_PASS_AUTHORIZATION)
            .map_or_else(|| dir.pass_authorization(), |text| is_on(&text)),
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
    let owner = &defined.declared_in;
    let is_visible = !owner.is_virtual
        || server.defines(group)
        || (owner.name.is_some() && owner.name.as_deref() == server_name);
    if is_visible { Ok(Place::Daemon(index)) } else { Err(Refusal::InvisibleGroup(name())) }
}
