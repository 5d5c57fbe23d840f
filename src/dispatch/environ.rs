//! The environ of a request: collects what httpd knows and writes the encoded
//! head, without a table in between.
//!
//! What is written later wins where a key comes twice.  What many requests have in
//! common comes first, for its keys are never given to variables of `SetEnv` and the
//! like; these are next, and what the server itself knows of the one request is last.
#![forbid(unsafe_code)]

use super::child;
use std::borrow::Cow;

use wsgi_wire::head::{HeadWriter, RequestHead, UNKNOWN_LENGTH, Variables, flags};
use wsgi_wire::keys::known;

use super::proxies::{Trust, Verdict};
use super::resolve::Body;
use crate::config::dir::MapHeadToGet;
use crate::config::proxies::RULES;
use crate::config::root::Root;
use crate::httpd::{Request, process};

/// What has been decided about a request before its environ is made.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Unique among all requests in flight on this server.
    pub id: u64,
    /// When the wait for a daemon process began: µs since the epoch; 0 in
    /// embedded mode.
    pub queue_start: u64,
    /// Path of the script to run.
    pub script: &'a [u8],
    /// When it was changed, as far as httpd has looked: µs since the epoch; 0: it has not.
    pub script_mtime: u64,
    /// The body the request announces.
    pub body: Body,
    /// The process group, resolved; empty is embedded mode.
    pub process_group: &'a [u8],
    /// The application group, resolved; empty is the main interpreter.
    pub application_group: &'a [u8],
    /// Name of the application object.
    pub callable: &'a [u8],
    /// The script of `WSGIHandlerScript`; empty if there is none.
    pub handler_script: &'a [u8],
    /// The root directory of the daemon process, if it is another one.
    pub root: Option<&'a Root>,
    /// `WSGIPassAuthorization`.
    pub pass_authorization: bool,
    /// `WSGITrustedProxyHeaders` and `WSGITrustedProxies`, if any header is trusted.
    pub trust: Option<Trust<'a>>,
    /// `WSGIMapHEADToGET`.
    pub map_head: MapHeadToGet,
    /// `WSGIScriptReloading`.
    pub reloading: bool,
    /// `WSGIIgnoreActivity`.
    pub ignore_activity: bool,
    /// Whether the application gets httpd's own record of the request.
    pub apache_request: bool,
}

/// What httpd knows about a request beside its headers and variables.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// The method as the client wrote it.
    pub method: &'a [u8],
    /// Whether it is `HEAD`.
    pub is_head: bool,
    /// Whether the first output filter works on content.
    pub has_content_filter: bool,
    /// When the request line was read: µs since the epoch.
    pub request_start: u64,
    /// httpd's number of the least grave level its log takes.
    pub log_level: u8,
    /// Whether TLS is in use, by mod_ssl's word.
    pub is_https: bool,
    /// `CGIPassAuth`.
    pub cgi_pass_auth: bool,
    /// Fields whose value is there whatever the request.
    pub always: Always<'a>,
    /// `SERVER_ADMIN`.
    pub server_admin: Option<&'a [u8]>,
    /// `SCRIPT_FILENAME`.
    pub script_filename: Option<&'a [u8]>,
    /// `REMOTE_USER`.
    pub user: Option<&'a [u8]>,
    /// `REDIRECT_REMOTE_USER`, if there is no user here.
    pub redirect_user: Option<&'a [u8]>,
    /// `AUTH_TYPE`.
    pub auth_type: Option<&'a [u8]>,
    /// `REDIRECT_URL`.
    pub redirect_url: Option<&'a [u8]>,
    /// `REDIRECT_QUERY_STRING`.
    pub redirect_query: Option<&'a [u8]>,
}

impl Facts<'_> {
    /// With paths as they are called below `root`; those outside are left out.
    fn below(mut self, root: Option<&Root>) -> Self {
        if let Some(root) = root {
            self.script_filename = self.script_filename.and_then(|path| root.inside(path));
            let always = &mut self.always;
            for path in [&mut always.document_root, &mut always.context_document_root] {
                *path = root.inside(path).unwrap_or_default();
            }
        }
        self
    }
}

/// Fields whose value is there whatever the request.
#[derive(Debug, Clone, Default)]
pub struct Always<'a> {
    /// `SERVER_SOFTWARE`.
    pub server_software: &'a [u8],
    /// `SERVER_NAME`, before its HTML characters are escaped.
    pub server_name: &'a [u8],
    /// `SERVER_ADDR`.
    pub server_addr: &'a [u8],
    /// `SERVER_PORT`.
    pub server_port: u16,
    /// `REMOTE_ADDR`.
    pub remote_addr: &'a [u8],
    /// `REMOTE_PORT`.
    pub remote_port: u16,
    /// `DOCUMENT_ROOT`.
    pub document_root: &'a [u8],
    /// `REQUEST_SCHEME`.
    pub scheme: &'a [u8],
    /// `CONTEXT_PREFIX`.
    pub context_prefix: &'a [u8],
    /// `CONTEXT_DOCUMENT_ROOT`.
    pub context_document_root: &'a [u8],
    /// `SERVER_PROTOCOL`.
    pub protocol: &'a [u8],
    /// `QUERY_STRING`.
    pub query: &'a [u8],
    /// `REQUEST_URI`.
    pub request_uri: &'a [u8],
    /// `SCRIPT_NAME`, before runs of slashes are collapsed.
    pub script_name: &'a [u8],
    /// `PATH_INFO`, likewise.
    pub path_info: &'a [u8],
    /// `mod_wsgi.request_handler`.
    pub handler: &'a [u8],
    /// `mod_wsgi.listener_host`.
    pub listener_host: &'a [u8],
    /// `mod_wsgi.listener_port`.
    pub listener_port: u16,
    /// `mod_wsgi.request_id`.
    pub request_id: &'a [u8],
    /// `mod_wsgi.connection_id`.
    pub connection_id: &'a [u8],
}

/// Appends the encoded head of `request` to `to`.
pub fn encode(request: &Request, choice: &Choice<'_>, to: &mut Vec<u8>) {
    remove_odd_headers(request);
    let facts = facts(request).below(choice.root);
    write(&facts, choice, || request.headers_in().iter(), || request.variables().iter(), to);
}

/// Takes out headers whose name another header could be mistaken for: `X_Foo`
/// would be `HTTP_X_FOO` as `X-Foo` is.
fn remove_odd_headers(request: &Request) {
    let headers = request.headers_in();
    let odd: Vec<&[u8]> =
        headers.iter().map(|(name, _)| name).filter(|name| !is_plain(name)).collect();
    for name in odd {
        headers.unset(name);
    }
}

/// Whether a header's name holds letters, digits and `-` only.
fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|&byte| upper(byte) != 0)
}

/// Asks `request` for everything.
fn facts(request: &Request) -> Facts<'_> {
    let previous = request.previous();
    let redirect_user =
        || core::iter::successors(previous, |request| request.previous()).find_map(Request::user);
    Facts {
        method: request.method(),
        is_head: request.is_get_or_head() && request.is_head(),
        has_content_filter: request.has_content_filter(),
        request_start: request.request_time(),
        log_level: u8::try_from(request.log_level()).unwrap_or_default(),
        is_https: request.is_https(),
        cgi_pass_auth: request.passes_auth_to_cgi(),
        always: always(request),
        server_admin: request.server().admin(),
        script_filename: script_filename(request),
        user: request.user(),
        redirect_user: if request.user().is_none() { redirect_user() } else { None },
        auth_type: request.auth_type(),
        redirect_url: previous.map(|previous| {
            if request.qualifies_redirect_url() {
                previous.whole_url(previous.uri())
            } else {
                previous.uri()
            }
        }),
        redirect_query: previous.and_then(Request::args),
    }
}

/// Asks `request` for what is always there.
fn always(request: &Request) -> Always<'_> {
    Always {
        server_software: process::banner(),
        server_name: request.server_name(),
        server_addr: request.local_ip(),
        server_port: request.server_port(),
        remote_addr: request.remote_ip(),
        remote_port: request.remote_port(),
        document_root: request.document_root(),
        scheme: request.scheme(),
        context_prefix: request.context_prefix(),
        context_document_root: request.context_document_root(),
        protocol: request.protocol(),
        query: request.args().unwrap_or_default(),
        request_uri: if request.wants_current_uri() {
            request.uri()
        } else {
            second_word(request.request_line())
        },
        script_name: request.script_name(),
        path_info: request.path_info(),
        handler: request.handler().unwrap_or_default(),
        listener_host: request.local_host().unwrap_or_default(),
        listener_port: request.local_port(),
        request_id: request.log_id(),
        connection_id: request.connection_log_id(),
    }
}

/// The file, without the query that mod_proxy may have left at its end.
fn script_filename(request: &Request) -> Option<&[u8]> {
    let filename = request.filename()?;
    let end = if request.notes().get(c"proxy-noquery").is_some() {
        filename.iter().position(|&byte| byte == b'?')
    } else {
        None
    };
    Some(&filename[..end.unwrap_or(filename.len())])
}

/// What stands between the method and the protocol.
pub(super) fn second_word(line: &[u8]) -> &[u8] {
    line.split(u8::is_ascii_whitespace).skip(1).find(|word| !word.is_empty()).unwrap_or_default()
}

/// Appends the encoded head made of `facts`, `choice`, `headers` and `variables`.
pub fn write<'h, 'v, H, V>(
    facts: &Facts<'_>,
    choice: &Choice<'_>,
    headers: impl Fn() -> H,
    variables: impl Fn() -> V,
    to: &mut Vec<u8>,
) where
    H: Iterator<Item = (&'h [u8], &'h [u8])>,
    V: Iterator<Item = (&'v [u8], &'v [u8])>,
{
    let verdict = choice.trust.map(|trust| {
        Verdict::new(trust, facts.always.remote_addr, |place| {
            value_of(RULES[place].key, headers(), variables())
        })
    });
    let variable = variables().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"HTTPS") && (value.eq_ignore_ascii_case(b"on") || value == b"1")
    });
    let is_https = verdict
        .as_ref()
        .map_or(facts.is_https || variable, |verdict| verdict.is_https(variable, facts.is_https));
    let mut writer = HeadWriter::new(to, &fixed_part(facts, choice, is_https));
    write_common(&mut writer, facts, choice);
    writer.end_common();
    for (name, value) in variables() {
        let is_untrue =
            verdict.as_ref().is_some_and(|it| it.replaces(name) || drops_variable(it, name));
        let is_known = || is_common(facts, name);
        if !is_untrue && !is_known() && is_for_applications(name, &headers) {
            writer.variable(name, value);
        }
    }
    let headers = headers().filter(|(name, _)| !verdict.as_ref().is_some_and(|it| it.drops(name)));
    write_headers(&mut writer, headers, facts.cgi_pass_auth, choice.pass_authorization);
    write_own(&mut writer, facts);
    writer.known(const { known("REQUEST_METHOD") }, method(facts, choice.map_head));
    for (key, value) in verdict.iter().flat_map(Verdict::variables) {
        writer.variable(key.as_bytes(), value);
    }
    writer.finish();
}

/// The value that an application would see of the header with this key: of
/// several it is the last, and any header wins over a variable of its name.
fn value_of<'a, 'h: 'a, 'v: 'a>(
    key: &[u8],
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    mut variables: impl Iterator<Item = (&'v [u8], &'v [u8])>,
) -> Option<&'a [u8]> {
    let header = headers.filter(|(name, _)| is_plain(name) && is_key_of(key, name)).last();
    let is_it =
        |name: &[u8]| rest_of_header(name).is_some_and(|rest| rest.eq_ignore_ascii_case(key));
    let value = header.map(|(_, value)| value);
    value.or_else(|| variables.find(|(name, _)| is_it(name)).map(|(_, value)| value))
}

/// Whether a variable, say of `SetEnv`, has the key of a header that is dropped.
fn drops_variable(verdict: &Verdict<'_>, name: &[u8]) -> bool {
    rest_of_header(name).is_some_and(|rest| verdict.drops(rest))
}

/// What is behind the `HTTP_` of a variable that has the key of a header.
fn rest_of_header(name: &[u8]) -> Option<&[u8]> {
    let (start, rest) = name.split_at_checked(HTTP.len())?;
    start.eq_ignore_ascii_case(HTTP).then_some(rest)
}

/// The head without its variables.
fn fixed_part<'a>(facts: &Facts<'_>, choice: &Choice<'a>, is_https: bool) -> RequestHead<'a> {
    let flag = |set, bit| if set { bit } else { 0 };
    RequestHead {
        id: choice.id,
        flags: flag(is_https, flags::HTTPS)
            | flag(choice.reloading, flags::RELOADING)
            | flag(choice.ignore_activity, flags::IGNORE_ACTIVITY)
            | flag(choice.apache_request, flags::APACHE_REQUEST)
            | flag(method(facts, choice.map_head) == b"HEAD", flags::HEAD_ONLY),
        log_level: facts.log_level,
        connects: 0,
        restarts: 0,
        request_start: facts.request_start,
        queue_start: choice.queue_start,
        script_mtime: choice.script_mtime,
        body_length: match choice.body {
            Body::Empty => 0,
            Body::Length(length) => length,
            Body::Chunked => UNKNOWN_LENGTH,
        },
        server_pid: child::pid(),
        script: choice.script,
        application_group: choice.application_group,
        callable: choice.callable,
        process_group: choice.process_group,
        common: Variables::default(),
        variables: Variables::default(),
    }
}

/// The method the application sees.
fn method<'a>(facts: &Facts<'a>, map: MapHeadToGet) -> &'a [u8] {
    let mapped = match map {
        MapHeadToGet::Auto => facts.has_content_filter,
        MapHeadToGet::On => true,
        MapHeadToGet::Off => false,
    };
    if facts.is_head && mapped { b"GET" } else { facts.method }
}

/// Whether a variable goes into the environ.
///
/// `HTTPS` is consumed by `wsgi.url_scheme`, `PATH` is the server's business.
/// httpd's tables know no letter case, so a variable that differs from a
/// computed one in case only is replaced too, rather than standing beside it.
fn is_for_applications<'h, H>(name: &[u8], headers: &impl Fn() -> H) -> bool
where
    H: Iterator<Item = (&'h [u8], &'h [u8])>,
{
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("HTTPS") || is("PATH") || COMPUTED.iter().copied().any(is) {
        return false;
    }
    rest_of_header(name).is_none_or(|rest| !headers().any(|(header, _)| is_key_of(rest, header)))
}

/// Whether `rest`, behind `HTTP_`, is the key of `header`.
fn is_key_of(rest: &[u8], header: &[u8]) -> bool {
    rest.len() == header.len()
        && rest.iter().zip(header).all(|(&key, &byte)| key.to_ascii_uppercase() == upper(byte))
}

/// What keys of headers begin with.
const HTTP: &[u8] = b"HTTP_";

/// The keys that every environ has, whatever the request.
#[rustfmt::skip]
const COMPUTED: [&str; 29] = [
    "SERVER_SOFTWARE", "SERVER_NAME", "SERVER_ADDR", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT",
    "DOCUMENT_ROOT", "REQUEST_SCHEME", "CONTEXT_PREFIX", "CONTEXT_DOCUMENT_ROOT",
    "SERVER_PROTOCOL", "QUERY_STRING", "REQUEST_URI", "SCRIPT_NAME", "PATH_INFO",
    "REQUEST_METHOD", "mod_wsgi.request_handler", "mod_wsgi.listener_host",
    "mod_wsgi.listener_port", "mod_wsgi.request_id", "mod_wsgi.connection_id",
    "mod_wsgi.script_name", "mod_wsgi.path_info", "mod_wsgi.process_group",
    "mod_wsgi.application_group", "mod_wsgi.callable_object", "mod_wsgi.handler_script",
    "mod_wsgi.server_pid", "mod_wsgi.mount_point",
];

/// A byte of a header's name in its key; 0 if no such name is given to applications.
fn upper(byte: u8) -> u8 {
    UPPER[byte as usize]
}

/// See [`upper`]: most of what is done with a request's headers is to look at each byte.
static UPPER: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (character, key) = (byte as u8, &mut table[byte]);
        if character.is_ascii_alphanumeric() {
            *key = character.to_ascii_uppercase();
        } else if character == b'-' {
            *key = b'_';
        }
        byte += 1;
    }
    table
};

/// Writes the headers.
pub(super) fn write_headers<'h>(
    writer: &mut HeadWriter<'_>,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    cgi_pass_auth: bool,
    pass_authorization: bool,
) {
    let mut key = Vec::with_capacity(128);
    key.extend_from_slice(HTTP);
    for (name, value) in headers {
        key.truncate(HTTP.len());
        key.extend(name.iter().copied().map(upper));
        if key.contains(&0) {
            continue;
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"Content-Type") {
            writer.variable(b"CONTENT_TYPE", value);
        } else if is(b"Content-Length") {
            writer.variable(b"CONTENT_LENGTH", value);
        } else if is(b"Proxy")
            // A program the application starts would take it for its proxy.
            || (is(b"Authorization") && !cgi_pass_auth && !pass_authorization)
            || (is(b"Proxy-Authorization") && !cgi_pass_auth)
        {
            continue;
        } else {
            writer.variable(&key, value);
        }
    }
}

/// Writes what all requests have that come to the same place by the same way.
fn write_common(writer: &mut HeadWriter<'_>, facts: &Facts<'_>, choice: &Choice<'_>) {
    let always = &facts.always;
    let script_name = one_slash(always.script_name);
    for (key, value) in [
        (const { known("SERVER_SOFTWARE") }, always.server_software),
        (const { known("SERVER_NAME") }, &escape_html(always.server_name)),
        (const { known("SERVER_ADDR") }, always.server_addr),
        (const { known("REQUEST_SCHEME") }, always.scheme),
        (const { known("CONTEXT_PREFIX") }, always.context_prefix),
        (const { known("SERVER_PROTOCOL") }, always.protocol),
        (const { known("SCRIPT_NAME") }, &script_name),
        (const { known("mod_wsgi.script_name") }, &script_name),
        (const { known("mod_wsgi.request_handler") }, always.handler),
        (const { known("mod_wsgi.listener_host") }, always.listener_host),
        (const { known("mod_wsgi.process_group") }, choice.process_group),
        (const { known("mod_wsgi.application_group") }, choice.application_group),
        (const { known("mod_wsgi.callable_object") }, choice.callable),
        (const { known("mod_wsgi.handler_script") }, choice.handler_script),
    ] {
        writer.known(key, value);
    }
    write_number(writer, const { known("SERVER_PORT") }, always.server_port.into());
    write_number(writer, const { known("mod_wsgi.listener_port") }, always.listener_port.into());
    // Empty: outside of the root directory of the daemon process.
    for (key, path) in [
        (const { known("DOCUMENT_ROOT") }, always.document_root),
        (const { known("CONTEXT_DOCUMENT_ROOT") }, always.context_document_root),
    ] {
        if !path.is_empty() {
            writer.known(key, path);
        }
    }
    for (key, value) in optional_common(facts) {
        if let Some(value) = value {
            writer.variable(key.as_bytes(), value);
        }
    }
}

/// What requests have in common that not all of them have.
fn optional_common<'a>(facts: &Facts<'a>) -> [(&'static str, Option<&'a [u8]>); 2] {
    [("SERVER_ADMIN", facts.server_admin), ("SCRIPT_FILENAME", facts.script_filename)]
}

/// Whether a variable has a key that [`optional_common`] gives a value.
fn is_common(facts: &Facts<'_>, name: &[u8]) -> bool {
    let is_it = |key: &str| name.eq_ignore_ascii_case(key.as_bytes());
    optional_common(facts).iter().any(|(key, value)| value.is_some() && is_it(key))
}

/// Writes what the request has for itself.
fn write_own(writer: &mut HeadWriter<'_>, facts: &Facts<'_>) {
    let always = &facts.always;
    let path_info = one_slash(always.path_info);
    for (key, value) in [
        (const { known("REMOTE_ADDR") }, always.remote_addr),
        (const { known("QUERY_STRING") }, always.query),
        (const { known("REQUEST_URI") }, always.request_uri),
        (const { known("PATH_INFO") }, &path_info),
        (const { known("mod_wsgi.path_info") }, &path_info),
        (const { known("mod_wsgi.request_id") }, always.request_id),
        (const { known("mod_wsgi.connection_id") }, always.connection_id),
    ] {
        writer.known(key, value);
    }
    write_number(writer, const { known("REMOTE_PORT") }, always.remote_port.into());
    for (key, value) in [
        (const { known("REMOTE_USER") }, facts.user),
        (const { known("REDIRECT_REMOTE_USER") }, facts.redirect_user),
        (const { known("AUTH_TYPE") }, facts.auth_type),
        (const { known("REDIRECT_URL") }, facts.redirect_url),
        (const { known("REDIRECT_QUERY_STRING") }, facts.redirect_query),
    ] {
        if let Some(value) = value {
            writer.known(key, value);
        }
    }
}

/// Writes a number in decimal.
pub(super) fn write_number(writer: &mut HeadWriter<'_>, key: u16, number: u32) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    writer.known(key, &digits[at..]);
}

/// `path` with one slash in the place of each run of them.
pub(super) fn one_slash(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.windows(2).any(|pair| pair == b"//") {
        return Cow::Borrowed(path);
    }
    let mut one = path.to_vec();
    one.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    Cow::Owned(one)
}

/// `text` with the characters that mean something in HTML escaped: scripts
/// print the name, and the client may have sent it.
pub(super) fn escape_html(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| b"<>&\"".contains(byte)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = Vec::with_capacity(text.len() + 16);
    for &byte in text {
        match byte {
            b'<' => escaped.extend_from_slice(b"&lt;"),
            b'>' => escaped.extend_from_slice(b"&gt;"),
            b'&' => escaped.extend_from_slice(b"&amp;"),
            b'"' => escaped.extend_from_slice(b"&quot;"),
            _ => escaped.push(byte),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use wsgi_wire::head::Key;
    use wsgi_wire::keys;

    const CHOICE: Choice<'_> = Choice {
        id: 9,
        queue_start: 0,
        script: b"/srv/x.wsgi",
        script_mtime: 0,
        body: Body::Empty,
        process_group: b"blog",
        application_group: b"",
        callable: b"application",
        handler_script: b"",
        root: None,
        pass_authorization: false,
        trust: None,
        map_head: MapHeadToGet::Auto,
        reloading: true,
        ignore_activity: false,
        apache_request: false,
    };

    type Pairs<'a> = [(&'a str, &'a str)];

    fn head_of(
        facts: &Facts<'_>,
        choice: &Choice<'_>,
        headers: &Pairs<'_>,
        vars: &Pairs<'_>,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let each = |pairs: &Pairs<'_>| {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>()
        };
        let (headers, vars) = (each(headers), each(vars));
        write(
            facts,
            choice,
            || headers.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())),
            || vars.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())),
            &mut bytes,
        );
        bytes
    }

    fn environ(bytes: &[u8]) -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        RequestHead::decode(bytes)
            .unwrap()
            .environ()
            .map(|variable| match variable.unwrap() {
                (Key::Known(at), value) => (keys::KEYS[at].to_owned(), text(value)),
                (Key::Other(key), value) => (text(key), text(value)),
            })
            .collect()
    }

    fn made(headers: &Pairs<'_>, vars: &Pairs<'_>) -> BTreeMap<String, String> {
        environ(&head_of(&with_root("/srv/www"), &CHOICE, headers, vars))
    }

    /// A request for a file in this `DocumentRoot`.
    fn with_root(root: &str) -> Facts<'_> {
        let root = root.as_bytes();
        let always =
            Always { document_root: root, context_document_root: root, ..Always::default() };
        Facts { script_filename: Some(b"/srv/jail/app.wsgi"), always, ..Facts::default() }
    }

    #[test]
    fn below_another_root_paths_have_other_names() {
        let root = Root::new(std::path::Path::new("/srv/jail"));
        let made = |document_root| {
            environ(&head_of(&with_root(document_root).below(Some(&root)), &CHOICE, &[], &[]))
        };
        let inside = made("/srv/jail/www");
        assert_eq!(inside["SCRIPT_FILENAME"], "/app.wsgi");
        assert_eq!(inside["DOCUMENT_ROOT"], "/www");
        assert_eq!(inside["CONTEXT_DOCUMENT_ROOT"], "/www");
        assert!(!made("/srv/www").keys().any(|key| key.ends_with("DOCUMENT_ROOT")));
    }

    #[test]
    fn headers_become_keys() {
        let environ = made(
            &[("Host", "a"), ("content-type", "t"), ("Content-Length", "3"), ("X-A-b", "1")],
            &[],
        );
        assert_eq!(environ["HTTP_HOST"], "a");
        assert_eq!(environ["CONTENT_TYPE"], "t");
        assert_eq!(environ["CONTENT_LENGTH"], "3");
        assert_eq!(environ["HTTP_X_A_B"], "1");
        assert!(!environ.contains_key("HTTP_CONTENT_TYPE"));
    }

    #[test]
    fn a_header_with_an_odd_name_never_arrives() {
        let environ = made(&[("X_Foo", "forged"), ("X-F o", "x"), ("Proxy", "http://evil")], &[]);
        assert!(!environ.keys().any(|key| key.starts_with("HTTP_")));
    }

    #[test]
    fn credentials_arrive_only_when_they_are_passed() {
        let headers = [("Authorization", "Basic x"), ("Proxy-Authorization", "Basic y")];
        let keys = |facts: &Facts<'_>, choice: &Choice<'_>| {
            environ(&head_of(facts, choice, &headers, &[]))
                .into_keys()
                .filter(|key| key.ends_with("AUTHORIZATION"))
                .collect::<Vec<_>>()
        };
        let facts = Facts::default();
        assert!(keys(&facts, &CHOICE).is_empty());
        let passing = Choice { pass_authorization: true, ..CHOICE };
        assert_eq!(keys(&facts, &passing), ["HTTP_AUTHORIZATION"]);
        let facts = Facts { cgi_pass_auth: true, ..facts };
        assert_eq!(keys(&facts, &CHOICE), ["HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"]);
    }

    #[test]
    fn variables_arrive_but_do_not_replace_what_is_computed() {
        let environ = made(
            &[("Host", "right")],
            &[("MINE", "1"), ("PATH", "/bin"), ("http_host", "wrong"), ("Remote_Addr", "wrong")],
        );
        assert_eq!(environ["MINE"], "1");
        assert_eq!(environ["HTTP_HOST"], "right");
        assert_eq!(environ["REMOTE_ADDR"], "");
        assert!(!environ.contains_key("PATH"));
        assert!(!environ.contains_key("http_host"));
        assert!(!environ.contains_key("Remote_Addr"));
    }

    #[test]
    fn https_becomes_the_scheme_and_is_gone() {
        for (value, secure) in [("on", true), ("ON", true), ("1", true), ("off", false)] {
            let bytes = head_of(&Facts::default(), &CHOICE, &[], &[("https", value)]);
            let head = RequestHead::decode(&bytes).unwrap();
            assert_eq!(head.flags & flags::HTTPS != 0, secure, "{value}");
            assert!(!environ(&bytes).keys().any(|key| key.eq_ignore_ascii_case("HTTPS")));
        }
    }

    #[test]
    fn runs_of_slashes_are_collapsed() {
        let always = Always { script_name: b"//a///b", path_info: b"/c//", ..Always::default() };
        let facts = Facts { always, ..Facts::default() };
        let environ = environ(&head_of(&facts, &CHOICE, &[], &[]));
        assert_eq!(environ["SCRIPT_NAME"], "/a/b");
        assert_eq!(environ["PATH_INFO"], "/c/");
    }

    #[test]
    fn head_becomes_get_if_a_filter_wants_a_body() {
        let seen = |has_content_filter, map_head| {
            let facts =
                Facts { method: b"HEAD", is_head: true, has_content_filter, ..Facts::default() };
            let choice = Choice { map_head, ..CHOICE };
            environ(&head_of(&facts, &choice, &[], &[]))["REQUEST_METHOD"].clone()
        };
        assert_eq!(seen(false, MapHeadToGet::Auto), "HEAD");
        assert_eq!(seen(true, MapHeadToGet::Auto), "GET");
        assert_eq!(seen(false, MapHeadToGet::On), "GET");
        assert_eq!(seen(true, MapHeadToGet::Off), "HEAD");
    }

    #[test]
    fn a_server_name_is_safe_to_print() {
        let always = Always { server_name: b"<a&\">", server_port: 8080, ..Always::default() };
        let facts = Facts { always, ..Facts::default() };
        let environ = environ(&head_of(&facts, &CHOICE, &[], &[]));
        assert_eq!(environ["SERVER_NAME"], "&lt;a&amp;&quot;&gt;");
        assert_eq!(environ["SERVER_PORT"], "8080");
    }

    #[test]
    fn the_request_uri_is_the_second_word() {
        assert_eq!(second_word(b"GET  /a%20b?c HTTP/1.1"), b"/a%20b?c");
        assert_eq!(second_word(b"GET"), b"");
    }

    #[test]
    fn every_computed_key_is_written() {
        let environ = made(&[], &[]);
        // The Python half writes one from its number, and nobody the other.
        let elsewhere = ["mod_wsgi.server_pid", "mod_wsgi.mount_point"];
        for key in COMPUTED.iter().filter(|key| !elsewhere.contains(key)) {
            assert!(environ.contains_key(*key), "{key}");
        }
    }
}
